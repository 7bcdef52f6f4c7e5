"""Boxes overlap exactly, a face found twice counts once, and the searched sizes double."""

from __future__ import annotations

import pytest

from retrieval.images.detectors.face import Face, distinct, search_sides


@pytest.mark.parametrize(
    ("longest", "sides"),
    [
        (4000, [160, 320, 640, 1280]),
        (1000, [160, 320, 640, 1000]),
        (700, [160, 320, 640]),  # 700 would show hardly more than 640
        (250, [160, 250]),
        (200, [160, 200]),
        (190, [160]),
        (100, [100]),  # never enlarged
        (1, [1]),
    ],
)
def test_sizes_double_up_to_the_photo_s_own(longest: int, sides: list[int]) -> None:
    assert search_sides(longest, 160, 1280) == sides


def test_of_faces_that_overlap_the_surest_is_kept() -> None:
    sure, less = Face((0, 0, 10, 10), 0.9), Face((1, 0, 11, 10), 0.8)
    beside, unsure = Face((8, 0, 18, 10), 0.7), Face((40, 0, 50, 10))
    assert distinct([unsure, less, beside, sure]) == [sure, beside, unsure]
    assert distinct([Face((0, 0, 10, 10), 0.9), Face((0, 0, 10, 3), 0.8)], most=0.3)[1:] != []  # as much as allowed
    assert distinct([]) == []


def test_a_face_is_scaled_with_its_points() -> None:
    face = Face((1, 2, 3, 4), 0.5, ((1, 2), (3, 2), (2, 3), (1, 4), (3, 4)))
    assert face.scaled(2) == Face((2, 4, 6, 8), 0.5, ((2, 4), (6, 4), (4, 6), (2, 8), (6, 8)))
    assert face.scaled(2, 10).box == (2, 20, 6, 40) and face.scaled(2, 10).points[0] == (2, 20)  # type: ignore[index]
    assert Face((1, 2, 3, 4)).scaled(3) == Face((3, 6, 9, 12))
