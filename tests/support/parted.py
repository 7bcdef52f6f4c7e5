"""Parts of an index in this process, behind what stands for handles of Ray Serve; each can be lost and come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal

from serve.parts.part import Part
from serve.settings import ServeArgs

Away = Literal["dies", "hangs", "raises"]


class PartsHere:
    """As many parts as the settings say, in an event loop of their own."""

    def __init__(self, args: ServeArgs) -> None:
        self.args = args
        self.parts = [Part(args, number) for number in range(args.index_parts)]
        self.away: dict[int, Away] = {}
        self.asked: list[tuple[int, str]] = []
        self.handles = [_Handle(self, number) for number in range(args.index_parts)]
        self.lock = threading.Lock()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def lose(self, number: int, how: Away = "dies") -> None:
        """dies: a question ends in an error, as of an actor that is gone. hangs: no question is answered. raises: it
        cannot even be asked."""
        self.away[number] = how

    def start(self, number: int) -> None:
        """A new process in the place of the old one, which knows nothing."""
        self.parts[number] = Part(self.args, number)
        self.away.pop(number, None)

    def close(self) -> None:
        with self.lock:
            self.away |= dict.fromkeys(range(len(self.parts)), "dies")
        asyncio.run_coroutine_threadsafe(_rest(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _rest() -> None:
    """What was asked is answered."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


class _Handle:
    def __init__(self, parts: PartsHere, number: int, method: str = "") -> None:
        self._parts, self._number, self._method = parts, number, method

    def options(self, *, method_name: str) -> _Handle:
        return _Handle(self._parts, self._number, method_name)

    def remote(self, *args: Any) -> _Asked:
        parts, number = self._parts, self._number
        parts.asked.append((number, self._method))
        with parts.lock:
            match parts.away.get(number):
                case "dies":
                    answer: Future[Any] = Future()
                    answer.set_exception(RuntimeError("the actor died"))
                case "raises":
                    raise RuntimeError("the handle is no good")
                case "hangs":
                    answer = Future()
                case _:
                    work = getattr(parts.parts[number], self._method)(*args)
                    answer = asyncio.run_coroutine_threadsafe(work, parts.loop)
        return _Asked(answer)


class _Asked:
    def __init__(self, answer: Future[Any]) -> None:
        self._answer = answer

    def result(self, *, timeout_s: float) -> Any:
        return self._answer.result(timeout_s)

    def cancel(self) -> None:
        self._answer.cancel()


@contextmanager
def parts_here(args: ServeArgs) -> Iterator[PartsHere]:
    """The parts of an index, until the end of the context."""
    parts = PartsHere(args)
    try:
        yield parts
    finally:
        parts.close()
