"""The screen: rates and times left, lines that come now and then, and a bar on a (pseudo) terminal."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from ray_jobs.runtime.news.screen import Count, Pace, Screen, ScreenHandler, duration, each
from tests.support.screened import Clock, on_the_log


def test_rate_and_time_left_are_of_what_was_seen() -> None:
    pace = Pace(100.0)
    assert (pace.rate, pace.left(960)) == (None, None)
    pace.see(60, 104.0)
    assert pace.rate == 15.0
    assert pace.left(960) == 60.0
    pace.see(960, 124.0)
    assert pace.left(960) == 0.0


def test_the_start_of_the_workers_is_forgotten_soon_after_the_first_items() -> None:
    pace = Pace(0.0)
    for second, done in ((20, 10), (21, 20), (22, 30)):
        pace.see(done, float(second))
    assert pace.rate == 30 / 22  # too few to tell
    pace.see(40, 23.0)
    assert pace.rate == 10.0
    assert pace.left(140) == 10.0


def test_a_slow_minute_is_forgotten_after_half_a_minute() -> None:
    pace = Pace(0.0)
    for second in range(1, 61):
        pace.see(second if second <= 20 else 20 + 10 * (second - 20), float(second))
    assert pace.rate == 10.0  # 420 in 60 s would be 7
    assert pace.left(520) == 10.0


def test_work_that_stands_still_is_said_to_take_longer_and_longer() -> None:
    pace = Pace(0.0)
    pace.see(100, 10.0)
    pace.see(100, 20.0)
    assert (pace.rate, pace.left(200)) == (5.0, 20.0)
    pace.see(100, 100.0)
    assert (pace.rate, pace.left(200)) == (1.0, 100.0)


def test_epochs_of_a_minute_have_a_pace_too() -> None:
    pace = Pace(0.0)
    for second in range(1, 601):
        pace.see(second // 60, float(second))
    assert pace.rate == 3 / 180  # the last four times it grew
    assert pace.left(12) == 120.0


def test_the_same_work_begun_anew_has_a_time_of_its_own() -> None:
    pace = Pace(0.0)
    pace.see(50, 10.0)
    pace.see(0, 20.0)
    pace.see(8, 21.0)
    assert pace.rate == 8.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_are_as_precise_as_one_wants_to_know(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_rate_below_one_is_the_time_that_one_takes() -> None:
    assert [each(rate) for rate in (14032.4, 58.2, 2.54, 1.0, 0.2, 0.01)] == [
        "14,032/s",
        "58/s",
        "2.5/s",
        "1.0/s",
        "5.0 s each",
        "1 min 40 s each",
    ]


# --- without a terminal ---


@pytest.fixture
def logged() -> Iterator[tuple[Screen, Clock, io.StringIO]]:
    """A screen that is no terminal, the time on its clock, and what it wrote."""
    stream, clock = io.StringIO(), Clock()
    screen = Screen(stream, clock)
    with on_the_log(screen):
        yield screen, clock, stream


def words(stream: io.StringIO) -> list[str]:
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


def test_without_a_terminal_a_line_comes_every_five_seconds_and_one_at_the_end(
    logged: tuple[Screen, Clock, io.StringIO],
) -> None:
    screen, clock, stream = logged
    screen.begin("ingest")
    for quarter in range(1, 49):  # 12 s at 10 a second, looked at four times a second
        clock.now = 100 + quarter / 4
        screen.show(Count("ingest", 10 * quarter // 4, 960))
    assert words(stream) == [
        "ingest: 50 of 960, 10/s, 1 min 30 s left",
        "ingest: 100 of 960, 10/s, 1 min 26 s left",
    ]
    screen.end(Count("ingest", 960, 960))
    assert words(stream)[-1] == "ingest: 960 in 12 s, 80/s"
    assert "\r" not in stream.getvalue() and "\033" not in stream.getvalue()


def test_quick_work_is_one_line_and_the_next_step_starts_its_own_time(
    logged: tuple[Screen, Clock, io.StringIO],
) -> None:
    screen, clock, stream = logged
    screen.begin("words")
    clock.now += 4.9
    screen.show(Count("words", 10, 138))
    screen.end(Count("words", 138, 138))
    screen.begin("candidates")
    clock.now += 4.9
    screen.show(Count("candidates", 10, 20))
    screen.end(Count("candidates", 15, 20))
    assert words(stream) == ["words: 138 in 4.9 s, 28/s", "candidates: 15 of 20 in 4.9 s, 3.1/s"]


def test_work_that_does_not_get_on_says_so_more_and_more_seldom(
    logged: tuple[Screen, Clock, io.StringIO],
) -> None:
    screen, clock, stream = logged
    screen.begin("draw")
    for second in range(1, 101):
        clock.now = 100.0 + second
        screen.show(Count("draw", 0, 960))
    assert words(stream) == [
        f"draw: 0 of 960, {text} so far" for text in ("5.0 s", "10 s", "20 s", "40 s", "1 min 20 s")
    ]
    clock.now += 5
    screen.show(Count("draw", 1, 960))
    assert len(words(stream)) == 6  # as soon as it does
    assert words(stream)[-1] == "draw: 1 of 960, 1 min 45 s so far"  # one photo in all that time is no pace


def test_work_of_hours_says_a_line_a_minute(logged: tuple[Screen, Clock, io.StringIO]) -> None:
    screen, clock, stream = logged
    screen.begin("embed")
    for second in range(1, 7201):
        clock.now = 100.0 + second
        screen.show(Count("embed", second, 100_000))
    assert 120 <= len(words(stream)) <= 220
    assert re.fullmatch(r"embed: 7,\d\d\d of 100,000, 1.0/s, 25 h 4\d min left", words(stream)[-1])


def test_work_within_work_is_told_beside_it(logged: tuple[Screen, Clock, io.StringIO]) -> None:
    screen, clock, stream = logged
    screen.begin("train")
    clock.now += 10
    screen.show(Count("train", 2, 5), Count("steps", 0, 19))
    clock.now += 5
    screen.show(Count("train", 2, 5), Count("steps", 10, 19))
    assert words(stream)[0] == "train: 2 of 5, 5.0 s each, 15 s left; steps 0 of 19, 0.0 s so far"
    assert words(stream)[1] == "train: 2 of 5, 7.5 s each, 22 s left; steps 10 of 19, 2.0/s, 4.5 s left"


def test_work_of_unknown_length_says_how_long_it_has_been(logged: tuple[Screen, Clock, io.StringIO]) -> None:
    screen, clock, stream = logged
    screen.begin("vocabulary")
    clock.now += 29
    screen.show(Count("vocabulary"))
    screen.end(Count("vocabulary"))
    assert words(stream) == ["vocabulary: 29 s so far", "vocabulary: done in 29 s"]


def test_news_is_bare_and_a_warning_says_that_it_is_one() -> None:
    stream = io.StringIO()
    handler = ScreenHandler(Screen(stream))
    for level, text in ((logging.INFO, "42 photos"), (logging.WARNING, "few photos")):
        handler.handle(logging.LogRecord("retrieval.data", level, "", 0, text, None, None))
    assert words(stream) == ["42 photos", "WARNING few photos"]


def test_a_stream_that_is_gone_stops_nothing() -> None:
    stream = io.StringIO()
    stream.close()

    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            raise BrokenPipeError

    Screen(Gone()).line("to nobody")


# --- on a terminal ---
