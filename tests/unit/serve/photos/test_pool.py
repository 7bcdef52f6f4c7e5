"""The pool of processes: real ones, really killed and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from retrieval.images.settings import PrepareConfig
from serve.photos.limits import Caps
from serve.photos.messages import Look, Looked, Unusable
from serve.photos.pool import PhotoPool
from tests.support.hostile import mutated, scan_bomb, written

WHOLE = Look(config=PrepareConfig(crop="none", size=32))


@asynccontextmanager
async def pool_of(
    size: int, *, seconds: float = 20.0, caps: Caps | None = None
) -> AsyncIterator[tuple[PhotoPool, list[str]]]:
    lost: list[str] = []
    pool = PhotoPool(size, caps or Caps(), seconds=seconds, lost=lost.append)
    await pool.start([WHOLE])
    try:
        yield pool, lost
    finally:
        pool.close()
        await asyncio.sleep(0.05)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not done():
            await asyncio.sleep(0.01)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_photos_are_seen_each_by_one_process() -> None:
    async def work() -> None:
        async with pool_of(2) as (pool, lost):
            photos = [written("PNG", side=64 + number) for number in range(12)]
            seen = await asyncio.gather(*(pool.look(photo, WHOLE) for photo in photos))
            assert [one.width for one in seen if isinstance(one, Looked)] == list(range(64, 76))
            assert (pool.num_alive, pool.num_waiting, lost) == (2, 0, [])

    run(work)


def test_a_photo_that_ended_two_processes_is_remembered() -> None:
    """One may have been ended by somebody else."""

    async def work() -> None:
        async with pool_of(2) as (pool, lost):
            pid = pool.pids[0]
            for each in pool.pids:
                os.kill(each, signal.SIGKILL)
            photo = written("PNG")
            seen = await pool.look(photo, WHOLE)
            assert isinstance(seen, Unusable) and seen.reason == "crashed"
            again = await pool.look(photo, WHOLE)
            assert isinstance(again, Unusable) and again.reason == "crashed" and "before" in again.detail
            assert isinstance(await pool.look(written("PNG", side=65), WHOLE), Looked)
            assert pid not in pool.pids and lost == ["crashed"] * 2
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)  # buried, no zombie

    run(work)


def test_a_photo_whose_process_somebody_else_ended_is_looked_at_again() -> None:
    async def work() -> None:
        async with pool_of(1) as (pool, lost):
            for turn in range(1, 4):
                os.kill(pool.pids[0], signal.SIGKILL)
                assert isinstance(await pool.look(written("PNG"), WHOLE), Looked)
                assert lost == ["crashed"] * turn

    run(work)


def test_a_photo_that_was_late_without_working_is_blamed_only_the_second_time() -> None:
    """A machine that is busy, or stopped, makes any photo late."""

    async def work() -> None:
        async with pool_of(1, seconds=2.0) as (pool, lost):
            photo = written("PNG")
            for _ in range(2):
                await until(lambda: len(pool.pids) == 1)
                os.kill(pool.pids[0], signal.SIGSTOP)
                seen = await pool.look(photo, WHOLE)
                assert isinstance(seen, Unusable) and seen.reason == "timed-out" and "before" not in seen.detail
            again = await pool.look(photo, WHOLE)
            assert isinstance(again, Unusable) and again.reason == "timed-out" and "before" in again.detail
            assert lost == ["timed-out"] * 2

    run(work)


def test_others_are_answered_while_one_hangs() -> None:
    async def work() -> None:
        async with pool_of(2, seconds=5.0) as (pool, _):
            os.kill(pool._idle[0].pid, signal.SIGSTOP)
            stuck = asyncio.create_task(pool.look(b"stuck", WHOLE))
            await asyncio.sleep(0)
            for side in range(64, 74):
                assert isinstance(await pool.look(written("PNG", side=side), WHOLE), Looked)
            assert not stuck.done()
            seen = await stuck
            assert isinstance(seen, Unusable) and seen.reason == "timed-out"
            await until(lambda: pool.num_alive == 2)

    run(work)


def test_a_scan_bomb_that_no_cap_stops_is_stopped_by_the_deadline() -> None:
    async def work() -> None:
        async with pool_of(1, seconds=1.0, caps=Caps(scans=10_000, pixels=1 << 40)) as (pool, _):
            bomb = scan_bomb(4000, side=1500)
            started = time.monotonic()
            seen = await pool.look(bomb, Look(config=PrepareConfig(crop="none", size=32, max_pixels=10_000_000)))
            assert isinstance(seen, Unusable) and seen.reason == "timed-out"
            assert time.monotonic() - started < 30
            assert pool._killers

    run(work)


def test_callers_who_leave_take_nothing_with_them() -> None:
    async def work() -> None:
        async with pool_of(1) as (pool, lost):
            asked = [asyncio.create_task(pool.look(written("PNG", side=400), WHOLE)) for _ in range(5)]
            await asyncio.sleep(0)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(await pool.look(written("PNG"), WHOLE), Looked)
            assert (pool.num_waiting, pool.num_alive, lost) == (0, 1, [])

    run(work)


def test_a_way_of_looking_is_learnt_by_processes_that_come_later() -> None:
    async def work() -> None:
        async with pool_of(1) as (pool, _):
            other = Look(config=PrepareConfig(crop="none", size=48))
            pool.learn(other)
            os.kill(pool.pids[0], signal.SIGKILL)
            await pool.look(b"x", WHOLE)
            await until(lambda: pool.num_alive == 1)
            assert other.kind in pool._idle[0]._kinds

    run(work)


def test_idle_processes_learn_before_a_photo_comes_and_one_that_dies_of_it_is_replaced() -> None:
    other = Look(config=PrepareConfig(crop="none", size=48))
    broken = Look(config=PrepareConfig(crop="face", detector="yunet"), network=b"no network")

    async def work() -> None:
        async with pool_of(2) as (pool, lost):
            await pool.teach(other)
            assert all(other.kind in handle._kinds for handle in pool._idle) and len(pool._idle) == 2
            pool._known.clear()
            await pool.teach(other)
            assert [len(handle._kinds) for handle in pool._idle] == [2, 2], "what it knows is not told again"
            pool._known.clear()
            await pool.teach(broken)
            pool._known.clear()  # or those that are started die of it too
            assert lost == ["crashed", "crashed"]
            await until(lambda: pool.num_alive == 2)
            assert isinstance(await pool.look(written("PNG"), WHOLE), Looked)

    run(work)


def test_it_says_whether_it_works() -> None:
    async def work() -> None:
        async with pool_of(1) as (pool, _):
            await pool.check()
            pool.close()
            with pytest.raises(RuntimeError, match="No process"):
                await pool.check()
            with pytest.raises(RuntimeError, match="closed"):
                await pool.look(b"x", WHOLE)

    run(work)


def test_hostile_photos_end_no_process_and_the_next_good_one_is_seen() -> None:
    async def work() -> None:
        everything = Caps(formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"))
        async with pool_of(1, caps=everything) as (pool, lost):
            for photo in mutated(300):
                seen = await pool.look(photo, WHOLE)
                assert isinstance(seen, Looked | Unusable)
            assert isinstance(await pool.look(written("JPEG"), WHOLE), Looked)
            assert lost == []

    run(work)


def test_memory_of_large_and_hostile_photos_comes_back() -> None:
    def held(pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) >> 10

    async def work() -> None:
        async with pool_of(1, seconds=60.0) as (pool, _):
            for photo in mutated(100):
                await pool.look(photo, WHOLE)
            (pid,) = pool.pids
            before = held(pid)
            for _ in range(3):
                assert isinstance(await pool.look(written("JPEG", side=3000), WHOLE), Looked)
                assert isinstance(await pool.look(written("PNG", side=2000), WHOLE), Looked)
            for photo in mutated(100, seed=5):
                await pool.look(photo, WHOLE)
            assert pool.pids == [pid] and held(pid) < before + 80, "megabytes"

    run(work)
