"""A crowd in memory, and a small collection with embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation import systems, tasks
from tests.support.asking import images_of
from tests.support.measured import write_collection, write_system

NUM = 211


@pytest.fixture(scope="module")
def crowd() -> tuple[tasks.Task, np.ndarray]:
    """Photos of 30 people that all ask all others; every seventh is a copy of the one before, which ties with it."""
    random = np.random.default_rng(5)
    vectors = random.normal(size=(NUM, 6)).astype(np.float32)
    vectors[7::7] = vectors[6:-1:7]
    labels = [f"p{n:02d}" for n in random.integers(0, 30, NUM)]
    images = images_of([f"{n:03d}" for n in range(NUM)], labels, random.choice([-1, 1], (NUM, 5)).astype(np.int8))
    task = tasks.Task(protocol="x", queries=images, gallery=images, exclude=np.arange(NUM), ks_asked=(3, 20))
    return task, vectors


@pytest.fixture
def stored(tmp_path: Path) -> tuple[tasks.Task, systems.System, Folder]:
    collection = write_collection(Folder.of(tmp_path / "collection"))
    return tasks.leave_one_out(collection, (3,)), write_system(Folder.of(tmp_path), collection), collection
