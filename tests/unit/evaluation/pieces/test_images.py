"""Images of a side, taken or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.evaluation import tasks
from retrieval.evaluation.pieces.images import Images
from tests.support.asking import images_of

POOL = pa.proxy_memory_pool(pa.default_memory_pool())  # outlives what is taken from it


def test_images_that_are_all_taken_are_not_copied(crowd: tuple[tasks.Task, np.ndarray]) -> None:
    images: Images = crowd[0].gallery
    assert images.take(np.arange(len(images))) is images
    assert images.take(np.arange(len(images))[::-1]).id(0) == "210" and len(images.take(np.arange(3))) == 3


def test_some_names_are_taken_without_the_others(tmp_path: Path) -> None:
    """A hundred of 50,000 in five chunks, mapped from a file: 2.6 MB of letters that stay there."""
    names = [f"albums/{n // 100:05d}/holiday-and-more-of-it-{n:012d}.jpg" for n in range(50_000)]
    ids = _mapped(tmp_path / "ids.arrow", names)
    every = images_of([""], ["x"], np.zeros((1, 1), np.int8))
    numbers = {"codes": np.zeros(50_000, np.int32), "parts": np.arange(50_000), "rows": np.arange(50_000)}
    every = dataclasses.replace(every, ids=ids, attributes=np.zeros((50_000, 1), np.int8), **numbers)
    random, before = np.random.default_rng(0), pa.default_memory_pool()
    for rows in (random.permutation(50_000)[:100], np.sort(random.permutation(50_000)[:100]), np.zeros(0, np.int64)):
        pa.set_memory_pool(POOL)
        try:
            some = every.take(rows)
        finally:
            pa.set_memory_pool(before)
        assert some.ids.to_pylist() == [names[row] for row in rows] and some.parts.tolist() == rows.tolist()
    assert 1000 < POOL.max_memory() < 100_000


def _mapped(path: Path, names: list[str]) -> pa.ChunkedArray:
    schema = pa.schema([("id", pa.large_string())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(names), 10_000):
            chunk = pa.array(names[start : start + 10_000], pa.large_string())
            writer.write_batch(pa.record_batch([chunk], schema=schema))
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()["id"]
