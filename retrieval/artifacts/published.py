"""What the query service answers with: a collection, a model and an index that were made from each other.

The report that measured the model may stand beside them: its calibration says what the scores mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retrieval.artifacts.calibration import Calibration, read_calibration
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, check_made_from, read_manifest

CURRENT = "CURRENT.json"

_KINDS = ("collection", "model", "index")


def publish(
    workspace: Folder,
    *,
    collection: Folder,
    model: Folder,
    index: Folder,
    report: Folder | None = None,
    people: Folder | None = None,
) -> None:
    """Point the workspace's CURRENT.json at a matching (collection, model, index), for the query service.

    Paths are kept relative to the workspace, so that it can be copied elsewhere whole.

    Args:
        report: one that measured the model, if there is any.
        people: the groups of the index's photos, if they were grouped.

    Raises: ValueError if they were not made from each other.
    """
    folders = {"collection": collection, "model": model, "index": index}
    folders |= {kind: folder for kind, folder in (("report", report), ("people", people)) if folder is not None}
    seals = {kind: read_manifest(folder, kind) for kind, folder in folders.items()}
    _check_together(folders, seals)
    relative = {kind: folder.uri.removeprefix(workspace.uri + "/") for kind, folder in folders.items()}
    fingerprints = {kind: manifest.fingerprint for kind, manifest in seals.items()}
    workspace.write_json(CURRENT, {"paths": relative, "fingerprints": fingerprints})


def read_current(workspace: Folder) -> dict[str, Folder]:
    """The published folders: {"collection": ..., "model": ..., "index": ...}, and "report" and "people" if they were.

    Raises: ValueError if nothing is published there yet.
    """
    return _read(workspace)[0]


def is_published(workspace: Folder) -> bool:
    """Whether a pipeline has finished there."""
    return workspace.exists(CURRENT)


def _read(workspace: Folder) -> tuple[dict[str, Folder], dict[str, str]]:
    """Folders and fingerprints by kind. In one go: the file may be replaced at any moment."""
    if not is_published(workspace):
        raise ValueError(
            f"{workspace} has no {CURRENT}: no pipeline has finished there. "
            f"Run `python -m ray_jobs.pipeline faces --workspace {workspace}` first."
        )
    current = workspace.read_json(CURRENT)
    folders = {
        kind: Folder(path) if "://" in path or path.startswith("/") else workspace / path
        for kind, path in current["paths"].items()
    }
    return folders, current["fingerprints"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One version of what the service answers with. Small: it names folders and fingerprints, and loads nothing."""

    workspace: Folder
    collection: Folder
    model: Folder
    index: Folder
    collection_fingerprint: str
    model_fingerprint: str
    index_fingerprint: str
    report: Folder | None = None
    """The report that measured the model."""

    @classmethod
    def open(cls, workspace: str) -> Pair:
        """The pair that the workspace's CURRENT.json points at.

        Raises: ValueError if nothing is published there, a folder is not sealed, a folder is not the one that was
            published, or the index was made with another model or collection.
        """
        root = Folder.of(workspace)
        folders, published = _read(root)
        seals = {kind: read_manifest(folder, kind) for kind, folder in folders.items()}
        for kind, seal in seals.items():
            if seal.fingerprint != published[kind]:
                raise ValueError(
                    f"{folders[kind]} has fingerprint {seal.fingerprint[:12]}, but {root} published the {kind} "
                    f"{published[kind][:12]}: it was replaced since. Run the pipeline again to publish a matching set."
                )
        _check_together(folders, seals)
        return cls(
            workspace=root,
            collection=folders["collection"],
            model=folders["model"],
            index=folders["index"],
            collection_fingerprint=seals["collection"].fingerprint,
            model_fingerprint=seals["model"].fingerprint,
            index_fingerprint=seals["index"].fingerprint,
            report=folders.get("report"),
        )

    def calibration(self) -> Calibration | None:
        """What the scores of this model mean; None if no report that says so was published."""
        return None if self.report is None else read_calibration(self.report, self.model_fingerprint)


def _check_together(folders: Mapping[str, Folder], seals: Mapping[str, Manifest]) -> None:
    """Scores between a model and an index, or an index and photos, of different making mean nothing."""
    for kind in ("collection", "model"):
        check_made_from(folders["index"], seals["index"], kind, seals[kind].fingerprint)
    if "people" in seals:
        check_made_from(folders["people"], seals["people"], "index", seals["index"].fingerprint)
    if "report" in seals:
        measured = {value for name, value in seals["report"].inputs.items() if name.endswith(".model")}
        if seals["model"].fingerprint not in measured:
            raise ValueError(
                f"The report {folders['report']} does not measure the model {seals['model'].fingerprint[:12]}. "
                f"Name the report of this model, or evaluate it."
            )
