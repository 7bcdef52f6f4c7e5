"""The frozen trunk's features, kept on a node's disk for all its ranks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from retrieval.training.feature_cache import FeatureCache


def test_feature_cache_gives_back_each_row_under_each_view(tmp_path: Path) -> None:
    """Two caches on one file, as two ranks of a node have it, each filling its share."""
    path = tmp_path / "cache" / "maps.f16"
    caches = [FeatureCache(path, 5, 2, (3, 2, 2)) for _ in range(2)]

    def pixels(rows: object, view: int) -> torch.Tensor:
        assert isinstance(rows, list)
        return torch.tensor([100 * view + row for row in rows])

    for cache, rows in zip(caches, ([0, 2, 4], [1, 3]), strict=True):
        cache.fill(np.array(rows), pixels, lambda x: x.view(-1, 1, 1, 1).expand(-1, 3, 2, 2) + 0.5, batch_size=2)
    got = caches[0].read([3, 0, 3], np.array([1, 0, 0]))
    assert got.dtype == torch.float32 and got.shape == (3, 3, 2, 2)
    assert got[:, 0, 0, 0].tolist() == [103.5, 0.5, 3.5]
    assert caches[1].read([4], 1)[0, 2, 1, 1] == 104.5
    assert path.stat().st_size == 5 * 2 * 12 * 2


def test_filling_tells_how_far_it_is_over_all_views(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    asked: list[tuple[list[int], int]] = []
    cache = FeatureCache(tmp_path / "maps.f16", 9, 2, (1, 1, 1))

    def pixels(rows: Sequence[int], view: int) -> torch.Tensor:
        asked.append((list(rows), view))
        return torch.zeros(len(rows), 1, 1, 1)

    cache.fill(np.array([8, 1, 4, 5, 0]), pixels, lambda x: x, 2, lambda *what: told.append(what))
    assert asked == [([8, 1], 0), ([4, 5], 0), ([0], 0), ([8, 1], 1), ([4, 5], 1), ([0], 1)]
    assert told == [("fill features", done, 10) for done in (2, 4, 5, 7, 9, 10)]


def test_a_file_that_another_filled_is_not_cut_short_and_maps_are_channels_last(tmp_path: Path) -> None:
    path = tmp_path / "maps.f16"
    first = FeatureCache(path, 2, 1, (3, 2, 2))
    first.fill(np.array([0, 1]), lambda rows, _: torch.tensor(rows), lambda x: x.view(-1, 1, 1, 1).expand(-1, 3, 2, 2))
    again = FeatureCache(path, 2, 1, (3, 2, 2)).read([1, 0], 0)
    assert again[:, 0, 0, 0].tolist() == [1, 0]
    assert again.is_contiguous(memory_format=torch.channels_last)


def test_feature_cache_clamps_to_the_range_of_float16(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "maps.f16", 1, 1, (2, 1, 1))
    big = torch.tensor([1e9, -1e9]).view(1, 2, 1, 1)
    cache.fill(np.array([0]), lambda _rows, _view: torch.zeros(1), lambda _: big)
    assert cache.read([0], 0).flatten().tolist() == [65504, -65504]


def test_a_disk_without_room_is_told_before_anything_is_mapped(tmp_path: Path) -> None:
    """In a process that may write 1 MB a file, which its file system refuses as a full disk does."""
    code = """
import resource, signal, sys
from pathlib import Path
from retrieval.artifacts.storage.failures import Outage
from retrieval.training.feature_cache import FeatureCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
path = Path(sys.argv[1])
FeatureCache(path, 10, 1, (4, 4, 4))
try:
    FeatureCache(path.with_name("large"), 10000, 1, (64, 7, 7))
except Outage as told:
    print(told)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "maps.f16")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert "The disk is full on" in done.stdout and "keeping 0.063 GB of features" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["maps.f16"]
