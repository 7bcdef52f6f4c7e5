"""Ray Train is begun again where the process that leads it dies, and never stumbles over half written notes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from ray_jobs.runtime.parallel.fitting import NOTES, to_its_end
from retrieval.artifacts.folder import Folder


class Fit:
    """Ray Train, whose controller dies so many times."""

    def __init__(self, dies: int, notes: Path | None = None) -> None:
        self.begun, self.dies, self.notes, self.found = 0, dies, notes, list[bool]()

    def __call__(self) -> None:
        self.begun += 1
        if self.notes is not None:
            self.found.append(self.notes.exists())
        if self.begun <= self.dies:
            if self.notes is not None:
                self.notes.write_text('{"ray_version": "2')
            raise RayActorError


def test_it_is_begun_again_and_given_up_after_three_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    twice, always = Fit(2), Fit(9)
    to_its_end(twice, Folder.of(tmp_path))
    assert twice.begun == 3 and caplog.text.count("the process that leads the workers ended (RayActorError)") == 2
    with pytest.raises(ValueError, match=r"train: the process that leads the workers ended 3 times .* Lack of memory"):
        to_its_end(always, Folder.of(tmp_path))
    assert always.begun == 3


def test_what_training_itself_raises_is_not_tried_again(tmp_path: Path) -> None:
    def fails() -> None:
        raise RuntimeError("loss is nan")

    with pytest.raises(RuntimeError, match="loss is nan"):
        to_its_end(fails, Folder.of(tmp_path))


def test_half_written_notes_are_taken_away_and_whole_ones_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    notes = tmp_path / NOTES
    fit = Fit(1, notes)
    notes.write_text("{}")
    to_its_end(fit, Folder.of(tmp_path))
    assert fit.found == [True, False]
    assert f"{NOTES} was left half written; training begins with its first epoch" in caplog.text
