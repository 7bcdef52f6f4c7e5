"""What an evaluation says, as tables: the same ones are printed by the job and shown in report.html.

Everything is drawn from the content of metrics.json::

    {"data": {"protocol", "num_queries", "num_gallery", "ks_asked", "ks", ...},
     "systems": {"before": {"recall@1", "mAP", "attribute_accuracy@10", "query_seconds@10", ...}, "after": {...}},
     "floors": {"random_pair", "majority_vector", "same_identity_pair", "oracle@10", ...} or None}

None stands for what could not be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RETRIEVAL_METRICS = ("recall@1", "recall@5", "recall@10", "mAP")

FLOORS = {
    "random_pair": "random pair",
    "majority_vector": "majority vector",
    "same_identity_pair": "same-identity pair",
}


# Measured by others on CelebA: system, accuracy and distance at k=10, seconds for the query set, for embedding the set.
_PUBLISHED = (
    ("ResNet-50, ImageNet", 0.8019, 0.3962, "56", "93-102"),
    ("ResNet-50, fine-tuned", 0.8233, 0.3534, "41", "93-102"),
    ("MobileNet-V2, ImageNet", 0.7962, 0.4076, "-", "49"),
    ("MobileNet-V2, fine-tuned", 0.8170, 0.3659, "-", "49"),
)

# Accuracy that CelebA's own attributes give; retrieval/floors.py says what each floor is.
_PUBLISHED_FLOORS = (
    ("random pair", 0.728),
    ("majority vector", 0.806),
    ("same-identity pair", 0.852),
    ("best possible at k=10", 0.952),
    ("best possible at k=1000", 0.878),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Cells ready to show: `rows` of (name, cell, ...), `header` of the same length; `faint` rows are not ours."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    faint: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        odd = [row for row in self.rows if len(row) != len(self.header)]
        assert not odd, f"table '{self.title}' has {len(self.header)} columns, not so rows {odd}"


def summary(metrics: Mapping[str, Any]) -> str:
    """One sentence: what was asked of what, by which protocol."""
    data = metrics["data"]
    if data["asks_itself"]:
        asked = f"{data['num_queries']:,} photos, each a query against the other {data['num_gallery'] - 1:,}"
    else:
        asked = f"{data['num_queries']:,} query photos against a gallery of {data['num_gallery']:,}"
    many = {"person": "people", "place": "places"}[data.get("subject", "person")]
    return f"{asked}; {data['num_identities']:,} {many} ({data['protocol']})."


def tables(metrics: Mapping[str, Any]) -> list[Table]:
    """All tables that the data allows: those of attributes are left out where no query-result pair has any."""
    found = [_retrieval(metrics)]
    if metrics["floors"] is not None:
        found += [_accuracy(metrics), _distance(metrics)]
    found.append(_seconds(metrics))
    if metrics["floors"] is not None:
        found.append(_published())
    return found


def as_text(metrics: Mapping[str, Any]) -> str:
    """The tables for a terminal, columns aligned."""
    return text_of(summary(metrics), tables(metrics))


def text_of(heading: str, shown_tables: Sequence[Table]) -> str:
    """A sentence and tables for a terminal, columns aligned."""
    parts = [heading]
    for table in shown_tables:
        lines = [table.header, *table.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
        shown = [_aligned(line, widths) for line in lines]
        shown.insert(1, "  ".join("-" * width for width in widths))
        parts.append("\n".join([table.title, *shown, *([f"({table.note})"] if table.note else [])]))
    return "\n\n".join(parts)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    return "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]).rstrip()


def _retrieval(metrics: Mapping[str, Any]) -> Table:
    systems = metrics["systems"]
    columns = (*RETRIEVAL_METRICS, "index_recall@10")
    rows = [(name, *(_number(system[key]) for key in columns)) for name, system in systems.items()]
    if len(systems) > 1:
        first, last = next(iter(systems.values())), list(systems.values())[-1]
        rows.append(("change", *(_change(first[key], last[key]) for key in RETRIEVAL_METRICS), ""))
    left_out = metrics["data"]["num_without_positive"]
    subject = metrics["data"].get("subject", "person")
    note = (
        f"recall@k: a photo of the same {subject} is among the first k. index_recall@10: the index against exact search"
    )
    note += f". {left_out} queries without a match in the gallery are left out" if left_out else ""
    return Table(title="Retrieval", header=("", *columns), rows=tuple(rows), note=note)


def _accuracy(metrics: Mapping[str, Any]) -> Table:
    ks, floors = metrics["data"]["ks"], metrics["floors"]
    rows = [(name, *(_percent(s[f"attribute_accuracy@{k}"]) for k in ks)) for name, s in metrics["systems"].items()]
    rows += [(name, *(_percent(floors[key]) for _ in ks)) for key, name in FLOORS.items()]
    rows.append(("best possible", *(_percent(floors[f"oracle@{k}"]) for k in ks)))
    pairs = max(system[f"attribute_pairs@{ks[-1]}"] for system in metrics["systems"].values())
    missing = metrics["data"]["num_queries_without_attributes"]
    note = f"{pairs:,} query-result pairs scored at k={ks[-1]}; {missing} queries have no attributes{_clipped(metrics)}"
    faint = frozenset((*FLOORS.values(), "best possible"))
    title = "Attribute accuracy of the top k"
    return Table(title=title, header=("", *_k_names(ks)), rows=tuple(rows), note=note, faint=faint)


def _distance(metrics: Mapping[str, Any]) -> Table:
    ks, floors = metrics["data"]["ks"], metrics["floors"]
    rows = [(name, *(_number(s[f"attribute_distance@{k}"]) for k in ks)) for name, s in metrics["systems"].items()]
    rows += [(name, *(_number(_apart(floors[key])) for _ in ks)) for key, name in FLOORS.items()]
    rows.append(("best possible", *(_number(_apart(floors[f"oracle@{k}"])) for k in ks)))
    faint = frozenset((*FLOORS.values(), "best possible"))
    title = "Mean attribute distance of the top k"
    note = "sum |difference| / number of attributes = 2 (1 - accuracy); less is better"
    return Table(title=title, header=("", *_k_names(ks)), rows=tuple(rows), note=note, faint=faint)


def _seconds(metrics: Mapping[str, Any]) -> Table:
    ks, systems = metrics["data"]["ks"], metrics["systems"]
    rows = []
    for name, system in systems.items():
        spent = [_number(system[key], 1) for key in ("embed_seconds", "embed_seconds_in_model")]
        cells = [f"{system['embed_images']:,}", *spent, system["index_type"]]
        rows.append((name, *cells, *(_number(system[f"query_seconds@{k}"]) for k in ks)))
    header = ("", "images", "embed s", "in model s", "index", *(f"query k={k}" for k in ks))
    note = "embed s: the whole set, start of the workers included; in model s: summed over the workers; query: seconds "
    note += f"for all {metrics['data']['num_queries']:,} queries through the index, one thread{_clipped(metrics)}"
    return Table(title="Seconds", header=header, rows=tuple(rows), note=note)


def _published() -> Table:
    rows = [(name, _percent(acc), _number(distance), query, embed) for name, acc, distance, query, embed in _PUBLISHED]
    rows += [(f"floor: {name}", _percent(acc), _number(_apart(acc)), "", "") for name, acc in _PUBLISHED_FLOORS]
    return Table(
        title="Published on CelebA (other data: for scale only)",
        header=("", "accuracy@10", "distance@10", "query s", "embed s"),
        rows=tuple(rows),
        note="query s: their whole query set at k=10; floors are of CelebA's own attributes",
        faint=frozenset(row[0] for row in rows),
    )


def _clipped(metrics: Mapping[str, Any]) -> str:
    data = metrics["data"]
    largest = data["ks"][-1]
    clipped = [str(k) for k in data["ks_asked"] if k > largest]
    return f"; k={', '.join(clipped)} clipped to {largest}, all there is" if clipped else ""


def _k_names(ks: Sequence[int]) -> list[str]:
    return [f"k={k}" for k in ks]


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}%"


def _apart(accuracy: float | None) -> float | None:
    """The distance that belongs to an accuracy."""
    return None if accuracy is None else 2 * (1 - accuracy)


def _change(before: float, after: float) -> str:
    ratio = f" (x{after / before:.2f})" if before > 0 else ""
    return f"{after - before:+.4f}{ratio}"
