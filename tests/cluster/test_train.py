"""The train job on a real local Ray: a bundle is sealed; a worker killed in epoch 2 changes nothing of the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from ray_jobs.train import TrainJobConfig, main
from retrieval.artifacts.collection import IMAGE_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.images.settings import PrepareConfig
from retrieval.models import bundle
from retrieval.models.settings import ModelConfig
from retrieval.training.settings import TrainConfig
from tests.cluster.killing import killed_when
from tests.support.patterns import make_patterns
from tests.support.workspace import make_collection

pytestmark = pytest.mark.usefixtures("ray_local")
RESULTS = ("epoch", "tuples_sha256", "train/triplets", "train/loss", "train/spread", "val/mAP")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a sealed collection of 12 drawn people x 5 at 64 pixels."""
    folder = tmp_path_factory.mktemp("train")
    draw_collection(folder / "drawn", num_identities=12, images_per_identity=5, seed=2)
    make_collection(Folder.of(folder / "collection"), folder / "drawn", PrepareConfig(crop="none", size=64))
    return folder


def job(root: Path, out: str, **settings: Any) -> TrainJobConfig:
    # A fresh view at every use and all layers trained: an epoch takes long enough to be killed in.
    train = TrainConfig(epochs=3, groups_per_batch=1, unfreeze_layers=-1, views=0, precision="fp32", seed=3)
    cfg = TrainJobConfig(
        collection=str(root / "collection"),
        out=str(root / out),
        weights="none",
        model=ModelConfig(backbone="resnet18", cut="layer3", image_size=64, embedding_dim=32),
        train=train,
        cache=str(root / f"cache-{out}"),
        cpus_per_worker=1,
        device="cpu",
    )
    return dataclasses.replace(cfg, **settings)


def history(root: Path, out: str) -> list[dict[str, Any]]:
    found = Folder.of(root / out).read_json("history.json")
    return [{key: value for key, value in epoch.items() if key in RESULTS} for epoch in found]


@pytest.fixture(scope="module")
def undisturbed(root: Path) -> TrainJobConfig:
    cfg = job(root, "undisturbed")
    main(cfg)
    return cfg


def test_a_bundle_is_sealed_and_not_made_again(root: Path, undisturbed: TrainJobConfig) -> None:
    manifest = read_manifest(Folder.of(undisturbed.out), "model")
    assert set(manifest.files) == {"model.safetensors", "model.json", "history.json"}
    assert set(manifest.aside) == {"curves.png"}
    assert {"seconds/mine", "seconds/train"} <= set(manifest.run["epochs"][1])
    assert manifest.inputs["collection"] == read_manifest(Folder.of(root / "collection")).fingerprint
    assert manifest.counts["train_images"] >= 35 and manifest.counts["val_images"] == 5
    net = bundle.load_bundle(undisturbed.out)
    assert net.spec.preparation["crop"] == "none" and net.dim == 32
    epochs = history(root, "undisturbed")
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2, 3]
    assert len({epoch["tuples_sha256"] for epoch in epochs[1:]}) == 3
    assert max(epoch["val/mAP"] for epoch in epochs) == manifest.counts["best_val_mAP"]
    assert main(undisturbed) == manifest
    with pytest.raises(ValueError, match=r"made with other settings.*train.*another output folder"):
        main(dataclasses.replace(undisturbed, train=dataclasses.replace(undisturbed.train, margin=0.3)))


def let_go_of_machines() -> None:
    """What a dead controller held stays held: Ray's cleaner asks the dashboard who is dead, and here is none."""
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup

    for held, told in ray.util.placement_group_table().items():
        if told["state"] != "REMOVED":
            ray.util.remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(held)))


@pytest.mark.parametrize("title", ["RayTrainWorker", "TrainController"])
def test_a_worker_or_who_leads_them_killed_in_epoch_two_draws_the_same_tuples(
    root: Path, undisturbed: TrainJobConfig, title: str
) -> None:
    name = f"killed-{title}"
    checkpoints = root / f"{name}-checkpoints"

    def in_epoch_two() -> bool:  # reports of epochs 0 and 1 are on disk
        return len(list(checkpoints.glob("train-*/checkpoint_*/state.pt"))) >= 2

    with killed_when(in_epoch_two, title) as killed:
        main(job(root, name))
    let_go_of_machines()
    assert len(killed) == 1
    assert history(root, name) == history(root, "undisturbed")
    ours, theirs = (Folder.of(root / made).read_bytes("model.safetensors") for made in (name, "undisturbed"))
    assert ours == theirs
    assert (
        read_manifest(Folder.of(root / name)).fingerprint == read_manifest(Folder.of(root / "undisturbed")).fingerprint
    )


def test_a_photo_that_cannot_be_read_ends_the_run_and_is_named(root: Path) -> None:
    """By a look at all of them: the worker itself does not know which it was."""
    make_patterns(root / "hurt", train=4, val=1, query=0, shots=3, part_size=5)
    hurt = Folder.of(root / "hurt")
    rows = hurt.read_table("images/part-00001.parquet").to_pylist()
    rows[3]["jpeg"] = b"damaged"
    hurt.write_table("images/part-00001.parquet", pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA))
    named = rf"1 photos of .*/hurt .* train: {rows[3]['image_id']}: crashed \(BadImage: unreadable: A stored image"
    with pytest.raises(ValueError, match=named):
        main(job(root, "from-hurt", collection=hurt.uri, max_failures=0))


def test_two_workers_draw_the_same_tuples_and_lose_the_same(root: Path, undisturbed: TrainJobConfig) -> None:
    main(job(root, "two", num_workers=2))
    two, one = history(root, "two"), history(root, "undisturbed")
    drawn = [[epoch.pop("tuples_sha256", None) for epoch in epochs] for epochs in (two, one)]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 4
    # A negative is chosen among near ties, so rounding can change one of the 432 triplets: SSE's instructions in place
    # of AVX2's move the loss of one worker by 3e-5 in the first epoch and by 5e-3 in the second.
    for ours, theirs in zip(two, one, strict=True):
        losses = [epoch.pop("train/loss", 0.0) for epoch in (ours, theirs)]
        assert ours == pytest.approx(theirs, rel=1e-4 if ours["epoch"] < 2 else 1e-2)
        assert losses[0] == pytest.approx(losses[1], rel=5e-4 if ours["epoch"] < 2 else 1e-2)


def test_what_cannot_be_trained_is_said_before_any_worker_starts(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is nothing at .*Give weights"):
        main(job(root, "absent", weights=str(tmp_path / "absent.pth")))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable weights file"):
        main(job(root, "text", weights=str(tmp_path / "text.pth")))
    with pytest.raises(ValueError, match="No sealed collection"):
        main(job(root, "none", collection=str(tmp_path / "absent")))
    assert not (root / "absent").exists() and not (root / "text").exists()
