"""What the query service answers with: a collection, a model and an index that were made from each other.

The report that measured the model may stand beside them (its calibration says what the scores mean), and others.

`CURRENT.json` holds them, and those that were published before, so that going back is one small write. It is replaced
whole: whoever reads it at any moment sees the triple that was, or the one that is.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrieval.artifacts.calibration import Calibration, read_calibration
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, check_made_from, read_manifest
from retrieval.artifacts.writing.seam import TEMP

logger = logging.getLogger(__name__)

CURRENT = "CURRENT.json"
_KINDS = ("collection", "model", "index")

KEPT = 20
"""Versions that a workspace remembers, the one that is served among them."""

PREVIOUS = "previous"
"""What the version before the current one is called, where a version is asked for."""


def version_name(collection: str, model: str, index: str) -> str:
    """12 hex digits that name a triple, from the three fingerprints."""
    return hashlib.sha256(f"{collection}{model}{index}".encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One version that was published: where its folders lie, and what was in them then."""

    paths: dict[str, str]
    """By kind; below the workspace, or whole."""
    fingerprints: dict[str, str]
    """By kind."""
    at: str
    """When it was published last, ISO 8601 in UTC; empty if that was before there was a history."""

    @property
    def version(self) -> str:
        return version_name(*(self.fingerprints[kind] for kind in _KINDS))

    def folders(self, workspace: Folder) -> dict[str, Folder]:
        """Its folders by kind."""
        return {
            kind: Folder(path) if "://" in path or path.startswith("/") else workspace / path
            for kind, path in self.paths.items()
        }


def publish(
    workspace: Folder,
    *,
    collection: Folder,
    model: Folder,
    index: Folder,
    report: Folder | None = None,
    people: Folder | None = None,
    features: Folder | None = None,
) -> str:
    """Point the workspace's CURRENT.json at a matching (collection, model, index), for the query service.

    Paths are kept relative to the workspace, so that it can be copied elsewhere whole. What was published before stays
    in the history, `KEPT` versions of it.

    Args:
        report: one that measured the model, if there is any.
        people: the groups of the index's photos, if they were grouped.
        features: local features of the collection's photos, if they were kept.

    Returns: the version's name.

    Raises: ValueError if they were not made from each other.
    """
    folders = {"collection": collection, "model": model, "index": index}
    beside = {"report": report, "people": people, "features": features}.items()
    folders |= {kind: folder for kind, folder in beside if folder is not None}
    seals = {kind: read_manifest(folder, kind) for kind, folder in folders.items()}
    _check_together(folders, seals)
    new = Published(
        paths={kind: folder.relative_to(workspace) for kind, folder in folders.items()},
        fingerprints={kind: manifest.fingerprint for kind, manifest in seals.items()},
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with _alone(workspace):
        kept = [one for one in _remembered(workspace) if one.version != new.version]
        _write(workspace, new, [*kept, new][-KEPT:])
    return new.version


def history(workspace: Folder) -> tuple[Published, list[Published]]:
    """The version that is current, and all that the workspace remembers, that one among them, the oldest first.

    In one go: the file may be replaced at any moment.

    Raises: ValueError if nothing is published there yet.
    """
    if not is_published(workspace):
        raise ValueError(
            f"{workspace} has no {CURRENT}: no pipeline has finished there. "
            f"Run `python -m ray_jobs.pipeline faces --workspace {workspace}` first."
        )
    try:
        told = workspace.read_json(CURRENT)
        current = _published(told)
        kept = [_published(one) for one in told.get("history", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # of json, or of what is not as we write it
        raise ValueError(
            f"{workspace}/{CURRENT} cannot be read ({type(error).__name__}: {error}). It was changed by hand or "
            f"damaged: run the pipeline again, which finds its steps done and publishes them."
        ) from error
    return current, kept if current.version in [one.version for one in kept] else [*kept, current]


def find_version(workspace: Folder, version: str) -> Published:
    """A version by its name, the first digits of it (4 or more), or `PREVIOUS`: the one published before the current.

    Raises: ValueError if the workspace remembers no such version, or several.
    """
    return _find(workspace, version, *history(workspace))


def go_to(workspace: Folder, version: str) -> Published:
    """Make a version that was published before the current one again. `version`: as `find_version` takes it.

    The order of the history stays, so that `PREVIOUS` again goes back one more, and the newest can be gone forward to.

    Raises: ValueError if there is no such version, or its folders are not what they were.
    """
    history(workspace)  # a workspace that is not there is said to be so, and not made by a lock in it
    with _alone(workspace):
        current, kept = history(workspace)
        wanted = _find(workspace, version, current, kept)
        _seals(workspace, wanted)
        if wanted != current:
            _write(workspace, wanted, kept)
    return wanted


def read_current(workspace: Folder) -> dict[str, Folder]:
    """The published folders: {"collection": ..., "model": ..., "index": ...}, and others beside if they were.

    Raises: ValueError if nothing is published there yet.
    """
    return history(workspace)[0].folders(workspace)


def is_published(workspace: Folder) -> bool:
    """Whether a pipeline has finished there."""
    return workspace.exists(CURRENT)


def _remembered(workspace: Folder) -> list[Published]:
    """All that was published before; nothing where the file is damaged, which is the way to mend it."""
    try:
        return history(workspace)[1] if is_published(workspace) else []
    except ValueError as error:
        logger.warning("%s What it remembered is lost.", error)
        return []


def _published(told: Mapping[str, Any]) -> Published:
    missing = [kind for kind in _KINDS if kind not in told["paths"] or kind not in told["fingerprints"]]
    if missing or set(told["paths"]) != set(told["fingerprints"]):
        raise KeyError(", ".join(missing) or "fingerprints")
    return Published(paths=dict(told["paths"]), fingerprints=dict(told["fingerprints"]), at=str(told.get("at", "")))


def _find(workspace: Folder, version: str, current: Published, kept: list[Published]) -> Published:
    names = [one.version for one in kept]
    if version == PREVIOUS:
        place = names.index(current.version)
        if place == 0:
            raise ValueError(f"{workspace} remembers no version before the current one, {current.version}.")
        return kept[place - 1]
    found = [one for one in kept if one.version.startswith(version)] if len(version) >= 4 else []
    if len(found) != 1:
        said = "several versions that begin so" if found else "no such version"
        raise ValueError(
            f"version is {version[:80]!r}: {workspace} remembers {said}. Choose one of: {', '.join(names)}."
        )
    return found[0]


def _write(workspace: Folder, current: Published, kept: list[Published]) -> None:
    workspace.write_json(CURRENT, {**asdict(current), "history": [asdict(one) for one in kept]})


@contextmanager
def _alone(workspace: Folder) -> Iterator[None]:
    """One publisher at a time, so that none is left out of the history. In an object store nobody can be kept out: of
    two at the very same moment the later one stays, whole, and the other is not remembered."""
    if not workspace.is_local:
        yield
        return
    Path(workspace.path).mkdir(parents=True, exist_ok=True)
    with Path(workspace.file(f"{CURRENT}.lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for half in Path(workspace.path).glob(f"{CURRENT}{TEMP}*"):  # of one that died in the midst of it
            half.unlink(missing_ok=True)
        yield


def _seals(workspace: Folder, version: Published) -> dict[str, Manifest]:
    """The manifests of a version's folders. Raises: ValueError if they are not those that were published, together."""
    folders = version.folders(workspace)
    seals = {kind: read_manifest(folder, kind) for kind, folder in folders.items()}
    for kind, seal in seals.items():
        if seal.fingerprint != version.fingerprints[kind]:
            raise ValueError(
                f"{folders[kind]} has fingerprint {seal.fingerprint[:12]}, but {workspace} published the {kind} "
                f"{version.fingerprints[kind][:12]}: it was replaced since. Run the pipeline again to publish a "
                f"matching set."
            )
    _check_together(folders, seals)
    return seals


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
    people: Folder | None = None
    """The groups of the index's photos."""
    features: Folder | None = None
    """Local features of the collection's photos."""

    @classmethod
    def open(cls, workspace: str, version: str | None = None) -> Pair:
        """The pair that the workspace's CURRENT.json points at, or an earlier version (see `find_version`).

        Raises: ValueError if nothing is published there, a folder is not sealed, a folder is not the one that was
            published, or the index was made with another model or collection.
        """
        root = Folder.of(workspace)
        return cls.of(root, history(root)[0] if version is None else find_version(root, version))

    @classmethod
    def of(cls, workspace: Folder, published: Published) -> Pair:
        """One version of a workspace. Raises: ValueError as `open`."""
        folders, seals = published.folders(workspace), _seals(workspace, published)
        return cls(
            workspace=workspace,
            collection=folders["collection"],
            model=folders["model"],
            index=folders["index"],
            collection_fingerprint=seals["collection"].fingerprint,
            model_fingerprint=seals["model"].fingerprint,
            index_fingerprint=seals["index"].fingerprint,
            **{kind: folders.get(kind) for kind in ("report", "people", "features")},
        )

    @property
    def version(self) -> str:
        """The triple's name, 12 hex digits."""
        return version_name(self.collection_fingerprint, self.model_fingerprint, self.index_fingerprint)

    def calibration(self) -> Calibration | None:
        """What the scores of this model mean; None if no report that says so was published."""
        return None if self.report is None else read_calibration(self.report, self.model_fingerprint)


def _check_together(folders: Mapping[str, Folder], seals: Mapping[str, Manifest]) -> None:
    """Scores between a model and an index, or an index and photos, of different making mean nothing."""
    for kind in ("collection", "model"):
        check_made_from(folders["index"], seals["index"], kind, seals[kind].fingerprint)
    for kind, of in (("features", "collection"), ("people", "index")):
        if kind in seals:
            check_made_from(folders[kind], seals[kind], of, seals[of].fingerprint)
    if "report" in seals:
        measured = {value for name, value in seals["report"].inputs.items() if name.endswith(".model")}
        if seals["model"].fingerprint not in measured:
            raise ValueError(
                f"The report {folders['report']} does not measure the model {seals['model'].fingerprint[:12]}. "
                f"Name the report of this model, or evaluate it."
            )
