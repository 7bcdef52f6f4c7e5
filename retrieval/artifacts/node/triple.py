"""The published model and index on this node's disk, wherever they were published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.published import Pair


@contextmanager
def on_this_node(pair: Pair, cache: NodeCache, *, also_local: bool = False) -> Iterator[Pair]:
    """The pair with its model and its index on this node's disk, for as long as the context is open.

    The collection stays where it is: single crops are read from it, in small row groups.

    Args: also_local: see `NodeCache.folder`.

    Raises: ValueError if a file is not what was sealed, or the disk is full.
    """
    with ExitStack() as stack:
        near = {
            kind: stack.enter_context(cache.folder(getattr(pair, kind), also_local=also_local)).folder
            for kind in ("model", "index")
        }
        yield dataclasses.replace(pair, **near)
