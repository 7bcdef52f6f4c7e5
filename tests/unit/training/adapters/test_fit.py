"""Candidates begin as the identity, learn what tells people apart, and come out the same for the same seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from retrieval.evaluation.metrics import leave_one_out
from retrieval.models import whitening
from retrieval.training.adapters import fit as fitting
from retrieval.training.adapters.fit import fit
from retrieval.training.adapters.settings import AdaptConfig, Candidate
from retrieval.training.adapters.vectors import Known, Side, pairs_by_label
from tests.support.embedded import people

CONFIG = AdaptConfig(epochs=16, learning_rate=1e-2, hidden=32)
TRAINED: tuple[Candidate, ...] = ("linear", "residual")


def known(by_tuples: bool = False, num: int = 60) -> Known:
    sides: dict[str, Any] = {}
    for which, seed in (("train", 1), ("val", 2)):
        vectors, labels = people(num, seed=seed)
        sides[which] = Side(vectors=vectors, labels=labels, left_out=0)
    labels = sides["train"].labels
    pairs = pairs_by_label(labels, 0)
    tuples: dict[str, Any] = (
        {"queries": pairs[: len(labels), 0], "positives": pairs[: len(labels), 1]} if by_tuples else {}
    )
    return Known(**sides, pairs=pairs, **tuples)


def found(side: Side, adapter: Any = None) -> float:
    return leave_one_out(side.vectors if adapter is None else adapter(side.vectors), side.labels).values["mAP"]


@pytest.mark.parametrize("by_tuples", [False, True])
@pytest.mark.parametrize("candidate", ["whitening", *TRAINED])
def test_each_learns_what_tells_people_apart_and_carries_it_to_others(candidate: Candidate, by_tuples: bool) -> None:
    data = known(by_tuples)
    fitted = fit(candidate, data, CONFIG)
    assert fitted.adapter.kind == candidate and fitted.adapter.takes == fitted.adapter.dim == 16
    assert found(data.val, fitted.adapter) > found(data.val) + 0.1


@pytest.mark.parametrize("loss", ["triplet", "contrastive"])
@pytest.mark.parametrize("by_tuples", [False, True])
def test_the_loss_falls_and_each_epoch_is_told(by_tuples: bool, loss: str) -> None:
    told: list[tuple[Any, ...]] = []
    config = dataclasses.replace(CONFIG, loss=loss, margin=0.2 if loss == "triplet" else 0.9)
    history = fit("linear", known(by_tuples), config, lambda *news: told.append(news)).history
    assert [row["epoch"] for row in history] == list(range(1, 17)) and told[-1] == ("epochs", 16, 16)
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert all(row["tuples"] > 0 and row["seconds"] > 0 for row in history)


@pytest.mark.parametrize("candidate", TRAINED)
def test_it_begins_as_the_identity_and_weight_decay_draws_back_to_it(candidate: Candidate) -> None:
    data = known()
    x = data.val.vectors

    def moved(**settings: Any) -> float:
        adapter = fit(candidate, data, dataclasses.replace(CONFIG, **settings)).adapter
        return float(np.linalg.norm(adapter(x) - x, axis=1).mean())

    assert moved(epochs=1, learning_rate=1e-9) < 1e-5
    free = moved(weight_decay=0.0)
    assert moved(weight_decay=30.0) < 0.5 * free


@pytest.mark.parametrize("by_tuples", [False, True])
@pytest.mark.parametrize("candidate", ["whitening", *TRAINED])
def test_it_is_decided_by_the_seed(candidate: Candidate, by_tuples: bool) -> None:
    data, config = known(by_tuples, num=20), dataclasses.replace(CONFIG, epochs=2)
    torch.manual_seed(1)
    first = fit(candidate, data, config).adapter
    torch.manual_seed(2)
    after = torch.rand(1)
    again = fit(candidate, data, config).adapter
    torch.manual_seed(2)
    assert torch.equal(torch.rand(1), after), "draws of others go on as they would"
    assert first.content() == again.content()
    if candidate != "whitening":
        other = fit(candidate, data, dataclasses.replace(config, seed=1)).adapter
        assert first.content() != other.content()


def test_negatives_are_mined_anew_by_the_map_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    real = fitting.group_mining.class_centres
    monkeypatch.setattr(fitting.group_mining, "class_centres", lambda x, labels: seen.append(x) or real(x, labels))
    data = known(num=20)
    adapter = fit("linear", data, dataclasses.replace(CONFIG, epochs=3)).adapter
    assert len(seen) == 3 and torch.allclose(seen[0], torch.from_numpy(data.train.vectors), atol=1e-5)
    assert (seen[1] - seen[0]).abs().max() > 1e-3 and (seen[2] - seen[1]).abs().max() > 1e-3
    assert not torch.equal(seen[2], torch.from_numpy(adapter(data.train.vectors)))


def test_whitening_is_that_of_the_pairs_in_any_number_of_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    data = known()
    x = torch.from_numpy(data.train.vectors)
    moments = whitening.Moments(16).add(x).add_pairs(x[data.pairs[:, 0]], x[data.pairs[:, 1]])
    projection, mean = whitening.learned(moments, shrinkage=0.2)
    expected = (x.double() - mean) @ projection.T
    expected = expected / expected.norm(dim=1, keepdim=True)
    for rows in (7, 8192):
        monkeypatch.setattr(fitting, "_FIT_ROWS", rows)
        adapter = fit("whitening", data, dataclasses.replace(CONFIG, shrinkage=0.2)).adapter
        np.testing.assert_allclose(adapter(data.train.vectors), expected.numpy(), atol=1e-5)


def test_two_places_are_enough_for_tuples() -> None:
    """Each query then has one negative, of the only other place."""
    data = known(by_tuples=True, num=2)
    assert fit("linear", data, dataclasses.replace(CONFIG, epochs=1)).history[0]["tuples"] == 8
