"""A job is heard of while it works; of one that failed it is said why; one that was killed is missed."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime.news import pulse
from ray_jobs.runtime.news.progress import watch
from ray_jobs.runtime.news.pulse import EVERY, LOST_AFTER, Pulse, beating, place_of, read_pulse
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, seal
from tests.support.waiting import until

WORK: dict[str, Any] = {"kind": "index", "config": {}, "inputs": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder.of(tmp_path / "index" / "abc")
    begin(made, **WORK)
    return made


def test_while_it_works_it_says_who_it_is_and_how_far(folder: Folder) -> None:
    with beating(folder, "build_index", every=0.02), watch("shards", 8, in_parts=True) as step:
        step.finished(1, 3)
        until(lambda: (pulse := read_pulse(folder)) is not None and pulse.done == 3)
        pulse = read_pulse(folder)
    assert pulse is not None
    assert (pulse.job, pulse.process, pulse.state) == ("build_index", os.getpid(), "running")
    assert (pulse.doing, pulse.done, pulse.total) == ("shards", 3, 8)
    assert read_pulse(folder) is None, "of a job that ended well nothing is left"


def test_it_lies_outside_the_folder_that_is_sealed(folder: Folder) -> None:
    with beating(folder, "build_index", every=0.02):
        until(lambda: read_pulse(folder) is not None)
        assert seal(folder, **WORK, counts={}).files == {}
    where, name = place_of(folder)
    assert not where.exists(name)


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (ValueError("\n  bad weights\n"), "failed", "ValueError: bad weights"),
        (KeyboardInterrupt(), "stopped", "it was interrupted"),
        (RuntimeError("x" * 9999), "failed", "RuntimeError: xxx"),
    ],
    ids=["failed", "interrupted", "long"],
)
def test_how_it_ended_is_left_in_a_sentence(folder: Folder, error: BaseException, state: str, why: str) -> None:
    with pytest.raises(type(error)), beating(folder, "train"):
        raise error
    pulse = read_pulse(folder)
    assert pulse is not None and pulse.state == state
    assert pulse.why.startswith(why) and len(pulse.why) <= 500
    with beating(folder, "train"):  # tried again, with success
        pass
    assert read_pulse(folder) is None


def test_of_what_was_refused_before_it_was_begun_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError), beating(Folder.of(tmp_path / "index" / "new"), "train"):
        raise ValueError("no such weights")
    assert list(tmp_path.rglob("*")) == []


def test_storage_that_cannot_be_written_stops_no_work(folder: Folder) -> None:
    where, _ = place_of(folder)
    Path(where.path).write_text("a file where the pulses would lie")
    with beating(folder, "train", every=0.01):
        time.sleep(0.05)
    with pytest.raises(ValueError, match="still said"), beating(folder, "train", every=0.01):
        raise ValueError("still said")


def test_storage_that_does_not_answer_holds_up_the_end_for_seconds_only(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(pulse, "_LAST_WITHIN", 0.05)
    monkeypatch.setattr(Folder, "write_json", lambda *_: answers.wait())
    with pytest.raises(ValueError, match="the storage"), beating(folder, "train", every=0.01):
        raise ValueError("the storage")  # it would wait here for ever, and the job with it
    answers.set()


def test_one_that_was_not_heard_of_for_a_minute_is_lost() -> None:
    now = datetime.now(UTC)

    def heard(seconds: float, state: str = "running") -> bool:
        at = (now - timedelta(seconds=seconds)).isoformat()
        return Pulse(job="train", node="n", process=1, began=at, heard=at, state=state).is_lost(now)  # type: ignore[arg-type]

    assert not heard(LOST_AFTER * EVERY - 1) and heard(LOST_AFTER * EVERY + 1)
    assert not heard(9999, "failed"), "it said itself how it ended"


def test_a_file_that_is_no_pulse_is_none(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    where, name = place_of(folder)
    for data in (b"{", b'{"who": 1}'):
        where.write_bytes(name, data)
        assert read_pulse(folder) is None
    assert "no sign of life" in caplog.text
