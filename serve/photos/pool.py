"""Several processes that look at photos. One that dies or hangs is replaced; the photo that did it is refused."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from serve.photos.framing import Broken
from serve.photos.handle import Handle
from serve.photos.limits import Caps
from serve.photos.messages import Look, Looked, Unusable

logger = logging.getLogger(__name__)

_MOST_REMEMBERED = 4096
_REMEMBERED_S = 3600.0
_STARTS_S = 60.0
_AGAIN_S = (0.1, 0.5, 2.0, 5.0)
"""Waits before another process is started in the place of one that did not come up."""


class PhotoPool:
    """Called with a photo, answers what was seen in it. All calls come from one event loop."""

    def __init__(
        self, size: int, caps: Caps, *, seconds: float = 5.0, lost: Callable[[str], None] = lambda why: None
    ) -> None:
        """Args: size: processes. seconds: longest that one photo may take. lost: told 'crashed' or 'timed-out' for
        each process that was."""
        self._size, self._caps, self._seconds, self._lost = size, caps, seconds, lost
        self._idle: deque[Handle] = deque()
        self._all: set[Handle] = set()
        self._waiting: deque[asyncio.Future[Handle]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: list[Look] = []
        self._killers: OrderedDict[bytes, tuple[str, float, bool]] = OrderedDict()
        self._closed = False

    async def start(self, looks: Sequence[Look] = ()) -> None:
        """Returns once every process is up and knows these ways of looking.

        Raises: RuntimeError if one does not come up.
        """
        self._known = list(looks)
        started = await asyncio.gather(*(self._one() for _ in range(self._size)), return_exceptions=True)
        for one in started:
            if isinstance(one, BaseException):
                self.close()
                raise RuntimeError(f"No process for photos could be started: {one}") from one
            self._release(one)

    def learn(self, how: Look) -> None:
        """As `teach`, and nobody waits for it."""
        if how.kind not in [known.kind for known in self._known]:
            self._keep(asyncio.create_task(self.teach(how)))

    async def teach(self, how: Look) -> None:
        """Processes know this way of looking: those that are started from now on, and those that are idle, when this
        returns. One that is busy learns it at its first photo."""
        if how.kind in [known.kind for known in self._known]:
            return
        self._known = [*self._known[-3:], how]
        idle = list(self._idle)
        self._idle.clear()
        await asyncio.gather(*(self._teach_one(handle, how) for handle in idle))

    async def _teach_one(self, handle: Handle, how: Look) -> None:
        try:
            async with asyncio.timeout(_STARTS_S):
                if not handle.knows(how):
                    await handle.learn(how)
        except (Broken, TimeoutError) as error:
            self._replace(handle, "crashed", str(error))
        else:
            self._release(handle)

    @property
    def num_alive(self) -> int:
        """Processes that are up, idle or busy."""
        return len(self._all)

    @property
    def num_waiting(self) -> int:
        """Photos that wait for a process."""
        return sum(not future.done() for future in self._waiting)

    @property
    def pids(self) -> list[int]:
        """Of the processes, for tests and for whoever watches them."""
        return [handle.pid for handle in self._all]

    async def look(self, photo: bytes, how: Look) -> Looked | Unusable:
        """What is seen in the photo. A caller who goes away costs nobody anything: the process goes on to its end."""
        if (refused := self._refused_before(photo)) is not None:
            return refused
        # The first process that dies may have been ended by somebody else; a photo that ends two has done it.
        seen = await self._look_once(photo, how, last=False)
        seen = await self._look_once(photo, how, last=True) if seen is None else seen
        assert seen is not None
        return seen

    async def _look_once(self, photo: bytes, how: Look, last: bool) -> Looked | Unusable | None:
        """None if the process died and this is not the last try."""
        handle = await self._take()
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[Looked | Unusable | None] = loop.create_future()
        reply = handle.look(photo, how, self._seconds)
        late = loop.call_later(self._seconds, _give_up, reply)

        def came(reply: asyncio.Future[Looked | Unusable]) -> None:
            late.cancel()
            answer = self._answered(handle, photo, reply, last)
            if not seen.done():  # the caller is still there
                seen.set_result(answer)

        reply.add_done_callback(came)
        return await seen

    async def check(self) -> None:
        """Asks an idle process; while all are busy, that they are up is enough, as each has its deadline.

        Raises: RuntimeError if none is up.
        """
        if not self._all:
            raise RuntimeError("No process for photos is up.")
        if self._idle and self._known:
            await self.look(b"", self._known[0])

    def _answered(
        self, handle: Handle, photo: bytes, reply: asyncio.Future[Looked | Unusable], last: bool
    ) -> Looked | Unusable | None:
        """None if the process died and this was not the last try. The process is idle then, or another is started."""
        try:
            seen = reply.result()
        except TimeoutError:
            # On a busy machine a photo may be late that is none of its fault.
            self._remember(photo, "timed-out", sure=handle.worked > self._seconds / 2)
            return self._replace(handle, "timed-out", f"it took more than {self._seconds:g} s to look at")
        except Broken as error:
            if last:
                self._remember(photo, "crashed", sure=True)
            refused = self._replace(handle, "crashed", str(error))
            return refused if last else None
        if handle.worn:
            self._replace(handle, "worn", "")
        else:
            self._release(handle)
        return seen

    def _replace(self, handle: Handle, reason: str, detail: str) -> Unusable:
        """End a process and start another."""
        self._all.discard(handle)
        handle.kill()
        self._keep(asyncio.create_task(self._bury(handle, reason)))
        if self._closed:
            return Unusable(reason=reason, detail="the service ends")
        if reason != "worn":
            self._lost(reason)
        self._keep(asyncio.create_task(self._start_another()))
        return Unusable(reason=reason, detail=detail)

    def _remember(self, photo: bytes, reason: str, sure: bool) -> None:
        """A photo that ended a process: surely, or for the second time, it may not do so again."""
        if not photo:  # our own question whether all is well
            return
        digest = hashlib.sha256(photo).digest()
        sure = sure or digest in self._killers
        self._killers.pop(digest, None)
        self._killers[digest] = reason, time.monotonic(), sure
        while len(self._killers) > _MOST_REMEMBERED:
            self._killers.popitem(last=False)

    async def _bury(self, handle: Handle, reason: str) -> None:
        how = await handle.ended()
        logger.warning("process %d for photos was replaced: %s (%s)", handle.pid, reason, how)

    def _refused_before(self, photo: bytes) -> Unusable | None:
        """A photo that ended a process lately may not end another. Nothing is computed while there is none."""
        while self._killers and next(iter(self._killers.values()))[1] < time.monotonic() - _REMEMBERED_S:
            self._killers.popitem(last=False)
        if not self._killers:
            return None
        reason, _, sure = self._killers.get(hashlib.sha256(photo).digest(), ("", 0.0, False))
        return None if not sure else Unusable(reason=reason, detail="as it was when it was sent before")

    async def _take(self) -> Handle:
        """The next idle process; callers are served in the order they came."""
        if self._closed:
            raise RuntimeError("The processes for photos have been closed.")
        if self._idle:
            return self._idle.popleft()
        future: asyncio.Future[Handle] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._release(future.result())  # it came while the caller was leaving
            raise

    def _release(self, handle: Handle) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(handle)
                return
        self._idle.append(handle)

    async def _one(self) -> Handle:
        handle = Handle(self._caps)
        try:
            async with asyncio.timeout(_STARTS_S):
                await handle.ready()
                for how in self._known:
                    await handle.learn(how)
        except BaseException:
            handle.kill()
            raise
        self._all.add(handle)
        return handle

    async def _start_another(self) -> None:
        tries = 0
        while not self._closed:
            try:
                handle = await self._one()
            except (Broken, OSError, TimeoutError) as error:
                logger.warning("a process for photos does not start (%s); trying again", error)
                await asyncio.sleep(_AGAIN_S[min(tries, len(_AGAIN_S) - 1)])
                tries += 1
                continue
            if self._closed:
                handle.kill()
            else:
                self._release(handle)
            return

    def _keep(self, task: asyncio.Task) -> None:
        """The event loop alone would forget a task that nobody holds."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End all processes, whatever they do."""
        self._closed = True
        for handle in self._all:
            handle.kill()
        self._all.clear()
        self._idle.clear()
        for future in self._waiting:
            future.cancel()


def _give_up(reply: asyncio.Future[Looked | Unusable]) -> None:
    if not reply.done():
        reply.set_exception(TimeoutError())
