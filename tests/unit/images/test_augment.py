"""Each view is decided by its seed alone, and each change does what its setting says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from retrieval.images.augment import augment
from retrieval.images.settings import AugmentConfig
from tests.support.patterns import pattern

STILL = AugmentConfig(erase=0, drop_regions=0, flip=0, shift=0, light=0)
GREY = torch.tensor([124, 116, 104], dtype=torch.uint8)


def photos(num: int = 4) -> Tensor:
    return torch.stack([torch.from_numpy(pattern(identity, 0)) for identity in range(num)])


def seeds(num: int = 4, first: int = 0) -> list[list[int]]:
    return [[7, row] for row in range(first, first + num)]


def test_nothing_asked_for_changes_nothing() -> None:
    before = photos()
    given = before.clone()
    got = augment(given, seeds(), STILL)
    assert torch.equal(got, before) and got.dtype == torch.uint8
    got[:] = 0
    assert torch.equal(given, before)  # new memory


def test_a_view_is_decided_by_its_seed_and_not_by_its_batch() -> None:
    config, x = AugmentConfig(), photos(6)
    whole = augment(x, seeds(6), config)
    torch.manual_seed(1)
    assert torch.equal(augment(x[2:4], seeds(2, first=2), config), whole[2:4])
    assert not torch.equal(augment(x, seeds(6, first=100), config), whole)


def test_flip_is_a_mirror() -> None:
    got = augment(photos(), seeds(), dataclasses.replace(STILL, flip=1))
    assert (got.int() - photos().flip(2).int()).abs().max() <= 1  # through an interpolation, and back to bytes


def test_erasing_blanks_one_rectangle_of_the_published_area() -> None:
    x = photos(1).expand(200, -1, -1, -1)
    got = augment(x, seeds(200), dataclasses.replace(STILL, erase=1))
    for image in got:
        rows, columns = (image != x[0]).any(dim=2).nonzero(as_tuple=True)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert (image[top:bottom, left:right] == GREY).all()
        assert 0.01 < (bottom - top) * (right - left) / 64**2 < 0.35


@pytest.mark.parametrize("name", ["erase", "drop_regions"])
def test_a_probability_is_how_often_it_happens(name: str) -> None:
    x = photos(1).expand(300, -1, -1, -1)
    got = augment(x, seeds(300), dataclasses.replace(STILL, **{name: 0.3}))
    changed = (got != x).flatten(1).any(dim=1).double().mean()
    assert 0.2 < changed < 0.4


def test_dropped_regions_are_one_to_eight_small_squares() -> None:
    x = photos(1).expand(50, -1, -1, -1)
    got = augment(x, seeds(50), dataclasses.replace(STILL, drop_regions=1))
    blank = (got == GREY).all(dim=3).flatten(1).sum(dim=1)
    assert blank.min() >= 36 and blank.max() <= 8 * 36 and blank.unique().numel() > 5


def test_light_moves_all_pixels_alike_and_shift_moves_them_away() -> None:
    x = photos(8)
    lit = augment(x, seeds(8), dataclasses.replace(STILL, light=0.2)).float().mean(dim=(1, 2, 3))
    assert (lit - x.float().mean(dim=(1, 2, 3))).abs().min() > 0.1
    moved = augment(x, seeds(8), dataclasses.replace(STILL, shift=0.05)).float()
    assert (moved - x.float()).abs().mean(dim=(1, 2, 3)).min() > 1
