"""The end of a pipeline in words one can act on: what was made, what was left out and why, and what to do with it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from ray_jobs.runtime.tracking.registry import Registration
    from ray_jobs.runtime.tracking.runs import Tracker

_SHOWN = ("recall@1", "mAP")


def summary(
    workspace: Folder,
    folders: Mapping[str, Folder],
    tracker: Tracker,
    registration: Registration | None,
    seconds: float,
) -> str:
    """Several lines. `folders`: what the pipeline returns, all of them sealed."""
    lines = [("photos", _kept(read_manifest(folders["collection"], "collection"), folders["collection"] / "rejected"))]
    if "tuples" in folders:
        lines.append(("places", _kept(read_manifest(folders["tuples"], "tuples"))))
    lines += [(name, str(folders[name])) for name in ("collection", "tuples", "model") if name in folders]
    lines.append(("index", f"{folders['index']}, {read_manifest(folders['index'], 'index').counts['num']} photos"))
    if "people" in folders:
        lines += _people(folders["people"])
    if "report" in folders:
        lines += _figures(folders["report"].read_json("metrics.json"))
        lines.append(("report", f"{folders['report']}/report.html"))
    store = tracker.uri
    page = store if store.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(store)}"
    lines.append(("MLflow", f"run {tracker.run_id}: {page}"))
    lines.append(("registered", _registered(registration)))
    told = "\n".join(f"  {name:<11}{text}" for name, text in lines)
    serve = f"python -m serve --workspace {shlex.quote(str(workspace))}"
    return f"\nDone in {seconds:.0f} s.\n{told}\nServe it:\n  {serve}"


def _kept(manifest: Manifest, listed: Folder | None = None) -> str:
    """From the books of a step, first stage to last: what is left of what went in, and why the rest is not."""
    rejected = sum((Counter(book["rejected"]) for book in manifest.books), Counter[str]())
    text = f"{manifest.books[-1]['kept']} of {manifest.books[0]['taken']} kept"
    if "faces" in manifest.counts:  # several rows a photo
        counts = manifest.counts
        kept = f"{counts['photos']} of {counts['source']} with {counts['stored']} of {counts['faces']} faces kept"
        text = kept + (f", {counts['dropped']} of them twice there or left out" if counts["dropped"] else "")
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common())
        text += f"; left out: {reasons}" + (f" (listed in {listed})" if listed is not None else "")
    return text


def _people(folder: Folder) -> Iterator[tuple[str, str]]:
    counts = read_manifest(folder, "people").counts
    twice = counts["same_file"] + counts["same_picture"]
    yield "people", f"{counts['people']:,} found on {counts['grouped']:,} photos; {counts['single']:,} like no other"
    yield "", f"there twice: {twice:,}; look at {folder}/people.html"


def _figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A line a system, the starting point first."""
    yield "figures", "  ".join(f"{key:>8}" for key in _SHOWN)
    for name in metrics["order"]:
        values = (metrics["systems"][name].get(key) for key in _SHOWN)
        yield "", "  ".join("    none" if value is None else f"{value:8.3f}" for value in values) + f"  {name}"


def _registered(registration: Registration | None) -> str:
    if registration is None:
        return "no: there was nothing to validate on, so the model has no figure to be ranked by"
    if not registration.version:
        return f"{registration.name}: {registration.reason}"
    alias = " (champion)" if registration.is_champion else ""
    return f"{registration.name} version {registration.version}{alias}: {registration.reason}"
