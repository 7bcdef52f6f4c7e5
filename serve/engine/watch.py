"""Follows what the workspace publishes: a new version is loaded beside the one that answers, tried, and takes over.

One that is unfit is refused, with the reason, and the old one answers on; it is not tried again until something else is
published, or somebody asks for it. Storage that cannot be reached is another thing: then the next look tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import Published, find_version, go_to
from serve.engine.loading import First, Seen, load, look
from serve.engine.selftest import Unfit
from serve.engine.version import Version
from serve.engine.versions import Versions
from serve.metrics import Metrics
from serve.parts.fanout import Parts
from serve.settings import ServeArgs

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
_SLOWER = 30
"""After storage failed, this many looks pass at most before the next try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedVersion:
    """A version that was published and does not answer. version: empty if not even its name could be read."""

    version: str
    why: str
    at: datetime


class Watch:
    """Of one replica. Used from one event loop; what takes time runs in a thread of its own."""

    def __init__(
        self,
        args: ServeArgs,
        versions: Versions,
        metrics: Metrics,
        first: First,
        taken: Callable[[Version], None] = lambda version: None,
        parts: Parts | None = None,
    ) -> None:
        """Args: first: what `versions` started with. taken: told each version right before it answers. parts: who hold
        the index; None: it is opened here."""
        self._args, self._versions, self._metrics, self._taken = args, versions, metrics, taken
        self._workspace, self._parts = Folder.of(args.workspace), parts
        self._changing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")  # storage that hangs holds up nobody else
        self._task: asyncio.Task[None] | None = None
        self._seen = first.seen
        self._skip = self._failures = 0
        self.refused: RefusedVersion | None = None
        if first.why_not:
            self._refuse("", first.why_not)

    def start(self) -> None:
        """Look every `watch_s` seconds from now on."""
        if self._args.watch_s:
            self._task = asyncio.create_task(self._follow())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """Take up what is published now, unless it is what was seen before."""
        async with self._changing:
            try:
                seen = await self._in_thread(lambda: look(self._workspace))
                if seen is not None and seen.digest != self._seen:
                    await self._take(seen)
                self._failures = 0
            except OSError as error:
                self._failures += 1
                self._skip = min(self._failures - 1, _SLOWER)
                self._metrics.refused_version("storage")
                logger.warning("the workspace cannot be read (%s); trying again", error)

    async def reload(self, version: str | None = None) -> tuple[bool, str]:
        """What is published now, or a version that was before, whose name or `previous` is given: that one becomes the
        current version of the workspace, so that every replica takes it up.

        Returns: whether another version answers now than before; and why not.

        Raises: ValueError if the workspace remembers no such version.
        """
        async with self._changing:
            try:
                return await self._reload(version)
            except OSError as error:
                return False, f"The workspace cannot be read or written: {error}"

    async def _reload(self, version: str | None) -> tuple[bool, str]:
        if version is None:
            if (seen := await self._in_thread(lambda: look(self._workspace))) is None:
                return False, "Nothing is published."
            return await self._take(seen)
        wanted = await self._in_thread(lambda: find_version(self._workspace, version))
        made: Version | None = None
        if not self._answers(wanted):
            try:
                made = await self._in_thread(lambda: self._load(wanted))
            except Unfit as error:
                self._refuse(wanted.version, str(error))
                return False, str(error)
        try:
            await self._in_thread(lambda: go_to(self._workspace, wanted.version))
            seen = await self._in_thread(lambda: look(self._workspace))
        except BaseException:
            if made is not None:
                made.close()
            raise
        self._seen = "" if seen is None else seen.digest
        return self._swap(made)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._args.watch_s)
            if self._skip:
                self._skip -= 1
                continue
            try:
                await self.look()
            except Exception:
                logger.exception("what is published could not be taken up")

    async def _take(self, seen: Seen) -> tuple[bool, str]:
        """Raises: OSError if storage fails; then it counts as not seen."""
        published = seen.published
        made: Version | None = None
        try:
            if isinstance(published, Unfit):
                raise published
            if not self._answers(published):
                made = await self._in_thread(lambda: self._load(published))
        except Unfit as error:
            self._seen = seen.digest
            self._refuse("" if isinstance(published, Unfit) else published.version, str(error))
            return False, str(error)
        self._seen = seen.digest
        return self._swap(made)

    def _swap(self, made: Version | None) -> tuple[bool, str]:
        """`made` answers from now on; None: the one that answers is the right one."""
        self.refused = None
        if made is None:
            return False, "It is the one that answers already."
        self._taken(made)
        self._versions.swap(made)
        self._metrics.swapped()
        logger.info("version %s answers now", made.name)
        return True, ""

    def _refuse(self, version: str, why: str) -> None:
        self.refused = RefusedVersion(version=version, why=why, at=datetime.now(UTC))
        self._metrics.refused_version("unfit")
        with self._versions.holding() as current:
            logger.warning("version %s is refused, %s answers on: %s", version or "(unknown)", current.name, why)

    def _answers(self, published: Published) -> bool:
        """Whether the version that answers is this one, report and people included, and from the same folders."""
        with self._versions.holding() as current:
            of = current.published
            return of is not None and (of.paths, of.fingerprints) == (published.paths, published.fingerprints)

    def _load(self, published: Published) -> Version:
        return load(self._args, published, self._metrics.batched, self._parts)

    async def _in_thread(self, work: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
