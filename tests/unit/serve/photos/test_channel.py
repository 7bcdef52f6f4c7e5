"""Questions and answers on a socket, whatever the other end does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from serve.photos.channel import Channel
from serve.photos.framing import HEADER, Broken, pack, receive, send

DEEP = (1 << 16).to_bytes(4, "big") + bytes(8) + b"[" * (1 << 16)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel, and the other end, which blocks."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    channel = await Channel.over(ours)
    theirs.settimeout(30)
    try:
        yield channel, theirs
    finally:
        channel.close()
        theirs.close()


def whole(head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    return head, body


def run(work: Callable[[], Awaitable[None]]) -> None:
    """On both event loops: Ray's replicas have uvloop's."""
    for made in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=made) as runner:
            runner.run(work())  # type: ignore[arg-type]


def test_answers_come_in_the_order_of_their_questions_however_they_are_cut() -> None:
    async def work() -> None:
        async with pair() as (channel, theirs):
            big = bytes(range(256)) * 12_000
            first, second = channel.ask({"n": 1}, [big], whole), channel.ask({"n": 2}, [], whole)
            assert await asyncio.to_thread(receive, theirs) == ({"n": 1}, big)
            assert await asyncio.to_thread(receive, theirs) == ({"n": 2}, b"")
            answers = b"".join([*pack({"a": 1}, [b"x" * 1000]), *pack({"a": 2}, [big])])
            for start in (0, HEADER - 1, HEADER + 3, HEADER + 400):
                end = {0: HEADER - 1, HEADER - 1: HEADER + 3, HEADER + 3: HEADER + 400}.get(start, len(answers))
                await asyncio.to_thread(theirs.sendall, answers[start:end])
                await asyncio.sleep(0.01)
            assert await first == ({"a": 1}, b"x" * 1000)
            assert await second == ({"a": 2}, big)

    run(work)


def test_an_answer_that_nobody_waits_for_any_more_is_read_and_forgotten() -> None:
    async def work() -> None:
        async with pair() as (channel, theirs):
            left, stays = channel.ask({}, [], whole), channel.ask({}, [], whole)
            left.cancel()
            send(theirs, {"n": 1})
            send(theirs, {"n": 2})
            assert await stays == ({"n": 2}, b"")

    run(work)


def test_who_waits_is_told_when_the_other_end_goes_and_so_is_who_asks_later() -> None:
    async def work() -> None:
        async with pair() as (channel, theirs):
            answers = [channel.ask({}, [], whole) for _ in range(2)]
            theirs.close()
            for answer in [*answers, channel.ask({}, [], whole)]:
                with pytest.raises(Broken):
                    await asyncio.wait_for(answer, 30)

    run(work)


def test_what_nobody_asked_for_breaks_it_and_is_no_answer_to_the_next_question() -> None:
    async def work() -> None:
        async with pair() as (channel, theirs):
            send(theirs, {"n": "made up"})
            await asyncio.sleep(0.05)
            with pytest.raises(Broken, match="nobody asked"):
                await asyncio.wait_for(channel.ask({}, [], whole), 30)

    run(work)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"\xff" * HEADER, "a message of"),
        (b"".join(pack({}, []))[:-2] + b"[]", "no object"),
        (b"".join(pack({"other": 1}, [])), "none"),
        (DEEP, "no JSON"),
    ],
)
def test_what_makes_no_sense_breaks_it(sent: bytes, says: str) -> None:
    async def work() -> None:
        async with pair() as (channel, theirs):
            answer = channel.ask({}, [], lambda head, _: head["wanted"])
            theirs.sendall(sent)
            with pytest.raises(Broken, match=says):
                await asyncio.wait_for(answer, 30)
            with pytest.raises(Broken, match=says):
                await asyncio.wait_for(channel.ask({}, [], whole), 30)

    run(work)
