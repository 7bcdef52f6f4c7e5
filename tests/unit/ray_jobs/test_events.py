"""What happens is a JSON object a line, of a job, a step, a part, a node and seconds."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime.news import events, quiet
from ray_jobs.runtime.news.progress import Teller, told, watch
from tests.unit.ray_jobs.test_progress import Near


@pytest.fixture(autouse=True)
def _of_no_job() -> Iterator[None]:
    yield
    events.of_job("")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / events.FILE).read_text().splitlines()]


def test_an_event_says_whose_and_where_it_is(tmp_path: Path) -> None:
    events.of_job("ray_jobs.ingest")
    with quiet.kept_in(tmp_path):
        events.happened("part", step="ingest", part=7, node="n3", seconds=1.25)
        events.happened("odd", value={1, 2}.__class__)
    first, second = lines(tmp_path)
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    wanted = {"event": "part", "step": "ingest", "part": 7, "node": "n3", "seconds": 1.25}
    assert first == {"level": "INFO", "job": "ray_jobs.ingest", **wanted}
    assert second["node"] == socket.gethostname(), "the driver's, unless another is named"
    events.happened("late")
    assert len(lines(tmp_path)) == 2, "the file is closed"


def test_our_log_lines_are_there_too_and_stacks_of_errors(tmp_path: Path) -> None:
    logger = logging.getLogger("ray_jobs.tests")
    with quiet.kept_in(tmp_path):
        logger.warning("3 photos\nare blank")
        try:
            raise RuntimeError("why")
        except RuntimeError:
            logger.exception("it failed")
    first, second = lines(tmp_path)
    assert (first["logger"], first["level"], first["message"]) == ("ray_jobs.tests", "WARNING", "3 photos\nare blank")
    assert "RuntimeError: why" in second["stack"]


def test_a_step_ends_as_it_ended(tmp_path: Path) -> None:
    with quiet.kept_in(tmp_path):
        with watch("index", 4, in_parts=True) as step:
            step.finished(0, 4)
            step.spent(0, "n1", 2.0)
        with pytest.raises(ValueError), watch("train", 9):
            raise ValueError
    found = [line for line in lines(tmp_path) if "event" in line]
    assert [(line["event"], line["step"]) for line in found] == [
        ("part", "index"),
        ("done", "index"),
        ("failed", "train"),
    ]
    assert found[0]["seconds"] == 2.0 and (found[1]["items"], found[1]["of"]) == (4, 4) and found[1]["seconds"] >= 0


def test_a_worker_tells_what_its_part_took_and_only_if_it_was_done() -> None:
    near = Near()
    teller = Teller(near, 5)
    with told(teller, part=3):
        pass
    with pytest.raises(ValueError), told(teller, part=4):
        raise ValueError
    [(level, text)] = near.box.take()[1]
    assert level < 0 and json.loads(text).keys() == {"part", "node", "seconds"} and json.loads(text)["part"] == 3
