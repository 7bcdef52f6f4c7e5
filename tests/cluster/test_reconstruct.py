"""Reconstruct, train by tuples, whiten, embed and evaluate on a real local Ray: killed workers change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs import embed, evaluate, reconstruct, train, whiten
from ray_jobs.reconstruct import ReconstructJobConfig
from retrieval.artifacts import tuples
from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import Manifest, begin, read_manifest
from retrieval.data.demo.places import write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.data.settings import SplitConfig
from retrieval.evaluation.settings import System
from retrieval.geometry.settings import ReconstructConfig
from retrieval.models import bundle, whitening
from retrieval.models.settings import ModelConfig
from retrieval.search.settings import ExpansionConfig
from retrieval.training.settings import TupleTrainConfig, WhitenConfig
from retrieval.training.whitening_fit import pairs_of
from tests.cluster.killing import killed_when
from tests.support.places import PREPARE, collect

pytestmark = pytest.mark.usefixtures("ray_local")
SCENES = SceneConfig(num_places=6, images_per_place=7, num_distractors=6, size=480, seed=5)
RECONSTRUCT = ReconstructConfig(num_words=512, num_candidates=8, max_features=1536, min_shared=10)


def job(root: Path, out: str, **settings: object) -> ReconstructJobConfig:
    usual = {"collection": str(root / "collection"), "out": str(root / out), "reconstruct": RECONSTRUCT}
    return ReconstructJobConfig(**(usual | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of six places and six distractors, a third of them for testing, and its tuples."""
    folder = tmp_path_factory.mktemp("reconstruct")
    split = SplitConfig(keep_singles=True, test_fraction=0.34, val_fraction=0)
    collect(Folder.of(folder / "collection"), write_scenes(folder / "photos", SCENES), split, part_size=4)
    reconstruct.main(job(folder, "tuples"))
    return folder


def siamese_job(root: Path, out: str) -> train.TrainJobConfig:
    # All of the trunk trains, one photo of each shape a batch: an epoch takes long enough to be killed in.
    settings: dict[str, Any] = {"learning_rate": 1e-4, "image_size": 160, "precision": "fp32", "queries_per_epoch": 16}
    return train.TrainJobConfig(
        collection=str(root / "collection"),
        tuples=str(root / "tuples"),
        out=str(root / out),
        weights="none",
        model=ModelConfig(cut="features.4", pooling="gem", head="none", image_size=160, keep_aspect=True),
        siamese=TupleTrainConfig(epochs=3, num_negatives=3, val_distractors=8, **settings),
        cache=str(root / f"cache-{out}"),
        cpus_per_worker=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def trained(root: Path) -> Manifest:
    return train.main(siamese_job(root, "model"))


def content(folder: Path) -> dict[str, str]:
    """Hashes of what the job made, and its fingerprint."""
    sealed = read_manifest(Folder.of(folder), "tuples")
    return {**sealed.files, "fingerprint": sealed.fingerprint}


def test_tuples_are_of_the_training_places_and_the_books_balance(root: Path) -> None:
    manifest = read_manifest(Folder.of(root / "tuples"), "tuples")
    catalog = Folder.of(root / "collection").read_table("catalog.parquet").to_pylist()
    train_ids = {row["image_id"] for row in catalog if row["split"] == "train"}
    known = tuples.read_tuples(Folder.of(root / "tuples"))
    assert set(known.image_ids) == train_ids
    (book,) = manifest.books
    assert (book["taken"], book["kept"]) == (len(train_ids), manifest.counts["registered"])
    assert manifest.counts["registered"] >= 0.8 * 4 * SCENES.images_per_place
    label = {row["image_id"]: row["label"] for row in catalog}
    for query, candidates in zip(known.queries, known.candidates, strict=True):
        own = label[known.image_ids[query]]
        assert own is not None
        assert {label[known.image_ids[row]] for row in candidates} == {own}


def test_killed_workers_change_nothing(root: Path) -> None:
    """One is killed while features are taken, one while places are mapped."""
    out = root / "killed"
    with (
        killed_when(lambda: (out / "features/part-00001.parquet").exists(), "extract_part") as early,
        killed_when(lambda: (out / "groups/00000/done.json").exists(), "map_group") as late,
    ):
        reconstruct.main(job(root, out.name))
    assert early and late and early != late, "the job was over before both workers could be killed"
    assert content(out) == content(root / "tuples")


def test_the_rest_is_done_when_the_job_is_given_again(root: Path) -> None:
    again, sealed, cfg = Folder.of(root / "again"), read_manifest(Folder.of(root / "tuples")), job(root, "again")
    ignored = ("collection", "out", "cpus_per_task")
    begin(again, kind="tuples", config=cfg, inputs=sealed.inputs, ignore=ignored)  # as an interrupted run left it
    parts = (
        "features/part-00001",
        "words/part-00002",
        "candidates/block-00000",
        "pairs/round-0",
        "pairs/round-1",
        "links/round-0/block-00000",
        "tuples",
    )
    lost = (*(f"{name}.parquet" for name in parts), "groups/00001/done.json")
    for name in set(sealed.files) - set(lost):
        again.write_bytes(name, (root / "tuples" / name).read_bytes())
    reconstruct.main(cfg)
    assert content(root / "again") == content(root / "tuples")


def test_photos_without_overlap_end_with_advice(tmp_path: Path) -> None:
    scenes = SceneConfig(num_places=1, images_per_place=1, num_distractors=4, size=240)
    split = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    collect(Folder.of(tmp_path / "collection"), write_scenes(tmp_path / "photos", scenes), split)
    with pytest.raises(ValueError, match="No two of the 5 photos share a place.*--labels-as-clusters"):
        reconstruct.main(job(tmp_path, "tuples"))
    assert not (tmp_path / "tuples/manifest.json").exists()


def test_labels_can_stand_for_places(root: Path) -> None:
    manifest = reconstruct.main(job(root, "labelled", labels_as_clusters=True))
    assert (manifest.counts["models"], manifest.counts["clusters"]) == (0, 4 + manifest.counts["images"] - 28)
    with pytest.raises(ValueError, match="Give one of"):
        job(root, "x", labels_as_clusters=True, models="m")


def test_training_whitening_and_evaluation_fit_together(root: Path, trained: Manifest) -> None:
    places: dict[str, Any] = {"collection": str(root / "collection"), "tuples": str(root / "tuples")}
    assert trained.inputs["tuples"] == read_manifest(Folder.of(root / "tuples")).fingerprint
    assert (root / "model/tuples.jpg").read_bytes()[:2] == b"\xff\xd8"
    embed.main(
        embed.EmbedConfig(
            collection=places["collection"], model=str(root / "model"), out=str(root / "plain"), num_workers=1
        )
    )
    job_ = whiten.WhitenJobConfig(
        **places, model=str(root / "model"), embeddings=str(root / "plain"), out=str(root / "white"),
        whiten=WhitenConfig(dim=16, shrinkage=0.1),
    )  # fmt: skip
    whiten.main(job_)
    _whitening_is_that_of_one_process(root, job_.whiten)
    embed.main(
        embed.EmbedConfig(
            collection=places["collection"], model=str(root / "white"), out=str(root / "whitened"), num_workers=1
        )
    )
    sides = (f"before={root}/model,{root}/plain", f"after={root}/white,{root}/whitened")
    systems = tuple(System.parse(text) for text in sides)
    settings: dict[str, Any] = {"protocol": "leave-one-out", "subject": "place", "rerank": 4, "sheet_queries": 2}
    settings |= {"expansion": ExpansionConfig(num=2), "tuples": places["tuples"]}
    sealed = evaluate.main(
        evaluate.EvaluateConfig(collection=places["collection"], systems=systems, out=str(root / "report"), **settings)
    )
    names = Folder.of(root / "report").read_json("metrics.json")["order"]
    assert names == ["before", "before + QE", "before + rerank", "after", "after + QE", "after + rerank"]
    assert sealed.counts["after + rerank/recall@1"] >= sealed.counts["after/recall@1"]
    wanted = ("reconstructed_place_1.png", "training_tuples.jpg", "matched_points.jpg", "precision_and_recall.png")
    assert set(wanted) <= set(sealed.aside)


def _whitening_is_that_of_one_process(root: Path, config: WhitenConfig) -> None:
    folder, collection = Folder.of(root / "plain"), Folder.of(root / "collection")
    rows = {name: i for i, name in enumerate(tuples.read_tuples(Folder.of(root / "tuples")).image_ids)}
    catalog = collection.read_table("catalog.parquet").sort_by("image_id")
    some = catalog.filter(np.array([split == "train" for split in catalog["split"].to_pylist()]))
    places = (some[name].to_numpy() for name in ("part", "row"))
    vectors = torch.from_numpy(read_rows(folder, some["image_id"], *places))
    query, positive = ([rows[name] for name in side] for side in pairs_of(Folder.of(root / "tuples"), config))
    moments = whitening.Moments(vectors.shape[1]).add(vectors).add_pairs(vectors[query], vectors[positive])
    projection, mean = whitening.learned(moments, dim=16, shrinkage=0.1)
    net = bundle.load_bundle(root / "white")
    assert (net.dim, net.spec.whitening) == (16, "learned")
    assert torch.allclose(
        net.whitening_projection.double(), projection, rtol=1e-3, atol=1e-3 * float(projection.abs().max())
    )
    assert torch.allclose(net.whitening_mean.double(), mean, atol=1e-6)
    assert net.spec.preparation["crop"] == plain(PREPARE)["crop"] == "fit"


def epochs_of(root: Path, out: str) -> list[dict[str, Any]]:
    """What is known of each epoch, but for how long it took."""
    history = Folder.of(root / out).read_json("history.json")
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in history]


def test_a_worker_killed_while_training_on_tuples_draws_the_same_tuples(root: Path, trained: Manifest) -> None:
    checkpoints = root / "killed-model-checkpoints"

    def in_epoch_two() -> bool:  # reports of epochs 0 and 1 are on disk
        return len(list(checkpoints.glob("train-*/checkpoint_*/state.pt"))) >= 2

    with killed_when(in_epoch_two, "RayTrainWorker") as killed:
        train.main(siamese_job(root, "killed-model"))
    assert killed, "the job was over before a worker could be killed"
    undisturbed = epochs_of(root, "model")
    assert len({row["tuples_sha256"] for row in undisturbed[1:]}) == 3  # mined anew in each epoch
    assert epochs_of(root, "killed-model") == undisturbed
    ours, theirs = ((root / name / "model.safetensors").read_bytes() for name in ("killed-model", "model"))
    assert ours == theirs


def test_an_actor_killed_among_photos_of_many_shapes_and_scales_changes_nothing(root: Path) -> None:
    config = ModelConfig(
        backbone="resnet18", pooling="gem", head="none", image_size=224, keep_aspect=True, scales=(1.0, 0.7, 0.5)
    )
    bundle.save_bundle(bundle.build(config, preparation=plain(PREPARE)), root / "scales")
    places: dict[str, Any] = {"collection": str(root / "collection"), "model": str(root / "scales"), "num_workers": 1}
    cfg = embed.EmbedConfig(**places, out=str(root / "by-one"), batch_size=4, device="cpu", precision="fp32")
    undisturbed, out = embed.main(cfg), root / "by-two"
    with killed_when(lambda: len(list(out.glob("part-?????.parquet"))) >= 3, "EmbedPart") as killed:
        manifest = embed.main(dataclasses.replace(cfg, out=str(out)))
    assert killed, "the job was over before an actor could be killed"
    assert len(manifest.files) == 12
    assert manifest.files == undisturbed.files  # ids and vectors, to the bit
    assert manifest.books == undisturbed.books


def test_tuples_of_another_collection_are_refused(root: Path, tmp_path: Path) -> None:
    scenes = SceneConfig(num_places=2, images_per_place=2, num_distractors=0, size=240)
    split = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    collect(Folder.of(tmp_path / "collection"), write_scenes(tmp_path / "photos", scenes), split)
    cfg = train.TrainJobConfig(
        collection=str(tmp_path / "collection"), tuples=str(root / "tuples"), out=str(tmp_path / "m"), weights="none"
    )
    with pytest.raises(ValueError, match="The tuples .* were made with collection .* not with the one given"):
        train.main(cfg)
