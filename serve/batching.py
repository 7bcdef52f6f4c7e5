"""Work that costs less together: what is asked while one batch is being worked on makes the next.

`ray.serve.batch` with no wait closes a batch as soon as it has one item, before the last batch is done: then a crowd is
answered one by one. Here nobody waits for company either, and those who wait anyway go together.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_Asked = tuple[Item, "asyncio.Future[Answer]"]


def _closed(_: list[Any]) -> Sequence[Any]:
    raise RuntimeError("This batcher was closed.")


class Batcher(Generic[Item, Answer]):
    """Called with one item, answers with what `work` made of it. All calls at one time come from one event loop."""

    def __init__(self, work: Callable[[list[Item]], Sequence[Answer]], max_size: int, name: str) -> None:
        """Args: work: items -> as many answers, in their order; it runs in a thread of its own, called `name`.
        max_size: most items at once."""
        self._work, self._max_size, self._name = work, max_size, name
        self._fresh: list[_Asked[Item, Answer]] = []
        self._waiting: SimpleQueue[list[_Asked[Item, Answer]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = False

    async def __call__(self, item: Item) -> Answer:
        """Raises: whatever `work` raised on the batch that this item was in; RuntimeError once it is closed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._fresh.append((item, future))
        if len(self._fresh) == 1:
            loop.call_soon(self._hand_over)  # with those who ask in the same turn of the loop
        return await future

    def close(self) -> None:
        """No more items come; those that wait are finished."""
        with self._lock:
            self._ended = True
            self._waiting.put(None)

    def forget(self) -> None:
        """Let go of `work`, and of all that it holds."""
        self._work = _closed

    def _hand_over(self) -> None:
        fresh, self._fresh = self._fresh, []
        with self._lock:
            if self._ended:
                _tell([future for _, future in fresh], RuntimeError("This batcher was closed."))
                return
            self._waiting.put(fresh)
            if self._thread is None:  # only now: who never asks has no thread to end
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        waiting: list[_Asked[Item, Answer]] = []
        while True:
            if not waiting:
                if (found := self._waiting.get()) is None:
                    return
                waiting = found
            with contextlib.suppress(Empty):
                while (more := self._waiting.get_nowait()) is not None:
                    waiting += more
                self._waiting.put(None)  # the end, once all of these are answered
            batch, waiting = waiting[: self._max_size], waiting[self._max_size :]
            if batch := [(item, future) for item, future in batch if not future.done()]:
                self._answer(batch)

    def _answer(self, batch: list[_Asked[Item, Answer]]) -> None:
        made: Sequence[Answer] | BaseException
        try:
            made = self._work([item for item, _ in batch])
        except BaseException as error:  # noqa: BLE001 - whoever asked is told
            made = error
        with contextlib.suppress(RuntimeError):  # the event loop was closed, and nobody waits
            batch[0][1].get_loop().call_soon_threadsafe(_tell, [future for _, future in batch], made)


def _tell(futures: list[asyncio.Future[Answer]], made: Sequence[Answer] | BaseException) -> None:
    for place, future in enumerate(futures):
        if future.done():
            continue  # left while we worked
        if isinstance(made, BaseException):
            future.set_exception(made)
        else:
            future.set_result(made[place])
