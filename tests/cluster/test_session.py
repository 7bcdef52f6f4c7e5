"""session and run_parts: how every job meets Ray."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from ray_jobs.runtime.news.progress import _TELL_EVERY
from ray_jobs.runtime.news.screen import SCREEN, Count
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.spread import by_tasks
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.progress import Progress, counted, silent
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
logger = logging.getLogger("ray_jobs.tests")


class WritePart:
    """Writes its part; the first try of part `dies` kills its own process half-way, as a lost machine would."""

    def __init__(self, folder: str, dies: int | None = None) -> None:
        self.folder, self.dies, self.done = Folder.of(folder), dies, 0

    def __call__(self, part: int) -> dict[str, Any]:
        mark = Path(self.folder.path) / f"tried-{part}"
        with mark.open("a") as tries:
            tries.write(f"{os.getpid()}\n")
        if part == self.dies and len(mark.read_text().splitlines()) == 1:
            os._exit(1)
        self.folder.write_bytes(part_name(part), b"x" * part)
        self.done += 1
        return {"part": part, "taken": part, "done": self.done, "pid": os.getpid()}


def test_each_part_is_written_by_one_actor_and_one_row_comes_back(ray_local: None, tmp_path: Path) -> None:
    rows = list(run_parts("write", [1, 2, 5], WritePart, total_items=8, fixed={"folder": str(tmp_path)}))
    assert sorted((row["part"], row["taken"]) for row in rows) == [(1, 1), (2, 2), (5, 5)]
    by_actor = {row["pid"]: sorted(each["done"] for each in rows if each["pid"] == row["pid"]) for row in rows}
    assert len(by_actor) < 3, "two cores: two actors at most, or one that was quick"
    assert all(done == list(range(1, 1 + len(done))) for done in by_actor.values()), "made once, called for each part"
    assert {len(path.read_bytes()) for path in tmp_path.glob("*.parquet")} == {1, 2, 5}
    assert str(os.getpid()) not in (tmp_path / "tried-1").read_text()


def test_a_part_whose_worker_dies_is_done_again_and_counted_once(ray_local: None, tmp_path: Path) -> None:
    rows = run_parts("write", [1, 2, 3], WritePart, fixed={"folder": str(tmp_path), "dies": 2})
    assert sorted(row["part"] for row in rows) == [1, 2, 3]
    first, second = (tmp_path / "tried-2").read_text().split()
    assert first != second
    assert len(list(tmp_path.glob("*.parquet"))) == 3


@dataclass(frozen=True)
class Weighed:
    block: int
    heaviest: float
    by_name: dict[str, int]


def weigh(block: int, weights: np.ndarray, names: list[str]) -> Weighed:
    if block >= len(weights):
        read_manifest(Folder.of("/no/weights"))  # our own code refuses
    if weights[block] < 0:
        raise OSError("the scales are broken")
    if not names:
        np.zeros(2) + np.zeros(3)
    return Weighed(block, float(weights[block]), dict.fromkeys(names, block))


def test_a_function_gets_its_number_under_its_own_word_and_what_a_reference_refers_to(ray_local: None) -> None:
    fixed = {"weights": ray.put(np.array([0.1, 0.7])), "names": ["a", "b"]}
    rows = list(run_parts("weigh", range(2), weigh, takes="block", fixed=fixed))
    assert sorted(rows, key=lambda row: row["block"]) == [
        {"block": 0, "heaviest": 0.1, "by_name": {"a": 0, "b": 0}},
        {"block": 1, "heaviest": 0.7, "by_name": {"a": 1, "b": 1}},
    ]


def test_what_the_user_can_mend_comes_back_as_one_sentence_and_other_failures_whole(ray_local: None) -> None:
    with pytest.raises(ValueError, match=r"^No sealed artefact at /no/weights: it does not exist.$") as refused:
        list(run_parts("weigh", range(2), weigh, takes="block", fixed={"weights": np.ones(1), "names": ["a"]}))
    assert refused.value.__cause__ is None
    with pytest.raises(RayTaskError, match=r"(?s)in weigh\n.*OSError: the scales are broken"):
        list(run_parts("weigh", range(1), weigh, takes="block", fixed={"weights": -np.ones(1), "names": []}))
    with pytest.raises(RayTaskError, match=r"(?s)in weigh\n.*ValueError: operands could not be broadcast"):
        list(run_parts("weigh", range(1), weigh, takes="block", fixed={"weights": np.ones(1), "names": []}))


def slow(steps: int, shown: str, progress: Progress = silent) -> int:
    """Goes on when what it told last is shown; a word that follows another too soon is not told."""
    for step in counted(range(steps), "steps", progress):
        time.sleep(1.1 * _TELL_EVERY)
        until(lambda step=step: Path(shown).read_text() == str(step))
    logging.getLogger("retrieval.data").warning("that was slow")
    return steps


def test_one_task_is_watched_and_fails_as_a_part_does(
    ray_local: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    shown: list[tuple[Count, Count | None]] = []
    newest = tmp_path / "shown"
    newest.write_text("0")

    def show(outer: Count, inner: Count | None = None) -> None:
        shown.append((outer, inner))
        if inner is not None:
            newest.write_text(str(inner.done))

    monkeypatch.setattr(SCREEN, "is_live", lambda: True)
    monkeypatch.setattr(SCREEN, "show", show)
    with caplog.at_level("INFO"):
        assert on_cluster(slow, 5, str(newest), says="dawdle") == 5
    assert {outer for outer, _ in shown} == {Count("dawdle")}
    seen = [inner.done for _, inner in shown if inner is not None]
    assert set(seen) == {1, 2, 3, 4} and seen == sorted(seen)
    assert "that was slow" in caplog.text
    with pytest.raises(ValueError, match=r"^No sealed artefact at /no/weights: it does not exist.$"):
        on_cluster(weigh, 2, np.ones(1), ["a"], says="weigh")
    with pytest.raises(RayTaskError, match=r"(?s)in weigh\n.*ValueError: operands could not be broadcast"):
        on_cluster(weigh, 0, np.ones(1), [])


def test_no_parts_start_nothing() -> None:
    assert list(run_parts("nothing", [], WritePart)) == []


def test_a_ray_that_is_already_there_is_used_and_left_running(ray_local: None) -> None:
    before = ray.get_runtime_context().get_node_id()
    with session():
        assert ray.get_runtime_context().get_node_id() == before
    assert ray.is_initialized()


# --- what a run prints ---


class Chatty:
    """Prints, warns and logs as libraries do; and says two things of ours."""

    def __init__(self, breaks: int) -> None:
        self.breaks = breaks
        print("printed by a worker", flush=True)
        logging.getLogger("some.library").warning("a library's warning on a worker")

    def __call__(self, part: int, progress: Progress = silent) -> dict[str, int]:
        if part == self.breaks:
            raise OSError("the scales are broken")
        logging.getLogger("retrieval.data").warning("part %d is light", part)
        logging.getLogger("retrieval.data").info("part %d is news to the worker's own log only", part)
        for photo in counted(range(10), "photos", progress):
            time.sleep(0.05 if photo else 0)
        return {"taken": 10}


def number_of(rows: list[Any]) -> int:
    return len(rows)


def chatty_job() -> None:
    """For a process of its own."""
    with session():
        rows = list(run_parts("weigh", range(4), Chatty, total_items=40, fixed={"breaks": 9}))
        logger.info("%d parts", len(rows))
        logging.getLogger("botocore.client").info("Running upgrade")
        assert on_cluster(number_of, rows) == 4
        list(run_parts("weigh", range(1), Chatty, total_items=10, fixed={"breaks": 0}))


def test_a_run_prints_our_lines_and_failures_whole_and_the_rest_is_in_the_logs(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))  # a new machine: no token there yet
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    env |= {"HOME": str(home), "RAY_TMPDIR": str(home)}
    code = "import sys; sys.path[:0] = ['.']; from tests.cluster import test_session as t; t.chatty_job()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
        )
        printed, _, failure = done.stderr.partition("Traceback (most recent call last):\n")
        assert (done.returncode, done.stdout) == (1, "")
        lines = printed.splitlines()
        assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in lines), printed
        # Ours, or an error with its author.
        words = [line[9:] for line in lines if not line[9:].startswith("ERROR ray: ")]
        told = [word for word in words if re.match(r"weigh: \d+ of (40|10), .* (so far|left)$", word)]
        done_, *rest = [word for word in words if word not in told and "is light" not in word]
        assert re.fullmatch(r"weigh: 40 in \d.* s, \d.*(/s| each)", done_) and rest == ["4 parts"], printed
        light = sorted(word for word in words if "is light" in word)
        assert light == [f"WARNING part {part} is light" for part in range(4)], printed
        assert "in __call__" in failure and failure.count("OSError: the scales are broken") >= 1
        (logs,) = home.glob("ray/session_2*/logs")
        kept = (logs / "retrieval-driver.log").read_text()
        for text in ("INFO botocore.client: Running upgrade", "4 parts"):
            assert text in kept
        assert any("printed by a worker" in path.read_text() for path in logs.glob("worker-*.out"))
        errors = [path.read_text() for path in logs.glob("worker-*.err")]
        assert any("a library's warning on a worker" in text for text in errors)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _taken(pieces: int) -> tuple[list[Any], int]:
    """What came of each piece, and how many of them had been asked for when the first came back."""
    asked = []

    def each() -> Any:
        for piece in range(pieces):
            asked.append(piece)
            yield piece

    coming = by_tasks(lambda piece, more, names: (piece + more, names, os.getpid()), each(), 10, ["a"])
    first = next(coming)
    soon = len(asked)
    return [first, *coming], soon


def test_a_task_spreads_its_pieces_in_order_and_not_all_at_once(ray_local: None) -> None:
    found, soon = on_cluster(_taken, 9)
    assert [number for number, _, _ in found] == list(range(10, 19))
    assert all(names == ["a"] and process != os.getpid() for _, names, process in found)
    assert soon == 2 * int(ray.cluster_resources()["CPU"]) + 1, "two a core run, and one more is at hand"
    assert on_cluster(_taken_of_few) == ([], [(4, True)])


def _taken_of_few() -> tuple[list[Any], list[Any]]:
    """Of no piece, and of one: what came of it, and whether this process did it."""
    own = os.getpid()
    return list(by_tasks(lambda piece: piece, [])), list(by_tasks(lambda piece: (piece, os.getpid() == own), [4]))
