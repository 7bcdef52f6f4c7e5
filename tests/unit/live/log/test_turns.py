"""Nobody who writes all the time keeps others out, and nobody who is alone waits for anybody."""

from __future__ import annotations

import pytest

from retrieval.live.log import turns
from retrieval.live.log.turns import Turns


class Clock:
    """Seconds that pass when somebody sleeps, or `now` is set."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now, self.slept = self.now + seconds, self.slept + seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(turns, "time", made)
    return made


def write(turn: Turns, clock: Clock, num: int, took: float, between: float = 0.0) -> float:
    """Seconds waited for turns in `num` writes."""
    before = clock.slept
    for _ in range(num):
        turn.wait()
        clock.now += took
        turn.won(took)
        clock.now += between
    return clock.slept - before


def test_who_knows_of_nobody_pauses_now_and_then_if_it_goes_on_without_end(clock: Clock) -> None:
    assert write(Turns(), clock, 9, took=0.05) == 0.0
    waited = write(Turns(), clock, 1000, took=0.01)
    assert 0.1 < waited / (1000 * 0.01) < 0.25, "a part of the time that it writes"
    assert write(Turns(), clock, 1000, took=0.01, between=0.2) == 0.0, "it leaves gaps by itself"


def test_others_that_were_heard_of_get_time_to_read_and_write_after_each(clock: Clock) -> None:
    turn = Turns()
    turn.heard()
    assert write(turn, clock, 11, took=0.05) == pytest.approx(10 * 0.1)
    turn.lost(0.3)
    assert write(turn, clock, 11, took=0.05) == pytest.approx(0.1 + 10 * 0.6)
    clock.now += 60
    assert write(turn, clock, 5, took=0.05) == 0.0, "they have gone"
