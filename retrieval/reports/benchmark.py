"""What a benchmark says: metrics.json, tables, plots and a page. Published figures stand beside complete ones only.

    {"benchmark": "roxford5k", "complete": true, "settings": {...}, "counts": {"num_gallery", "num_missing", ...},
     "rejected": {reason: count}, "protocols": ["easy", "medium", "hard"], "num_queries": {protocol: queries scored},
     "order": ["model", "model + QE"],
     "systems": {"model": {"mAP/medium": 0.61, ...}}, "average_precision": {"model": {protocol: [a figure a query]}}}

None stands for what could not be measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation import variants
from retrieval.evaluation.benchmark_source import read_truth
from retrieval.evaluation.revisited import KAPPAS, PARTIAL, PUBLISHED, RANDOM_MAP, BenchmarkResult
from retrieval.evaluation.systems import clean
from retrieval.reports import charts
from retrieval.reports import page as reports_page
from retrieval.reports.tables import Table, text_of
from retrieval.search.settings import ExpansionConfig

ASIDE = ("*.png", "report.html")
"""What of a report only shows: metrics.json is its content."""

_COUNTS = ("num_gallery", "num_missing", "num_missing_queries", "num_distractors")

_NO_VALUE = "-"


def write_report(
    out: Folder,
    *,
    truth: str,
    name: str,
    collection: Folder,
    embeddings: Folder,
    distractors: Sequence[Folder],
    expansion: ExpansionConfig,
    augmentation: ExpansionConfig,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Score, and write everything of a report except its seal. Returns the content of metrics.json.

    Args: as `benchmark_source.read_truth` and `variants.variants`; settings: how the figures were made, shown and kept.
    """
    read = read_truth(truth, name, variants.gallery_names(embeddings))
    found = variants.variants(read, embeddings, distractors, expansion=expansion, augmentation=augmentation)
    results = dict(found)
    rejected = read_manifest(collection, "collection").counts["rejected_by_reason"]
    metrics = metrics_of(results, settings, rejected)
    plots = list(_curves(metrics, results))
    for protocol, (_, picture) in zip(metrics["protocols"], plots, strict=True):
        out.write_bytes(f"precision_recall-{protocol}.png", picture)
    facts = _facts(settings, collection, embeddings, distractors)
    title = f"Benchmark {name}"
    page = reports_page.page(title=title, summary=summary(metrics), tables=tables(metrics), plots=plots, facts=facts)
    out.write_bytes("report.html", page.encode())
    out.write_json("metrics.json", metrics)
    return metrics


def _facts(
    settings: Mapping[str, Any], collection: Folder, embeddings: Folder, distractors: Sequence[Folder]
) -> dict[str, str]:
    facts = {key: str(value) for key, value in settings.items()}
    for kind, folder in (("collection", collection), ("embeddings", embeddings)):
        facts[kind] = f"{folder} {read_manifest(folder).fingerprint}"
    return facts | {f"distractors {number}": str(folder) for number, folder in enumerate(distractors, start=1)}


def _curves(metrics: Mapping[str, Any], results: Mapping[str, BenchmarkResult]) -> Iterator[tuple[str, bytes]]:
    for protocol in metrics["protocols"]:
        curves = {name: result.curves[protocol].tolist() for name, result in results.items()}
        title = f"{metrics['benchmark']} {protocol}" + ("" if metrics["complete"] else ", partial")
        yield f"precision and recall, {protocol}", charts.precision_recall_png(curves, title)


def metrics_of(
    results: Mapping[str, BenchmarkResult], settings: Mapping[str, Any], rejected: Mapping[str, int]
) -> dict[str, Any]:
    """The content of metrics.json.

    Args: results: by variant, at least one. rejected: photos of gallery and queries that were not taken, by reason.
    """
    one = next(iter(results.values()))
    return {
        "benchmark": one.benchmark,
        "complete": one.complete,
        "settings": dict(settings),
        "counts": {name: getattr(one, name) for name in _COUNTS} | {"num_asked": len(_first(one.average_precision))},
        "rejected": dict(rejected),
        "protocols": list(one.num_queries),  # in the file, the keys of a mapping are sorted
        "num_queries": one.num_queries,
        "order": list(results),
        "systems": {name: clean(dict(result.values)) for name, result in results.items()},
        "average_precision": {
            name: {protocol: _without_nan(values.tolist()) for protocol, values in result.average_precision.items()}
            for name, result in results.items()
        },
    }


def _first(values: Mapping[str, Any]) -> Any:
    return next(iter(values.values()))


def _without_nan(values: list[float]) -> list[float | None]:
    return [None if value != value else value for value in values]


def summary(metrics: Mapping[str, Any]) -> str:
    """What was asked of what, and what is missing."""
    counts, asked = metrics["counts"], metrics["counts"]["num_asked"]
    scored = ", ".join(f"{metrics['num_queries'][protocol]} {protocol}" for protocol in metrics["protocols"])
    text = f"{metrics['benchmark']}: {asked - counts['num_missing_queries']} queries (scored: {scored}) against "
    text += f"{counts['num_gallery']:,} gallery images and {counts['num_distractors']:,} distractors."
    if metrics["complete"]:
        return text
    reasons = ", ".join(f"{count} {reason}" for reason, count in metrics["rejected"].items()) or "none was rejected"
    total = counts["num_gallery"] + counts["num_missing"]
    text += f" PARTIAL: {counts['num_missing']:,} of {total:,} gallery images and {counts['num_missing_queries']} of "
    return (
        text
        + f"{asked} queries are missing ({reasons}). These figures are not the benchmark's and compare with no others."
    )


def tables(metrics: Mapping[str, Any]) -> list[Table]:
    """mAP by protocol beside what others published and chance gives, and precision at k, all in percent."""
    return [_mean_average_precision(metrics), _precision_at_k(metrics)]


def as_text(metrics: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    return text_of(summary(metrics), tables(metrics))


def _mean_average_precision(metrics: Mapping[str, Any]) -> Table:
    protocols = metrics["protocols"]
    others = _others(metrics["benchmark"]) if metrics["complete"] else {}
    rows = _rows(metrics, [f"mAP/{protocol}" for protocol in protocols])
    rows += [(name, *(_cell(figures.get(protocol)) for protocol in protocols)) for name, figures in others.items()]
    note = ""
    if others:
        note = "published: several scales and learned whitening, no expansion, no distractors; random: any order"
    title = ("" if metrics["complete"] else PARTIAL) + "mAP"
    return Table(
        title=f"{title}, percent",
        header=("", *(f"{title} {protocol}" for protocol in protocols)),
        rows=tuple(rows),
        note=note,
        faint=frozenset(others),
    )


def _others(benchmark: str) -> dict[str, dict[str, float]]:
    """What others reach, {name: {protocol: percent}}."""
    found = {f"{system.system} (published)": system.of(benchmark) for system in PUBLISHED}
    if benchmark in RANDOM_MAP:
        found["random ranking"] = RANDOM_MAP[benchmark]
    return {name: figures for name, figures in found.items() if figures}


def _precision_at_k(metrics: Mapping[str, Any]) -> Table:
    keys = [f"mP@{kappa}/{protocol}" for protocol in metrics["protocols"] for kappa in KAPPAS]
    prefix = "" if metrics["complete"] else PARTIAL
    header = ("", *(key.replace("/", " ") for key in keys))
    note = "precision of the first k, or up to the last positive where that comes before"
    return Table(title=f"{prefix}mP@k, percent", header=header, rows=tuple(_rows(metrics, keys)), note=note)


def _rows(metrics: Mapping[str, Any], keys: Sequence[str]) -> list[tuple[str, ...]]:
    prefix = "" if metrics["complete"] else PARTIAL
    systems = metrics["systems"]
    return [(name, *(_percent(systems[name][prefix + key]) for key in keys)) for name in metrics["order"]]


def _percent(value: float | None) -> str:
    return _NO_VALUE if value is None else f"{100 * value:.2f}"


def _cell(percent: float | None) -> str:
    """With the digits that were published."""
    return _NO_VALUE if percent is None else f"{percent:g}"
