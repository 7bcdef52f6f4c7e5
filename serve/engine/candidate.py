"""A candidate: another version that is asked some of the queries too, after their answers were sent, and compared.

It answers nobody. What is counted is how often it puts the same image first, how much of the first ten both have, and
by how much its best score differs; the counts are in the metrics, and in a small file of the workspace for each
replica, from where `python -m ray_jobs.agreement` takes them to MLflow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import find_version
from retrieval.search.agreement import DEPTH, Agreement, write_agreement
from serve.engine.loading import load
from serve.engine.version import Version
from serve.engine.versions import Versions
from serve.metrics import Metrics
from serve.parts.fanout import Parts
from serve.photos.messages import Looked
from serve.photos.pool import PhotoPool
from serve.settings import ServeArgs

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
_MOST_WAITING = 4
_WRITE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Query:
    """One face or place that was searched for. version: that answered, held until it was compared."""

    version: Version
    photo: bytes
    jpeg: bytes
    embedding: np.ndarray
    release: contextlib.ExitStack


class Candidate:
    """Of one replica. Used from one event loop; it works in one thread, of the lowest priority."""

    def __init__(
        self,
        args: ServeArgs,
        versions: Versions,
        photos: PhotoPool,
        metrics: Metrics,
        replica: str,
        seed: int | None = None,
        parts: Parts | None = None,
    ) -> None:
        assert args.candidate is not None
        self._args, self._versions, self._photos, self._metrics, self._replica = (
            args,
            versions,
            photos,
            metrics,
            replica,
        )
        self._parts = parts
        self._name, self._share = args.candidate, args.candidate_share
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="candidate", initializer=_step_back)
        self._random = random.Random(seed)
        self._waiting: asyncio.Queue[_Query] = asyncio.Queue(_MOST_WAITING)
        self._tasks: list[asyncio.Task[None]] = []
        self._version: Version | None = None
        self._counted: dict[str, Agreement] = {}
        self.why_not = ""

    def start(self) -> None:
        """Load it, beside all that answers, then compare."""
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._keep_writing())]

    @property
    def name(self) -> str | None:
        """The version's, once it is loaded."""
        return None if self._version is None else self._version.name

    def counted(self) -> dict[str, Agreement]:
        """By version that answered."""
        return dict(self._counted)

    def offer(self, version: Version, photo: bytes, jpeg: bytes, embedding: np.ndarray) -> None:
        """A query that was answered: its photo, the crop of it, (D,) float32 its embedding. A share of them is
        compared, when the answer was sent; while others wait for that, the query is passed by."""
        if self._version is None or self._version.name == version.name or self._random.random() >= self._share:
            return

        def add() -> None:
            if self._waiting.full():
                self._metrics.compared("passed-by")
                return
            release = contextlib.ExitStack()
            release.enter_context(self._versions.holding(version))
            self._waiting.put_nowait(_Query(version, photo, jpeg, embedding, release))

        self._versions.after_this_request(add)

    async def write(self) -> None:
        """Counts so far, to the workspace. A workspace that cannot be written to costs the counts and nothing else."""
        try:
            await self._in_thread(self._write)
        except OSError as error:
            logger.warning("counts of the candidate cannot be written: %s", error)

    def close(self) -> None:
        """Stop; what was counted since it was last written is written."""
        for task in self._tasks:
            task.cancel()
        while not self._waiting.empty():
            self._waiting.get_nowait().release.close()
        with contextlib.suppress(OSError):
            self._write()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._version is not None:
            self._version.close()

    async def _work(self) -> None:
        try:
            self._version = await self._in_thread(self._load)
            logger.info(
                "candidate %s is compared with what answers, on %g of the queries", self._version.name, self._share
            )
        except (ValueError, OSError) as error:
            self.why_not = str(error)
            logger.warning("the candidate %s is not compared: %s", self._name, error)
            return
        while True:
            query = await self._waiting.get()
            try:
                await self._compare(self._version, query)
            except Exception:
                self._metrics.compared("failed")
                logger.exception("a query could not be compared")
            finally:
                query.release.close()

    async def _compare(self, candidate: Version, query: _Query) -> None:
        jpeg: bytes | None = query.jpeg
        if candidate.look().kind != query.version.look().kind:  # it wants photos cut otherwise
            seen = await self._photos.look(query.photo, candidate.look())
            jpeg = next((face.jpeg for face in seen.faces), None) if isinstance(seen, Looked) else None
        if jpeg is None:
            self._metrics.compared("unusable")
            return
        ours, theirs = await self._in_thread(lambda: _both(query, candidate, jpeg))
        one = Agreement.of(ours, theirs)
        known = self._counted.get(query.version.name)
        self._counted[query.version.name] = one if known is None else known + one
        self._metrics.compared("compared")
        self._metrics.agreed(one.same_first, one.overlap, one.score_difference)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_S)
            await self.write()

    def _load(self) -> Version:
        return load(self._args, find_version(Folder.of(self._args.workspace), self._name), parts=self._parts)

    def _write(self) -> None:
        for name, counts in self._counted.items():
            if self._version is not None:
                write_agreement(Folder.of(self._args.workspace), name, self._version.name, self._replica, counts)

    async def _in_thread(self, work: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _both(query: _Query, candidate: Version, jpeg: bytes) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """What either finds first: (image_id, score) of each, best first."""
    lists = []
    for version, asked in ((query.version, query.embedding), (candidate, candidate.embedder.embed_jpegs([jpeg])[0])):
        (hits,) = version.gallery.search(asked[None], DEPTH)
        lists.append([(hit.image_id, hit.score) for hit in hits])
    return lists[0], lists[1]


def _step_back() -> None:
    """This thread runs when nothing else wants the core."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
