"""Groups, images and triplets equal slow loops, and every draw depends on the seed, the epoch and embeddings alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.models.pooling import l2n
from retrieval.training import group_mining, settings
from retrieval.training.group_mining import choose_strategy, draw_images, mine_groups, triplets_in_batch
from retrieval.training.losses import mean_of_active, triplet
from retrieval.training.recipe import spread
from retrieval.training.settings import Strategy


def unit(num: int, dim: int = 6, seed: int = 0) -> Tensor:
    return l2n(torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)))


def test_label_numbers_are_places_in_the_sorted_names() -> None:
    assert group_mining.label_numbers(np.array(["b", "a", "c", "a"])).tolist() == [1, 0, 2, 0]


def test_class_centres_are_directions_of_the_sums() -> None:
    x, labels = unit(9), torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 0])
    for name, centre in enumerate(group_mining.class_centres(x, labels)):
        total = sum(x[i] for i in range(9) if labels[i] == name)
        assert isinstance(total, Tensor)
        assert torch.allclose(centre, total / total.norm(), atol=1e-5)


@pytest.mark.parametrize("strategy", ["semi-hard", "hardest"])
def test_mined_groups_are_drawn_from_the_nearest_centres(strategy: Strategy) -> None:
    centres = unit(30)
    groups = mine_groups(centres, strategy, companions=3, candidates=5, seed=1, epoch=1)
    assert sorted(groups[:, 0].tolist()) == list(range(30))  # every identity heads one group
    scores = (centres @ centres.T).tolist()
    met = set()
    for head, *others in groups.tolist():
        ranked = sorted((i for i in range(30) if i != head), key=lambda i: -scores[head][i])
        assert set(others) <= set(ranked[:5])
        assert len(set(others)) == 3
        met |= {ranked.index(other) for other in others}
    assert met == set(range(5))  # drawn from all of the five, not always the nearest three


def test_as_many_candidates_as_companions_are_exactly_the_nearest() -> None:
    centres = unit(20)
    for head, *others in mine_groups(centres, "hardest", companions=3, candidates=3, seed=0, epoch=4).tolist():
        scores = [(float(centres[head] @ centres[i]), i) for i in range(20) if i != head]
        assert set(others) == {i for _, i in sorted(scores, reverse=True)[:3]}


def test_groups_of_many_blocks_equal_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mine_groups(unit(50), "semi-hard", seed=0, epoch=1)
    monkeypatch.setattr(group_mining, "_BLOCK", 7)
    assert np.array_equal(mine_groups(unit(50), "semi-hard", seed=0, epoch=1), whole)


def test_random_groups_never_repeat_an_identity_and_meet_all() -> None:
    met: dict[int, set[int]] = {head: set() for head in range(6)}
    for epoch in range(60):
        groups = mine_groups(unit(6), "random", companions=2, seed=0, epoch=epoch)
        for head, *others in groups.tolist():
            assert len({head, *others}) == 3
            met[head] |= set(others)
    assert all(met[head] == set(range(6)) - {head} for head in met)


@pytest.mark.parametrize("strategy", settings.STRATEGIES)
def test_groups_depend_on_seed_and_epoch_and_nothing_else(strategy: Strategy) -> None:
    def groups(seed: int, epoch: int) -> list[list[int]]:
        return mine_groups(unit(20), strategy, seed=seed, epoch=epoch).tolist()

    first = groups(3, 2)
    np.random.default_rng().random(7)
    torch.manual_seed(99)
    assert groups(3, 2) == first
    assert groups(3, 3) != first != groups(4, 2)


@pytest.mark.parametrize("strategy", settings.STRATEGIES)
def test_two_identities_make_pairs_and_one_is_refused(strategy: Strategy) -> None:
    assert sorted(mine_groups(unit(2), strategy, seed=0, epoch=1).tolist()) == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="1 identities, so no negative exists. Add photos of other people"):
        mine_groups(unit(1), strategy, seed=0, epoch=1)


def test_unknown_strategy_lists_the_known() -> None:
    with pytest.raises(ValueError, match="Unknown negatives 'hard'.*random, semi-hard, hardest"):
        mine_groups(unit(3), "hard", seed=0, epoch=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unknown negatives 'hard'"):
        triplets_in_batch(unit(3), torch.tensor([0, 0, 1]), "hard")  # type: ignore[arg-type]


def test_drawn_images_are_of_the_right_identity_and_never_twice() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2] * 4)
    labels = labels[np.random.default_rng(5).permutation(13)]
    groups = np.array([[0, 1], [1, 2], [2, 0]] * 40)
    rows = draw_images(labels, groups, per_identity=4, seed=0, epoch=1).reshape(-1, 2, 4)
    for group, images in zip(groups, rows, strict=True):
        for name, drawn in zip(group, images, strict=True):
            real = [int(row) for row in drawn if row >= 0]
            assert len(real) == len(set(real)) == min(4, (labels == name).sum())
            assert all(labels[row] == name for row in real)
    assert set(rows[rows >= 0].tolist()) == set(range(13))  # every image has its turn
    again = draw_images(labels, groups, per_identity=4, seed=0, epoch=1)
    assert np.array_equal(again, rows.reshape(120, 8))
    assert not np.array_equal(draw_images(labels, groups, per_identity=4, seed=0, epoch=2), again)


def slow_negative(x: list[list[float]], labels: list[int], anchor: int, positive: int, strategy: str) -> int:
    """The rule, written out: distances by a loop, the first of equals."""

    def distance(i: int) -> float:
        return sum((a - b) ** 2 for a, b in zip(x[anchor], x[i], strict=True))

    others = [i for i in range(len(x)) if labels[i] != labels[anchor]]
    farther = [i for i in others if distance(i) > distance(positive)]
    return min(farther if strategy == "semi-hard" and farther else others, key=distance)


@pytest.mark.parametrize("strategy", ["semi-hard", "hardest"])
def test_triplets_equal_a_slow_loop(strategy: Strategy) -> None:
    x, labels = unit(24, dim=3).double(), torch.tensor([0, 1, 2, 3, 1, 0, 2, 2] * 3)
    numbers, names = x.tolist(), labels.tolist()
    expected = [
        [a, p, slow_negative(numbers, names, a, p, strategy)]
        for a in range(24)
        for p in range(24)
        if a != p and names[a] == names[p]
    ]
    assert triplets_in_batch(x, labels, strategy).tolist() == expected


def test_semi_hard_takes_the_nearest_where_none_is_farther() -> None:
    x = l2n(torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.9, 0.1], [0.5, 0.5]]))
    found = triplets_in_batch(x, torch.tensor([0, 0, 1, 2]), "semi-hard")
    assert found[0].tolist() == [0, 1, 2]


def test_random_triplets_are_valid_seeded_and_varied() -> None:
    x, labels = unit(16), torch.tensor([0, 1, 2, 3] * 4)
    first = triplets_in_batch(x, labels, "random", seed=1)
    assert len(first) == 16 * 3
    met: set[int] = set()
    for seed in range(20):
        for a, p, n in triplets_in_batch(x, labels, "random", seed=seed).tolist():
            assert a != p and labels[a] == labels[p] != labels[n]
            met |= {n} if a == 0 else set()
    assert met == {i for i in range(16) if labels[i] != 0}
    assert torch.equal(triplets_in_batch(x, labels, "random", seed=1), first)
    assert not torch.equal(triplets_in_batch(x, labels, "random", seed=2), first)


@pytest.mark.parametrize("strategy", settings.STRATEGIES)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_a_batch_without_a_negative_or_a_pair_has_no_triplet(strategy: Strategy, labels: list[int]) -> None:
    assert triplets_in_batch(unit(3), torch.tensor(labels), strategy).shape == (0, 3)


def test_strategy_gives_way_before_it_collapses() -> None:
    def chosen(wanted: Strategy, epoch: int, spread: float) -> str:
        return choose_strategy(wanted, epoch=epoch, warmup_epochs=2, spread_now=spread)

    assert [chosen("hardest", epoch, 1.5) for epoch in (1, 2, 3, 4)] == ["semi-hard", "semi-hard", "hardest", "hardest"]
    assert chosen("hardest", 9, 2 * group_mining.SPREAD_FLOOR - 0.01) == chosen("hardest", 9, 0.04) == "semi-hard"
    assert [chosen(wanted, 1, 0.04) for wanted in ("random", "semi-hard")] == ["random", "semi-hard"]


def _train_on_noise(guarded: bool) -> list[float]:
    """Spread over 12 epochs of a linear net, wanting hardest negatives among identities that are hard to tell apart.

    One common direction and little else, as an untrained network gives; steps far too large.
    """
    torch.manual_seed(0)
    labels = torch.arange(12).repeat_interleave(4)
    x = torch.randn(1, 32) * 0.7 + torch.randn(12, 32)[labels] * 0.15 + torch.randn(48, 32)
    net = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    spreads = [spread(l2n(net(x)).detach())]
    for epoch in range(1, 13):
        strategy: Strategy = "hardest"
        if guarded:
            strategy = choose_strategy("hardest", epoch=epoch, warmup_epochs=2, spread_now=spreads[-1])
        for step in range(10):
            embeddings = l2n(net(x))
            a, p, n = triplets_in_batch(embeddings, labels, strategy, seed=step).T
            loss = mean_of_active(triplet(embeddings[a], embeddings[p], embeddings[n]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        spreads.append(spread(l2n(net(x)).detach()))
    return spreads


def test_hardest_negatives_collapse_and_the_schedule_does_not() -> None:
    collapsed, guarded = _train_on_noise(guarded=False), _train_on_noise(guarded=True)
    assert min(collapsed) < 0.05
    assert min(guarded[2:]) > 1.0
