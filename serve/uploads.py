"""Bodies on their way in. They wait in a place of their own, so that slow senders take no place from a query.

A body is counted, has a deadline, and after a time of grace must keep up a least rate; what all of them hold in memory
together is bounded. Nothing is written to disk: forms are taken apart in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request

from serve.edge import Refusal, busy
from serve.settings import ServeArgs


@dataclass(eq=False, slots=True)
class _Sender:
    """One body: when it began, how much of it is here."""

    began: float = field(default_factory=time.monotonic)
    got: int = 0


class Uploads:
    """Reads bodies, no more at once than there are places. Used from one event loop."""

    def __init__(self, args: ServeArgs) -> None:
        self._args = args
        self._senders: set[_Sender] = set()
        self._held = 0

    @property
    def num(self) -> int:
        """Bodies being received now."""
        return len(self._senders)

    @property
    def held(self) -> int:
        """Bytes of them that are here."""
        return self._held

    async def read(self, request: Request, limit: int, what: str = "photo") -> bytes:
        """The request's body, never more than `limit` bytes of it.

        Args: what: is called so in a refusal.

        Raises: Refusal body-too-large from the declared length alone where there is one, else as soon as the limit is
            passed; busy without a place or memory; too-slow.
        """
        too_large = Refusal("body-too-large", f"The {what} is larger than {limit} bytes, the limit of this server.")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        if len(self._senders) >= self._args.max_uploads:
            raise busy(self._args.retry_after_s)
        sender, pieces = _Sender(), []
        self._senders.add(sender)
        try:
            async for piece in self._pieces(request, sender):
                if sender.got > limit:
                    raise too_large
                pieces.append(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        finally:
            self._senders.discard(sender)
            self._held -= sender.got

    async def _pieces(self, request: Request, sender: _Sender) -> AsyncIterator[bytes]:
        """Counted as they come. Raises: Refusal too-slow or busy."""
        stream = request.stream().__aiter__()
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._patience(sender)):
                    piece = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise _too_slow(sender, self._args) from error
            sender.got += len(piece)
            self._held += len(piece)
            if self._held > self._args.max_upload_bytes:
                raise busy(self._args.retry_after_s)
            if self._patience(sender) <= 0:
                raise _too_slow(sender, self._args)
            yield piece

    def _patience(self, sender: _Sender) -> float:
        """Seconds from now in which something must come: till the deadline, or till the least rate is not kept."""
        args, past = self._args, time.monotonic() - sender.began
        left = args.upload_timeout_s - past
        if args.min_upload_rate:
            left = min(left, args.upload_grace_s + sender.got / args.min_upload_rate - past)
        return left


def _too_slow(sender: _Sender, args: ServeArgs) -> Refusal:
    took = time.monotonic() - sender.began
    return Refusal(
        "too-slow",
        f"{sender.got} bytes came in {took:.1f} s. A body must be here within {args.upload_timeout_s:g} s, and come at "
        f"{args.min_upload_rate} bytes a second or more after the first {args.upload_grace_s:g} s.",
    )
