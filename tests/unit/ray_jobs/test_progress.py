"""Progress between workers and the driver: what is told, how often, what adds up, and that it never breaks a run."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from ray_jobs.runtime.news import progress
from ray_jobs.runtime.news.progress import Mailbox, Step, Teller, told, watch
from ray_jobs.runtime.news.screen import Count, Screen, ScreenHandler
from tests.support.waiting import until


class Near:
    """A mailbox in this process, called as an actor is."""

    def __init__(self) -> None:
        self.box, self.calls = Mailbox(), 0

    def __getattr__(self, method: str) -> Any:
        return Method(self, method)


class Method:
    def __init__(self, near: Near, method: str) -> None:
        self.near, self.method = near, method

    def remote(self, *args: Any) -> Any:
        self.near.calls += 1
        return getattr(self.near.box, self.method)(*args)


class Dead:
    def __getattr__(self, method: str) -> Any:
        raise RuntimeError("the actor died")


class Kept(Screen):
    """Draws nothing, and keeps what it was to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[Count, Count | None]] = []
        self.ended: list[Count] = []
        self.cleared = 0

    def is_live(self) -> bool:
        return True

    def begin(self, what: str) -> None:
        self.began = what

    def show(self, outer: Count, inner: Count | None = None) -> None:
        self.shown.append((outer, inner))

    def end(self, outer: Count) -> None:
        self.ended.append(outer)

    def clear(self) -> None:
        self.cleared += 1


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_answer", lambda asked, within: asked)


# --- what a worker tells ---


def test_a_worker_tells_a_few_times_a_second_and_always_the_last() -> None:
    near, now = Near(), [10.0]
    near.box.begin(1)
    teller = Teller(near, 1, 4, clock=lambda: now[0])
    for done in range(1, 1001):  # a thousand photos in one second
        now[0] += 0.001
        teller("photos", done, 1000)
    assert 4 <= near.calls <= 6
    assert near.box.take() == ([(4, "photos", 1000, 1000)], [])


def test_many_workers_tell_more_seldom() -> None:
    with watch("embed", 9, in_parts=True, mailbox=Near(), workers=3000, screen=Kept()) as step:
        near, now = Near(), [10.0]
        near.box.begin(1)
        teller = Teller(near, 1, every=step.teller._every, clock=lambda: now[0])
        for done in range(1, 201):
            now[0] += 0.1
            teller("photos", done, 1000)
    assert near.calls == 2  # in 20 s: 3000 of them come to 300 a second


def test_other_work_is_told_at_once() -> None:
    near = Near()
    near.box.begin(1)
    teller = Teller(near, 1, clock=lambda: 10.0)
    teller("train", 1, 5)
    teller("steps", 0, 19)
    teller("train", 2, 5)
    teller("steps", 1, 19)
    assert near.box.take()[0] == [(0, "train", 2, 5), (0, "steps", 1, 19)]  # each kind's newest, the last one last


def test_what_is_fetched_is_fetched_once_and_a_late_word_of_another_step_is_dropped() -> None:
    box = Mailbox()
    box.begin(7)
    box.tell(7, 0, "photos", 3, 9)
    box.tell(7, 1, "photos", 1, 9)
    box.tell(7, 0, "photos", 4, 9)
    box.say(logging.INFO, "a line")
    assert box.take() == ([(1, "photos", 1, 9), (0, "photos", 4, 9)], [(logging.INFO, "a line")])
    assert box.take() == ([], [])
    box.tell(7, 0, "photos", 5, 9)
    box.begin(8)
    box.tell(7, 0, "photos", 9, 9)
    assert box.take() == ([], [])


def test_a_dead_mailbox_stops_no_worker() -> None:
    teller = Teller(Dead(), 1)
    teller("photos", 1, 2)
    teller.say(logging.INFO, "a line")
    Teller(None)("photos", 2, 2)


def test_our_lines_reach_the_driver_from_a_level_on_and_others_do_not() -> None:
    near = Near()
    ours, theirs = logging.getLogger("retrieval.models.bundle"), logging.getLogger("pyarrow.fs")
    with told(Teller(near)):
        ours.warning("%d photos are blank", 3)
        ours.info("news")
        theirs.warning("not ours")
    with told(Teller(near), logging.INFO):
        ours.info("epoch %d", 1)
    ours.warning("too late")
    assert near.box.take()[1] == [(logging.WARNING, "3 photos are blank"), (logging.INFO, "epoch 1")]
    assert logging.getLogger("retrieval").handlers == []


def test_in_the_driver_s_own_process_lines_are_not_said_twice() -> None:
    near, handler = Near(), ScreenHandler(Kept())
    logging.getLogger().addHandler(handler)
    try:
        with told(Teller(near), logging.INFO):
            logging.getLogger("retrieval.models").info("once")
    finally:
        logging.getLogger().removeHandler(handler)
    assert near.calls == 0


# --- what the driver makes of it ---


def test_parts_done_and_parts_begun_add_up_and_nothing_counts_twice() -> None:
    step = Step("ingest", 100, in_parts=True, screen=Kept())
    step.heard(0, "photos", 10, 60)
    step.heard(1, "photos", 5, 40)
    assert step.count() == Count("ingest", 15, 100)
    step.heard(0, "photos", 2, 60)  # its worker died, and it is begun again
    assert step.count().done == 7
    step.finished(0, 60)
    step.heard(0, "photos", 50, 60)  # a late word
    assert step.count().done == 65
    step.finished(0, 60)
    step.finished(1, 40)
    assert step.count() == Count("ingest", 100, 100)
    step.heard(2, "photos", 5, 5)
    assert step.count().done == 100  # never more than all


def test_of_a_whole_its_own_name_is_how_far_it_is_and_others_are_within_it() -> None:
    screen = Kept()
    step = Step("train", 0, screen=screen)
    step.heard(0, "fill features", 1, 4)
    step.show()
    step.heard(0, "train", 1, 5)
    step.show()
    step.heard(0, "steps", 3, 19)
    step.show()
    step.heard(0, "steps", 19, 19)
    step.show()
    assert screen.shown == [
        (Count("train"), Count("fill features", 1, 4)),
        (Count("train", 1, 5), None),
        (Count("train", 1, 5), Count("steps", 3, 19)),
        (Count("train", 1, 5), None),
    ]


def test_a_step_is_shown_while_it_lasts_and_what_was_told_last_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_POLL_EVERY", 0.01)
    screen, near = Kept(), Near()
    with caplog.at_level(logging.INFO), watch("embed", 9, in_parts=True, mailbox=near, screen=screen) as step:
        step.teller.of(4)("photos", 3, 5)
        until(lambda: screen.shown and screen.shown[-1][0].done == 3)
        step.finished(4, 5)
        step.teller.say(logging.WARNING, "the last word")
    assert screen.began == "embed"
    assert screen.ended == [Count("embed", 5, 9)]
    assert ("ray_jobs.runtime.news.progress", logging.WARNING, "the last word") in caplog.record_tuples


def test_what_is_said_after_a_question_that_is_not_answered_yet_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_POLL_EVERY", 0.01)
    asked = threading.Event()

    def answer(word: Any, within: float) -> Any:
        asked.set()
        return word if within else None  # only to who waits: when the step is over

    monkeypatch.setattr(progress, "_answer", answer)
    with caplog.at_level(logging.INFO), watch("embed", 9, in_parts=True, mailbox=Near(), screen=Kept()) as step:
        assert asked.wait(20)
        step.teller.say(logging.WARNING, "the last word")
    assert "the last word" in caplog.text


def test_a_step_that_fails_is_not_said_to_be_done() -> None:
    screen = Kept()
    with pytest.raises(OSError, match="no space"), watch("embed", 9, in_parts=True, screen=screen) as step:
        step.finished(0, 5)
        raise OSError("no space")
    assert (screen.ended, screen.cleared) == ([], 1)


def test_a_mailbox_that_dies_stops_no_step_and_parts_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_POLL_EVERY", 0.01)
    monkeypatch.setitem(progress._MAILBOXES, "job", "dead")
    asked = []

    def answer(word: Any, within: float) -> Any:
        asked.append(word)
        raise RuntimeError("the actor died")

    monkeypatch.setattr(progress, "_answer", answer)
    screen, near = Kept(), Near()
    with watch("embed", 9, in_parts=True, mailbox=near, screen=screen) as step:
        time.sleep(0.1)
        step.finished(0, 9)
    assert screen.ended == [Count("embed", 9, 9)]
    assert len(asked) == 1  # not asked again
    assert progress._MAILBOXES == {}  # the next step has a new one


def test_a_mailbox_that_is_slow_to_answer_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_POLL_EVERY", 0.01)
    waits: list[float] = []

    def answer(word: Any, within: float) -> Any:
        waits.append(within)
        return word if len(waits) > 5 else None

    monkeypatch.setattr(progress, "_answer", answer)
    screen, near = Kept(), Near()
    with watch("embed", 9, in_parts=True, mailbox=near, screen=screen) as step:
        step.finished(0, 9)
        until(lambda: len(waits) >= 8)
    assert set(waits[:-1]) == {0}  # it never waits, but for the last word
    assert near.calls == len(waits) - 5 + 1  # begin, and one question until that was answered


def test_counts_of_a_step_that_counts_its_parts_are_not_mixed_with_photos() -> None:
    near = Near()
    near.box.begin(3)
    teller = Teller(near, 3).of_lines().of(1)
    teller("photos", 3, 5)
    teller.say(logging.WARNING, "a line")
    assert near.box.take() == ([], [(logging.WARNING, "a line")])
