"""Remakes drawn.png, the small picture of what the demo draws that tests compare with: python -m tests.support.drawn

Figures in the README were measured on what is drawn. Whoever changes the drawing on purpose remakes the picture, looks
at it, and measures again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.places import building, photograph
from retrieval.data.demo.portrait import render
from retrieval.data.demo.settings import SceneConfig
from retrieval.images.pixels import resize

PICTURE = Path(__file__).with_suffix(".png")
PEOPLE = (3, 13, 16, 50)
"""Glasses, freckles and earrings; a necktie; a hat over long wavy hair; a moustache."""


def portraits() -> np.ndarray:
    """(73, 240, 3) uint8: four people."""
    drawn = []
    for identity in PEOPLE:
        person = sample_person(0, identity)
        drawn.append(resize(render(person, sample_shot(0, identity, 0, person), (178, 218)), 60, 73))
    return np.hstack(drawn)


def places() -> np.ndarray:
    """(90, 240, 3) uint8: two photos of one building."""
    config = SceneConfig(size=240, seed=4)
    faces = building(4, 1)
    return np.hstack([resize(photograph(faces, config, 1, number), 120, 90) for number in (2, 5)])


if __name__ == "__main__":
    Image.fromarray(np.vstack([portraits(), places()])).save(PICTURE, optimize=True)
