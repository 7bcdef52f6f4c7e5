"""What an evaluation says, as tables: the same ones are printed by the job and shown in report.html.

Everything is drawn from the content of metrics.json, which is the same each time that it is measured::

    {"data": {"protocol", "num_queries", "num_gallery", "ks_asked", "ks", ...},
     "systems": {"before": {"recall@1", "mAP", "attribute_accuracy@10", ...}, "after": {...}},
     "order": ["before", "after"],
     "floors": {"random_pair", "majority_vector", "same_identity_pair", "oracle@10", ...} or None}

and of timings.json, which is not::

    {"systems": {"before": {"embed_seconds", "embed_seconds_in_model", "query_seconds@10", ...}, "after": {...}}}

None stands for what could not be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.artifacts.calibration import Calibration, Interval, read_calibrations
from retrieval.artifacts.folder import Folder

METRICS, TIMINGS = "metrics.json", "timings.json"

RETRIEVAL_METRICS = ("recall@1", "recall@5", "recall@10", "mAP")

BASELINES = {
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

# Accuracy that CelebA's own attributes give; evaluation/attributes.py says what each baseline is.
_PUBLISHED_BASELINES = {"random_pair": 0.728, "majority_vector": 0.806, "same_identity_pair": 0.852}
_PUBLISHED_ORACLE = {10: 0.952, 1000: 0.878}

_LIKE_CELEBA = 0.02
"""So near must data's own baselines be to CelebA's for its figures to stand beside those published. They are within
0.005 for a twentieth of CelebA; photos of drawn people agree far more with others of the same person."""


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


def timed(metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json with the seconds of timings.json among the figures of each system, systems in their order."""
    seconds = timings["systems"]
    systems = {name: metrics["systems"][name] | seconds.get(name, {}) for name in metrics["order"]}
    return {**metrics, "systems": systems}


def read_metrics(report: Folder) -> dict[str, Any]:
    """The figures and seconds of a report, and what its scores mean, for `tables`."""
    timings = report.read_json(TIMINGS) if report.exists(TIMINGS) else {"systems": {}}
    return {**timed(report.read_json(METRICS), timings), "calibrations": read_calibrations(report)}


def tables(metrics: Mapping[str, Any]) -> list[Table]:
    """All tables that the data allows: those of attributes are left out where no query-result pair has any, and what
    others measured on CelebA where the data are not like it.

    Args: metrics: as `read_metrics` and `timed` give them.
    """
    found = [_retrieval(metrics)]
    if metrics["floors"] is not None:
        found += [_accuracy(metrics), _distance(metrics)]
    if metrics.get("calibrations"):
        found.append(_scores(metrics["calibrations"]))
    found.append(_seconds(metrics))
    if like_celeba(metrics["floors"]):
        found.append(_published())
    return found


def like_celeba(baselines: Mapping[str, float | None] | None) -> bool:
    """Whether guessing is worth on these data what it is on CelebA: else no figure of one compares with the other."""
    if baselines is None:
        return False
    found = {name: baselines.get(name) for name in _PUBLISHED_BASELINES}
    return all(
        value is not None and abs(value - _PUBLISHED_BASELINES[name]) <= _LIKE_CELEBA for name, value in found.items()
    )


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
    ks, known = metrics["data"]["ks"], metrics["floors"]
    rows = [(name, *(_percent(s[f"attribute_accuracy@{k}"]) for k in ks)) for name, s in metrics["systems"].items()]
    rows += [(name, *(_percent(known[key]) for _ in ks)) for key, name in BASELINES.items()]
    rows.append(("best possible", *(_percent(known[f"oracle@{k}"]) for k in ks)))
    pairs = max(system[f"attribute_pairs@{ks[-1]}"] for system in metrics["systems"].values())
    missing = metrics["data"]["num_queries_without_attributes"]
    note = f"{pairs:,} query-result pairs scored at k={ks[-1]}; {missing} queries have no attributes{_clipped(metrics)}"
    faint = frozenset((*BASELINES.values(), "best possible"))
    title = "Attribute accuracy of the top k"
    return Table(title=title, header=("", *_k_names(ks)), rows=tuple(rows), note=note, faint=faint)


def _distance(metrics: Mapping[str, Any]) -> Table:
    ks, known = metrics["data"]["ks"], metrics["floors"]
    rows = [(name, *(_number(s[f"attribute_distance@{k}"]) for k in ks)) for name, s in metrics["systems"].items()]
    rows += [(name, *(_number(_apart(known[key])) for _ in ks)) for key, name in BASELINES.items()]
    rows.append(("best possible", *(_number(_apart(known[f"oracle@{k}"])) for k in ks)))
    faint = frozenset((*BASELINES.values(), "best possible"))
    title = "Mean attribute distance of the top k"
    note = "sum |difference| / number of attributes = 2 (1 - accuracy); less is better"
    return Table(title=title, header=("", *_k_names(ks)), rows=tuple(rows), note=note, faint=faint)


def _scores(calibrations: Mapping[str, Calibration]) -> Table:
    """Thresholds of each system, and what they promise."""
    rows = []
    for name, calibration in calibrations.items():
        for rate in (rate for rate in calibration.rates if rate.promised):
            cells = [f"{rate.far:g}", _number(rate.threshold, 3), _between(rate.threshold_interval, 3)]
            cells += [_between(rate.far_interval, 3), _percent(rate.true_accept)]
            rows.append((name, *cells, f"{calibration.people:,}, {rate.false_accepts:,.0f}"))
    last = list(calibrations.values())[-1]
    missing = [rate.why for rate in last.rates if not rate.promised][:1] + ([last.why] if last.why else [])
    note = (
        "false accepts: of pairs of different ones, drawn by who they show, the share that scores more; others within: "
    )
    note += "what as many others will show, 99 times in 100; rests on: how many were seen, and how many independent "
    note += "false accepts"
    header = ("", "false accepts", "threshold", "its interval", "others within", "true accepts", "rests on")
    rows = rows or [("nothing is promised", *("-" for _ in header[1:]))]
    return Table(title="What a score means", header=header, rows=tuple(rows), note=". ".join([note, *missing]))


def _between(interval: Interval | None, digits: int) -> str:
    return "-" if interval is None else f"{interval[0]:.{digits}g} to {interval[1]:.{digits}g}"


def _seconds(metrics: Mapping[str, Any]) -> Table:
    ks, systems = metrics["data"]["ks"], metrics["systems"]
    rows = []
    for name, system in systems.items():
        spent = [_number(system.get(key), 1) for key in ("embed_seconds", "embed_seconds_in_model")]
        cells = [f"{system['embed_images']:,}", *spent, system["index_type"]]
        rows.append((name, *cells, *(_number(system.get(f"query_seconds@{k}")) for k in ks)))
    header = ("", "images", "embed s", "in model s", "index", *(f"query k={k}" for k in ks))
    note = "embed s: the whole set, start of the workers included; in model s: summed over the workers; query: seconds "
    note += f"for all {metrics['data']['num_queries']:,} queries through the index, one thread{_clipped(metrics)}"
    return Table(title="Seconds", header=header, rows=tuple(rows), note=note)


def _published() -> Table:
    rows = [(name, _percent(acc), _number(distance), query, embed) for name, acc, distance, query, embed in _PUBLISHED]
    known = {BASELINES[name]: accuracy for name, accuracy in _PUBLISHED_BASELINES.items()}
    known |= {f"best possible at k={k}": accuracy for k, accuracy in _PUBLISHED_ORACLE.items()}
    rows += [(name, _percent(acc), _number(_apart(acc)), "", "") for name, acc in known.items()]
    return Table(
        title="Published on CelebA (other photos of it: for scale only)",
        header=("", "accuracy@10", "distance@10", "query s", "embed s"),
        rows=tuple(rows),
        note="query s: their whole query set at k=10; the last five rows are what CelebA's own attributes give",
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


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    ratio = f" (x{after / before:.2f})" if before > 0 else ""
    return f"{round(after - before, 4) + 0.0:+.4f}{ratio}"  # + 0.0: no -0
