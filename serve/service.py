"""What a replica holds: everything that the routes are given."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from retrieval.artifacts.folder import Folder
from serve.edge import Refusal, busy
from serve.engine.candidate import Candidate
from serve.engine.loading import First, load_first
from serve.engine.version import Version
from serve.engine.versions import Versions
from serve.engine.watch import Watch
from serve.guard import KeyRing
from serve.metrics import Metrics
from serve.parts.fanout import Handle, Parts
from serve.parts.messages import PartLost
from serve.photos.limits import Caps
from serve.photos.pool import PhotoPool
from serve.schemas import Part, Ready
from serve.settings import ServeArgs
from serve.uploads import Uploads

logger = logging.getLogger(__name__)

_READY_FOR_S = 1.0
_PART_S = 5.0


class Service:
    """Made by `open`. Used from one event loop."""

    def __init__(
        self,
        args: ServeArgs,
        first: First,
        photos: PhotoPool,
        metrics: Metrics,
        replica: str,
        parts: Parts | None = None,
    ) -> None:
        self.args, self.parts = args, parts
        self.versions = versions = Versions(first.version)
        self.photos = photos
        self.metrics = metrics
        self.replica = replica
        self.uploads = Uploads(args)
        # Who may ask so often a minute may do so when few replicas run; then each lets in its part.
        self.keys = KeyRing(Folder.of(args.workspace), 1 / args.min_replicas)
        self._num_queries = 0
        self._ready: tuple[float, Ready] | None = None
        self._asking = asyncio.Lock()
        metrics.watch("uploads", "Bodies being received.", lambda: self.uploads.num)
        metrics.watch("upload_bytes", "Bytes of them in memory.", lambda: self.uploads.held)
        metrics.watch("queries", "Queries in progress or waiting.", lambda: self._num_queries)
        metrics.watch("photos_waiting", "Photos that wait for a process.", lambda: photos.num_waiting)
        metrics.watch("photo_processes", "Processes for photos that are up.", lambda: photos.num_alive)
        metrics.watch("versions_open", "Versions that answer or still finish.", lambda: versions.num_open)
        metrics.watch("changes_unseen_seconds", "Since changes of other hosts were last looked for.", self._unseen_s)
        if parts is not None:
            metrics.watch("index_parts_away", "Parts of the index that do not answer.", lambda: parts.num_away)
        self._taken(first.version)
        self.watch = Watch(args, versions, metrics, first, self._taken, parts)
        self.watch.start()
        self.candidate: Candidate | None = None
        if args.candidate is not None:
            self.candidate = Candidate(args, versions, photos, metrics, replica, parts=parts)
            self.candidate.start()

    @classmethod
    async def open(cls, args: ServeArgs, replica: str = "local", parts: Sequence[Handle] = ()) -> Service:
        """Loads what is published and starts the processes for photos, side by side.

        Args: parts: how the parts of the index are asked; none: the replica holds all of it.

        Raises: ValueError if nothing that can be served is; RuntimeError if no process for photos starts.
        """
        metrics = Metrics(replica)
        caps = Caps(formats=args.formats, scans=args.max_scans, frames=args.max_frames, pixels=args.max_pixels)
        spread = Parts(parts, args.index_timeout_s, metrics.part_failed) if parts else None
        photos = PhotoPool(args.num_photo_processes, caps, seconds=args.photo_timeout_s, lost=metrics.lost)
        try:
            loading = asyncio.to_thread(load_first, args, metrics.batched, spread)
            _, first = await asyncio.gather(photos.start(), loading)
            await photos.teach(first.version.look())  # or the first photo waits while a detector is made
            return cls(args, first, photos, metrics, replica, spread)
        except BaseException:
            photos.close()
            if spread is not None:
                spread.close()
            raise

    def check_room(self) -> None:
        """Raises: Refusal busy while all places are taken: then a body need not come at all."""
        if self._num_queries >= self.args.max_queue:
            raise busy(self.args.retry_after_s)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among the queries in progress, for as long as one may take.

        Raises: Refusal busy without one; timeout.
        """
        self.check_room()
        self._num_queries += 1
        try:
            async with asyncio.timeout(self.args.timeout_s):
                yield
        except TimeoutError as error:
            raise Refusal("timeout", f"No answer within {self.args.timeout_s:g} s.") from error
        finally:
            self._num_queries -= 1

    async def ready(self) -> Ready:
        """Asks every part to do a little of its work; what it said counts for a second."""
        async with self._asking:
            if self._ready is None or time.monotonic() - self._ready[0] > _READY_FOR_S:
                parts = await self._ask_parts()
                status = "ok" if all(part.ok for part in parts.values()) else "failed"
                self._ready = time.monotonic(), Ready(status=status, parts=parts)
            return self._ready[1]

    async def _ask_parts(self) -> dict[str, Part]:
        with self.versions.holding() as version:
            questions = {
                "photos": self.photos.check(),
                "model": version.check_model(),
                "index": version.check_index(),
                "gallery": version.check_gallery(),
            }
            answers = await asyncio.gather(
                *(asyncio.wait_for(one, _PART_S) for one in questions.values()), return_exceptions=True
            )
        return {name: _part(name, answer) for name, answer in zip(questions, answers, strict=True)}

    def close(self) -> None:
        """Ends the processes for photos, and lets go of what is loaded."""
        self.watch.close()
        if self.candidate is not None:
            self.candidate.close()
        self.photos.close()
        self.versions.close()
        if self.parts is not None:
            self.parts.close()

    def _unseen_s(self) -> float:
        with self.versions.holding() as version:
            store = version.gallery.store
            return 0.0 if store is None else store.unseen_s()

    def _taken(self, version: Version) -> None:
        """It answers from now on."""
        self.photos.learn(version.look())
        self.metrics.loaded(version.name, version.pair.model_fingerprint, version.pair.index_fingerprint)
        self.started = datetime.now(UTC)


def _part(name: str, answer: object) -> Part:
    if isinstance(answer, TimeoutError):
        return Part(ok=False, why=f"no answer within {_PART_S:g} s")
    if isinstance(answer, PartLost):
        return Part(ok=False, why=str(answer))
    if isinstance(answer, BaseException):
        logger.error("part %s of the service fails", name, exc_info=answer)
        return Part(ok=False, why=f"it fails ({type(answer).__name__}); the log says more")
    return Part(ok=True)
