"""One system's embeddings and labels in, what its scores mean out: as much as there are people for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.calibration import FARS, read_calibration, write_calibrations
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation import tasks
from retrieval.evaluation.calibration.fit import calibrate, calibrate_system, figures_of
from tests.support.measured import write_collection, write_system


def labelled(num: int, photos: int = 4, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num), photos)
    vectors = np.repeat(random.normal(size=(num, 32)), photos, axis=0) + noise * random.normal(size=(len(labels), 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_with_people_enough_everything_is_told_and_reads_back(tmp_path: Path) -> None:
    found = calibrate(*labelled(120), model="f" * 64, collection="c" * 64)
    assert (found.people, found.people_with_pairs, found.photos, found.same_pairs) == (120, 120, 480, 720)
    assert [rate.far for rate in found.rates] == list(FARS)
    assert found.rates[0].promised and found.rates[1].promised and not found.rates[2].promised
    assert found.curve is not None and found.reliability and not found.why
    assert found.decide(0.9, 1e-2) == "same" and found.decide(0.0, 1e-2) == "different"
    write_calibrations(Folder.of(tmp_path), {"a": found})
    assert read_calibration(Folder.of(tmp_path), "f" * 64) == found


def test_the_same_photos_give_the_same_to_the_bit_in_any_order() -> None:
    vectors, labels = labelled(60)
    order = np.random.default_rng(1).permutation(len(labels))
    one, other = calibrate(vectors, labels, model="m"), calibrate(vectors, labels, model="m")
    assert one == other
    mixed = calibrate(vectors[order], labels[order], model="m")
    assert mixed.rate(1e-2).threshold == pytest.approx(one.rate(1e-2).threshold, abs=0.01)


def test_photos_without_a_label_are_left_out() -> None:
    vectors, labels = labelled(60)
    some = labels.copy()
    some[:40] = -1
    assert calibrate(vectors, some, model="m") == calibrate(vectors[40:], labels[40:], model="m")


@pytest.mark.parametrize(("num", "photos"), [(0, 1), (1, 5), (15, 3), (200, 1)])
def test_too_few_people_promise_nothing_and_say_so(num: int, photos: int) -> None:
    found = calibrate(*labelled(num, photos), model="m")
    assert found.curve is None and not found.reliability
    assert "labelled people have two photos or more" in found.why
    assert all(not rate.promised and rate.why for rate in found.rates)
    assert found.probability(0.9) is None and found.decide(0.9, 1e-2) == "cannot tell"


def test_scores_without_meaning_accept_no_more_of_the_same() -> None:
    random = np.random.default_rng(5)
    vectors, labels = labelled(120)
    found = calibrate(vectors, random.permutation(labels), model="m")
    assert found.probability(0.9) == pytest.approx(0.5, abs=0.1)
    rate = found.rate(1e-2)
    assert rate.true_accept is not None and rate.true_accept < 0.1
    assert found.decide(-0.5, 1e-2) == "cannot tell"


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    vectors, labels = labelled(20)
    vectors[3, 0] = np.nan
    with pytest.raises(ValueError, match="no number"):
        calibrate(vectors, labels, model="m")


def test_figures_are_those_of_promised_rates() -> None:
    found = calibrate(*labelled(60), model="m")
    promised = [rate for rate in found.rates if rate.promised]
    assert figures_of(found)["threshold@0.01"] == found.threshold(1e-2)
    assert len(figures_of(found)) == 2 * len(promised) < 6


def test_a_system_is_calibrated_on_the_labelled_photos_of_its_task(tmp_path: Path) -> None:
    root = Folder.of(tmp_path)
    collection = write_collection(root / "collection")
    system = write_system(root, collection)
    for task, photos in ((tasks.leave_one_out(collection, (2,)), 6), (tasks.query_gallery(collection, (2,)), 5)):
        found = calibrate_system(system, task, collection, "place")
        assert (found.photos, found.subject, found.model) == (photos, "place", read_manifest(system.model).fingerprint)
        assert found.collection == read_manifest(collection).fingerprint
