"""Groups that are too large are split where links are weakest; parts take in photos that they are linked to most."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.geometry.groups.splitting import borrowed, group_all, split
from retrieval.geometry.reconstruction import components

Links = tuple[np.ndarray, np.ndarray, np.ndarray]


def chain(num_places: int, photos: int, strong: int = 200, weak: int = 31) -> Links:
    """Places whose photos are all linked, and one link from each place to the next."""
    links = [
        (place * photos + one, place * photos + two, strong)
        for place in range(num_places)
        for one in range(photos)
        for two in range(one + 1, photos)
    ]
    links += [(place * photos - 1, place * photos, weak) for place in range(1, num_places)]
    a, b, inliers = np.array(links).T
    return a, b, inliers


def test_a_chain_of_places_is_split_into_the_places() -> None:
    """Seven are as many as a part of ten may have of its own: no two places go together."""
    part = split(70, *chain(10, 7), limit=10)
    assert part.tolist() == [photo // 7 for photo in range(70)]
    guests = borrowed(part, *chain(10, 7), limit=10)
    wanted = [(place, place * 7 - 1) for place in range(1, 10)] + [(place, place * 7 + 7) for place in range(9)]
    assert sorted(map(tuple, guests.tolist())) == sorted(wanted)


def test_what_is_small_enough_stays_whole() -> None:
    assert split(10, *chain(2, 5), limit=10).tolist() == [0] * 10
    assert split(11, *chain(1, 11), limit=10).tolist() != [0] * 11


@pytest.mark.parametrize(("num", "limit"), [(60, 10), (300, 25), (400, 100)])
def test_no_part_is_larger_than_the_limit_whatever_the_links(num: int, limit: int) -> None:
    rng = np.random.default_rng(num)
    a, b = np.sort(rng.integers(0, num, (2, 6 * num)), axis=0)
    a, b = a[a < b], b[a < b]
    inliers = rng.integers(30, 500, len(a))
    part = split(num, a, b, inliers, limit)
    guests = borrowed(part, a, b, inliers, limit)
    sizes = np.bincount(part) + np.bincount(guests[:, 0], minlength=part.max() + 1)
    assert len(part) == num and sizes.max() <= limit and np.bincount(part).min() > 0
    assert np.median(np.bincount(part)) > limit / 3, "few are crumbs"
    linked = {(int(part[x]), int(y)) for x, y in np.concatenate([np.c_[a, b], np.c_[b, a]])}
    assert all(tuple(guest) in linked and part[guest[1]] != guest[0] for guest in guests.tolist())


def test_a_photo_that_hangs_on_a_full_part_goes_with_it() -> None:
    """Seven photos are a part of ten; an eighth, linked to one of them alone, could not be mapped by itself."""
    a, b, inliers = chain(2, 7)
    part = split(15, np.append(a, 3), np.append(b, 14), np.append(inliers, 40), limit=10)
    assert part.tolist() == [0] * 7 + [1] * 7 + [0]


def test_a_part_takes_in_those_that_it_has_most_matches_with() -> None:
    """Of four photos of the other part, the three with most, in the sum of their links."""
    part = np.array([0, 0, 1, 1, 1, 1])
    a, b = np.array([0, 1, 0, 0, 1]), np.array([2, 2, 3, 4, 5])
    guests = borrowed(part, a, b, np.array([40, 40, 70, 60, 50]), limit=10)
    assert guests[guests[:, 0] == 0].tolist() == [[0, 2], [0, 3], [0, 4]]
    assert borrowed(part, a, b, np.array([40, 40, 70, 60, 50]), limit=5).tolist() == [[0, 2], [0, 3], [0, 4], [1, 0]]


def test_groups_are_numbered_by_their_first_photos_and_know_what_they_were_split_from() -> None:
    a, b, inliers = chain(4, 7)
    shifted = (np.concatenate([a + 3, [0, 31]]), np.concatenate([b + 3, [1, 32]]), np.append(inliers, [90, 90]))
    joined = components(34, *shifted[:2])
    found = group_all(joined, *shifted, least=2, limit=10)
    assert found.own.tolist() == [0, 0, -1, *np.repeat([1, 2, 3, 4], 7), 5, 5, -1]
    assert found.whole.tolist() == [0, 0, -1, *[1] * 28, 5, 5, -1]
    members = {number: sorted(found.members[found.members[:, 0] == number, 1].tolist()) for number in range(6)}
    assert members[0] == [0, 1] and members[5] == [31, 32]
    assert members[2] == [9, *range(10, 17), 17] and members[1] == [*range(3, 10), 10]
    whole = group_all(joined, *shifted, least=3, limit=28)
    assert whole.own.tolist() == [-1] * 3 + [0] * 28 + [-1] * 3 and len(whole.members) == 28
    none = group_all(joined, *shifted, least=50, limit=60)
    assert not len(none.members) and set(none.own.tolist()) == {-1}
