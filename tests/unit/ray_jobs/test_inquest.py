"""The photo that ends its worker is found, in processes that really die; nobody is blamed for what is not his."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime.parallel import inquest
from ray_jobs.runtime.parallel.inquest import Ended, look
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.artifacts.storage.patience import patience, patiently
from retrieval.images.native import POISON, one_photo, strike

NAMES = [f"photo-{at}!" for at in range(12)]


def try_photos(
    poison: str, only: Sequence[int], tries: str, tells: bool = True, progress: Progress = silent
) -> list[str]:
    """As a decoder: a photo's bytes are its name."""
    os.environ[POISON] = poison
    with Path(tries).open("a") as file:
        file.write(f"{len(only)}\n")
    told = progress if tells else silent
    told("photos", 0, len(only))
    for at in counted(only, "photos", told):
        with one_photo():
            strike(NAMES[at].encode())
    return NAMES


def tried(tries: Path) -> list[int]:
    """How many photos each try was of."""
    return [int(line) for line in tries.read_text().split()]


def test_each_bad_photo_is_found_with_the_signal_that_it_ended_in_wherever_it_stands(tmp_path: Path) -> None:
    poison = "crash:photo-0!,hang:photo-5!,crash:photo-6!,raise:photo-8!,crash:photo-11!"
    fixed = {"poison": poison, "tries": str(tmp_path / "tries")}
    found = look(try_photos, fixed, 0.5)
    assert found.by == {
        0: ("photo-0!", "crashed", "SIGSEGV"),
        5: ("photo-5!", "timed-out", "not done within 0.5 s"),
        6: ("photo-6!", "crashed", "SIGSEGV"),
        8: ("photo-8!", "crashed", "RuntimeError: poisoned for a test"),
        11: ("photo-11!", "crashed", "SIGSEGV"),
    }
    # Two deaths each, since it was told which was at hand; the last alone is both.
    assert tried(tmp_path / "tries") == [0, 12, 1, 11, 1, 6, 1, 5, 1, 3, 1]
    assert found.seconds > 1
    again = look(try_photos, fixed, 0.5, known=[0, 5, 6, 8])
    assert list(again.by) == [11]
    assert len(look(try_photos, fixed, 0.5, most=2).by) == 2


def test_where_nothing_is_told_halving_finds_it(tmp_path: Path) -> None:
    fixed = {"poison": "crash:photo-3!,crash:photo-9!", "tries": str(tmp_path / "tries"), "tells": False}
    assert list(look(try_photos, fixed, 5).by) == [3, 9]
    assert len(tried(tmp_path / "tries")) <= 16


def test_photos_that_harm_together_only_are_not_to_blame() -> None:
    def together(some: Sequence[int]) -> Ended | None:
        return Ended(reason="crashed", detail="SIGABRT", done=None) if {2, 7} <= set(some) else None

    found: dict[int, Ended] = {}
    inquest._search(together, range(12), found, 12)
    assert found == {}


def test_damage_that_shows_later_is_put_down_to_who_did_it() -> None:
    """Photo 4 spoils the heap, and whoever comes next dies of it."""

    def later(some: Sequence[int]) -> Ended | None:
        if 4 not in some:
            return None
        at = min(list(some).index(4) + 1, len(some) - 1)
        return Ended(reason="crashed", detail="SIGABRT", done=at)

    found: dict[int, Ended] = {}
    inquest._search(later, list(range(12)), found, 12)
    assert list(found) == [4]


def unreadable(only: Sequence[int], how: str, progress: Progress = silent) -> list[str]:
    if only and how == "storage":
        raise OSError("the bucket is gone")
    if only:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0)
    return NAMES


@pytest.mark.parametrize(("how", "told"), [("storage", "the bucket is gone"), ("memory", "SIGKILL.*lack of memory")])
def test_storage_and_memory_are_nobody_s_fault(how: Any, told: str) -> None:
    with pytest.raises(OSError, match=told):
        look(unreadable, {"how": how}, 5)


def away_for_a_moment(only: Sequence[int], tries: str, progress: Progress = silent) -> list[str]:
    def read() -> list[str]:
        with Path(tries).open("a") as file:
            file.write(f"{len(only)}\n")
        if only and tried(Path(tries)).count(len(only)) < 3:
            raise ConnectionError("reset")
        return NAMES

    return patiently(read, "reading")


def test_storage_is_waited_for_as_long_as_the_worker_would(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="reset"):
        look(away_for_a_moment, {"tries": str(tmp_path / "at once")}, 5)
    with patience(60):
        assert look(away_for_a_moment, {"tries": str(tmp_path / "patient")}, 5).by == {}
    assert tried(tmp_path / "patient") == [0, 12, 12, 12]
