"""Photos of real people: what was calibrated on some of them holds of others, and two photos are told apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts import hashing
from retrieval.artifacts.calibration import Calibration
from retrieval.evaluation.calibration.fit import calibrate
from retrieval.evaluation.calibration.pairs import different_pairs, same_pairs
from retrieval.evaluation.calibration.rates import reach
from retrieval.images.settings import PrepareConfig
from retrieval.models.bundle import start
from retrieval.models.embedder import Embedder
from retrieval.models.queries.reader import PhotoReader
from retrieval.models.queries.verification import verify
from retrieval.models.settings import ModelConfig
from tests.support.photos import yunet

pytestmark = pytest.mark.realdata
NUM = 60  # people to calibrate on, and as many others


@pytest.fixture(scope="module")
def reader() -> PhotoReader:
    preparation = hashing.plain(PrepareConfig(crop="aligned", detector="yunet", size=112, margin=0.0))
    net = start(ModelConfig(backbone="onnx:sface", head="none"), preparation=preparation, detector=yunet())
    return PhotoReader(Embedder(net, device="cpu", num_threads=1), yunet())


@pytest.fixture(scope="module")
def halves(reader: PhotoReader, real_faces: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Embeddings and labels of 60 people, and of 60 others."""
    people = np.random.default_rng(1).permutation(sorted(folder.name for folder in real_faces.iterdir()))
    found = []
    for some in (people[:NUM], people[NUM : 2 * NUM]):
        photos = [photo for person in some for photo in sorted((real_faces / person).iterdir())[:3]]
        vectors = np.stack([reader.describe(photo.read_bytes()).embedding for photo in photos])
        found.append((vectors, np.array([photo.parent.name for photo in photos], dtype=object)))
    return found


@pytest.fixture(scope="module")
def calibration(halves: list[tuple[np.ndarray, np.ndarray]]) -> Calibration:
    vectors, labels = halves[0]
    return calibrate(vectors, np.unique(labels.astype(str), return_inverse=True)[1], model="sface")


def test_what_was_promised_holds_of_other_people(
    calibration: Calibration, halves: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    vectors, labels = halves[1]
    people = np.unique(labels.astype(str), return_inverse=True)[1]
    rate = calibration.rate(1e-2)
    assert rate.threshold is not None and rate.far_interval is not None and rate.true_accept_interval is not None
    measured = reach(different_pairs(vectors, people), rate.threshold)
    assert rate.far_interval[0] <= measured <= rate.far_interval[1]
    assert reach(same_pairs(vectors, people), rate.threshold) >= 0.95
    assert 0.25 < rate.threshold < 0.34, "all 1,200 people of this set: 0.290"
    assert not calibration.rate(1e-4).promised


def test_two_photos_are_told_apart(reader: PhotoReader, calibration: Calibration, real_faces: Path) -> None:
    people = np.random.default_rng(1).permutation(sorted(folder.name for folder in real_faces.iterdir()))[2 * NUM :]
    photos = [sorted((real_faces / person).iterdir())[:2] for person in people[:8]]
    same = [
        verify(both[0].read_bytes(), both[1].read_bytes(), reader, far=1e-2, calibration=calibration) for both in photos
    ]
    apart = [
        verify(one[0].read_bytes(), other[0].read_bytes(), reader, far=1e-2, calibration=calibration)
        for one, other in itertools.pairwise(photos)
    ]
    assert sum(found.answer == "same" for found in same) >= 7 and "different" not in [found.answer for found in same]
    assert sum(found.answer == "different" for found in apart) >= 6 and "same" not in [found.answer for found in apart]
    assert all(
        (calibration.probability(found.score) or 0) > 0.8 for found in same if found.score and found.answer == "same"
    )
