"""What is kept gains on people it was not trained on, by more than chance gives; else nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.evaluation.metrics import leave_one_out
from retrieval.models.adapters.adapter import Adapter
from retrieval.training.adapters.choice import IDENTITY, choose, difference, told
from retrieval.training.adapters.vectors import Side


def linear(weight: np.ndarray) -> Adapter:
    return Adapter("linear", {"weight": weight.astype(np.float32), "bias": np.zeros(len(weight), np.float32)})


def people(num: int = 30, photos: int = 4, noise: float = 3.0, seed: int = 0) -> Side:
    """Told apart by the first 8 of 16 numbers; the others are noise."""
    rng = np.random.default_rng(seed)
    centres = np.concatenate([rng.normal(size=(num, 8)), np.zeros((num, 8))], axis=1)
    x = np.repeat(centres, photos, axis=0)
    x[:, :8] += 0.5 * rng.normal(size=(num * photos, 8))
    x[:, 8:] += noise * rng.normal(size=(num * photos, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Side(vectors=x.astype(np.float32), labels=np.repeat(np.arange(num), photos), left_out=0)


GOOD = linear(np.diag([1.0] * 8 + [0.1] * 8))
BAD = linear(np.diag([0.1] * 8 + [1.0] * 8))


def test_one_that_gains_is_kept_and_told_with_the_figures_of_the_metrics() -> None:
    side = people()
    choice = choose({"linear": GOOD, "residual": BAD}, side, 2.0)
    assert choice.winner == "linear"
    plain, other = (leave_one_out(x, side.labels, ks=(1, 5, 10)).values for x in (side.vectors, GOOD(side.vectors)))
    assert choice.figures[IDENTITY].values == plain and choice.figures["linear"].values == other
    assert choice.figures["linear"].gain == pytest.approx(other["mAP"] - plain["mAP"])
    assert choice.figures["linear"].recall_gain == pytest.approx(other["recall@1"] - plain["recall@1"])
    assert not choice.figures["residual"].kept and choice.figures["residual"].gain < 0
    words = told(choice)
    assert [name for name, one in words.items() if one["chosen"]] == ["linear"] and "gain" not in words[IDENTITY]
    assert words["linear"]["gain"] == choice.figures["linear"].gain > 2 * words["linear"]["error"] > 0


def test_of_two_that_gain_the_better_is_kept_whatever_their_order() -> None:
    half = linear(np.diag([1.0] * 8 + [0.7] * 8))
    for adapters in ({"a": half, "b": GOOD}, {"b": GOOD, "a": half}):
        choice = choose(adapters, people(), 2.0)
        assert choice.winner == "b" and choice.figures["a"].kept


def test_where_none_gains_the_identity_stays() -> None:
    side = people()
    choice = choose({"linear": BAD, "residual": linear(np.eye(16))}, side, 0.0)
    assert choice.winner == IDENTITY and choice.figures["residual"].gain == 0
    assert not choice.figures["residual"].kept, "to be equal is not to gain"


def test_noise_is_seldom_kept() -> None:
    """Gains of nothing on average, person by person: the more errors are asked for, the fewer pass."""
    rng, passed = np.random.default_rng(0), {1.0: 0, 2.0: 0}
    for _ in range(1000):
        labels = np.arange(30).repeat(rng.integers(2, 6, size=30))
        gain, error = difference(rng.normal(size=30)[labels] + rng.normal(size=len(labels)), labels)
        for least in passed:
            passed[least] += gain > least * error
    assert 130 < passed[1.0] < 200 and 10 < passed[2.0] < 50


def test_the_errors_asked_for_decide() -> None:
    side, half = people(num=12), linear(np.diag([1.0] * 8 + [0.97] * 8))
    figures = choose({"linear": half}, side, 0.0).figures["linear"]
    assert figures.kept and figures.gain > 0
    ratio = figures.gain / figures.error
    assert choose({"linear": half}, side, 0.99 * ratio).winner == "linear"
    assert choose({"linear": half}, side, 1.01 * ratio).winner == IDENTITY


def test_a_gain_in_map_that_costs_the_first_answers_is_not_kept() -> None:
    """Photos come in twins, far from the person's other twins: without what twins share, persons are found, less surely
    at first."""
    rng, num = np.random.default_rng(3), 40
    person = np.repeat(rng.normal(size=(num, 6)), 4, axis=0)
    twins = np.repeat(3 * rng.normal(size=(2 * num, 6)), 2, axis=0)
    x = np.concatenate([person + 0.35 * rng.normal(size=(4 * num, 6)), twins], axis=1)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    side = Side(vectors=x, labels=np.repeat(np.arange(num), 4), left_out=0)
    choice = choose({"linear": linear(np.diag([1.0] * 6 + [0.05] * 6))}, side, 2.0)
    figures = choice.figures["linear"]
    assert figures.gain > 2 * figures.error and figures.recall_gain < -figures.recall_error
    assert not figures.kept and choice.winner == IDENTITY


def test_the_error_is_that_of_people_drawn_anew() -> None:
    """Against the spread of means over many draws of people, whose photos rise and fall together."""
    rng = np.random.default_rng(0)
    means, errors, independent = [], [], []
    for _ in range(400):
        sizes = rng.integers(2, 6, size=25)
        labels = np.repeat(np.arange(25), sizes)
        values = np.repeat(rng.normal(size=25), sizes) + 0.1 * rng.normal(size=len(labels))
        mean, error = difference(values, labels)
        means.append(mean)
        errors.append(error)
        independent.append(np.std(values) / np.sqrt(len(values)))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
    assert np.mean(errors) > 1.4 * np.mean(independent), "photos of one person are no independent ones"


def test_photos_that_nothing_matches_are_left_out() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    values = np.array([1.0, 0.0, 0.5, 0.5, np.nan])
    mean, error = difference(values, labels)
    assert (mean, error) == difference(values[:4], labels[:4]) and mean == 0.5
    assert error == 0.0, "each person's photos gain half in the mean"
