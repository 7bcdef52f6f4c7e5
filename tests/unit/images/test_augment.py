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


def test_every_part_of_a_seed_counts() -> None:
    """Run, epoch, image: a seed of which one part is ignored would show the same view every epoch."""
    x = photos(1)
    views = [augment(x, [seed], AugmentConfig()) for seed in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0))]
    assert all(not torch.equal(views[0], other) for other in views[1:])


def ramp(axis: int) -> Tensor:
    """(1, 64, 64, 3): 4 brighter each pixel to the right (axis 1) or down (axis 0)."""
    steps = 4 * torch.arange(64, dtype=torch.uint8)
    return (steps[None, :] if axis else steps[:, None]).expand(64, 64)[None, :, :, None].repeat(1, 1, 1, 3)


@pytest.mark.parametrize("axis", [0, 1])
def test_shift_and_scale_have_the_spread_that_is_set(axis: int) -> None:
    """In the middle of a ramp the change is the shift alone; between two places beside it, the scale."""
    num, config = 600, dataclasses.replace(STILL, shift=0.03)
    got = augment(ramp(axis).expand(num, -1, -1, -1), seeds(num), config)[..., 0].double() / 4  # in pixels
    along = got[:, :, 32] if axis == 0 else got[:, 32, :]
    middle = (along[:, 31] + along[:, 32]) / 2 - 31.5
    assert middle.std().item() / 64 == pytest.approx(0.03, rel=0.15)
    assert abs(middle.mean().item()) < 0.3
    scale = (along[:, 40] - along[:, 23]) / 17
    assert scale.log().std().item() == pytest.approx(1.7 * 0.03, rel=0.15)
    assert got.mul(4).remainder(4).ne(0).double().mean() > 0.2  # between two pixels, not the nearer of them


def test_the_two_directions_are_drawn_apart_and_what_is_moved_in_is_the_border() -> None:
    config = dataclasses.replace(STILL, shift=0.05)
    across, down = (augment(ramp(axis).expand(50, -1, -1, -1), seeds(50), config)[:, 32, 32, 0] for axis in (1, 0))
    assert torch.corrcoef(torch.stack([across, down]).double())[0, 1].abs() < 0.5
    flat = torch.full((20, 64, 64, 3), 90, dtype=torch.uint8)
    assert torch.equal(augment(flat, seeds(20), config), flat)


def test_contrast_and_brightness_have_the_spread_that_is_set() -> None:
    """Of two greys about the middle the mean moves by the brightness, the difference is scaled by the contrast."""
    num, config = 600, dataclasses.replace(STILL, light=0.1)
    pair = torch.full((num, 8, 8, 3), 128 - 40, dtype=torch.uint8)
    pair[:, 4:] = 128 + 40
    got = augment(pair, seeds(num), config).double()
    low, high = got[:, 0, 0, 0], got[:, 7, 7, 2]
    assert ((high - low) / 80).log().std().item() == pytest.approx(0.1, rel=0.15)
    assert ((high + low) / 2 - 128).std().item() == pytest.approx(255 * 0.4 * 0.1, rel=0.15)


def test_what_gets_too_bright_stays_white() -> None:
    ends = torch.zeros(100, 8, 8, 3, dtype=torch.uint8)
    ends[:, 4:] = 255
    got = augment(ends, seeds(100), dataclasses.replace(STILL, light=0.5)).int()
    assert (got[:, 7] > got[:, 0]).all() and (got == 255).any() and (got == 0).any()


def test_what_is_blanked_stays_the_mean_colour_in_any_light() -> None:
    got = augment(photos(1).expand(20, -1, -1, -1), seeds(20), dataclasses.replace(STILL, light=0.5, erase=1))
    assert ((got == GREY).all(dim=3).flatten(1).sum(dim=1) >= 0.015 * 64**2).all()


def test_erased_rectangles_are_of_all_the_published_areas_and_shapes() -> None:
    x = torch.zeros(400, 64, 64, 3, dtype=torch.uint8)
    blank = (augment(x, seeds(400), dataclasses.replace(STILL, erase=1)) == GREY).all(dim=3)
    heights, widths = blank.any(dim=2).sum(dim=1).double(), blank.any(dim=1).sum(dim=1).double()
    areas, ratios = heights * widths / 64**2, heights / widths
    assert areas.mean().item() == pytest.approx((0.02 + 0.33) / 2, abs=0.02)
    assert areas.min() < 0.04 and areas.max() > 0.29
    assert ratios.log().mean().abs() < 0.15 and ratios.max() > 2.3 and ratios.min() < 0.45
    tops, lefts = blank.any(dim=2).int().argmax(dim=1), blank.any(dim=1).int().argmax(dim=1)
    assert (tops == 0).sum() < 60 and (lefts == 0).sum() < 60 and torch.corrcoef(torch.stack([tops, lefts]))[0, 1] < 0.6


def test_light_moves_all_pixels_alike_and_shift_moves_them_away() -> None:
    x = photos(8)
    lit = augment(x, seeds(8), dataclasses.replace(STILL, light=0.2)).float().mean(dim=(1, 2, 3))
    assert (lit - x.float().mean(dim=(1, 2, 3))).abs().min() > 0.1
    moved = augment(x, seeds(8), dataclasses.replace(STILL, shift=0.05)).float()
    assert (moved - x.float()).abs().mean(dim=(1, 2, 3)).min() > 1
