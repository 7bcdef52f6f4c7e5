"""report.html: one file that a person can read anywhere. Pictures are inside it; nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from retrieval.reports.tables import RETRIEVAL_METRICS, Table, summary, tables

_STYLE = """
:root { color-scheme: light; --ink: #1f2328; --faint: #59636e; --line: #d8dee4; --accent: #0969da; --good: #1a7f37;
  --bad: #cf222e; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { margin: .3rem 0; }
.faint, .note { color: var(--faint); }
.note { font-size: .87rem; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.4rem 0; }
.card { flex: 1 1 10rem; border: 1px solid var(--line); border-radius: 10px; padding: .75rem 1rem; }
.card b { display: block; font-size: 1.65rem; line-height: 1.25; }
.up { color: var(--good); } .down { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .32rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--faint); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.faint td { color: var(--faint); }
img { display: block; max-width: 100%; height: auto; margin: .6rem 0; }
img.sheet { width: 100%; }
code { font-size: .85em; overflow-wrap: anywhere; }
details { margin-top: 2.4rem; } summary { cursor: pointer; font-weight: 600; }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A large picture of photos: JPEG bytes, its heading and what to see in it."""

    title: str
    note: str
    data: bytes


def ranked_sheet(system: str, data: bytes) -> Sheet:
    """The ranked results of a system."""
    note = "Left, the query; then its ten nearest, framed green with a tick if they show the same, red with a cross if "
    note += "not. The same queries, drawn at random, for every system."
    return Sheet(title=f"Ranked results, {system}", note=note, data=data)


def render(
    metrics: Mapping[str, Any],
    *,
    title: str,
    plots: Sequence[tuple[str, bytes]],
    sheets: Sequence[Sheet],
    facts: Mapping[str, str],
) -> str:
    """The report page.

    Args:
        metrics: see `tables.tables`.
        plots: (what it shows, PNG bytes). sheets: photos, as JPEG.
        facts: how it came about: fingerprints, folders, versions; shown folded at the end.
    """
    without = metrics["floors"] is None and metrics["data"].get("subject") != "place"
    return page(
        title=title,
        summary=summary(metrics),
        lead=_cards(metrics),
        tables=tables(metrics),
        more=_no_attributes() if without else (),
        plots=plots,
        sheets=sheets,
        facts=facts,
    )


def page(
    *,
    title: str,
    summary: str,
    tables: Sequence[Table],
    plots: Sequence[tuple[str, bytes]],
    facts: Mapping[str, str],
    lead: str = "",
    more: Sequence[str] = (),
    sheets: Sequence[Sheet] = (),
    first: Sequence[Sheet] = (),
) -> str:
    """A page of tables and pictures. `lead`, `more`: HTML that stands before and after the tables; `first`: sheets that
    are what the page is opened for, and stand above them."""
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="faint">{escape(summary)}</p>',
        lead,
        *(_sheet(sheet) for sheet in first),
        *(_table(table) for table in tables),
        *more,
        *(["<h2>Plots</h2>"] if plots else []),
        *(_picture(name, "png", data) for name, data in plots),
        *(_sheet(sheet) for sheet in sheets),
        _facts(facts),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _cards(metrics: Mapping[str, Any]) -> str:
    """The headline figures of the last system, with what they were for the first."""
    systems = metrics["systems"]
    first, last = next(iter(systems)), list(systems)[-1]
    cards = []
    for key in RETRIEVAL_METRICS:
        value, before = systems[last][key], systems[first][key]
        then = _gain(first, before, value) if first != last and None not in (before, value) else ""
        shown = "-" if value is None else f"{value:.3f}"
        cards.append(f'<div class="card"><span class="faint">{key}</span><b>{shown}</b>{then}</div>')
    return f'<div class="cards">{"".join(cards)}</div>'


def _gain(first: str, before: float, value: float) -> str:
    """How much more a figure is than it was for the system called `first`."""
    gain = round(value - before, 3) + 0.0  # as it is shown; no -0
    kind = "up" if gain > 0 else "down" if gain < 0 else "faint"
    then = f'<span class="faint">{escape(first)}: {before:.3f}</span>'
    return f'<span class="{kind}">{gain:+.3f}</span> {then}'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = []
    for row in table.rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        rows.append(f'<tr class="faint">{cells}</tr>' if row[0] in table.faint else f"<tr>{cells}</tr>")
    note = f'<p class="note">{escape(table.note)}.</p>' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{chr(10).join(rows)}</tbody></table></div>{note}"
    )


def _no_attributes() -> tuple[str]:
    return (
        "<h2>Attribute agreement</h2><p>Not measured: no query and result of this data both have attributes. "
        "CelebA's list_attr_celeba.txt or a manifest's attribute columns bring them.</p>",
    )


def _picture(name: str, kind: str, data: bytes, css: str = "") -> str:
    encoded = base64.b64encode(data).decode()
    return f'<img class="{css}" alt="{escape(name)}" src="data:image/{kind};base64,{encoded}">'


def _sheet(sheet: Sheet) -> str:
    return (
        f'<h2>{escape(sheet.title)}</h2><p class="note">{escape(sheet.note)}</p>'
        f"{_picture(sheet.title, 'jpeg', sheet.data, 'sheet')}"
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{escape(k)}</td><td><code>{escape(v)}</code></td></tr>" for k, v in facts.items())
    return f'<details><summary>How this was made</summary><div class="scroll"><table>{rows}</table></div></details>'
