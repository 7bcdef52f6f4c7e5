"""Workers that end are replaced so often as was asked, and photos are looked at once, at the second end or the last."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ray.train import WorkerGroupError

from ray_jobs.runtime.parallel import training
from ray_jobs.runtime.parallel.training import look_at_photos, refused, repeated
from retrieval.artifacts.folder import Folder
from tests.support.inline import install
from tests.support.patterns import make_patterns


class Run:
    """An attempt whose workers end so many times before it is through. `did` holds what was done, in order."""

    def __init__(self, ends: int, finds: bool = False) -> None:
        self.left, self.finds, self.did = ends, finds, list[Any]()

    def attempt(self, failures: int) -> None:
        self.did.append(failures)
        if self.left > failures:
            self.left -= failures + 1
            raise WorkerGroupError("[Rank 0] the actor died", {0: RuntimeError("died")})
        self.left = 0

    def look(self) -> None:
        self.did.append("look")
        if self.finds:
            raise ValueError("a.jpg: crashed")


@pytest.mark.parametrize(
    ("most", "ends", "did"),
    [
        (3, 0, [1]),
        (3, 1, [1]),
        (3, 2, [1, "look", 1]),
        (3, 3, [1, "look", 1]),
        (4, 4, [1, "look", 2]),
        (1, 0, [1]),
        (0, 0, [0]),
    ],
)
def test_a_run_goes_on_where_no_photo_is_to_blame(most: int, ends: int, did: Iterable[Any]) -> None:
    run = Run(ends)
    repeated(run.attempt, most, run.look)
    assert run.did == did


@pytest.mark.parametrize(("most", "did"), [(3, [1, "look", 1]), (1, [1, "look"]), (0, [0, "look"])])
def test_what_keeps_ending_is_given_up_after_so_many_ends_in_all(most: int, did: Iterable[Any]) -> None:
    run = Run(99)
    with pytest.raises(WorkerGroupError):
        repeated(run.attempt, most, run.look)
    assert run.did == did and 99 - run.left == most + 1


def test_a_photo_that_is_found_ends_the_run_at_once() -> None:
    run = Run(99, finds=True)
    with pytest.raises(ValueError, match="a.jpg: crashed"):
        repeated(run.attempt, 3, run.look)
    assert run.did == [1, "look"]


def test_photos_that_are_trained_on_are_looked_at_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_patterns(tmp_path / "collection", train=2, val=1, query=1, shots=3, part_size=5)
    collection, cluster = Folder.of(tmp_path / "collection"), install(monkeypatch, training)
    look_at_photos(collection, ("train", "val"))
    (call,) = cluster.parts
    assert (call["parts"], call["total_items"], call["fixed"]["splits"]) == ([0, 1, 2], 12, ("train", "val"))
    left = [{"image_id": name, "reason": "crashed", "detail": "SIGSEGV"} for name in ("b.jpg", "a.jpg")]
    monkeypatch.setattr(training, "run_parts", lambda *_, **__: [{"left": [bad]} for bad in left])
    with pytest.raises(ValueError, match=r"2 photos of .* train: a.jpg: crashed \(SIGSEGV\); b.jpg: .* Ingest the"):
        look_at_photos(collection, ("train", "val"))


def test_many_photos_are_not_all_named() -> None:
    left = [{"image_id": f"{n}.jpg", "reason": "timed-out", "detail": "not done within 5 s"} for n in range(13)]
    told = refused(Folder.of("/c"), left)
    assert "13 photos" in told and "9.jpg" in told and "10.jpg" not in told and "and 3 more" in told
