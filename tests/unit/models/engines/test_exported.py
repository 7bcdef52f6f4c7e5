"""What follows the graph, in NumPy, is what PyTorch does: scales, their mean, L2."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.models import pooling
from retrieval.models.engines.exported import Exported, at_scale, l2n, mean_over_scales


@pytest.mark.parametrize("shape", [(50, 70), (33, 200), (20, 40), (64, 31), (1, 3)])
@pytest.mark.parametrize("scale", [1.0, 0.7071, 0.5, 1.5])
def test_images_are_resized_as_tensors_are(shape: tuple[int, int], scale: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    got = at_scale(pixels, scale)
    expected = pooling.at_scale(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), scale).permute(0, 2, 3, 1)
    assert got.shape == tuple(expected.shape)
    assert np.abs(got - expected.numpy()).max() < 1e-2  # of 255


@pytest.mark.parametrize("power", [1.0, 3.0, 2.4])
def test_the_mean_over_scales_is_pytorchs(power: float) -> None:
    found = [l2n(x) for x in np.random.default_rng(0).random((3, 5, 8), dtype=np.float32)]
    expected = pooling.mean_over_scales([torch.from_numpy(x) for x in found], power).numpy()
    got = mean_over_scales(found, power)
    assert got.dtype == np.float32 and np.abs(got - expected).max() < 1e-6


def test_l2_is_pytorchs_also_of_nothing() -> None:
    x = np.array([[3, 4], [0, 0]], np.float32)
    assert np.array_equal(l2n(x), pooling.l2n(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("whitened", [False, True])
def test_what_is_not_the_graph_travels_as_a_file(whitened: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = {"projection": rng.random((2, 3), np.float32), "mean": rng.random(3, np.float32)} if whitened else {}
    before = Exported(graph=b"graph", power=2.5, **arrays)
    after = Exported.of(b"graph", before.tail())
    assert after.power == 2.5
    for name in ("projection", "mean"):
        old, new = getattr(before, name), getattr(after, name)
        assert (old is None) == (new is None) == (not whitened)
        assert not whitened or np.array_equal(np.asarray(old), np.asarray(new))
