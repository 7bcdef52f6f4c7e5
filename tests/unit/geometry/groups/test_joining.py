"""Models of parts, turned, scaled and shifted, are one again where they share photos, and are not where they differ."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retrieval.geometry.groups.joining import join
from retrieval.geometry.sparse_model import SparseModel, covisible_pairs
from tests.support.streets import part_of, street


def pairs_of(model: SparseModel) -> dict[tuple[str, str], tuple[int, float]]:
    found = covisible_pairs(model)
    names = model.image_ids
    each = zip(found.first, found.second, found.shared, found.scale_change, strict=True)
    return {(names[a], names[b]): (int(shared), round(float(change), 2)) for a, b, shared, change in each}


@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_parts_of_a_street_are_the_street_again(noise: float) -> None:
    """Three parts in a row, of which the first and the last share no photo."""
    whole = street()
    parts = [part_of(whole, photos, seed, noise) for seed, photos in enumerate((range(6), range(3, 9), range(6, 12)))]
    (model,) = join(parts)
    assert model.image_ids == whole.image_ids
    wanted, found = pairs_of(whole), pairs_of(model)
    # Points that only two photos at a part's end see are lost by `without`; all others are there once.
    assert set(found) == set(wanted)
    assert all(abs(found[pair][0] - wanted[pair][0]) <= 1 for pair in wanted)
    assert all(abs(found[pair][1] - wanted[pair][1]) <= 0.05 for pair in wanted)
    apart, real = (np.linalg.norm(np.diff(m.centres, axis=0), axis=1) for m in (model, whole))
    assert np.allclose(apart / apart[0], real / real[0], rtol=0.02)
    assert np.allclose(model.directions @ model.directions[0], 1, atol=0.01)
    assert len(model.points) == len(model.colours) == len(whole.points)


def test_models_that_do_not_agree_stay_apart() -> None:
    """The second's points are others, though features of the same photos; and a third shares no photo with them."""
    whole = street()
    first, second, third = (
        part_of(whole, photos, seed) for seed, photos in enumerate((range(5), range(3, 8), range(9, 12)))
    )
    rng = np.random.default_rng(1)
    wrong = dataclasses.replace(second, points=second.points[rng.permutation(len(second.points))])
    found = join([first, wrong, third])
    assert [model.image_ids for model in found] == [m.image_ids for m in (first, wrong, third)]
    assert [model is one for model, one in zip(found, (first, wrong, third), strict=True)] == [True] * 3


def test_common_points_that_few_agree_on_are_not_made_one() -> None:
    """A third of them are mismatches: the models are joined by the others."""
    whole = street()
    first, second = part_of(whole, range(7), 0), part_of(whole, range(4, 12), 1)
    rng, moved = np.random.default_rng(2), second.points.copy()
    off = rng.permutation(len(moved))[: len(moved) // 3]
    moved[off] += rng.normal(0, 3 * np.ptp(moved), (len(off), 3))
    (model,) = join([first, dataclasses.replace(second, points=moved)])
    assert model.image_ids == whole.image_ids
    assert len(whole.points) < len(model.points) <= len(whole.points) + len(off)


def test_one_model_or_none_is_what_it_was() -> None:
    whole = street(4)
    assert join([]) == [] and join([whole])[0] is whole
