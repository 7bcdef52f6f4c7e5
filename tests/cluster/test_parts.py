"""run_parts: through whatever ends a worker, and never for ever."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from ray_jobs.runtime.parallel import parts
from ray_jobs.runtime.parallel.crew import Actors
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.placement import Needs, slots
from ray_jobs.runtime.parallel.worker import Work
from ray_jobs.runtime.session import on_cluster, started
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.artifacts.storage.patience import patience
from retrieval.images.native import POISON, one_photo, strike
from retrieval.images.pixels import BadImage

pytestmark = pytest.mark.usefixtures("ray_local")
SIZE = 6


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = parts.set_limits(Limits(photo_seconds=0.5))
    yield
    parts.set_limits(before)


def look_at(part: int, only: Sequence[int], poison: str, progress: Progress = silent) -> list[str]:
    """As a decoder: a photo's bytes are its name."""
    names = [f"{part}-{at}!" for at in range(SIZE)]
    os.environ[POISON] = poison
    progress("photos", 0, len(only))
    for at in counted(only, "photos", progress):
        with one_photo():
            strike(names[at].encode())
    return names


def describe(part: int, poison: str, without: Mapping[int, BadImage] | None = None) -> dict[str, Any]:
    without = without or {}
    look_at(part, [at for at in range(SIZE) if at not in without], poison)
    bad = {at: f"{why.reason}: {why.detail}" for at, why in without.items()}
    return {"part": part, "taken": SIZE, "broken": len(bad), "bad": bad}


class Describe:
    """The same by an actor."""

    def __init__(self, poison: str) -> None:
        self.poison = poison

    def __call__(self, part: int, without: Mapping[int, BadImage] | None = None) -> dict[str, Any]:
        return describe(part, self.poison, without)


@pytest.mark.parametrize("work", [describe, Describe])
def test_each_photo_that_ends_its_worker_is_left_out_with_its_reason_and_the_rest_is_done(
    work: Any, caplog: pytest.LogCaptureFixture
) -> None:
    poison = "crash:0-0!,raise:1-2!,crash:2-1!,hang:2-3!,crash:2-5!"
    settings: dict[str, Any] = {"fixed": {"poison": poison}, "attempt": look_at}
    rows = list(run_parts("describe", range(4), work, total_items=4 * SIZE, **settings))
    assert {row["part"]: row["bad"] for row in rows} == {
        0: {"0": "crashed: SIGSEGV"},
        1: {"2": "crashed: RuntimeError: poisoned for a test"},
        2: {"1": "crashed: SIGSEGV", "3": "timed-out: not done within 0.5 s", "5": "crashed: SIGSEGV"},
        3: {},
    }
    assert "describe: 2-3! is left out: timed-out (not done within 0.5 s)" in caplog.text
    assert "5 photos left out as crashed or timed-out; workers that ended cost at most" in caplog.text


def test_too_many_broken_photos_stop_the_job_with_advice() -> None:
    parts.set_limits(Limits(max_rejected=0.1, photo_seconds=0.5))
    settings: dict[str, Any] = {"fixed": {"poison": "raise:!"}, "attempt": look_at, "listed": "W/rejected"}
    with pytest.raises(
        ValueError, match=r"describe: 1[12] of 24 photos .* than --max-rejected 0.1. They .* W/rejected"
    ):
        list(run_parts("describe", range(4), describe, total_items=4 * SIZE, **settings))


def dies(part: int, tries: str, times: int) -> dict[str, int]:
    with Path(tries).open("a") as file:
        file.write(f"{part}\n")
    if part == 1 and Path(tries).read_text().count("1") <= times:
        os._exit(1)
    return {"part": part}


def test_a_part_whose_worker_keeps_dying_is_given_up_after_three_tries(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    twice = list(run_parts("die", range(3), dies, fixed={"tries": str(tries), "times": 2}))
    assert sorted(row["part"] for row in twice) == [0, 1, 2] and tries.read_text().count("1") == 3
    tries.unlink()
    with pytest.raises(ValueError, match=r"die: part 1 ended its worker 3 times .* Lack of memory looks like this"):
        list(run_parts("die", range(3), dies, fixed={"tries": str(tries), "times": 99}))
    assert tries.read_text().count("1") == 3


def sleeps(part: int) -> dict[str, int]:
    time.sleep(60 * part)
    return {"part": part}


def test_a_part_that_never_ends_is_ended_and_given_up() -> None:
    parts.set_limits(Limits(part_seconds=1.0))
    with pytest.raises(ValueError, match="sleep: part 1 ended its worker 3 times"):
        list(run_parts("sleep", range(2), sleeps))


def harmless_alone(part: int, only: Sequence[int], progress: Progress = silent) -> list[str]:
    return ["a", "b"]


def faulty(part: int, without: Mapping[int, BadImage] | None = None) -> dict[str, int]:
    raise KeyError("ours")


def test_a_fault_that_no_photo_has_ends_the_job_and_names_it() -> None:
    with pytest.raises(ValueError, match=r"part 0 failed 1 times \(KeyError: 'ours'\) and no photo of it does so"):
        list(run_parts("fault", range(1), faulty, attempt=harmless_alone, total_items=2))


class Unready:
    def __init__(self, how: str) -> None:
        if how == "dies":
            os._exit(1)
        raise OSError("no weights")


def test_an_actor_that_does_not_get_ready_ends_the_job() -> None:
    with pytest.raises(ValueError, match="3 workers ended before they were ready"):
        list(run_parts("unready", range(3), Unready, fixed={"how": "dies"}))
    with pytest.raises(RayTaskError, match="no weights"):
        list(run_parts("unready", range(3), Unready, fixed={"how": "fails"}))


def seen() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


class Sees:
    def __call__(self, part: int) -> dict[str, Any]:
        return {"seen": seen()}


def sees(part: int) -> dict[str, Any]:
    return {"seen": seen()}


def named(name: str, what: str) -> str:
    return name + what


def test_a_function_s_arguments_may_have_any_name() -> None:
    assert on_cluster(named, name="a", what="b") == "ab"


def away_for_a_moment(tries: str) -> str | None:
    with Path(tries).open("a") as file:
        file.write("1\n")
    if len(Path(tries).read_text().split()) < 3:
        raise ConnectionError("reset")
    return ray.get_runtime_context().get_task_name()


def test_what_others_wait_for_waits_for_storage_itself_and_goes_by_its_own_name(tmp_path: Path) -> None:
    with patience(60):
        assert ray.get(started(away_for_a_moment, str(tmp_path / "tries"))) == "away_for_a_moment"
        assert on_cluster(away_for_a_moment, str(tmp_path / "again")) == "away_for_a_moment"
    with pytest.raises(RayTaskError, match="reset"):
        ray.get(started(away_for_a_moment, str(tmp_path / "at once")))


def test_who_asked_for_no_gpu_sees_none() -> None:
    assert on_cluster(seen) == ""
    for work in (sees, Sees):
        assert [row["seen"] for row in run_parts("see", range(1), work)] == [""]


class Crowd:
    """How many of its kind there are at once."""

    def __init__(self, folder: str) -> None:
        self.mark = Path(folder) / str(os.getpid())

    def __call__(self, part: int) -> dict[str, int]:
        self.mark.touch()
        time.sleep(0.5)
        most = len(list(self.mark.parent.iterdir()))
        self.mark.unlink()
        return {"most": most}


def test_two_that_need_most_of_a_machine_s_memory_never_meet(tmp_path: Path) -> None:
    memory = next(node["Resources"]["memory"] for node in ray.nodes() if node["Alive"])
    large = Needs(cpus=0.1, memory=int(0.6 * memory))
    rows = run_parts("crowd", range(6), Crowd, fixed={"folder": str(tmp_path)}, needs=large, workers=4)
    assert max(row["most"] for row in rows) == 1


def test_actors_fill_the_cluster_and_one_more_is_asked_for_where_it_can_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    there = slots(Needs())
    for address, hired in (("", there), ("a cluster", there + 1)):
        monkeypatch.setenv("RAY_ADDRESS", address)
        crew = Actors(Work(does=Sees, fixed={}), Needs(), 0)
        assert (len(crew.hire(1)), len(crew.hire(100))) == (1, hired - 1)
        crew.close()


def test_the_log_of_a_run_without_losses_says_nothing_of_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        list(run_parts("sees", range(2), sees))
    assert "left out" not in caplog.text
