"""The screen on a (pseudo) terminal: one bar, and lines above it."""

from __future__ import annotations

import os
import pty
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ray_jobs.runtime.news.screen import Count, Screen
from tests.support.screened import Clock, on_the_log


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> Iterator[tuple[Screen, Clock, list[bytes]]]:
    """A screen on a pseudo-terminal, and what has come out at its other end when the block is over."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    came: list[bytes] = []

    def read() -> None:
        while True:
            try:
                came.append(os.read(master, 65536))
            except OSError:
                return

    reader, clock = threading.Thread(target=read), Clock()
    reader.start()
    with os.fdopen(slave, "w") as stream:
        screen = Screen(stream, clock)
        with on_the_log(screen):
            yield screen, clock, came
    reader.join()
    os.close(master)


def rows(came: list[bytes]) -> list[str]:
    """The screen at the end, as a terminal shows it: \\r goes back, ESC[2K wipes the line."""
    shown, at = [""], 0
    for piece in re.split(r"(\r\n|\r|\033\[2K|\033\[\?25[lh])", b"".join(came).decode()):
        if piece == "\r\n":
            shown.append("")
            at = 0
        elif piece == "\r":
            at = 0
        elif piece == "\033[2K":
            shown[-1] = ""
        elif not piece.startswith("\033"):
            shown[-1] = shown[-1][:at].ljust(at) + piece + shown[-1][at + len(piece) :]
            at += len(piece)
    return [row.rstrip() for row in shown]


def test_a_terminal_shows_one_bar_with_count_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as (screen, clock, came):
        screen.begin("ingest")
        for done in (0, 240, 480):
            clock.now = 100 + done / 48
            screen.show(Count("ingest", done, 960))
    (row,) = rows(came)
    assert re.fullmatch(r"ingest +\[(#+)(-+)\] +50%  480/960  48/s  10 s left", row)
    assert len(row) <= 80
    assert abs(row.count("#") - row.count("-")) <= 1


def test_lines_scroll_above_the_bar_and_the_end_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as (screen, clock, came):
        screen.begin("ingest")
        clock.now += 2
        screen.show(Count("ingest", 100, 400))
        screen.line("a line of ours")
        screen.show(Count("ingest", 100, 400))
        clock.now += 2
        screen.end(Count("ingest", 400, 400))
        screen.line("the next line")
    shown = rows(came)
    assert shown[0] == "a line of ours"
    assert shown[1][9:] == "ingest: 400 in 4.0 s, 100/s"
    assert shown[2:] == ["the next line", ""]
    text = b"".join(came).decode()
    assert text.count("100/400") == 2  # drawn again below the line, though nothing had changed
    assert text.rindex("\033[?25h") > text.rindex("\033[?25l")  # the cursor is back


def test_a_count_that_falls_back_is_drawn_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as (screen, clock, came):
        screen.begin("embed")
        for done in (50, 30):  # a worker died, and its part is begun again
            clock.now += 1
            screen.show(Count("embed", done, 100))
    (row,) = rows(came)
    assert "30%  30/100" in row


def test_work_within_work_has_the_bar_and_the_whole_stands_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, columns=120) as (screen, clock, came):
        screen.begin("train")
        clock.now += 10
        screen.show(Count("train", 1, 5), Count("steps", 0, 20))
        clock.now += 1
        screen.show(Count("train", 1, 5), Count("steps", 10, 20))
    (row,) = rows(came)
    assert row.startswith("steps")
    assert "50%  10/20  10/s  1.0 s left  (train 1/5  11 s each  44 s left)" in row


def test_a_bar_of_other_work_of_the_same_size_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as (screen, clock, came):
        screen.begin("train")
        for what in ("steps", "embed"):
            clock.now += 1
            screen.show(Count("train"), Count(what, 5, 20))
    (row,) = rows(came)
    assert row.startswith("embed ")


def test_a_narrow_terminal_and_a_dumb_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, columns=50) as (screen, clock, came):
        screen.begin("ingest")
        clock.now += 1
        screen.show(Count("ingest", 10, 20))
    assert len(rows(came)[0]) <= 60
    with terminal(monkeypatch) as (screen, clock, came):
        monkeypatch.setenv("TERM", "dumb")
        screen.begin("ingest")
        clock.now += 1
        screen.show(Count("ingest", 10, 20))
        screen.end(Count("ingest", 20, 20))
    assert [row[9:] for row in rows(came)] == ["ingest: 20 in 1.0 s, 20/s", ""]
    assert b"\033" not in b"".join(came)
