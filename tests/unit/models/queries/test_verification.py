"""Two photos: the answer is that of their score, and photos that cannot be used decide nothing."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.artifacts.calibration import Calibration, Curve, KnownThreshold, Rate
from retrieval.images.pixels import encode_jpeg
from retrieval.models.embedder import Embedder
from retrieval.models.queries.reader import PhotoReader
from retrieval.models.queries.verification import verify
from tests.support.photos import portrait
from tests.support.workspace import make_workspace

BLANK = encode_jpeg(np.zeros((90, 90, 3), np.uint8))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> PhotoReader:
    made = make_workspace(tmp_path_factory.mktemp("w"), num_identities=3, images_per_identity=2)
    return PhotoReader(Embedder(str(made.folder / "model/test"), precision="fp32", num_threads=1))


def calibrated(threshold: float) -> Calibration:
    rate = Rate(far=1e-3, threshold=threshold, threshold_interval=(threshold - 0.01, threshold + 0.01))
    curve = Curve(intercept=0.0, low=0.0, high=0.0, wrong=0.01)
    return Calibration(model="m", people=99, curve=curve, rates=(rate, Rate(far=1e-4, why="99 people are too few")))


def test_the_score_is_that_of_the_two_embeddings_and_decides(reader: PhotoReader) -> None:
    one, other = (encode_jpeg(portrait(n)) for n in (0, 1))
    score = float(reader.describe(one).embedding @ reader.describe(other).embedding)
    for threshold, answer in ((score - 0.05, "same"), (score, "cannot tell"), (score + 0.05, "cannot tell")):
        found = verify(one, other, reader, calibration=calibrated(threshold))
        assert (found.answer, found.score, found.threshold) == (answer, pytest.approx(score, abs=1e-6), threshold)
        assert found.why
    known = KnownThreshold(threshold=score - 0.05, source="its maker")
    assert verify(one, other, reader, known=known).answer == "same"
    assert verify(one, other, reader).answer == "cannot tell"


def test_the_same_photo_twice_scores_one(reader: PhotoReader) -> None:
    photo = encode_jpeg(portrait(2))
    assert verify(photo, photo, reader).score == pytest.approx(1.0, abs=1e-5)


def test_a_photo_without_a_face_decides_nothing_and_is_named(reader: PhotoReader) -> None:
    photo = encode_jpeg(portrait(0))
    found = verify(photo, BLANK, reader, calibration=calibrated(0.1), names=("a.jpg", "b.jpg"))
    assert (found.answer, found.score, found.threshold) == ("cannot tell", None, None)
    assert "b.jpg cannot be used" in found.why and "no-face" in found.why and "a.jpg" not in found.why
    both = verify(BLANK, b"nothing", reader, names=("a.jpg", "b.jpg"))
    assert "a.jpg cannot be used" in both.why and "b.jpg cannot be used" in both.why


def test_what_is_not_promised_is_said_and_a_rate_nobody_knows_is_refused_first(reader: PhotoReader) -> None:
    photo = encode_jpeg(portrait(0))
    assert verify(photo, photo, reader, far=1e-4, calibration=calibrated(0.1)).why == "99 people are too few"
    with pytest.raises(ValueError, match="no threshold at a false-accept rate of 0.2"):
        verify(b"", b"", reader, far=0.2, calibration=calibrated(0.1))
