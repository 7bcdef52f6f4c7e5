"""The service's end of the socket to a process that looks at photos: questions out, answers back in their order.

Nothing is awaited on the way. A photo costs the event loop one write and one wake-up, since what a loop does after the
network has filled the processor's caches costs it three times as much as in a benchmark of its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from serve.photos.framing import HEADER, Broken, lengths, pack, parse

Made = TypeVar("Made")
Read = Callable[[dict[str, Any], bytes], Made]
"""Head and body of an answer -> what they mean. May raise ValueError, TypeError or KeyError for what is no answer."""


class Channel(asyncio.Protocol):
    """Used from one event loop. What comes unasked, or makes no sense, breaks it: the other end may have been taken
    over by a photo."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[Any], Read[Any]]] = deque()
        self._data = bytearray()
        self._lengths: tuple[int, int] | None = None
        self._broken: Broken | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def over(cls, connection: socket.socket) -> Channel:
        """Of one end of a pair of sockets, which is closed with it."""
        _, channel = await asyncio.get_running_loop().create_unix_connection(cls, sock=connection)
        return channel

    def ask(
        self, head: Mapping[str, Any], bodies: Iterable[bytes], read: Callable[[dict[str, Any], bytes], Made]
    ) -> asyncio.Future[Made]:
        """The answer to come. It may be cancelled; then it is read and forgotten.

        Raises, when awaited: Broken if the other end is gone, or answers what is no answer.
        """
        answer = self.expect(read)
        if self._broken is None and self._transport is not None:
            self._transport.writelines(pack(head, bodies))
        return answer

    def expect(self, read: Callable[[dict[str, Any], bytes], Made]) -> asyncio.Future[Made]:
        """The same for what comes without a question."""
        answer: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        if self._broken is not None:
            self._fail(answer, self._broken)
        else:
            self._waiting.append((answer, read))
        return answer

    def close(self) -> None:
        """At once; who still waits is told that it is broken."""
        self._break(Broken("it was closed"))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are so without saying so

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            while (message := self._message()) is not None:
                self._answer(*message)
        except Broken as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(Broken(str(exc) if exc else "the process has ended"))

    def _message(self) -> tuple[bytes, bytes] | None:
        """(head, body) of the next one; None until it is whole. Raises: Broken for what nobody asked for."""
        if self._data and not self._waiting:
            raise Broken("an answer that nobody asked for")
        if self._lengths is None:
            if len(self._data) < HEADER:
                return None
            self._lengths = lengths(self._data[:HEADER])
        head, body = self._lengths
        if len(self._data) < (end := HEADER + head + body):
            return None
        self._lengths = None
        with memoryview(self._data) as whole:
            message = bytes(whole[HEADER : HEADER + head]), bytes(whole[HEADER + head : end])
        del self._data[:end]
        return message

    def _answer(self, head: bytes, body: bytes) -> None:
        answer, read = self._waiting.popleft()
        try:
            made = read(parse(head), body)
        except Broken as error:
            self._fail(answer, error)
            raise
        except (ValueError, TypeError, KeyError) as error:
            broken = Broken(f"an answer that is none ({error!r})")
            self._fail(answer, broken)
            raise broken from error
        if not answer.done():
            answer.set_result(made)

    def _break(self, error: Broken) -> None:
        if self._broken is not None:
            return
        self._broken = error
        self._data.clear()
        while self._waiting:
            self._fail(self._waiting.popleft()[0], error)
        if self._transport is not None:
            self._transport.abort()

    @staticmethod
    def _fail(answer: asyncio.Future[Any], error: Broken) -> None:
        if not answer.done():
            answer.set_exception(error)
            answer.exception()  # nobody need ask: who waits is told all the same
