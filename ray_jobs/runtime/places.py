"""Where a job reads and writes: stores that answer, and paths that every node of the cluster sees.

A path is taken for shared only if it was seen to be: a file that the driver puts into the job's folder is looked for on
each node, and some of what lies at the top of a source. A setting could say so too, and be wrong. Machines that come
later are not asked: each worker looks before it begins (`parallel.sight`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from ray_jobs.runtime.parallel.parts import deaths
from ray_jobs.runtime.parallel.sight import missing, not_shared
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.address import endpoint_of, parse
from retrieval.artifacts.storage.failures import kind_of, outage

logger = logging.getLogger(__name__)

_SAMPLES = 5
_ANSWERS_WITHIN = 120.0  # seconds, of a node whose worker must be started first
_ONCE_MORE_AFTER = 1.0  # seconds: for a while a node counts as alive that is dead


def must_answer(*places: str | Path | Folder) -> None:
    """Ask each store once, before any work.

    Raises: ValueError if there is no such bucket; Outage, at once, if the store does not answer or refuses the keys.
    """
    for place in map(Folder.of, places):
        if place.is_local:
            continue
        address = parse(place.uri)
        try:
            kind = place.fs.get_file_info(address.bucket).type
        except OSError as error:
            if (why := kind_of(error)) is None:
                raise
            raise outage(error, why, f"asking for the bucket {address.bucket}") from error
        if kind == pafs.FileType.NotFound:
            where = endpoint_of(address) or {"s3": "AWS S3", "gs": "Google Cloud Storage"}[address.scheme]
            raise ValueError(
                f"There is no bucket {address.bucket} at {where}. Make it, or correct the address {place}."
            )


def as_ray_says(folder: Folder) -> dict[str, Any]:
    """How Ray Train is told of a folder: its own reading of an address knows fewer options."""
    if folder.is_local:
        return {"storage_path": folder.path}
    return {"storage_path": folder.path, "storage_filesystem": folder.fs}


def must_be_seen(writes: str | Path | Folder, reads: Sequence[str | Path | Folder] = ()) -> None:
    """Ask every live node of the cluster whether it sees what is at the job's local paths; one alone is not asked.

    Args: writes: the folder that the job makes. It is made now, if there is none.

    Raises: ValueError for a node that does not, or does not answer.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    others.pop(here, None)
    out = Folder.of(writes)
    sources = [place.path for place in map(Folder.of, reads) if place.is_local]
    if not others or not (out.is_local or sources):
        return
    with _marked(Path(out.path)) if out.is_local else contextlib.nullcontext("") as mark:
        looked_for = {path: source for source in sources for path in _some_of(Path(source))}
        if mark:
            looked_for[mark] = out.path
        for node, lacking in ask_nodes(others, missing, list(looked_for)).items():
            if lacking:
                raise ValueError(not_shared(looked_for[lacking[0]], others[node]))


def _some_of(source: Path) -> list[str]:
    """A source, and a few of the names in it, the first that there are: there may be millions. They are looked up by
    name, which no cache of an old list answers."""
    if not source.is_dir():
        return [str(source)]
    with os.scandir(source) as names:
        return [str(source), *(entry.path for entry in itertools.islice(names, _SAMPLES))]


def ask_nodes(nodes: Mapping[str, str], question: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """Node -> what the question comes to there, asked by a task that takes no core from any work. One that is lost
    before it answers is left out: no work will be done there.

    Args: nodes: id -> name for people. options: of the task, as Ray takes them.

    Raises: ValueError for a node that does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0, **options)(question)
    end, left, found = time.monotonic() + _ANSWERS_WITHIN, set(nodes), dict[str, Any]()
    while left:
        there = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in left}
        asked = {node: task.options(scheduling_strategy=on).remote(*args) for node, on in there.items()}
        for node, answer in asked.items():
            try:
                found[node] = ray.get(answer, timeout=max(0.0, end - time.monotonic()))
            except ray.exceptions.GetTimeoutError as error:
                raise ValueError(
                    f"The node {nodes[node]} did not answer within {_ANSWERS_WITHIN:.0f} s. Is it still there?"
                ) from error
            except (*deaths(), ray.exceptions.TaskUnschedulableError) as death:
                logger.info("the node %s was asked and is gone (%s)", nodes[node], type(death).__name__)
                time.sleep(_ONCE_MORE_AFTER)
        left = {node["NodeID"] for node in ray.nodes() if node["Alive"]} & left - found.keys()
    return found


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[str]:
    """A file of our own in the folder, for the length of the block. A folder that was made for it stays."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".seen.tmp-{secrets.token_hex(8)}"  # as half-written files are called: no list shows it
    mark.touch()
    try:
        yield str(mark)
    finally:
        mark.unlink(missing_ok=True)
