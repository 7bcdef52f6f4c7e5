"""What an epoch of siamese training is made of, step by step: tuples, who is idle, validation, rate, loss, batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.images.pixels import decode_fit
from retrieval.models import bundle
from retrieval.models.network import EmbeddingNet
from retrieval.training import tuple_recipe
from retrieval.training.trainer import Trainer
from retrieval.training.tuple_recipe import TupleRecipe
from retrieval.training.workers import Rank
from tests.support.oracles import slow_average_precision
from tests.support.siamese import NET, config, recipe, trainer
from tests.support.tuples import Photos, known


def test_a_photo_idle_in_one_tuple_and_busy_in_another_is_busy() -> None:
    made = recipe()
    trainer(made)
    rows, idle = np.array([[0, 1, 4, 8], [2, 3, 4, 12]]), np.zeros((2, 4), dtype=bool)
    idle[0, 2:], idle[1, 3] = True, True
    images = made._decoded_share((rows, idle))
    assert {row for batch in images if not batch.idle for row in batch.rows.tolist()} == {0, 1, 2, 3, 4}
    assert {row for batch in images if batch.idle for row in batch.rows.tolist()} == {8, 12}
    assert sorted(row for batch in images for row in batch.rows.tolist()) == [0, 1, 2, 3, 4, 8, 12]


def test_a_tuple_is_a_query_a_photo_of_its_place_and_the_hardest_of_others() -> None:
    made = recipe(num_negatives=3, seed=2)
    run = trainer(made)
    mined = made.mine(1)
    clusters, net = made.known.clusters, run.net
    vectors = {row: one_by_one(net, made, row) for row in made.pool.tolist()}
    assert len(mined.rows) == mined.report["tuples"] == 24 and mined.steps == 5
    for query, positive, *negatives in mined.rows.tolist():
        at = made.known.queries.tolist().index(query)
        assert positive in made.known.candidates[at] and positive == made.positives[at]
        ranked = sorted(made.pool.tolist(), key=lambda row: -float(vectors[query] @ vectors[row]))
        best: dict[int, int] = {}
        for row in ranked:
            if clusters[row] != clusters[query]:
                best.setdefault(int(clusters[row]), row)
        scores = [float(vectors[query] @ vectors[row]) for row in negatives]
        assert scores == pytest.approx(
            [float(vectors[query] @ vectors[row]) for row in list(best.values())[:3]], abs=1e-5
        )
        assert len({*clusters[negatives].tolist(), int(clusters[query])}) == 4
    spread = sum(float((a - b).square().sum()) for a in vectors.values() for b in vectors.values()) / len(vectors) ** 2
    assert mined.report["train/spread"] == pytest.approx(spread, abs=1e-4)


@torch.no_grad()
def one_by_one(net: EmbeddingNet, made: TupleRecipe, row: int) -> Tensor:
    """(D,) of one image of the tuples, found by its name and described alone."""
    at = list(made.local.image_ids).index(made.known.image_ids[row])
    pixels = torch.from_numpy(decode_fit(made.local.jpegs([at])[0], 96))[None]
    return net(net.normalise(pixels))[0]


def test_negatives_beyond_the_margin_are_idle_where_the_loss_is_contrastive() -> None:
    made = recipe(margin=0.068)
    net = trainer(made).net
    mined = made.mine(1)
    for own, idle in zip(mined.rows.tolist(), mined.idle.tolist(), strict=True):
        query, *others = (one_by_one(net, made, row) for row in own)
        apart = [float((query - other).norm()) for other in others]
        assert idle[:2] == [False, False]
        assert all((far > 0.068) == said for far, said in zip(apart[1:], idle[2:]) if abs(far - 0.068) > 1e-5)
    assert 0 < mined.idle[:, 2:].mean() < 1
    assert mined.report["train/negatives_within_margin"] == pytest.approx(1 - mined.idle[:, 2:].mean())
    triplets = recipe(margin=0.068, loss="triplet")
    trainer(triplets)
    assert not triplets.mine(1).idle.any()


def test_rows_are_those_of_the_tuples_wherever_the_photos_lie() -> None:
    """The collection holds more photos, in another order, than the tuples know."""
    photos, moved = Photos(), Photos(num_clusters=9)
    order = np.random.default_rng(0).permutation(len(moved))
    moved.image_ids, moved._jpegs = moved.image_ids[order], [moved._jpegs[row] for row in order]
    ordered, mixed = (TupleRecipe(each, known(photos), config()) for each in (photos, moved))  # type: ignore[arg-type]
    for made in (ordered, mixed):
        trainer(made)
    assert ordered.mine(1).digest == mixed.mine(1).digest
    assert ordered.validate() == pytest.approx(mixed.validate())
    (rows, scores), (theirs, same) = ordered.sample(1), mixed.sample(1)
    assert photos.image_ids[rows].tolist() == moved.image_ids[theirs].tolist() and np.allclose(scores, same, atol=1e-5)


def test_a_sample_is_some_of_the_tuples_with_the_scores_of_now() -> None:
    made = recipe(epochs=1)
    run = trainer(made)
    assert made.sample(3)[0].tolist() == made.sample(1)[0].tolist()  # nothing mined: it mines once, and keeps it
    made = recipe(epochs=1, learning_rate=1e-3)
    run = trainer(made)
    list(run.run())
    mined = made.mine(1).rows.tolist()
    rows, scores = made.sample(1, num=4)
    assert rows.shape == (4, 5) and scores.shape == (4, 4)
    assert [mined.index(own) for own in rows.tolist()] == sorted(mined.index(own) for own in rows.tolist())
    for own, found in zip(rows.tolist(), scores, strict=True):
        query, *others = (one_by_one(run.net, made, row) for row in own)
        assert found == pytest.approx([float(query @ other) for other in others], abs=1e-5)
    assert made.sample(1)[0].shape == (8, 5)
    assert recipe_sampled(seed=1) != recipe_sampled(seed=2)


def recipe_sampled(seed: int) -> list[int]:
    """Which of the same tuples are shown."""
    made = recipe(seed=seed)
    trainer(made)
    made._mined = np.tile(np.arange(24)[:, None], (1, 5))
    return made.sample(1)[0][:, 0].tolist()


def test_validation_ranks_the_rows_of_val_among_distractors_without_the_query_itself() -> None:
    for distractors in (0, 5):
        made = recipe(val_distractors=distractors)
        net = trainer(made).net
        clusters, val = made.known.clusters, made.val.tolist()
        assert len(val) == 8 + distractors
        vectors = {row: one_by_one(net, made, row) for row in val}
        found, firsts = [], []
        for query in [row for row in val if made.known.splits[row] == "val"]:
            others = sorted((row for row in val if row != query), key=lambda row: -float(vectors[query] @ vectors[row]))
            right = [rank for rank, row in enumerate(others) if clusters[row] == clusters[query]]
            found.append(slow_average_precision(right, len(right)))
            firsts.append(right[0] == 0)
        scores = made.validate()
        assert scores["val/mAP"] == pytest.approx(np.mean(found), abs=1e-3)
        assert scores["val/recall@1"] == pytest.approx(np.mean(firsts))
        assert scores["train/p"] == 3


def test_without_places_that_validate_there_is_no_figure_and_the_last_epoch_is_kept() -> None:
    photos = Photos()
    tuples = known(photos)
    tuples.splits[:] = "train"
    run = trainer(TupleRecipe(photos, tuples, config(epochs=2)))  # type: ignore[arg-type]
    history = list(run.run())
    assert set(history[0]) == {"epoch", "train/p"} and len(run.recipe.val) == 0
    assert run.best["epoch"] == 2


def test_the_rate_falls_by_the_same_factor_after_each_epoch_and_not_within() -> None:
    made = recipe(decay=0.3)
    assert [made.rate(epoch, 0, 7) for epoch in (1, 2, 3)] == pytest.approx([1, np.exp(-0.3), np.exp(-0.6)])
    assert len({made.rate(2, step, 7) for step in range(7)}) == 1


def test_an_epoch_s_loss_is_the_mean_over_its_tuples() -> None:
    made = recipe(learning_rate=1e-12, tuples_per_step=7)
    run = trainer(made)
    mined = made.mine(1)
    costs = [float(made.losses(mined.rows[at : at + 1]).detach()) for at in range(24)]
    told = run.train_on(mined)
    assert told == {"train/loss": pytest.approx(np.mean(costs), rel=1e-4), "train/images": 24 * 5, "train/steps": 4}
    total, alike = made.loss(next(iter(made.batches(mined))))
    assert total.requires_grad and not alike.requires_grad
    assert total.item() == alike.item() == pytest.approx(sum(costs[:7]), rel=1e-4)


def test_ranks_share_a_step_and_one_without_a_tuple_has_nothing_to_derive() -> None:
    made = recipe(tuples_per_step=2)
    trainer(made)
    mined = made.mine(1)
    made.worker = dataclasses.replace(made.worker, rank=Rank(rank=1, world=3))
    steps = list(made.batches(mined))
    assert len(steps) == mined.steps == 12
    assert [step.rows.tolist() for step in steps] == [mined.rows[at + 1 : at + 2].tolist() for at in range(0, 24, 2)]
    made.worker = dataclasses.replace(made.worker, rank=Rank(rank=2, world=3))
    total, known_of_it = made.loss(next(iter(made.batches(mined))))
    assert float(total) == float(known_of_it) == 0 and not total.requires_grad


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "triplet"},
        {"margin": 0.2},
        {"image_size": 64},
        {"positives": "m1"},
        {"negatives": "N1", "num_negatives": 5},
        {"seed": 1},
        {"unfreeze_layers": 3},
        {"weight_decay": 0.5},
    ],
    ids=str,
)
def test_every_setting_does_something(settings: dict[str, Any]) -> None:
    usual = {"epochs": 1, "learning_rate": 1e-3, "num_negatives": 5, "queries_per_epoch": 4}
    ends = []
    for each in (usual, usual | settings):
        run = trainer(recipe(**each))
        list(run.run())
        ends.append(torch.cat([value.detach().flatten() for value in run.net.parameters()]))
    assert not torch.allclose(ends[0], ends[1], atol=1e-6)


def test_positives_by_descriptor_are_the_nearest_of_the_start() -> None:
    made = recipe(positives="m1")
    net = trainer(made).net
    vectors = [one_by_one(net, made, row) for row in range(len(made.known.image_ids))]
    for at, query in enumerate(made.known.queries.tolist()):
        scores = {row: float(vectors[query] @ vectors[row]) for row in made.known.candidates[at].tolist()}
        assert scores[int(made.positives[at])] == pytest.approx(max(scores.values()), abs=1e-6)


def test_positives_keep_to_the_settings_bounds() -> None:
    photos = Photos()
    tuples = known(photos)
    for shared, change in zip(tuples.shared_points, tuples.scale_change, strict=True):
        shared[:], change[:] = (10, 4, 4), (1.0, 1.2, 1.8)

    def positives(**settings: Any) -> list[int]:
        """Which of its three candidates each query has."""
        made = TupleRecipe(photos, tuples, config(**settings))  # type: ignore[arg-type]
        trainer(made)
        return [list(tuples.candidates[at]).index(row) for at, row in enumerate(made.positives)]

    assert set(positives(min_shared=0.4, max_scale_change=1.8)) == {0, 1, 2}
    assert set(positives(min_shared=0.4, max_scale_change=1.7)) == {0, 1}
    assert set(positives(min_shared=0.41)) == set(positives(positives="m2")) == {0}
    assert positives(min_shared=0.4, seed=1) != positives(min_shared=0.4, seed=2)
    with pytest.raises(ValueError, match="No training query has a positive that fits"):
        positives(max_scale_change=0.9)


def test_a_batch_is_of_one_shape_and_no_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe()
    trainer(made)
    rows = made.pool
    for most, sizes in ((3 * 96 * 72, {1, 2, 3}), (1, {1})):
        monkeypatch.setitem(tuple_recipe._CHUNK_PIXELS, "cpu", most)
        batches = made._decoded(rows)
        assert sorted(row for batch in batches for row in batch.rows) == rows.tolist()
        assert {len(batch.rows) for batch in batches} <= sizes
        for batch in batches:
            assert batch.pixels.shape[0] == len(batch.rows) and not batch.idle
            for row, pixels in zip(batch.rows, batch.pixels, strict=True):
                assert torch.equal(pixels, torch.from_numpy(decode_fit(made.local.jpegs([int(row)])[0], 96)))


def test_progress_is_told_of_photos_embedded() -> None:
    told: list[tuple[str, int, int]] = []
    made = recipe()
    Trainer(bundle.build(NET, seed=1), made, progress=lambda *what: told.append(what))
    assert told == []
    made.mine(1)
    assert {(what, total) for what, _, total in told} == {("embed", 24)}
    done = [done for _, done, _ in told]
    assert done == sorted(set(done)) and done[-1] == 24 and len(done) > 1
