"""What a job shows: its lines, and below them a live bar on a terminal, or now and then a line where there is none.

The only module that writes to the terminal while work goes on: a line first takes the bar away and puts it back after.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import click

OURS = ("retrieval", "ray_jobs", "serve", "__main__")
"""Whose log lines are ours."""

_WINDOW = 30.0  # seconds that a rate looks back on
_LEAST = 4  # times at which the count grew that it looks back on in any case
_LINE_EVERY = 5.0  # seconds between two lines where there is no terminal; later on a twentieth of the time so far
_LINE_AT_LEAST_EVERY = 60.0
_ERASE = "\r\033[2K"


class Pace:
    """How fast work goes, from counts seen at moments.

    By the last half minute, or the last few items where each takes longer than that.
    """

    def __init__(self, now: float) -> None:
        self.started = self._now = now
        self._grew: deque[tuple[float, int]] = deque([(now, 0)])
        self._waited = True  # the time to the first item, in which workers start, counts only while there is no other

    def see(self, done: int, now: float) -> None:
        if done < self._grew[-1][1]:  # the same kind of work, begun anew
            self._grew = deque([(now, done)])
        elif done > self._grew[-1][1]:
            self._grew.append((now, done))
        self._now = now
        while len(self._grew) > _LEAST and (self._waited or now - self._grew[1][0] >= _WINDOW):
            self._grew.popleft()
            self._waited = False

    @property
    def is_early(self) -> bool:
        """Whether the time in which workers start is still in the rate."""
        return self._waited

    @property
    def rate(self) -> float | None:
        """Items a second; None before anything is done. Falls while nothing more is."""
        (then, before), (_, done) = self._grew[0], self._grew[-1]
        return (done - before) / (self._now - then) if done > before and self._now > then else None

    def left(self, total: int) -> float | None:
        """Seconds until all is done, if it goes on like this."""
        return (total - self._grew[-1][1]) / self.rate if self.rate else None


@dataclass(frozen=True, slots=True)
class Count:
    """How much of what is done. `total` 0: nobody knows of how much."""

    what: str
    done: int = 0
    total: int = 0

    @property
    def is_all(self) -> bool:
        return 0 < self.total <= self.done


class Screen:
    """Where a job's lines and bars go: `stream`, or standard error as it is at the moment."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._given, self._clock, self._lock = stream, clock, threading.RLock()
        self._paces: dict[str, Pace] = {}
        self._bar: Any = None
        self._on_bar: Count | None = None
        self._said: float = clock()
        self._told: tuple[Count, Count | None] = (Count(""), None)

    def begin(self, what: str) -> None:
        """A step begins: its time runs from here."""
        with self._lock:
            self._paces = {what: Pace(self._clock())}
            self._said, self._told = self._clock(), (Count(""), None)

    def show(self, outer: Count, inner: Count | None = None) -> None:
        """How far a step is, and, if it says so, the work within it that is under way."""
        with self._lock:
            now = self._clock()
            for count in (outer, inner):
                if count is not None:
                    self._paces.setdefault(count.what, Pace(now)).see(count.done, now)
            if self.is_live():
                self._draw(outer, inner)
            elif now - self._said >= self._line_every(now, outer, inner):
                self._said, self._told = now, (outer, inner)
                logging.getLogger(__name__).info("%s", self._sentence(outer, inner))

    def end(self, outer: Count) -> None:
        """A step is over. What it came to stays on the screen."""
        with self._lock:
            pace = self._paces.get(outer.what) or Pace(self._clock())
            seconds = self._clock() - pace.started
            self._erase()
            if not outer.total and seconds < _LINE_EVERY:
                return  # a short errand
            of = f"{outer.done:,} of {outer.total:,} " if outer.total and not outer.is_all else "done "
            of = f"{outer.total:,} " if outer.is_all else of
            rate = f", {each(outer.done / seconds)}" if outer.done and seconds > 0 else ""
            logging.getLogger(__name__).info("%s: %sin %s%s", outer.what, of, duration(seconds), rate)

    def clear(self) -> None:
        """Take the bar away."""
        with self._lock:
            self._erase()

    def line(self, text: str) -> None:
        """One of our lines. The bar, if there is one, is drawn again below it by the next `show`."""
        with self._lock:
            self._erase()
            self._write(text + "\n")

    def stream(self) -> TextIO:
        return self._given or _standard_error()

    def is_live(self) -> bool:
        """Whether there is a terminal for a bar."""
        return self.stream().isatty() and os.environ.get("TERM") != "dumb"

    def _line_every(self, now: float, outer: Count, inner: Count | None) -> float:
        """Seconds between two lines: more in long work, twice as many as since the last while nothing gets on."""
        seconds = now - self._paces[outer.what].started
        stands = self._told == (outer, inner)
        return min(_LINE_AT_LEAST_EVERY, max(_LINE_EVERY, seconds / 2 if stands else seconds / 20))

    def _sentence(self, outer: Count, inner: Count | None) -> str:
        text = f"{outer.what}: {self._facts(outer, ' of ')}"
        return f"{text}; {inner.what} {self._facts(inner, ' of ')}" if inner else text

    def _facts(self, count: Count, of: str = "/") -> str:
        """'300/960  58/s  11 s left', as far as it is known."""
        pace = self._paces[count.what]
        if not count.total:
            return f"{duration(self._clock() - pace.started)} so far"
        said, left = [f"{count.done:,}{of}{count.total:,}"], pace.left(count.total)
        if pace.rate is None or left is None or (pace.is_early and 20 * count.done < count.total):
            said.append(f"{duration(self._clock() - pace.started)} so far")
        else:
            said += [each(pace.rate), f"{duration(left)} left"][: 1 if count.is_all else 2]
        return (", " if of != "/" else "  ").join(said)

    def _draw(self, outer: Count, inner: Count | None) -> None:
        count = inner or outer
        label, text = count.what, self._facts(count)
        if inner:
            text += f"  ({outer.what} {self._facts(outer)})"
        if not count.total:
            self._erase()
            self._write(f"{label:<12} {text}")
            return
        shown = self._on_bar
        if shown is None or (shown.what, shown.total) != (count.what, count.total) or count.done < shown.done:
            self._erase()
            self._bar = click.progressbar(
                length=count.total,
                label=f"{label:<12}",
                width=0,  # as wide as the terminal
                empty_char="-",
                bar_template="%(label)s [%(bar)s] %(info)s",
                show_eta=False,
                show_percent=True,
                item_show_func=_as_is,
                file=self.stream(),
            )
        self._bar.current_item, self._on_bar = text, count
        if count.done > self._bar.pos:
            self._bar.update(count.done - self._bar.pos, text)
        else:
            self._bar.render_progress()

    def _erase(self) -> None:
        if self.is_live():
            self._write(_ERASE + "\033[?25h")  # the cursor, which a bar hides
        self._bar = self._on_bar = None

    def _write(self, text: str) -> None:
        try:
            self.stream().write(text)
            self.stream().flush()
        except (OSError, ValueError):  # whoever read it is gone; the work goes on
            pass


class ScreenHandler(logging.Handler):
    """Log records as lines of a screen: the time, the level if it is more than news, the author if it is not us."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        time_, _, words = self.format(record).partition(" ")
        level = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        author = record.name.partition(".")[0]
        self._screen.line(f"{time_} {level}{'' if author in OURS else author + ': '}{words}")


def duration(seconds: float) -> str:
    """In words, as precise as one wants to know: 9.9 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def each(rate: float) -> str:
    """A rate a second, or, if it is less than one, how long one takes."""
    if rate >= 10:
        return f"{rate:,.0f}/s"
    return f"{rate:.1f}/s" if rate >= 1 else f"{duration(1 / rate)} each"


def _as_is(text: str | None) -> str | None:
    return text


def _standard_error() -> TextIO:
    return sys.stderr if sys.stderr is not None else io.StringIO()


SCREEN = Screen()
"""That of this process."""
