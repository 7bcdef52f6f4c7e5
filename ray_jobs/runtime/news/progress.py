"""How far a job is: workers tell, the driver asks a few times a second and shows it on its screen.

What is told goes by way of a `Mailbox`, one small actor a session that only remembers. Whatever happens to it, or to a
word on its way, the work goes on: the rows that come back from finished parts are counted in any case::

    with watch("ingest", 960, in_parts=True) as step:
        ...                         # a worker is given step.teller and calls it: teller.of(part)("photos", 30, 60)
        step.finished(part, 60)     # the driver has its row
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray_jobs.runtime.news import events, meters
from ray_jobs.runtime.news.screen import OURS, SCREEN, Count, Screen, ScreenHandler

logger = logging.getLogger(__name__)

_POLL_EVERY = 0.25  # seconds between two questions of the driver, four times as many where there is no bar
_TELL_EVERY = 0.3  # seconds between two messages of one worker: photos come at hundreds a second
_MOST_WORDS = 300  # a second, of all workers together
_LAST_WORD_WITHIN = 5.0  # of a step that is over
_SPENT = -1  # the level of a line that is JSON: what a part took, and where
_NUMBERS = itertools.count(1)
_UNDER_WAY: list[Step] = []  # of this process: a step within a step comes last


class Mailbox:
    """What workers told and the driver has not fetched: the newest count of each part and kind of work, and lines."""

    def __init__(self) -> None:
        self._step, self._counts, self._lines = 0, {}, []

    def begin(self, step: int) -> None:
        self._step, self._counts = step, {}

    def tell(self, step: int, part: int, what: str, done: int, total: int) -> None:
        if step == self._step:  # else a late word about work that is over
            self._counts.pop((part, what), None)  # so that the newest comes last
            self._counts[part, what] = (part, what, done, total)

    def say(self, level: int, text: str) -> None:
        self._lines.append((level, text))

    def take(self) -> tuple[list[tuple[int, str, int, int]], list[tuple[int, str]]]:
        counts, lines = list(self._counts.values()), self._lines
        self._counts, self._lines = {}, []
        return counts, lines


class Teller:
    """A Progress for the worker that does one part. What cannot be told is not told: it never raises."""

    def __init__(
        self,
        mailbox: Any,
        step: int = 0,
        part: int = 0,
        every: float = _TELL_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mailbox, self._step, self._part, self._every, self._clock = mailbox, step, part, every, clock
        self._last: tuple[str, float] = ("", 0.0)

    def begin(self) -> None:
        """From now on this step's words are kept, and no others."""
        self._send("begin", self._step)

    def of(self, part: int) -> Teller:
        return Teller(self._mailbox, self._step, part, self._every, self._clock)

    def of_lines(self) -> Teller:
        """One that sends lines only: what it counts is not what the step counts."""
        return Teller(self._mailbox, 0, 0, self._every, self._clock)

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if what == self._last[0] and done < total and now - self._last[1] < self._every:
            return
        self._last = (what, now)
        self._send("tell", self._step, self._part, what, done, total)

    def say(self, level: int, text: str) -> None:
        """A line for the driver's log."""
        self._send("say", level, text)

    def spent(self, seconds: float) -> None:
        """What this part took, on this node."""
        self.say(_SPENT, json.dumps({"part": self._part, "node": socket.gethostname(), "seconds": round(seconds, 3)}))

    def _send(self, method: str, *args: Any) -> None:
        if self._mailbox is not None:
            try:
                getattr(self._mailbox, method).remote(*args)
            except Exception:  # noqa: BLE001  its process is gone, or the cluster is: no reason to stop working
                self._mailbox = None


class _Lines(logging.Handler):
    """Log records, sent to the driver as lines."""

    def __init__(self, teller: Teller, level: int) -> None:
        super().__init__(level)
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        self._teller.say(record.levelno, self.format(record))


@contextmanager
def told(teller: Teller, level: int = logging.WARNING, part: int | None = None) -> Iterator[Teller]:
    """On a worker: our log lines from `level` on, and what a part took, reach the driver while the block lasts."""
    if any(isinstance(each, ScreenHandler) for each in logging.getLogger().handlers):  # this is the driver
        yield teller
        return
    handler, loggers = _Lines(teller, level), [logging.getLogger(name) for name in OURS]
    before = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
    started = time.monotonic()
    try:
        yield teller
        if part is not None:
            teller.of(part).spent(time.monotonic() - started)
    finally:
        for each, was in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.setLevel(was)


class Step:
    """One step under way, as the driver knows it.

    In parts: what they told and what they came to adds up. Whole: a worker's word under the step's own name is how far
    it is, under another name it is about work within it. `total` 0: nobody knows how much it is, until a worker says.
    """

    def __init__(
        self,
        name: str,
        total: int = 0,
        *,
        in_parts: bool = False,
        teller: Teller | None = None,
        screen: Screen = SCREEN,
    ) -> None:
        self.teller = teller or Teller(None)
        self._name, self._total, self._in_parts, self.screen = name, total, in_parts, screen
        self._finished: dict[int, int] = {}
        self._begun: dict[int, int] = {}
        self._outer, self._inner = Count(name, 0, total), None
        self._lock = threading.Lock()

    def finished(self, part: int, taken: int) -> None:
        """A part is done: what it told on its way gives place to what it came to."""
        with self._lock:
            self._begun.pop(part, None)
            self._finished[part] = taken
        meters.count("retrieval_job_parts", 1, step=self._name)
        meters.count("retrieval_job_items", taken, step=self._name)
        self.show()

    def spent(self, part: int, node: str, seconds: float) -> None:
        """A worker's word: what a part took. The counts do not rest on it, since a word may be lost."""
        events.happened("part", step=self._name, part=part, node=node, seconds=seconds)
        meters.count("retrieval_job_busy_seconds", seconds, step=self._name, host=node)
        meters.count("retrieval_job_part_seconds", seconds, step=self._name)

    def ended(self, how: str, seconds: float) -> None:
        count = self.count()
        events.happened(how, step=self._name, seconds=round(seconds, 3), items=count.done, of=count.total)
        meters.count("retrieval_job_steps", 1, step=self._name, how=how)

    def heard(self, part: int, what: str, done: int, total: int) -> None:
        """A worker's word: what is being done, how much of it is done, of how much."""
        with self._lock:
            if self._in_parts:
                if part not in self._finished:
                    self._begun[part] = done
            elif what == self._name:
                self._outer, self._inner = Count(what, done, total), None
            else:
                inner = Count(what, done, total)
                self._inner = None if inner.is_all else inner

    def count(self) -> Count:
        with self._lock:
            if not self._in_parts:
                return self._outer
            done = sum(self._finished.values()) + sum(self._begun.values())
            return Count(self._name, min(done, self._total), self._total)

    def show(self) -> None:
        count = self.count()
        meters.is_at(self._name, count.done, count.total)
        self.screen.show(count, self._inner)


@contextmanager
def watch(
    name: str, total: int = 0, *, in_parts: bool = False, mailbox: Any = None, workers: int = 1, screen: Screen = SCREEN
) -> Iterator[Step]:
    """Show a step for the length of the block, and at its end what it came to, unless it fails.

    Args:
        mailbox: an actor of class Mailbox (`mailbox_of_session`), if workers are to tell.
        workers: how many tell at once, at most; many tell more seldom, so that one actor can listen to them.
    """
    every = max(_TELL_EVERY, workers / _MOST_WORDS)
    number, over = next(_NUMBERS), threading.Event()
    step = Step(name, total, in_parts=in_parts, teller=Teller(mailbox, number, every=every), screen=screen)
    step.teller.begin()
    screen.begin(name)
    _UNDER_WAY.append(step)
    poller = threading.Thread(target=_poll, args=(step, over, mailbox), name="progress", daemon=True)
    poller.start()
    how, started = "failed", time.monotonic()
    try:
        yield step
        how = "done"
    finally:
        over.set()
        poller.join()
        _UNDER_WAY.remove(step)
        step.ended(how, time.monotonic() - started)
        screen.end(step.count()) if how == "done" else screen.clear()


def under_way() -> Count | None:
    """How far the step is that this process is at; None between steps."""
    return next((step.count() for step in _UNDER_WAY[-1:]), None)  # in one go: another thread asks


def _poll(step: Step, over: threading.Event, mailbox: Any) -> None:
    """Ask and show until the step is over, and once more then. A mailbox that fails is not asked again."""
    asked, last, every = None, False, _POLL_EVERY if step.screen.is_live() else 4 * _POLL_EVERY
    while not last:
        last = over.wait(every)
        try:
            if mailbox is not None:
                if last and asked is not None:
                    _heard(step, asked, _LAST_WORD_WITHIN)  # it was asked before the last words were said
                    asked = None
                asked = asked or mailbox.take.remote()
                asked = None if _heard(step, asked, _LAST_WORD_WITHIN if last else 0) else asked
        except Exception as error:  # noqa: BLE001  a bar must not break a run, whatever became of the actor
            logger.debug("no more progress of workers: %s", error)
            mailbox = None
            _MAILBOXES.clear()
        step.show()


def _heard(step: Step, asked: Any, within: float) -> bool:
    """Whether there is an answer; then the step knows it, and its lines are in our log."""
    answer = _answer(asked, within)
    if answer is None:
        return False
    counts, lines = answer
    for level, text in lines:
        if level == _SPENT:
            step.spent(**json.loads(text))
        else:
            logger.log(level, "%s", text)
    for word in counts:
        step.heard(*word)
    return True


def _answer(asked: Any, within: float) -> Any:
    import ray

    ready, _ = ray.wait([asked], timeout=within)
    return ray.get(ready[0]) if ready else None


_MAILBOXES: dict[str, Any] = {}  # by the job they belong to: one, but for tests


def mailbox_of_session() -> Any:
    """The mailbox of this driver on the cluster it is connected to. It takes no core of it, and lies on the driver's
    machine: another would be kept from going when it is idle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    at = ray.get_runtime_context()
    if (job := at.get_job_id()) not in _MAILBOXES:
        _MAILBOXES.clear()
        here = NodeAffinitySchedulingStrategy(at.get_node_id(), soft=True)
        _MAILBOXES[job] = ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here).remote()
    return _MAILBOXES[job]
