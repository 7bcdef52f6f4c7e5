"""What a worker makes of a part; the rest needs a cluster: tests/cluster/test_parts.py."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime.news.progress import Mailbox, Teller
from ray_jobs.runtime.parallel.sight import looked_for
from ray_jobs.runtime.parallel.worker import Work, do_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.progress import Progress, silent
from retrieval.images.pixels import BadImage


class Near:
    """A mailbox in this process, called as an actor is."""

    def __init__(self) -> None:
        self.box = Mailbox()
        self.box.begin(1)

    def __getattr__(self, method: str) -> Any:
        return type("Method", (), {"remote": staticmethod(getattr(self.box, method))})


@dataclass(frozen=True)
class Counted:
    block: int
    taken: int
    reasons: dict[str, int]


def count(block: int, size: int) -> Counted:
    return Counted(block, size, {"blank": block})


def watched(part: int, progress: Progress = silent) -> dict[str, int]:
    progress("photos", 3, 4)
    logging.getLogger("retrieval.data").warning("a light part")
    return {"taken": part}


def left_out(part: int, without: Mapping[int, BadImage] | None = None) -> dict[str, Any]:
    return {str(at): bad.reason for at, bad in (without or {}).items()}


class Worker:
    def __init__(self, start: int) -> None:
        self.start = start

    def __call__(self, part: int, progress: Progress = silent) -> dict[str, int]:
        self.start += 1
        progress("photos", self.start, 20)
        return {"part": part, "calls": self.start}


def test_a_row_is_what_the_work_returns_under_its_own_word_for_the_part() -> None:
    answer = do_part(Work(does=count, fixed={"size": 7}, takes="block"), 3, {})
    assert json.loads(answer.row) == {"block": 3, "taken": 7, "reasons": {"blank": 3}} and not answer.refused


def test_what_our_code_refuses_is_a_sentence_and_the_stack_is_in_the_worker_s_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = do_part(Work(does=lambda part: read_manifest(Folder.of("/no/index")), fixed={}), 0, {})
    assert (answer.row, answer.refused) == ("", "No sealed artefact at /no/index: it does not exist.")
    assert "Traceback" in capsys.readouterr().err


def test_a_machine_that_does_not_see_the_job_s_folders_does_nothing(tmp_path: Path) -> None:
    """It may have come after the job began, when the nodes were asked."""
    with looked_for(tmp_path / "out"):
        work = Work(does=watched, fixed={})
    assert json.loads(do_part(work, 3, {}).row) == {"taken": 3}
    (tmp_path / "out").rmdir()
    answer = do_part(work, 3, {})
    assert not answer.row and f"does not see what is at {tmp_path / 'out'}" in answer.refused


def failing(error: Exception) -> Any:
    def work(part: int) -> None:
        raise error

    return work


@pytest.mark.parametrize("error", [ValueError("not raised by us"), KeyError("a fault"), OSError("no space")])
def test_any_other_error_is_raised_where_no_photo_can_be_to_blame(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error).strip("'")):
        do_part(Work(does=failing(error), fixed={}), 0, {})


def test_of_work_that_can_be_divided_a_fault_comes_back_as_one_but_never_storage_or_memory() -> None:
    def work(error: Exception) -> Work:
        return Work(does=failing(error), fixed={}, attempt=lambda **_: [])

    assert do_part(work(KeyError("a fault")), 0, {}).fault == "KeyError: 'a fault'"
    for error in (OSError("no space"), MemoryError("no memory")):
        with pytest.raises(type(error)):
            do_part(work(error), 0, {})


def test_work_that_takes_a_progress_is_given_one_for_its_part_and_its_warnings_are_told() -> None:
    near = Near()
    do_part(Work(does=watched, fixed={}, teller=Teller(near, 1)), 5, {})
    counts, [warned, (_, spent)] = near.box.take()
    assert (counts, warned) == ([(5, "photos", 3, 4)], (logging.WARNING, "a light part"))
    assert json.loads(spent)["part"] == 5


def test_an_object_is_called_for_each_part_and_photos_that_are_left_out_are_named() -> None:
    near, made = Near(), Worker(10)
    work = Work(does=Worker, fixed={"start": 10}, teller=Teller(near, 1))
    rows = [json.loads(do_part(work, part, {}, made).row) for part in (4, 9)]
    assert rows == [{"part": 4, "calls": 11}, {"part": 9, "calls": 12}]
    assert [word[:3] for word in near.box.take()[0]] == [(4, "photos", 11), (9, "photos", 12)]
    done = do_part(Work(does=left_out, fixed={}), 1, {6: BadImage("crashed", "SIGSEGV")})
    assert json.loads(done.row) == {"6": "crashed"}
