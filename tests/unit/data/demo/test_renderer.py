"""Textured solids through a camera: the nearer covers the farther, at the place and size that a pinhole gives."""

from __future__ import annotations

import numpy as np

from retrieval.data.demo.renderer import Camera, box, render


def test_the_nearer_box_covers_the_farther_whatever_the_order() -> None:
    def plain(colour: tuple[int, int, int]) -> list[np.ndarray]:
        return [np.full((8, 8, 3), colour, np.uint8)] * 5

    near, far = box((-1, 0, 0), (1, 1, 2), plain((200, 0, 0))), box((-3, 4, 0), (3, 5, 4), plain((0, 200, 0)))
    camera = Camera(centre=np.array([0.0, -8, 1]), target=np.array([0.0, 0, 1]), focal=1.0, width=90, height=90)
    sky, sun = np.full((90, 90, 3), 255, np.uint8), np.array([0.0, -1, 0])
    pictures = [render(faces, camera, sky, sun, 1.0) for faces in (near + far, far + near)]
    assert np.array_equal(pictures[0], pictures[1])
    # The red front is 2 wide at distance 8: 22.5 pixels about the middle; the green 6 wide at 12: 45 pixels.
    row = pictures[0][45]
    assert row[45].tolist() == [200, 0, 0]
    assert row[30].tolist() == [0, 200, 0]
    assert row[10].tolist() == [255, 255, 255]
    red = int((row[:, 0] == 200).sum())
    assert 20 <= red <= 24
