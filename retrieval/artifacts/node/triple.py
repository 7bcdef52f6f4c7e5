"""The published model and index on this node's disk, wherever they were published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from retrieval.artifacts.index import small_files
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.published import Pair


@contextmanager
def on_this_node(pair: Pair, cache: NodeCache, *, also_local: bool = False, with_shards: bool = True) -> Iterator[Pair]:
    """The pair with its model and its index on this node's disk, for as long as the context is open.

    The collection stays where it is: single crops are read from it, in small row groups.

    Args: also_local: see `NodeCache.folder`. with_shards: whether the shards of the index come too.

    Raises: ValueError if a file is not what was sealed, or the disk is full.
    """
    small = None if with_shards else small_files(read_manifest(pair.index))
    with ExitStack() as stack:
        near = {
            "model": stack.enter_context(cache.folder(pair.model, also_local=also_local)).folder,
            "index": stack.enter_context(cache.folder(pair.index, also_local=also_local, only=small)).folder,
        }
        yield dataclasses.replace(pair, **near)
