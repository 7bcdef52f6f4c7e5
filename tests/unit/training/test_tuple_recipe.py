"""Mining and siamese training: equal to the loops they stand for, whatever the batches, ranks and interruptions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from retrieval.artifacts.tuples import TupleSet, as_set
from retrieval.geometry import tuples
from retrieval.images.pixels import decode_fit, encode_jpeg
from retrieval.models import bundle
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import ModelConfig
from retrieval.training.losses import contrastive
from retrieval.training.settings import TupleTrainConfig
from retrieval.training.tuple_mining import draw_epoch, mine_negatives
from retrieval.training.tuple_recipe import TupleTrainer, parameter_groups
from retrieval.training.workers import Rank

NET = ModelConfig(cut="features.4", pooling="gem", head="none", image_size=96, keep_aspect=True)
SHAPES = ((96, 72), (72, 96), (96, 64), (96, 96))


class Photos:
    """Photos in memory, with the surface of a LocalCollection."""

    def __init__(self, num_clusters: int = 8, each: int = 4) -> None:
        rng = np.random.default_rng(0)
        self.image_ids = np.array([f"{c:02d}/{n}" for c in range(num_clusters) for n in range(each)], dtype=object)
        self._jpegs = []
        for cluster in range(num_clusters):
            pattern = rng.integers(0, 255, size=(8, 8, 3))
            for number in range(each):
                height, width = SHAPES[(cluster + number) % len(SHAPES)]
                picture = np.kron(pattern, np.ones((12, 12, 1)))[:height, :width] + rng.normal(
                    0, 25, (height, width, 3)
                )
                self._jpegs.append(encode_jpeg(np.clip(picture, 0, 255).astype(np.uint8)))

    def __len__(self) -> int:
        return len(self.image_ids)

    def jpegs(self, rows: Sequence[int] | np.ndarray) -> list[bytes]:
        return [self._jpegs[int(row)] for row in rows]


def known(photos: Photos, val_fraction: float = 0.25) -> TupleSet:
    ids = list(photos.image_ids)
    tables = tuples.labelled_tables(ids, [name[:2] for name in ids])
    return as_set(*tuples.divide(*tables, val_fraction=val_fraction))


def config(**settings: object) -> TupleTrainConfig:
    usual = {"epochs": 2, "learning_rate": 1e-4, "image_size": 96, "precision": "fp32", "num_negatives": 3}
    return TupleTrainConfig(**(usual | settings))  # type: ignore[arg-type]


def trainer(net: EmbeddingNet | None = None, rank: Rank | None = None, **settings: object) -> TupleTrainer:
    photos = Photos()
    net = net or bundle.build(NET, seed=1)
    return TupleTrainer(net, photos, known(photos), config(**settings), rank=rank)  # type: ignore[arg-type]


def gradients(net: EmbeddingNet) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("believed_idle", ["none", "believed", "all"])
@pytest.mark.parametrize("margin", [0.068, 0.7])  # some negatives pull; all do
def test_gradients_of_shape_batches_are_those_of_one_photo_at_a_time(believed_idle: str, margin: float) -> None:
    made = trainer(margin=margin)
    rows, idle, _ = made.mine(1)
    rows, idle = rows[:5], idle[:5]
    assert idle[:, 2:].any() == (margin < 0.7)
    assert not idle.all()
    made.loss(rows, {"believed": idle, "all": np.ones_like(idle), "none": None}[believed_idle]).sum().backward()
    batched = gradients(made.net)
    made.net.zero_grad(set_to_none=True)
    for own in rows:  # the published loop: every image alone, losses of a tuple added
        embeddings = []
        for row in own:
            pixels = torch.from_numpy(decode_fit(made.local.jpegs([int(row)])[0], 96))[None]
            embeddings.append(made.net(made.net.normalise(pixels)))
        found = torch.cat(embeddings)
        contrastive(found[:1], found[None, 1:], torch.arange(len(own) - 1) == 0, margin).sum().backward()
    alone = gradients(made.net)
    assert batched.keys() == alone.keys()
    assert "pool.p" in batched
    for name, grad in batched.items():
        assert torch.allclose(grad, alone[name], rtol=1e-4, atol=1e-5 * float(alone[name].abs().max())), name


def test_training_brings_the_places_together() -> None:
    made = trainer(epochs=4, learning_rate=1e-3)
    history = list(made.run())
    assert history[-1]["train/loss"] < 0.8 * history[1]["train/loss"]
    assert max(row["val/mAP"] for row in history) >= history[0]["val/mAP"]
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4]
    assert history[-1]["train/p"] != 3.0


def test_batchnorm_statistics_do_not_move_and_its_affine_does() -> None:
    net = bundle.build(NET, seed=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = trainer(net, epochs=1, learning_rate=1e-3)
    list(made.run())
    for name, value in net.state_dict().items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(value, before[name]), name
    moved = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.endswith("0.1.weight") or ".1.weight" in name for name in moved)


def test_an_interrupted_run_ends_as_an_uninterrupted_one() -> None:
    whole = trainer(epochs=3)
    list(whole.run())
    first = trainer(epochs=3)
    for _, _ in zip(range(2), first.run()):
        pass
    second = trainer(epochs=3)
    second.load_state(first.state())
    list(second.run())
    strip = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in whole.history]
    assert [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in second.history] == strip
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name


def _one_rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    made = trainer(rank=Rank(rank=rank, world=world), epochs=1)
    history = list(made.run())
    if rank == 0:
        torch.save({"net": made.net.state_dict(), "digest": history[1]["tuples_sha256"]}, f"{folder}/out.pt")
    dist.destroy_process_group()


def test_two_workers_give_what_one_gives(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.start_processes(_one_rank, args=(2, str(tmp_path)), nprocs=2, start_method="spawn")  # type: ignore[arg-type]
    two = torch.load(tmp_path / "out.pt", weights_only=True)
    alone = trainer(epochs=1)
    history = list(alone.run())
    assert history[1]["tuples_sha256"] == two["digest"]
    for name, value in alone.net.state_dict().items():
        # Adam divides by the gradient's own size, so a last-bit difference of a tiny gradient is a difference of steps.
        assert torch.allclose(value, two["net"][name], atol=2e-5), name


def test_the_power_learns_faster_and_does_not_decay() -> None:
    for per_channel, faster in ((False, 10), (True, 100)):
        net = bundle.build(ModelConfig(cut="features.2", pooling="gem", gem_per_channel=per_channel, head="none"))
        plain, power = parameter_groups(net, 1e-3, 1e-2)
        assert (plain["lr"], plain["weight_decay"]) == (1e-3, 1e-2)
        assert (power["lr"], power["weight_decay"]) == (pytest.approx(1e-3 * faster), 0.0)
        assert len(plain["params"]) + 1 == len(list(net.parameters()))
    net.requires_grad_(False)
    assert parameter_groups(net, 1e-3, 1e-2) == [{"params": [], "lr": 1e-3, "weight_decay": 1e-2}]


def test_no_positive_that_fits_says_what_to_relax() -> None:
    photos = Photos()
    far = known(photos)
    far = TupleSet(
        image_ids=far.image_ids, clusters=far.clusters, splits=far.splits, usable=far.usable, queries=far.queries,
        candidates=far.candidates, shared_points=far.shared_points, scale_change=[3.0 * c for c in far.scale_change],
    )  # fmt: skip
    with pytest.raises(ValueError, match="--siamese.max-scale-change"):
        TupleTrainer(bundle.build(NET), photos, far, config())  # type: ignore[arg-type]


def test_photos_that_the_collection_lacks_are_named() -> None:
    photos, more = Photos(), Photos(num_clusters=9)
    with pytest.raises(ValueError, match="4 of the 36 photos of the tuples are not in the collection.*08/0"):
        TupleTrainer(bundle.build(NET), photos, known(more), config())  # type: ignore[arg-type]


# -- mining ----------------------------------------------------------------------------------------------------------


def slow(query: Tensor, cluster: int, pool: Tensor, clusters: np.ndarray, num: int, strategy: str) -> list[int]:
    order = sorted(range(len(pool)), key=lambda row: (-float(query @ pool[row]), row))
    kept: list[int] = []
    for row in order:
        taken = {cluster} | ({int(clusters[k]) for k in kept} if strategy == "N2" else set())
        if int(clusters[row]) not in taken and len(kept) < num:
            kept.append(row)
    return kept


@pytest.mark.parametrize("strategy", ["N1", "N2"])
@pytest.mark.parametrize("num", [1, 5])
def test_negatives_are_those_of_the_slow_definition(strategy: str, num: int) -> None:
    torch.manual_seed(0)
    # Whole numbers: many ties, and exact sums.
    pool, queries = torch.randint(-2, 3, (200, 6)).float(), torch.randint(-2, 3, (20, 6)).float()
    clusters = np.random.default_rng(0).integers(0, 9, size=200)
    own = np.random.default_rng(1).integers(0, 9, size=20)
    got = mine_negatives(queries, own, pool, clusters, num=num, strategy=strategy)  # type: ignore[arg-type]
    sums = [[float(queries[q] @ pool[row]) for row in got[q]] for q in range(20)]
    for q in range(20):
        want = slow(queries[q], int(own[q]), pool, clusters, num, strategy)
        assert sums[q] == [float(queries[q] @ pool[row]) for row in want]
        assert int(own[q]) not in {int(clusters[row]) for row in got[q]}
        if strategy == "N2":
            assert len({int(clusters[row]) for row in got[q]}) == num


def test_too_few_clusters_say_so() -> None:
    pool, clusters = torch.eye(8), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    with pytest.raises(ValueError, match="3 clusters other than the query's, expected at least 5.*N1"):
        mine_negatives(pool[:1], clusters[:1], pool, clusters, num=5)
    assert mine_negatives(pool[:1], clusters[:1], pool, clusters, num=5, strategy="N1").shape == (1, 5)


def test_an_epoch_draws_alike_and_another_differently() -> None:
    queries, pool = np.arange(100), np.arange(500)
    one, again, two = (draw_epoch(queries, pool, num_queries=20, pool_size=50, seed=3, epoch=e) for e in (1, 1, 2))
    assert one.queries.tolist() == again.queries.tolist() != two.queries.tolist()
    assert len(set(one.queries)) == 20
    assert one.pool.tolist() == sorted(set(again.pool))
    assert len(two.pool) == 50
