"""ALIKED's network against slow definitions, with random weights; where the published ones are at hand, with those."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from retrieval.geometry.extractors import aliked_network
from retrieval.geometry.extractors.aliked_network import AlikedN16, peaks, refined


@pytest.fixture(scope="module")
def net() -> AlikedN16:
    torch.manual_seed(3)
    return AlikedN16().eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def slow_peaks(scores: np.ndarray) -> list[tuple[float, int, int]]:
    found = []
    for row in range(2, scores.shape[0] - 2):
        for column in range(2, scores.shape[1] - 2):
            around = scores[row - 2 : row + 3, column - 2 : column + 3].copy()
            around[2, 2] = -1
            if scores[row, column] > around.max():
                found.append((-float(scores[row, column]), row, column))
    return sorted(found)


def test_peaks_are_larger_than_all_around_the_best_first() -> None:
    """Scores in few steps: many are equal, within one window and far from each other."""
    scores = (noise(40, 31) * 12).round() / 12
    expected = slow_peaks(scores.numpy())
    assert len(expected) > 5 and len({score for score, *_ in expected}) < len(expected)
    rows, columns, strength = peaks(scores, 1000)
    assert list(zip((-strength).tolist(), rows.tolist(), columns.tolist())) == expected
    assert [column.tolist() for column in peaks(scores, 4)] == [
        column[:4].tolist() for column in (rows, columns, strength)
    ]
    assert not len(peaks(torch.full((9, 9), 0.5), 9)[0])


def test_a_peak_is_moved_by_the_soft_maximum_around_it() -> None:
    scores = noise(21, 34, seed=1)
    rows, columns, _ = peaks(scores, 20)
    found = refined(scores, rows, columns).numpy()
    for (x, y), row, column in zip(found, rows.tolist(), columns.tolist(), strict=True):
        around = scores[row - 2 : row + 3, column - 2 : column + 3].numpy().astype(float)
        weights = np.exp(around / 0.1) / np.exp(around / 0.1).sum()
        assert x == pytest.approx(column + (weights.sum(axis=0) * np.arange(-2, 3)).sum(), abs=1e-5)
        assert y == pytest.approx(row + (weights.sum(axis=1) * np.arange(-2, 3)).sum(), abs=1e-5)


def test_a_deformable_convolution_whose_places_stay_is_a_plain_one() -> None:
    torch.manual_seed(0)
    moved = aliked_network._Deformable(4, 6).requires_grad_(False)
    x = noise(1, 4, 9, 12)
    assert not torch.allclose(moved(x), moved.regular_conv(x), atol=1e-2)
    moved.offset_conv.weight.zero_()
    moved.offset_conv.bias.zero_()  # type: ignore[union-attr]
    assert torch.allclose(moved(x), moved.regular_conv(x), atol=1e-6)


def seen_at(found: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear, zero outside."""
    left, top, total = int(np.floor(x)), int(np.floor(y)), np.zeros(len(found))
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < found.shape[1] and 0 <= column < found.shape[2]:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * found[:, row, column]
    return total


def test_a_descriptor_is_the_slow_sum_of_what_lies_at_sixteen_places() -> None:
    torch.manual_seed(5)
    head = aliked_network._Descriptors().requires_grad_(False)
    found = nn.functional.normalize(noise(128, 20, 26, seed=2) - 0.5, dim=0)
    points = torch.tensor([[3.2, 4.9], [12.7, 9.1], [23.6, 17.8], [2.0, 2.0]])
    fast, maps = head(found, points).numpy(), found.numpy().astype(float)
    for at, (x, y) in enumerate(points.tolist()):
        column, row = min(int(x) - 1, 26 - 4), min(int(y) - 1, 20 - 4)
        near = torch.tensor(maps[None, :, row : row + 3, column : column + 3], dtype=torch.float32)
        moves = head.offset_conv(near).numpy()[0, :, 0, 0].astype(float)
        total = np.zeros(128)
        for place in range(16):
            there = seen_at(maps, x + moves[place], y + moves[16 + place])
            mixed = head.sf_conv.weight.numpy()[:, :, 0, 0].astype(float) @ there
            mixed = np.where(mixed > 0, 1.0507009873554805 * mixed, 1.7580993408473766 * np.expm1(mixed))
            total += mixed @ head.agg_weights[place].numpy().astype(float)
        assert fast[at] == pytest.approx(total / np.linalg.norm(total), abs=2e-5)


@pytest.mark.parametrize("size", [(64, 96), (45, 70), (33, 31), (16, 200)])
def test_a_photo_of_any_size_has_points_inside_and_unit_descriptors(net: AlikedN16, size: tuple[int, int]) -> None:
    image = noise(3, *size)
    features, scores = net.maps(image)
    assert features.shape == (128, *size) and scores.shape == size
    assert torch.allclose(features.norm(dim=0), torch.ones(size), atol=1e-4)
    points, descriptors, strength = net(image, 30)
    assert 0 < len(points) == len(descriptors) == len(strength) <= 30
    assert (points >= 0).all() and (points[:, 0] < size[1]).all() and (points[:, 1] < size[0]).all()
    assert torch.allclose(descriptors.norm(dim=1), torch.ones(len(points)), atol=1e-4)
    assert (strength.diff() <= 0).all() and strength.min() > 0 and strength.max() < 1
    again = net(image, 30)
    assert all(torch.equal(one, two) for one, two in zip((points, descriptors, strength), again, strict=True))


def test_what_is_padded_is_taken_off_again(net: AlikedN16) -> None:
    """A photo of whole steps, and the same repeated at its edges as padding does: equal where both are."""
    image = noise(3, 59, 90, seed=4)  # 5 and 6 short of whole steps
    padded = nn.functional.pad(image[None], (3, 3, 2, 3), mode="replicate")[0]
    for small, large in zip(net.maps(image), net.maps(padded), strict=True):
        assert torch.allclose(small, large[..., 2:61, 3:93], atol=1e-6)
