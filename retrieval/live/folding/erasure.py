"""A deletion, and the receipt for it: what is gone now, what goes with the next folding, what is not ours to remove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.live.folding.holders import copies_of, holders
from retrieval.live.store import FOLDER, ReadOnly
from retrieval.live.view import GalleryView

_NOW = ("every answer of this service", "crops kept in memory")
_LIVE = ("embedding", "crop", "original, if it was kept")


def erase(view: GalleryView, image_ids: Sequence[str]) -> dict[str, Any]:
    """Delete images, and copies of them that are stored but were left out of the index. On disk when it returns.

    Returns: the receipt: receipt_id, deleted, at, removed, pending ({what, until} each), not_ours, live.

    Raises: ReadOnly where the gallery cannot be changed; KeyError for an image that is not there.
    """
    if view.store is None:
        raise ReadOnly("This gallery cannot be changed: it is served from where no change can be kept.")
    for image_id in image_ids:
        view.entry(image_id)
    live = [image_id for image_id in image_ids if view.store.jpeg(image_id) is not None]  # also where it was folded in
    pair = view.pair
    everything = sorted({*image_ids, *copies_of(pair.collection, image_ids)})
    held = holders(pair.workspace, everything)
    pending = [folder.relative_to(pair.workspace) for folder in held]
    if live and view.store.is_shared:
        pending.append(FOLDER)  # the log that brought it to the other hosts
    receipt = {
        "removed": [*_NOW, *(_LIVE if live else ())],
        "pending": [{"what": what, "until": _until(pair.workspace)} for what in pending],
        "not_ours": _not_ours(pair.report, sealed=bool(held)),
    }
    return view.store.delete(everything, receipt)


def _until(workspace: Folder) -> str:
    return f"python -m ray_jobs.compact --workspace {workspace.name}"


def _not_ours(report: Folder | None, *, sealed: bool) -> list[str]:
    """Where copies may be that the service did not make, or does not change."""
    told = ["snapshots and backups that were made before"]
    if sealed:
        told += ["the photos that the collection was made of", "MLflow's copies of pictures of reports"]
    if sealed and report is not None:
        told.append(f"pictures in the report {report.name}")
    return told
