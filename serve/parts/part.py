"""One part of an index: some of its shards, opened, and nothing else of it.

It takes what it holds from the questions: an index that nobody has asked for before is loaded, beside those that are
held already, and one that nobody has asked for in a while is let go. So replicas that are on the old version and
replicas that are on the new one are answered at the same time, and a part that was lost comes back by being asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import CHOSEN, KIND, shards_of
from retrieval.artifacts.manifest import check_files, read_manifest
from retrieval.artifacts.node.cache import Kept, NodeCache
from retrieval.search.index import Shard, search_all
from retrieval.search.ranking import Neighbours
from serve.parts.messages import IndexName, Told, Vectors
from serve.settings import ServeArgs

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
_now = time.monotonic

HELD_S = 60.0
"""An index that nobody asked for so long is let go. Replicas ask for theirs every few seconds."""


@dataclass(slots=True)
class _Opened:
    """asked: when it was asked for last. kept: the files, on this node."""

    shards: list[Shard]
    kept: Kept
    asked: float

    def describe(self) -> Told:
        keeps = all(shard.keeps_vectors for shard in self.shards)
        return Told(state="held", num=sum(map(len, self.shards)), dim=self.shards[0].dim, keeps_vectors=keeps)


class Part:
    """Used from one event loop."""

    def __init__(self, args: ServeArgs, number: int) -> None:
        """Loads nothing yet. Args: number: which part it is, from 0."""
        self._args, self._number = args, number
        self._opened: dict[str, _Opened] = {}
        self._loading: dict[str, Future[_Opened]] = {}
        self._threads = ThreadPoolExecutor(args.threads, thread_name_prefix="search")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")  # hashing holds up no search

    async def hold(self, index: IndexName) -> Told:
        """How it stands with an index, which is loaded from now on if it was not yet. What went wrong is told once, and
        tried again by the next question."""
        self._settle()
        if (opened := self._opened.get(index.fingerprint)) is not None:
            opened.asked = _now()
            return opened.describe()
        loading = self._loading.get(index.fingerprint)
        if loading is None:
            self._loading[index.fingerprint] = self._loader.submit(self._load, index)
            return Told(state="loading", why="its shards are being loaded")
        if not loading.done():
            return Told(state="loading", why="its shards are being loaded")
        del self._loading[index.fingerprint]
        return _failed(loading.exception())

    async def search(
        self, index: IndexName, queries: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> Neighbours | Told:
        """The k best of its shards for each query, by row of the whole index; or why there is no answer.

        Args: queries: (Q, D) float32. allowed: uint8, a bit for each row of the whole index (`numpy.packbits`), which
            may be found; None: all.
        """

        def work(shards: Sequence[Shard]) -> Neighbours:
            mask = None if allowed is None else np.unpackbits(allowed).view(bool)
            return search_all(shards, queries, k, mask)

        return await self._with(index, work)

    async def vectors_of(self, index: IndexName, rows: np.ndarray) -> Vectors | Told:
        """The vectors of those rows (n,) that it has."""

        def work(shards: Sequence[Shard]) -> Vectors:
            mine, vectors = np.zeros(len(rows), bool), np.empty((len(rows), shards[0].dim), np.float32)
            for shard in shards:
                some, of = shard.vectors_of(rows)
                mine |= some
                vectors[some] = of
            return Vectors(mine, vectors[mine])

        return await self._with(index, work)

    async def _with(self, index: IndexName, work: Callable[[Sequence[Shard]], Made]) -> Made | Told:
        told = await self.hold(index)
        if told.state != "held":
            return told
        shards = self._opened[index.fingerprint].shards  # held by `work` until it is done, whatever is let go meanwhile
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, shards)

    def _settle(self) -> None:
        """Take in what was loaded, let go of what nobody asks for."""
        now = _now()
        for fingerprint, loading in list(self._loading.items()):
            if loading.done() and loading.exception() is None:
                self._opened[fingerprint] = loading.result()
                self._opened[fingerprint].asked = now
                del self._loading[fingerprint]
        for fingerprint, opened in list(self._opened.items()):
            if now - opened.asked > HELD_S:
                del self._opened[fingerprint]
                opened.kept.close()
                logger.info("part %d lets go of index %s", self._number + 1, fingerprint[:12])

    def _load(self, index: IndexName) -> _Opened:
        """Its shards of an index, from this node's disk. Raises: ValueError if they are not those that were sealed."""
        folder, args = Folder.of(index.uri), self._args
        manifest = read_manifest(folder, KIND)
        if manifest.fingerprint != index.fingerprint:
            raise ValueError(f"{folder} holds index {manifest.fingerprint[:12]}, expected {index.fingerprint[:12]}")
        names = shards_of(manifest, self._number, args.index_parts)
        only = [*names, *({CHOSEN} & set(manifest.files))]  # how its shards are searched comes with them
        kept = NodeCache.of_node(args.cache, args.cache_gb).folder(folder, also_local=args.cache_local, only=only)
        try:
            if args.check_files:
                check_files(kept.folder, {name: manifest.files[name] for name in names})
            shards = [Shard.load(kept.folder, name, num_threads=1) for name in names]
        except BaseException:
            kept.close()
            raise
        logger.info("part %d holds %d shards of index %s", self._number + 1, len(shards), index.fingerprint[:12])
        return _Opened(shards, kept, _now())


def _failed(error: BaseException | None) -> Told:
    """What the library says is for people; of anything else the log has the stack."""
    if isinstance(error, ValueError):
        return Told(state="refused", why=str(error))
    if isinstance(error, OSError):
        return Told(state="failed", why=f"its shards cannot be read ({error})")
    logger.error("the shards of an index cannot be loaded", exc_info=error)
    return Told(state="failed", why=f"its shards cannot be loaded ({type(error).__name__}); its log says more")
