"""Images of a side, taken or not."""

from __future__ import annotations

import numpy as np

from retrieval.evaluation import tasks
from retrieval.evaluation.pieces.images import Images


def test_images_that_are_all_taken_are_not_copied(crowd: tuple[tasks.Task, np.ndarray]) -> None:
    images: Images = crowd[0].gallery
    assert images.take(np.arange(len(images))) is images
    assert images.take(np.arange(len(images))[::-1]).id(0) == "210" and len(images.take(np.arange(3))) == 3
