"""Paths of a job that each worker must see before it begins: its machine may have come after the others were asked.

Which they are is known to the driver's session, and goes along with the work.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from retrieval.artifacts.folder import Folder

_OF_SESSION: list[str] = []


@contextmanager
def looked_for(writes: str | Path | Folder, reads: Sequence[str | Path | Folder] = ()) -> Iterator[None]:
    """For the length of the block, what is at the job's local paths must be seen by every worker."""
    before, out = list(_OF_SESSION), Folder.of(writes)
    if out.is_local:
        Path(out.path).mkdir(parents=True, exist_ok=True)
    paths = {place.path for place in (out, *map(Folder.of, reads)) if place.is_local}
    _OF_SESSION[:] = sorted(filter(os.path.exists, paths))
    try:
        yield
    finally:
        _OF_SESSION[:] = before


def of_session() -> tuple[str, ...]:
    """Paths that a worker must see, as things stand now."""
    return tuple(_OF_SESSION)


def must_be_here(paths: Sequence[str]) -> None:
    """On a worker. Raises: ValueError if its machine does not see one of them."""
    if lacking := missing(paths):
        raise ValueError(not_shared(lacking[0], socket.gethostname()))


def missing(paths: Sequence[str]) -> list[str]:
    """Which of these are not there on this node."""
    return [path for path in paths if not os.path.exists(path)]


def not_shared(path: str, node: str) -> str:
    """Of a node that does not see a path: what to do."""
    return (
        f"The node {node} does not see what is at {path}: a path of one machine is no place for a cluster of several. "
        f"Keep photos and workspace in an object store (s3://BUCKET/PATH), or in a file system that is mounted under "
        f"this path on every node."
    )
