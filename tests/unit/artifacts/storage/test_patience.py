"""The same again after a while, and then an end in one sentence. Nothing here waits: time is this file's own."""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable

import pytest

from retrieval.artifacts.storage import patience as module
from retrieval.artifacts.storage.failures import Outage
from retrieval.artifacts.storage.patience import VARIABLE, default_patience, patience, patiently


class Time:
    """In the place of the module `time`: sleeping takes no time, and is remembered."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(module, "time", clock)
    return clock


def failing(times: int, error: Exception) -> Callable[[], int]:
    """Fails as often as told, then returns how often it was called."""
    calls = []

    def work() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return work


DOWN = OSError(errno.EIO, "Input/output error")


def test_what_comes_back_is_waited_for_with_growing_waits(clock: Time) -> None:
    with patience(300):
        assert patiently(failing(6, DOWN), "reading a") == 7
    assert len(clock.slept) == 6
    assert all(0.1 * 2**n <= slept <= 0.2 * 2**n for n, slept in enumerate(clock.slept))


def test_waits_are_drawn_and_have_a_longest(clock: Time) -> None:
    random.seed(1)
    with patience(10_000):
        assert patiently(failing(40, DOWN), "reading a") == 41
    late = clock.slept[10:]
    assert all(10 <= slept <= 20 for slept in late) and len(set(late)) == len(late)


def test_patience_ends_within_its_time_and_says_so(clock: Time) -> None:
    with patience(60), pytest.raises(Outage, match="reading a failed for [0-9]+ s, at last with: .*Input/output"):
        patiently(failing(10**6, DOWN), "reading a")
    assert 30 <= clock.now - 100 <= 60


@pytest.mark.parametrize(
    ("error", "most"),
    [
        (OSError("AWS Error ACCESS_DENIED during GetObject operation"), 10),
        (MemoryError(), 60),
        (OSError(errno.ENOSPC, "No space left on device"), 0),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation"), 0),
    ],
)
def test_what_waiting_seldom_mends_is_waited_for_a_little_or_not(error: Exception, most: float, clock: Time) -> None:
    with patience(300), pytest.raises(Outage):
        patiently(failing(10**6, error), "writing b")
    assert most / 2 <= clock.now - 100 <= most


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(2, "no such file"), Outage("given up before")])
def test_what_is_no_failure_of_the_machines_comes_at_once(error: Exception, clock: Time) -> None:
    with patience(300), pytest.raises(type(error)) as caught:
        patiently(failing(1, error), "reading a")
    assert caught.value is error and clock.slept == []


def test_without_patience_errors_come_as_they_are(clock: Time) -> None:
    with pytest.raises(OSError) as caught:
        patiently(failing(1, DOWN), "reading a")
    assert caught.value is DOWN and clock.slept == []
    with patience(300):
        with patience(0), pytest.raises(OSError, match="Input"):
            patiently(failing(1, DOWN), "reading a")
        assert patiently(failing(1, DOWN), "reading a") == 2, "what held before holds again"


def test_a_short_failure_is_not_told_of_and_a_longer_one_is(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    with patience(300), caplog.at_level(logging.WARNING):
        patiently(failing(2, DOWN), "reading a")
        assert caplog.messages == []
        patiently(failing(4, DOWN), "reading b")
    assert [line.partition(" (")[0] for line in caplog.messages] == ["reading b failed"] * 2
    assert "try 4 follows in" in caplog.messages[0]


def test_patience_is_five_minutes_or_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    assert default_patience() == 300
    monkeypatch.setenv(VARIABLE, "1.5")
    assert default_patience() == 1.5
    for wrong in ("soon", "-1", "inf", "nan", ""):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(ValueError, match="expected seconds, 0 or more"):
            default_patience()
