"""Those who wait for one batch make the next."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest

from serve.batching import Batcher
from tests.support.waiting import MOST_S, eventually


class Squares:
    """Squares numbers, once it may go on; keeps what it was given, and where it ran."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.threads.add(threading.current_thread().name)
        assert self.go.wait(MOST_S)
        if 13 in numbers:
            raise ValueError("unlucky")
        return [number * number for number in numbers]


async def begun(work: Squares, call: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
    """Asked, and being worked on until `go`."""
    work.go.clear()
    task = asyncio.create_task(call)
    await eventually(lambda: work.batches)
    return task


async def together(calls: list[Awaitable[int]]) -> list[int | BaseException]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_what_comes_during_one_batch_makes_the_next_in_order() -> None:
    work = Squares()
    batcher = Batcher(work, 4, "square")

    async def ask() -> list[int | BaseException]:
        first = await begun(work, batcher(1))
        rest = [asyncio.create_task(batcher(number)) for number in range(2, 9)]
        await asyncio.sleep(0.01)  # they have asked
        work.go.set()
        return await together([first, *rest])

    assert asyncio.run(ask()) == [number * number for number in range(1, 9)]
    assert work.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]
    assert len(work.threads) == 1 and work.threads.pop().startswith("square")


def test_nobody_waits_for_company() -> None:
    work = Squares()
    batcher = Batcher(work, 4, "square")

    async def ask() -> list[int]:
        return [await batcher(3), await batcher(4)]

    started = time.monotonic()
    assert asyncio.run(ask()) == [9, 16]
    assert work.batches == [[3], [4]]
    assert time.monotonic() - started < 1
    assert asyncio.run(ask()) == [9, 16]  # and again, in another loop


def test_a_batch_that_fails_fails_those_in_it_and_no_others() -> None:
    work = Squares()
    batcher = Batcher(work, 2, "square")
    answers = asyncio.run(together([batcher(number) for number in (1, 2, 13, 4, 5)]))
    assert answers[:2] == [1, 4] and answers[4] == 25
    for failed in answers[2:4]:
        assert isinstance(failed, ValueError) and str(failed) == "unlucky"


@pytest.mark.parametrize("leave", [(2,), (2, 3), (1,)])
def test_who_leaves_is_not_worked_for_and_keeps_nobody(leave: tuple[int, ...]) -> None:
    work = Squares()
    batcher = Batcher(work, 2, "square")

    async def ask() -> dict[int, int | BaseException]:
        tasks = {1: await begun(work, batcher(1))}
        tasks |= {number: asyncio.create_task(batcher(number)) for number in (2, 3, 4, 5)}
        await asyncio.sleep(0.01)
        for number in leave:
            tasks[number].cancel()
        work.go.set()
        answers = await together(list(tasks.values()))
        return dict(zip(tasks, answers, strict=True))

    answers = asyncio.run(ask())
    for number, answer in answers.items():
        assert isinstance(answer, asyncio.CancelledError) if number in leave else answer == number * number
    assert not any(number in batch for batch in work.batches[1:] for number in leave)


def test_who_waits_when_it_is_closed_is_answered_and_who_comes_later_refused() -> None:
    work = Squares()
    batcher = Batcher(work, 2, "square")

    async def ask() -> list[int | BaseException]:
        waiting = [asyncio.create_task(batcher(number)) for number in range(5)]
        await asyncio.sleep(0.01)
        batcher.close()
        late = asyncio.create_task(batcher(7))
        return await together([*waiting, late])

    *answers, late = asyncio.run(ask())
    assert answers == [0, 1, 4, 9, 16]
    assert isinstance(late, RuntimeError) and "closed" in str(late)
    assert batcher._thread is not None
    batcher._thread.join(30)
    assert not batcher._thread.is_alive()


def test_who_leaves_while_his_batch_is_worked_on_stops_nobody_else_in_it() -> None:
    work = Squares()
    batcher = Batcher(work, 2, "square")

    async def ask() -> int:
        stays = asyncio.create_task(batcher(3))  # comes first, and in the same turn
        leaves = await begun(work, batcher(2))
        leaves.cancel()
        await asyncio.sleep(0)
        work.go.set()
        return await asyncio.wait_for(stays, 30)

    assert asyncio.run(ask()) == 9 and work.batches == [[3, 2]]
    batcher.close()
