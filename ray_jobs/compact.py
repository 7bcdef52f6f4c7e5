"""Compact: what was added to and deleted from a served gallery -> a sealed gallery, published; erased is erased.

    python -m ray_jobs.compact --workspace workspace/mine
    ray job submit --working-dir . -- python -m ray_jobs.compact --workspace W

A collection without what was deleted and with what was added, its embeddings, an index of the same kind and, where
there were some, the people, under their numbers, and local features. The service takes it up by itself; until then, and
if this is killed, it answers from what it has. Folders that hold erased photos are removed at the end.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ray_jobs import build_index, describe, group
from ray_jobs.runtime.command import command
from ray_jobs.runtime.parallel.limits import TimeLimits
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.session import session
from retrieval.artifacts import published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, begin, read_manifest
from retrieval.artifacts.writing.owner import sole_writer
from retrieval.live.log.objects import put_new
from retrieval.live.store import FOLDER, Store, is_shared

if TYPE_CHECKING:
    from retrieval.live.folding.plan import FoldPlan

logger = logging.getLogger(__name__)

_RUNS = "compact-runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactConfig:
    """Fold the changes of a served gallery into a new one, and publish it."""

    workspace: str
    """Folder that the pipeline wrote and the service serves."""
    wait_s: float = 30.0
    """Seconds between publishing the new gallery and removing folders that hold erased photos: time for running
    services to take it up."""
    keep_old: bool = False
    """Remove nothing. Erased photos then stay in old folders, and their receipts stay open."""
    forget: bool = False
    """Let the store of changes go of photos that every version which can still be gone back to holds sealed. Saves a
    crop a photo, and originals; a pipeline that runs again over the sources then knows nothing of what was added."""

    take_over: bool = False
    """In an object store: go on although another one seems to run there. Only if it was killed."""
    limits: Annotated[TimeLimits, tyro.conf.arg(name="")] = field(default_factory=TimeLimits)
    """How long to try."""

    def __post_init__(self) -> None:
        if not 0 <= self.wait_s <= 86_400:
            raise ValueError(f"wait_s is {self.wait_s}, expected 0 to 86400 seconds.")


def main(cfg: CompactConfig) -> dict[str, Folder]:
    """Returns the folders that are published: collection, model, index; report and people where there are any.

    Raises: ValueError if nothing is published there, it cannot be written, another one runs, or something was published
        meanwhile.
    """
    workspace = Folder.of(cfg.workspace)
    pair = published.Pair.open(workspace.uri)
    from retrieval.live.folding.plan import plan_fold

    store = Store.open(workspace)
    try:
        with _alone(workspace, cfg.take_over):
            plan = plan_fold(pair, store)
            if plan.is_empty:
                logger.info("compact: nothing was added or deleted since the gallery was made")
            else:
                told = (len(plan.added), len(plan.deleted), len(plan.replaced))
                logger.info("compact: %d images added, %d deleted, %d replaced -> %s", *told, plan.collection)
                with session(cfg.limits, writes=workspace):
                    _fold(plan, store)
            if not cfg.keep_old:
                _clean(workspace, store, plan, cfg.wait_s)
            if cfg.forget:
                _forget(workspace, store)
            if not cfg.keep_old:
                store.compact_log()
    finally:
        store.close()
    return published.read_current(workspace)


def _fold(plan: FoldPlan, store: Store) -> None:
    """All of the new gallery, then its publication; what is sealed already is kept."""
    from retrieval.live.folding import seal

    with sole_writer(plan.collection, "compact"), sole_writer(plan.vectors, "compact"):
        made = seal.begin_collection(plan)
        if made is None or seal.sealed_vectors(plan, made.fingerprint) is None:
            parts = _parts(plan, store)
            made = made or seal.seal_collection(plan, parts)
            seal.seal_vectors(plan, made.fingerprint, parts)
        plan.vectors.remove_marks()  # of one that died as it had sealed them: they were not begun, so nothing tells
    folders = {"collection": plan.collection, "model": plan.pair.model, "index": _index(plan)}
    if plan.pair.report is not None:
        folders["report"] = plan.pair.report
    if plan.pair.people is not None:
        folders["people"] = _people(plan, folders["index"])
    if plan.pair.features is not None:
        folders["features"] = _features(plan, plan.pair.features)
    # Before it is published: no view of the new gallery may take for new what is in it.
    store.note_fold(made.fingerprint, plan.seq)
    if published.Pair.open(plan.pair.workspace.uri).version != plan.pair.version:
        raise ValueError(f"Another gallery was published in {plan.pair.workspace} meanwhile. Run compact again.")
    version = published.publish(plan.pair.workspace, **folders)
    logger.info("compact: published version %s, %d images stored", version, made.counts["stored"])


def _parts(plan: FoldPlan, store: Store) -> list[dict[str, Any]]:
    """Storage to storage, a part a task; what was added comes from this host's disk and is written here."""
    from retrieval.live.folding.parts import fold_part, write_added

    dim = int(read_manifest(plan.embeddings).counts["dim"])
    where = {"collection": plan.pair.collection, "embeddings": plan.embeddings}
    fixed: dict[str, Any] = {**where, "to": plan.collection, "vectors": plan.vectors, "out_of": plan.out_of}
    stored = int(read_manifest(plan.pair.collection).counts["stored"])
    done = list(run_parts("fold", plan.parts, fold_part, total_items=stored, fixed=fixed))
    for number, rows in plan.new_parts:
        done.append(write_added(number, rows, store.jpeg, plan.collection, plan.vectors, dim))
    return done


def _index(plan: FoldPlan) -> Folder:
    """Of the same kind and the same splits as the one before."""
    from retrieval.search.settings import IndexConfig

    settings, out = read_manifest(plan.pair.index).config, plan.folder("index")
    build_index.main(
        build_index.BuildIndexConfig(
            embeddings=plan.vectors.uri,
            collection=plan.collection.uri,
            out=out.uri,
            splits=tuple(settings["splits"]),
            index=IndexConfig(**settings["index"]),
        )
    )
    return out


def _people(plan: FoldPlan, index: Folder) -> Folder:
    """Grouped again from the groups before, whose numbers go on."""
    from retrieval.grouping.settings import GroupingConfig

    assert plan.pair.people is not None
    before, out = read_manifest(plan.pair.people), plan.folder("people")
    cfg = group.GroupConfig(
        index=index.uri,
        embeddings=plan.vectors.uri,
        collection=plan.collection.uri,
        out=out.uri,
        previous=plan.pair.people.uri,
        group=dataclasses.replace(GroupingConfig(**before.config["group"]), keep=True, threshold="auto"),
    )
    group.main(cfg)
    return out


def _features(plan: FoldPlan, before: Folder) -> Folder:
    """By the same settings and the same network: of photos that stay from where they are, of those that came anew."""
    from retrieval.geometry.extraction import NETWORK, copy_part
    from retrieval.geometry.settings import FeatureConfig

    was, out = read_manifest(before).config, plan.folder("features")
    settings, splits = dict(was["features"]), tuple(was["splits"])
    with tempfile.TemporaryDirectory() as temp:
        network = None
        if settings["weights"]:
            network, file = before.read_bytes(NETWORK), Path(temp) / NETWORK
            file.write_bytes(network)
            settings["weights"] = str(file)
        features = FeatureConfig(**settings)
        cfg = describe.DescribeConfig(collection=plan.collection.uri, out=out.uri, splits=splits, features=features)
        with sole_writer(out, "compact"):
            if begin(out, **describe.work_of(cfg, plan.collection, network)) is None:
                fixed = {"before": before, "collection": plan.collection, "out": out, "splits": splits}
                list(run_parts("keep features", plan.parts, copy_part, fixed=fixed))
        describe.main(cfg)
    return out


def _clean(workspace: Folder, store: Store, plan: FoldPlan, wait_s: float) -> None:
    """Folders with erased photos go; what is served stays."""
    from retrieval.live.folding.cleaning import remove, to_remove

    erased = {image_id for image_id, _ in store.changed(0, plan.pair.model_fingerprint).deleted} | plan.replaced
    served = published.read_current(workspace)
    # What came again under the name of a replaced photo is not the photo that was erased.
    erased -= plan.replaced & {row.entry.image_id for row in plan.added}
    old = [plan.pair.collection] if plan.out_of and served["collection"] != plan.pair.collection else []
    found = to_remove(workspace, erased, list(served.values()), old)
    if not found:
        return
    if wait_s:
        logger.info("compact: %d folders hold erased photos, and are removed in %g s", len(found), wait_s)
        time.sleep(wait_s)
    remove(found)


def _forget(workspace: Folder, store: Store) -> None:
    """What all versions hold whose collections are still there."""
    versions = published.history(workspace)[1]
    there = [one for one in versions if one.folders(workspace)["collection"].exists(MANIFEST)]
    least = min(store.folded(one.fingerprints["collection"]) for one in there)
    logger.info("compact: the store let go of %d images that are sealed", store.forget_before(least))


@contextmanager
def _alone(workspace: Folder, take_over: bool) -> Iterator[None]:
    """Raises: ValueError if another one runs."""
    if is_shared(workspace):
        with _alone_among_hosts(workspace / FOLDER, take_over):
            yield
        return
    with (Path(workspace.path) / "live/compact.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another compact runs on {workspace}. Wait for it.") from None
        yield


@contextmanager
def _alone_among_hosts(live: Folder, take_over: bool) -> Iterator[None]:
    """A file says that one runs; it outlives one that is killed. Raises: ValueError if it is there."""
    told = f"{socket.gethostname()}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if take_over:
        live.remove(_RUNS)
    if not put_new(live, _RUNS, told.encode()):
        raise ValueError(
            f"Another compact runs on {live}: {live.read_bytes(_RUNS).decode()}. Wait for it; if it was killed, run "
            f"this with --take-over."
        )
    try:
        yield
    finally:
        live.remove(_RUNS)


if __name__ == "__main__":
    command(CompactConfig, main, __doc__)
