"""Mining and siamese training: equal to the loops they stand for, whatever the batches, ranks and interruptions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from retrieval.artifacts.tuples import TupleSet
from retrieval.images.pixels import decode_fit
from retrieval.models import bundle
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import ModelConfig
from retrieval.training.losses import contrastive
from retrieval.training.tuple_recipe import TupleRecipe, parameter_groups
from retrieval.training.workers import Rank
from tests.support.siamese import config, recipe, trainer
from tests.support.tuples import Photos, known


def gradients(net: EmbeddingNet) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("believed_idle", ["none", "believed", "all"])
@pytest.mark.parametrize("margin", [0.068, 0.7])  # some negatives pull; all do
def test_gradients_of_shape_batches_are_those_of_one_photo_at_a_time(believed_idle: str, margin: float) -> None:
    made = recipe(margin=margin)
    net = trainer(made).net
    mined = made.mine(1)
    rows, idle = mined.rows[:5], mined.idle[:5]
    assert idle[:, 2:].any() == (margin < 0.7)
    assert not idle.all()
    made.losses(rows, {"believed": idle, "all": np.ones_like(idle), "none": None}[believed_idle]).sum().backward()
    batched = gradients(net)
    net.zero_grad(set_to_none=True)
    for own in rows:  # the published loop: every image alone, losses of a tuple added
        embeddings = []
        for row in own:
            pixels = torch.from_numpy(decode_fit(made.local.jpegs([int(row)])[0], 96))[None]
            embeddings.append(net(net.normalise(pixels)))
        found = torch.cat(embeddings)
        contrastive(found[:1], found[1:2], found[None, 2:], margin).sum().backward()
    alone = gradients(net)
    assert batched.keys() == alone.keys()
    assert "pool.p" in batched
    for name, grad in batched.items():
        assert torch.allclose(grad, alone[name], rtol=1e-4, atol=1e-5 * float(alone[name].abs().max())), name


def test_training_brings_the_places_together() -> None:
    made = trainer(recipe(epochs=4, learning_rate=1e-3))
    history = list(made.run())
    assert history[-1]["train/loss"] < 0.8 * history[1]["train/loss"]
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4]
    assert history[0]["train/p"] == 3 and history[-1]["train/p"] != 3


def test_places_that_validate_are_found_better_and_the_best_epoch_is_kept() -> None:
    made = trainer(recipe(epochs=2))
    history = list(made.run())
    assert made.best["val/mAP"] == max(row["val/mAP"] for row in history) > history[0]["val/mAP"] + 0.01
    made.load_best()
    assert made.recipe.validate()["val/mAP"] == pytest.approx(made.best["val/mAP"], abs=1e-6)


def test_batchnorm_statistics_do_not_move_and_its_affine_does() -> None:
    made = trainer(recipe(epochs=1, learning_rate=1e-3))
    net = made.net
    before = {name: value.clone() for name, value in net.state_dict().items()}
    list(made.run())
    for name, value in net.state_dict().items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(value, before[name]), name
    norms = [name for name, module in net.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 12
    for name in norms:
        for part in (f"{name}.weight", f"{name}.bias"):
            assert not torch.equal(net.state_dict()[part], before[part]), part


def test_an_interrupted_run_ends_as_an_uninterrupted_one() -> None:
    whole = trainer(recipe(epochs=3))
    list(whole.run())
    first = trainer(recipe(epochs=3))
    for _, _ in zip(range(2), first.run()):
        pass
    second = trainer(recipe(epochs=3))
    second.load_state(first.state())
    list(second.run())
    strip = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in whole.history]
    assert [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in second.history] == strip
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name


def _one_rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    made = trainer(recipe(epochs=1), Rank(rank=rank, world=world))
    history = list(made.run())
    if rank == 0:
        torch.save({"net": made.net.state_dict(), "digest": history[1]["tuples_sha256"]}, f"{folder}/out.pt")
    dist.destroy_process_group()


def test_two_workers_give_what_one_gives(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.start_processes(_one_rank, args=(2, str(tmp_path)), nprocs=2, start_method="spawn")  # type: ignore[arg-type]
    two = torch.load(tmp_path / "out.pt", weights_only=True)
    alone = trainer(recipe(epochs=1))
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
        trainer(TupleRecipe(photos, far, config()))  # type: ignore[arg-type]


def test_photos_that_the_collection_lacks_are_named() -> None:
    photos, more = Photos(), Photos(num_clusters=9)
    with pytest.raises(ValueError, match="4 of the 36 photos of the tuples are not in the collection.*08/0"):
        TupleRecipe(photos, known(more), config())  # type: ignore[arg-type]


# -- what may train, and what may be looked at -----------------------------------------------------------------------


def test_photos_of_validation_places_never_train() -> None:
    """Every place has queries, candidates and negatives to offer; those of two places may only validate."""
    made = recipe(queries_per_epoch=7, num_negatives=4)
    trainer(made)
    splits, clusters = made.known.splits, made.known.clusters
    assert set(clusters[splits == "val"]) and len(set(clusters[splits == "train"])) == 6
    queried = set()
    for epoch in range(1, 6):
        rows = made.mine(epoch).rows
        assert rows.shape == (7, 6) and set(splits[rows.ravel()]) == {"train"}
        queried |= set(rows[:, 0].tolist())
    assert len(queried) > 15
    assert set(splits[made.pool]) == {"train"} and set(splits[made.known.queries[made.queries]]) == {"train"}


def test_rejected_photos_are_no_negatives() -> None:
    photos = Photos()
    tuples = known(photos)
    train = np.flatnonzero(tuples.splits == "train")
    tuples.usable[train[::4]] = False
    made = TupleRecipe(photos, tuples, config())  # type: ignore[arg-type]
    trainer(made)
    assert set(made.pool.tolist()) == set(train.tolist()) - set(train[::4].tolist())
    assert not set(made.mine(1).rows[:, 2:].ravel().tolist()) & set(train[::4].tolist())
