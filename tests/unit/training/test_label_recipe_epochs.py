"""What an epoch is made of, step by step: whom it mines, which views it draws, what it costs and how fast it goes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing

from retrieval.artifacts.collection import LocalCollection
from retrieval.artifacts.progress import silent
from retrieval.images.batches import Decoders
from retrieval.images.pixels import decode_stored
from retrieval.models import bundle
from retrieval.training import group_mining, label_recipe
from retrieval.training.label_recipe import Groups, LabelRecipe
from retrieval.training.recipe import Worker
from retrieval.training.trainer import Trainer
from retrieval.training.workers import Rank
from tests.support.labelled import NET, TINY, prepared, trainer
from tests.support.patterns import local_patterns


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalCollection:
    return local_patterns(tmp_path_factory.mktemp("patterns"))


class Before:
    """A past in which the first epoch's embeddings spread so far; it counts how often one went back."""

    def __init__(self, spread: float = 2.0) -> None:
        self.history: list[dict[str, Any]] = [{}, {"train/spread": spread}]
        self.went_back: list[int] = []

    def go_back(self, epoch: int) -> None:
        self.went_back.append(epoch)


def test_groups_are_drawn_by_seed_and_epoch_as_the_settings_say(local: LocalCollection, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, groups_per_batch=4, companions=3, images_per_identity=2, views=0)
    made, again = (prepared(local, tmp_path / name, config) for name in "ab")
    first = made.mine(1, Before())
    assert first.rows.shape == (6, 8) and first.steps == 2 and first.epoch == 1 and first.report["groups"] == 6
    assert again.mine(1, Before()).digest == first.digest
    other = prepared(local, tmp_path / "c", dataclasses.replace(config, seed=6))
    assert len({first.digest, made.mine(2, Before()).digest, other.mine(1, Before()).digest}) == 3
    heads = [set(local.labels[group[group >= 0][:2]]) for group in first.rows]
    assert all(len(labels) == 1 for labels in heads) and set.union(*heads) == set(local.labels[made.pool])


def test_hardest_negatives_wait_for_the_warm_up(local: LocalCollection, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, negatives="hardest", warmup_epochs=3, views=0)
    made = prepared(local, tmp_path, config)
    strategies = [made.mine(epoch, Before()).strategy for epoch in (1, 2, 3, 4)]
    assert strategies == ["semi-hard"] * 3 + ["hardest"]
    assert made.mine(4, Before()).report["train/negatives"] == "hardest"


def test_embeddings_that_came_together_since_the_first_epoch_send_the_run_back(
    local: LocalCollection, tmp_path: Path
) -> None:
    made = prepared(local, tmp_path, dataclasses.replace(TINY, whiten_head=False, views=0))
    past = Before()
    start = made.mine(1, past).report
    assert past.went_back == [] and start["train/went_back"] == 0 and start["train/spread"] < 0.01
    as_before, apart_before = Before(1.9 * start["train/spread"]), Before(2.1 * start["train/spread"])
    assert made.mine(2, as_before).report["train/went_back"] == 0 and as_before.went_back == []
    assert made.mine(2, apart_before).report["train/went_back"] == 1 and apart_before.went_back == [2]


@pytest.mark.parametrize("views", [0, 3])
def test_a_photo_s_view_depends_on_seed_epoch_and_photo_alone(
    local: LocalCollection, tmp_path: Path, views: int
) -> None:
    config = dataclasses.replace(TINY, views=views)

    def maps(made: LabelRecipe, epoch: int, rows: np.ndarray) -> torch.Tensor:
        (batch,) = made.batches(Groups(epoch=epoch, rows=rows[None], steps=1, strategy="random", report={}))
        assert batch.rows.tolist() == sorted(rows[rows >= 0].tolist())
        return batch.maps

    made, other = (prepared(local, tmp_path / f"{seed}", dataclasses.replace(config, seed=seed)) for seed in (5, 6))
    rows = np.sort(made.pool)
    whole = maps(made, 1, rows)
    assert torch.allclose(maps(made, 1, np.array([rows[4], -1, rows[2]])), whole[[2, 4]], atol=1e-4)
    for changed in (maps(made, 2, rows), maps(other, 1, rows)):
        same = (changed == whole).flatten(1).all(dim=1).float().mean()
        assert same < 0.7  # of a few views some are drawn again
    if views:
        cached = torch.stack([made._cache.read(rows, view) for view in range(4)], dim=1)
        drawn = (cached == whole[:, None]).flatten(2).all(dim=2)
        assert (drawn.sum(dim=1) == 1).all() and drawn.any(dim=0).all()  # one each; every view is somebody's


def test_cached_views_are_the_photo_its_mirror_and_drawn_ones(local: LocalCollection, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, views=2)
    flipped = dataclasses.replace(NET, flip=True)
    made = prepared(local, tmp_path / "a", config, flipped)
    other = prepared(local, tmp_path / "b", dataclasses.replace(config, seed=6), flipped)
    row = int(made.pool[3])
    pixels = torch.from_numpy(decode_stored(local.jpegs([row])[0], 64))[None]
    plain, mirrored = (made._run_frozen(each) for each in (pixels, pixels.flip(2)))
    views = [made._cache.read([row], view) for view in range(4)]
    for view, expected in zip(views, (plain, mirrored)):
        assert torch.allclose(view, expected, rtol=2e-3, atol=2e-3)
    assert made._cache.num_views == 4
    assert len({tuple(view.flatten().tolist()) for view in views}) == 4
    assert torch.equal(other._cache.read([row], 1), views[1])
    assert not torch.equal(other._cache.read([row], 2), views[2])


@pytest.mark.parametrize(("views", "whose"), [(1, "node"), (0, "rank")])
def test_each_node_has_all_views_that_it_may_draw_and_without_them_its_ranks_own(
    local: LocalCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: int, whose: str
) -> None:
    """Three ranks on two nodes."""
    filled: list[list[int]] = []
    monkeypatch.setattr(Rank, "barrier", lambda self: None)
    monkeypatch.setattr(label_recipe.FeatureCache, "fill", lambda self, rows, *_: filled.append(rows.tolist()))
    made = LabelRecipe(local, dataclasses.replace(TINY, views=views, whiten_head=False), scratch=tmp_path)
    for number, (local_rank, local_world) in enumerate([(0, 2), (1, 2), (0, 1)]):
        rank = Rank(rank=number, world=3, local_rank=local_rank, local_world=local_world)
        work = {"device": torch.device("cpu"), "dtype": torch.float32, "decoders": Decoders("cpu")}
        made.prepare(Worker(net=bundle.build(NET).eval(), rank=rank, progress=silent, **work))  # type: ignore[arg-type]
    everyone = sorted(made.pool.tolist() + made.val.tolist())
    if whose == "node":
        assert sorted(filled[0] + filled[1]) == sorted(filled[2]) == everyone
    else:
        assert sorted(filled[0] + filled[1] + filled[2]) == everyone
        for number, rows in enumerate(filled):
            assert set(rows) == {*made.pool[number::3].tolist(), *made.val[number::3].tolist()}


def test_loss_is_the_mean_of_active_triplets_and_its_summary_counts_all(local: LocalCollection, tmp_path: Path) -> None:
    made = prepared(local, tmp_path, dataclasses.replace(TINY, margin=0.5, groups_per_batch=2))
    mined = made.mine(1, Before())
    seen, sums, num, active, images = [], 0.0, 0, 0, 0
    for step, batch in enumerate(made.batches(mined)):
        own = np.unique(mined.rows[2 * step : 2 * step + 2])
        assert batch.rows.tolist() == own[own >= 0].tolist() and batch.step == step
        loss, known = made.loss(batch)
        seen.append(known)
        x = made._trained(batch.maps).detach()
        labels = torch.from_numpy(group_mining.label_numbers(local.labels)[batch.rows])
        costs = []
        for a, p, n in group_mining.triplets_in_batch(x, labels, "semi-hard").tolist():
            costs.append(max(0.0, float((x[a] - x[p]).square().sum() - (x[a] - x[n]).square().sum()) + 0.5))
        above = [cost for cost in costs if cost > 0]
        assert loss.item() == pytest.approx(sum(above) / len(above), rel=1e-4)
        sums, num, active, images = sums + sum(costs), num + len(costs), active + len(above), images + len(batch.rows)
    assert len(seen) == mined.steps == 3 and 0 < active < num
    expected = {"train/triplets": num, "train/images": images, "train/loss": sums / num, "train/active": active / num}
    assert made.summary(mined, seen) == pytest.approx(expected, rel=1e-4)
    assert made.summary(mined, [])["train/loss"] == 0  # no batch had a triplet


def test_random_negatives_differ_from_step_to_step(local: LocalCollection, tmp_path: Path) -> None:
    made = prepared(local, tmp_path, dataclasses.replace(TINY, negatives="random"))
    (batch, *_) = made.batches(made.mine(1, Before()))
    assert batch.strategy == "random"
    losses = [made.loss(dataclasses.replace(batch, step=step))[0].item() for step in (0, 0, 1, 2)]
    assert losses[0] == losses[1] and len(set(losses)) == 3


def test_the_rate_rises_for_15_percent_of_the_steps_and_falls_to_nothing(
    local: LocalCollection, tmp_path: Path
) -> None:
    made = LabelRecipe(local, dataclasses.replace(TINY, epochs=4), scratch=tmp_path)
    rates = [made.rate(epoch, step, 10) for epoch in (1, 2, 3, 4) for step in range(10)]
    assert rates[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert rates[5:] == sorted(rates[5:], reverse=True) and rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[22] == pytest.approx(0.5)  # half way down at 23 of 40: 0.15 + 0.85 / 2 = 0.575
    assert rates[13] == pytest.approx(0.5 * (1 + math.cos(math.pi * (14 / 40 - 0.15) / 0.85)))


def test_the_optimiser_has_what_the_settings_say(local: LocalCollection, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, learning_rate=3e-3, weight_decay=0.07, unfreeze_layers=2, views=0)
    run = trainer(local, tmp_path, config)
    (group,) = run._optimiser.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-3, 0.07) and isinstance(run._optimiser, torch.optim.AdamW)
    assert {id(p) for p in group["params"]} == {id(p) for p in run.net.parameters() if p.requires_grad}


def test_identities_that_validate_but_have_one_photo_each_give_no_figure(tmp_path: Path) -> None:
    shots = local_patterns(tmp_path / "one", train=3, val=2, shots=2)
    made = prepared(shots, tmp_path / "s", dataclasses.replace(TINY, views=0))
    made.val = made.val[[list(shots.labels[made.val]).index(label) for label in sorted(set(shots.labels[made.val]))]]
    assert made.validate() == {} and made.sample(1) is None


def test_progress_is_told_of_views_and_of_embedding(local: LocalCollection, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    recipe = LabelRecipe(local, dataclasses.replace(TINY, views=2), scratch=tmp_path)
    run = Trainer(bundle.build(NET), recipe, progress=lambda *what: told.append(what))
    assert {what for what, _, _ in told} == {"fill features"}
    assert [total for _, _, total in told] == [3 * 32] * len(told) and told[-1][1] == 96
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})
    told.clear()
    recipe.mine(1, run)
    recipe.validate()
    assert told == [("embed", 12, 12), ("embed", 8, 8)]  # two photos of each of six people are mined by


def test_proxies_are_those_of_the_people_trained_on_each_where_its_photos_are(
    local: LocalCollection, tmp_path: Path
) -> None:
    made = prepared(local, tmp_path, dataclasses.replace(TINY, loss="arcface", pool_size=12, seed=1))
    people = np.unique(made.labels[made.pool])
    assert len(people) == 3 and people.tolist() != [0, 1, 2]
    (proxies,) = made._criterion.parameters()  # type: ignore[union-attr]
    centres = torch.stack([made._embed_shared(made.pool[made.labels[made.pool] == one]).mean(dim=0) for one in people])
    assert ((torch.nn.functional.normalize(centres, dim=1) * proxies.T).sum(dim=1) > 0.9999).all()
    mined = made.mine(1, Before())
    (batch,) = made.batches(mined)
    loss, known = made.loss(batch)
    embeddings = made._trained(batch.maps).detach()
    own = torch.from_numpy(np.searchsorted(people, made.labels[batch.rows]))
    assert loss.item() == pytest.approx(made._criterion(embeddings, own).item(), rel=1e-5)
    assert made.summary(mined, [known]) == pytest.approx({"train/images": len(batch.rows), "train/loss": loss.item()})
