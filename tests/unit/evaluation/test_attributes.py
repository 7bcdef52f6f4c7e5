"""Floors and ceiling against averaging over all pairs, one after another."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation import metrics
from retrieval.evaluation.attributes import attribute_baselines


def slow_floors(
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
        assert found == pytest.approx(slow_floors(query, gallery, mine, theirs, excluded, k), abs=1e-6)


def test_nothing_known_gives_nan() -> None:
    unknown = np.zeros((3, 4), np.int8)
    found = attribute_baselines(unknown, unknown, ["a"] * 3, ["a"] * 3, ks=(2,))
    assert all(math.isnan(value) for value in found.values())
    found = attribute_baselines(np.ones((3, 4), np.int8), unknown, ["a"] * 3, ["a"] * 3, ks=(2,))
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.realdata
def test_celebas_own_floors(real_faces: Path) -> None:
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
