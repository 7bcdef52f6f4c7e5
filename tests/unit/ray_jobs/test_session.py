"""What a worker makes of a part, and which names it has; the rest of `session` needs a cluster: tests/cluster."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from ray_jobs.runtime import session
from ray_jobs.runtime.progress import Mailbox, Teller
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.progress import Progress, silent


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


class Worker:
    made = 0

    def __init__(self, start: int) -> None:
        Worker.made += 1
        self.start = start

    def __call__(self, part: int) -> dict[str, int]:
        self.start += 1
        return {"part": part, "calls": self.start}


def test_a_row_has_the_same_columns_whatever_the_work_returns() -> None:
    row = session._task({"part": [3]}, count, {"size": 7}, "block", Teller(None))
    assert row["part"] == [3] and row["refused"] == [""]
    assert json.loads(row["row"][0]) == {"block": 3, "taken": 7, "reasons": {"blank": 3}}


def test_what_our_code_refuses_is_a_sentence_and_the_stack_is_in_the_worker_s_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = session._task({"part": [0]}, lambda part: read_manifest(Folder.of("/no/index")), {}, "part", Teller(None))
    assert row == {
        "part": [0],
        "row": [""],
        "refused": ["No sealed artefact at /no/index: it does not exist."],
    }
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("not raised by us"), KeyError("a fault"), OSError("no space")])
def test_any_other_error_is_raised(error: Exception) -> None:
    def work(part: int) -> None:
        raise error

    with pytest.raises(type(error), match=str(error).strip("'")):
        session._task({"part": [0]}, work, {}, "part", Teller(None))


def test_work_that_takes_a_progress_is_given_one_for_its_part_and_its_warnings_are_told() -> None:
    near = Near()
    session._task({"part": [5]}, watched, {}, "part", Teller(near, 1))
    counts, [warned, (_, spent)] = near.box.take()
    assert (counts, warned) == ([(5, "photos", 3, 4)], (logging.WARNING, "a light part"))
    assert json.loads(spent)["part"] == 5


def test_an_actor_is_made_once_and_called_for_each_part() -> None:
    Worker.made = 0
    actor = session._named_like(Worker)(work=Worker, fixed={"start": 10}, takes="part", teller=Teller(None))
    rows = [json.loads(actor({"part": [part]})["row"][0]) for part in (4, 9)]
    assert rows == [{"part": 4, "calls": 11}, {"part": 9, "calls": 12}]
    assert Worker.made == 1


def test_ray_calls_a_step_by_what_it_does() -> None:
    assert session._named_like(Worker).__name__ == "Worker"
    assert session._named_like(count).__name__ == "count"


def test_no_parts_start_nothing() -> None:
    assert list(session.run_parts("nothing", [], count)) == []  # a unit test that met Ray would fail
