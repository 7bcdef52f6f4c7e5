"""session and run_parts: how every job meets Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from ray_jobs.runtime.session import run_parts, session
from retrieval.artifacts.folder import Folder, part_name

Batch = dict[str, Any]


class WritePart:
    """Writes its part; the first try of part `dies` kills its own process half-way, as a lost machine would."""

    def __init__(self, folder: str, dies: int | None = None) -> None:
        self.folder, self.dies = Folder.of(folder), dies

    def __call__(self, batch: Batch) -> Batch:
        (part,) = batch["part"].tolist()
        mark = Path(self.folder.path) / f"tried-{part}"
        with mark.open("a") as tries:
            tries.write(f"{os.getpid()}\n")
        if part == self.dies and len(mark.read_text().splitlines()) == 1:
            os._exit(1)
        self.folder.write_bytes(part_name(part), b"x" * part)
        return {"part": np.array([part]), "taken": np.array([part])}


def test_each_part_is_written_by_a_worker_and_one_row_comes_back(
    ray_local: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = (str(tmp_path),)
    with caplog.at_level("INFO", logger="ray_jobs.session"):
        rows = list(
            run_parts("write", [1, 2, 5], WritePart, total_items=8, fn_constructor_args=arguments, concurrency=1)
        )
    assert sorted((int(row["part"]), int(row["taken"])) for row in rows) == [(1, 1), (2, 2), (5, 5)]
    assert {len(path.read_bytes()) for path in tmp_path.glob("*.parquet")} == {1, 2, 5}
    assert str(os.getpid()) not in (tmp_path / "tried-1").read_text()
    assert "write: part 3 of 3, 8 of 8 items" in caplog.text


def test_a_part_whose_worker_dies_is_done_again_and_counted_once(ray_local: None, tmp_path: Path) -> None:
    arguments = {"folder": str(tmp_path), "dies": 2}
    rows = run_parts("write", [1, 2, 3], WritePart, fn_constructor_kwargs=arguments, concurrency=1)
    assert sorted(int(row["part"]) for row in rows) == [1, 2, 3]
    first, second = (tmp_path / "tried-2").read_text().split()
    assert first != second
    assert len(list(tmp_path.glob("*.parquet"))) == 3


def test_no_parts_start_nothing() -> None:
    assert list(run_parts("nothing", [], WritePart)) == []


def test_a_ray_that_is_already_there_is_used_and_left_running(ray_local: None) -> None:
    before = ray.get_runtime_context().get_node_id()
    with session():
        assert ray.get_runtime_context().get_node_id() == before
    assert ray.is_initialized()
