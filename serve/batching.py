"""Work that costs less together: what is asked while one batch is being worked on makes the next.

`ray.serve.batch` with no wait closes a batch as soon as it has one item, before the last batch is done: then a crowd is
answered one by one. Here nobody waits for company either, and those who wait anyway go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def _closed(_: list[Any]) -> Sequence[Any]:
    raise RuntimeError("This batcher was closed.")


class Batcher(Generic[Item, Answer]):
    """Called with one item, answers with what `work` made of it. All calls come from one event loop."""

    def __init__(self, work: Callable[[list[Item]], Sequence[Answer]], max_size: int, name: str) -> None:
        """Args: work: items -> as many answers, in their order; it runs in a thread of its own, called `name`.
        max_size: most items at once."""
        self._work, self._max_size = work, max_size
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        """Raises: whatever `work` raised on the batch that this item was in."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    def close(self) -> None:
        """No more items come; those at work are finished."""
        self._pool.shutdown(wait=False)

    def forget(self) -> None:
        """Let go of `work`, and of all that it holds."""
        self._work = _closed

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._max_size], self._waiting[self._max_size :]
                await self._answer([(item, future) for item, future in batch if not future.done()])
        finally:
            self._running = None

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return  # all of them have left
        items = [item for item, _ in batch]
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._work, items)
        (made,) = await asyncio.gather(work, return_exceptions=True)
        for place, (_, future) in enumerate(batch):
            if future.done():
                continue  # left while we worked
            if isinstance(made, BaseException):
                future.set_exception(made)
            else:
                future.set_result(made[place])
