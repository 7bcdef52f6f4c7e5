"""Fingerprints name content: a step whose driver died, and that was given again, has the name it would have had anyway.

Workers killed while they work are in the tests of the steps themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ray_jobs import build_index, embed, evaluate, ingest, reconstruct, train, whiten
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, STARTED, Manifest, read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.data.settings import SplitConfig
from retrieval.evaluation.systems import System
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from retrieval.search.settings import IndexConfig
from retrieval.training.settings import TrainConfig, WhitenConfig

pytestmark = pytest.mark.usefixtures("ray_local")


class Killed(Exception):
    pass


def do_ingest(root: Path, out: str, again: bool) -> Any:
    return ingest.main(
        ingest.IngestConfig(
            source=str(root / "drawn"),
            out=out,
            prepare=PrepareConfig(size=48, crop="none"),
            split=SplitConfig(test_fraction=0.5, val_fraction=0.2),
            part_size=8,
            cpus_per_part=0.5 if again else 1.0,
        )
    )


def do_reconstruct(root: Path, out: str, again: bool) -> Any:
    collection, cpus = str(root / "collection"), 0.5 if again else 1.0
    return reconstruct.main(
        reconstruct.ReconstructJobConfig(collection=collection, out=out, labels_as_clusters=True, cpus_per_task=cpus)
    )


def do_train(root: Path, out: str, again: bool) -> Any:
    cfg = train.TrainJobConfig(
        collection=str(root / "collection"),
        out=out,
        weights="none",
        model=ModelConfig(cut="features.2", image_size=32, embedding_dim=8),
        train=TrainConfig(epochs=2, groups_per_batch=1, precision="fp32", seed=3),
        cache=f"{out}-cache",
        num_workers=0,
        cpus_per_worker=1,
        max_failures=0,
        device="cpu",
    )
    return train.main(cfg)


def do_embed(root: Path, out: str, again: bool) -> Any:
    collection, model = str(root / "collection"), str(root / "model")
    cfg = embed.EmbedConfig(collection=collection, model=model, out=out, num_workers=1 + again, precision="fp32")
    return embed.main(cfg)


def do_whiten(root: Path, out: str, again: bool) -> Any:
    folders: dict[str, Any] = {name: str(root / name) for name in ("collection", "model", "embeddings", "tuples")}
    return whiten.main(whiten.WhitenJobConfig(**folders, out=out, whiten=WhitenConfig(dim=4, max_pairs=100)))


def do_index(root: Path, out: str, again: bool) -> Any:
    collection, embeddings = str(root / "collection"), str(root / "embeddings")
    index = IndexConfig(factory="IVF2,Flat", num_shards=2)
    return build_index.main(
        build_index.BuildIndexConfig(
            collection=collection, embeddings=embeddings, out=out, splits=("gallery",), index=index
        )
    )


def do_evaluate(root: Path, out: str, again: bool) -> Any:
    folders = [Folder.of(root / name) for name in ("model", "embeddings", "index")]
    system = System(name="after", model=folders[0], embeddings=folders[1], index=folders[2])
    collection = str(root / "collection")
    return evaluate.main(
        evaluate.EvaluateConfig(collection=collection, systems=(system,), out=out, ks=(2, 5), sheet_queries=2)
    )


# Folder -> the job, how it is run, and what its driver had not seen written when it died.
STEPS: dict[str, tuple[ModuleType, Callable[[Path, str, bool], Any], tuple[str, ...]]] = {
    "collection": (ingest, do_ingest, ("images/part-00001.parquet", "catalog.parquet")),
    "tuples": (reconstruct, do_reconstruct, ("tuples.parquet",)),
    "model": (train, do_train, ("model.safetensors", "curves.png")),
    "embeddings": (embed, do_embed, ("part-00001.parquet", "part-00002.parquet")),
    "whitened": (whiten, do_whiten, ("model.safetensors", "model.json")),
    "index": (build_index, do_index, ("shard-00001.faiss",)),
    "report": (evaluate, do_evaluate, ("report.html",)),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every step, one after the other, on photos of 10 drawn people."""
    root = tmp_path_factory.mktemp("undisturbed")
    draw_collection(root / "drawn", num_identities=10, images_per_identity=4, seed=1, size=(60, 72))
    for name, (_, run, _) in STEPS.items():
        run(root, str(root / name), False)
    return root


def die_before_the_seal(patch: pytest.MonkeyPatch, job: ModuleType) -> None:
    """Whatever the job seals, here or in a task that is now done here, it dies when all is written but the manifest."""
    write = Folder.write_json

    def write_json(folder: Folder, name: str, value: Any, about: Any = None) -> Any:
        if name == MANIFEST:
            raise Killed("killed before the seal")
        return write(folder, name, value, about)

    patch.setattr(Folder, "write_json", write_json)

    def here(work: Callable[..., Any], *args: Any, says: str = "", needs: Any = None, **kwargs: Any) -> Any:
        return work(*args, **kwargs)

    patch.setattr(job, "on_cluster", here, raising=False)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_was_killed_and_given_again_has_the_same_fingerprint(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    job, run, lost = STEPS[step]
    expected, out = read_manifest(Folder.of(undisturbed / step)), Folder.of(tmp_path / "again")
    with monkeypatch.context() as patch, pytest.raises(Exception, match="killed before the seal"):
        die_before_the_seal(patch, job)
        run(undisturbed, out.uri, False)
    assert out.exists(STARTED) and not out.exists(MANIFEST)
    assert set(out.list()) == {*expected.all_files, STARTED}
    for name in lost:
        out.remove(name)
    run(undisturbed, out.uri, True)
    made: Manifest = read_manifest(out)
    assert made.fingerprint == expected.fingerprint
    assert (made.files, made.counts, made.books) == (expected.files, expected.counts, expected.books)
    assert set(made.aside) == set(expected.aside) and made.created >= expected.created


def test_nothing_that_a_fingerprint_is_made_of_is_a_second_or_a_picture(undisturbed: Path) -> None:
    for step in STEPS:
        sealed = read_manifest(Folder.of(undisturbed / step))
        assert not [name for name in sealed.files if name.endswith((".png", ".jpg", ".html"))], step
        assert not [name for name in sealed.counts if "second" in name or "resumed" in name], step
        for name in (name for name in sealed.files if name.endswith(".json")):
            assert b"seconds" not in Folder.of(undisturbed / step).read_bytes(name), f"{step}: {name}"
