"""Agreement of attributes by hand and by slow loops; baselines and ceiling by averaging over all pairs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation import metrics
from retrieval.evaluation.attributes import attribute_agreement, attribute_baselines


def test_attribute_agreement_by_hand() -> None:
    query = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [0, 0, 0, 0]], np.int8)
    gallery = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [0, 0, 0, 0], [-1, -1, -1, -1]], np.int8)
    rows = np.array([[0, 1, 2], [3, 1, -1], [0, 1, 3]])
    found = attribute_agreement(query, gallery, rows, ks=(1, 2, 100))
    # query 0: 4/4, 2/4, unknown; query 1: 2/4, 2/4, none; query 2 is not known.
    assert found.values["attribute_accuracy@1"] == pytest.approx((1 + 0.5) / 2)
    assert found.values["attribute_accuracy@2"] == pytest.approx((0.75 + 0.5) / 2)
    assert found.values["attribute_accuracy@100"] == found.values["attribute_accuracy@2"]
    assert found.values["attribute_distance@2"] == pytest.approx(2 * (1 - 0.625))
    assert (found.num_queries, found.num_without_attributes) == (3, 1)


def test_attribute_agreement_equals_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks; some queries and some of the gallery are not known."""
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 900)
    rng = np.random.default_rng(5)
    query, gallery = (rng.choice([-1, 1], size=(num, 9)).astype(np.int8) for num in (25, 40))
    query[[1, 2, 20]], gallery[[5, 6, 30]] = 0, 0
    rows = np.stack([rng.permutation(40)[:12] for _ in range(25)])
    found = attribute_agreement(query, gallery, rows, ks=(3, 12))
    assert (found.num_queries, found.num_without_attributes) == (25, 3)
    for k in (3, 12):
        accuracy, distance = [], []
        for i in np.flatnonzero(query.any(axis=1)):
            if known := [row for row in rows[i, :k] if gallery[row].any()]:
                accuracy.append(np.mean([np.mean(query[i] == gallery[row]) for row in known]))
                distance.append(np.mean([np.abs(query[i].astype(int) - gallery[row]).sum() / 9 for row in known]))
        assert found.values[f"attribute_accuracy@{k}"] == pytest.approx(np.mean(accuracy))
        assert found.values[f"attribute_distance@{k}"] == pytest.approx(np.mean(distance))


def test_other_attribute_values_are_refused() -> None:
    with pytest.raises(ValueError, match="of -1 and 1"):
        attribute_agreement(np.full((1, 3), 2, np.int8), np.ones((1, 3), np.int8), np.zeros((1, 1), int), ks=(1,))


def slow_baselines(
    query: np.ndarray, gallery: np.ndarray, mine: np.ndarray, theirs: np.ndarray, excluded: np.ndarray, k: int
) -> dict[str, float]:
    majority = np.where(gallery.astype(int).sum(axis=0) > 0, 1, -1)
    rows: dict[str, list[float]] = {
        "random_pair": [],
        "majority_vector": [],
        "same_identity_pair": [],
        f"oracle@{k}": [],
    }
    for i in np.flatnonzero(query.any(axis=1)):
        others = [j for j in np.flatnonzero(gallery.any(axis=1)) if j != excluded[i]]
        agree = {j: float(np.mean(query[i] == gallery[j])) for j in others}
        same = [agree[j] for j in others if mine[i] is not None and theirs[j] == mine[i]]
        rows["random_pair"].append(float(np.mean(list(agree.values()))))
        rows["majority_vector"].append(float(np.mean(query[i] == majority)))
        rows["same_identity_pair"] += [float(np.mean(same))] if same else []
        rows[f"oracle@{k}"].append(float(np.mean(sorted(agree.values(), reverse=True)[:k])))
    return {name: float(np.mean(values)) for name, values in rows.items()}


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_equal_to_averaging_over_all_pairs(leave_one_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 500)
    rng = np.random.default_rng(0)
    gallery = np.where(rng.random((60, 7)) < 0.3, 1, -1).astype(np.int8)
    gallery[[4, 30]] = 0
    theirs = np.array([f"p{i % 11}" for i in range(60)], object)
    theirs[[8, 9]], theirs[10] = None, "alone"
    query = gallery if leave_one_out else np.where(rng.random((20, 7)) < 0.4, 1, -1).astype(np.int8)
    mine = theirs if leave_one_out else theirs[:20]
    excluded = np.arange(60) if leave_one_out else np.full(20, -1)
    for k in (3, 500):
        found = attribute_baselines(
            query, gallery, mine, theirs, ks=(k,), exclude_rows=excluded if leave_one_out else None
        )
        assert found == pytest.approx(slow_baselines(query, gallery, mine, theirs, excluded, k), abs=1e-6)


def test_nothing_known_gives_nan() -> None:
    unknown = np.zeros((3, 4), np.int8)
    found = attribute_baselines(unknown, unknown, ["a"] * 3, ["a"] * 3, ks=(2,))
    assert all(math.isnan(value) for value in found.values())
    found = attribute_baselines(np.ones((3, 4), np.int8), unknown, ["a"] * 3, ["a"] * 3, ks=(2,))
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.realdata
def test_celebas_own_baselines(real_faces: Path) -> None:
    """The figures of parity.md, from the first 10,000 attribute rows that CelebA publishes."""
    folder = real_faces.parent / "celeba"
    identity = dict(line.split() for line in (folder / "identity_CelebA.txt").read_text().splitlines())
    lines = [line.split() for line in (folder / "list_attr_celeba.txt").read_text().splitlines()[2:10_002]]
    attributes = np.array([line[1:] for line in lines], dtype=np.int8)
    labels = np.array([identity[line[0]] for line in lines], object)
    found = attribute_baselines(attributes, attributes, labels, labels, ks=(10,), exclude_rows=np.arange(len(lines)))
    assert found["random_pair"] == pytest.approx(0.728, abs=0.005)
    assert found["majority_vector"] == pytest.approx(0.806, abs=0.005)
    assert found["same_identity_pair"] == pytest.approx(0.852, abs=0.01)
    assert found["oracle@10"] == pytest.approx(0.952, abs=0.01)


def test_an_odd_count_of_matching_attributes_and_unknown_results() -> None:
    """Three attributes; the second result is not known, the third is none: only the first and the fourth count."""
    query = np.array([[1, -1, 1]], np.int8)
    gallery = np.array([[1, 1, 1], [0, 0, 0], [1, -1, 1]], np.int8)
    found = attribute_agreement(query, gallery, np.array([[0, 1, -1, 2]]), ks=(1, 2, 3, 4)).values
    assert [found[f"attribute_accuracy@{k}"] for k in (1, 2, 3, 4)] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 5 / 6])
    assert [found[f"attribute_distance@{k}"] for k in (1, 2, 3, 4)] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 3])


def test_a_query_whose_first_results_are_not_known_is_left_out_at_that_k() -> None:
    query = np.array([[1, 1], [1, 1]], np.int8)
    gallery = np.array([[0, 0], [1, 1], [1, -1]], np.int8)
    found = attribute_agreement(query, gallery, np.array([[0, 1], [2, 1]]), ks=(1, 2)).values
    assert found["attribute_accuracy@1"] == 0.5  # the second query alone
    assert found["attribute_accuracy@2"] == pytest.approx((1 + 0.75) / 2)


def test_baselines_by_hand() -> None:
    """Query ann of [1, 1, -1]; gallery: ann alike, ann opposite, bob [1, -1, -1], one unknown."""
    query, gallery = (
        np.array([[1, 1, -1]], np.int8),
        np.array([[1, 1, -1], [-1, -1, 1], [1, -1, -1], [0, 0, 0]], np.int8),
    )
    labels = ["ann", "ann", "bob", "ann"]
    found = attribute_baselines(query, gallery, ["ann"], labels, ks=(1, 2, 9))
    assert found == pytest.approx(
        {
            "random_pair": (1 + 0 + 2 / 3) / 3,
            "majority_vector": 2 / 3,  # the commoner values are 1, -1, -1
            "same_identity_pair": 1 / 2,
            "oracle@1": 1,
            "oracle@2": (1 + 2 / 3) / 2,
            "oracle@9": (1 + 2 / 3 + 0) / 3,
        }
    )
    without = attribute_baselines(query, gallery, ["ann"], labels, ks=(1,), exclude_rows=np.array([0]))
    assert without == pytest.approx(
        {"random_pair": 1 / 3, "majority_vector": 2 / 3, "same_identity_pair": 0, "oracle@1": 2 / 3}
    )
    other = attribute_baselines(query, gallery, ["ann"], labels, ks=(1,), exclude_rows=np.array([2]))
    assert other["same_identity_pair"] == 1 / 2 and other["random_pair"] == 1 / 2
    unknown = attribute_baselines(query, gallery, ["ann"], labels, ks=(1,), exclude_rows=np.array([3]))
    assert unknown == pytest.approx(attribute_baselines(query, gallery, ["ann"], labels, ks=(1,)))


def test_a_tie_in_the_gallery_is_no_majority() -> None:
    found = attribute_baselines(np.array([[-1]], np.int8), np.array([[1], [-1]], np.int8), ["a"], ["b", "c"], ks=(1,))
    assert found["majority_vector"] == 1 and found["random_pair"] == 0.5
    assert math.isnan(found["same_identity_pair"])


def test_attributes_of_one_side_alone_are_refused_where_odd() -> None:
    good, odd = np.ones((1, 3), np.int8), np.full((1, 3), 3, np.int8)
    for mine, theirs in ((good, odd), (odd, good), (good[0], good)):
        with pytest.raises(ValueError, match="of -1 and 1"):
            attribute_baselines(mine, theirs, ["a"], ["a"], ks=(1,))
        with pytest.raises(ValueError, match="of -1 and 1"):
            attribute_agreement(mine, theirs, np.zeros((1, 1), int), ks=(1,))
