"""The embed job on a real local Ray: an actor killed half-way changes nothing of the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.embed import EmbedConfig, main
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.settings import ModelConfig
from tests.cluster.killing import killed_when
from tests.support.patterns import make_patterns

pytestmark = pytest.mark.usefixtures("ray_local")
PARTS = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of 64 photos in 16 parts, a bundle, and its embeddings by an undisturbed run."""
    folder = tmp_path_factory.mktemp("embed")
    make_patterns(folder / "collection", train=12, val=2, query=2, shots=4, part_size=4)
    # One image at a time at 218 pixels: slow enough to be killed in.
    bundle.save_bundle(bundle.build(ModelConfig(backbone="resnet18", image_size=218)), folder / "model")
    main(job(folder, "undisturbed"))
    return folder


def job(root: Path, out: str, **settings: object) -> EmbedConfig:
    cfg = EmbedConfig(
        collection=str(root / "collection"),
        model=str(root / "model"),
        out=str(root / out),
        num_workers=1,
        batch_size=4,
        device="cpu",
        precision="fp32",
    )
    return dataclasses.replace(cfg, **settings)  # type: ignore[arg-type]


def read(root: Path, out: str) -> tuple[list[str], np.ndarray]:
    folder = Folder.of(root / out)
    tables = [folder.read_table(name) for name in folder.list() if name.startswith("part-")]
    assert len(tables) == PARTS
    vectors = [np.stack(table["embedding"].to_numpy()) for table in tables]
    return [image_id for table in tables for image_id in table["image_id"].to_pylist()], np.concatenate(vectors)


def test_embeddings_are_the_model_s_and_in_the_collection_s_order(root: Path) -> None:
    manifest = read_manifest(Folder.of(root / "undisturbed"), "embeddings")
    assert (manifest.counts["num"], manifest.counts["dim"], manifest.run["resumed_parts"]) == (64, 128, 0)
    assert manifest.run["parts_by_format"] == {"float32": PARTS}
    assert manifest.run["parts_by_engine"] == {"torch": PARTS}  # too few for an export
    assert [(book["taken"], book["kept"]) for book in manifest.books] == [(64, 64)] * 2
    assert manifest.inputs["model"] == read_manifest(Folder.of(root / "model")).fingerprint
    ids, vectors = read(root, "undisturbed")
    collection = Folder.of(root / "collection")
    stored = [collection.read_table(f"images/{name}") for name in manifest.files]
    assert ids == [image_id for table in stored for image_id in table["image_id"].to_pylist()]
    embedder = Embedder(str(root / "model"), device="cpu", precision="fp32")
    expected = embedder.embed_jpegs(stored[7]["jpeg"].to_pylist())
    assert np.abs(vectors[28:32] - expected).max() < 1e-5


def test_done_work_is_skipped_and_other_work_refused(root: Path) -> None:
    done = read_manifest(Folder.of(root / "undisturbed"))
    assert main(job(root, "undisturbed", batch_size=7)) == done  # speed only
    with pytest.raises(ValueError, match=r"config.precision: 'fp32' there, 'bf16' wanted.*another output folder"):
        main(job(root, "undisturbed", precision="bf16"))
    bundle.save_bundle(bundle.build(ModelConfig(backbone="resnet18", cut="layer1")), root / "other")
    with pytest.raises(ValueError, match=r"inputs.model: .* wanted"):
        main(job(root, "undisturbed", model=str(root / "other")))


def test_a_killed_actor_s_part_is_done_again(root: Path) -> None:
    out = root / "killed"
    with killed_when(lambda: len(list(out.glob("part-?????.parquet"))) >= 5, "EmbedPart") as killed:
        manifest = main(job(root, "killed"))
    assert len(killed) == 1
    undisturbed = read_manifest(Folder.of(root / "undisturbed"))
    assert manifest.books == undisturbed.books
    assert manifest.files == undisturbed.files  # ids and vectors, to the bit
    assert (manifest.counts, manifest.fingerprint) == (undisturbed.counts, undisturbed.fingerprint)
    assert manifest.run["resumed_parts"] <= 1  # written, but its actor died before it could say so


def test_a_collection_or_a_bundle_that_is_not_there_is_said_in_words(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No sealed collection"):
        main(job(root, "x", collection=str(tmp_path)))
    with pytest.raises(ValueError, match="No sealed model"):
        main(job(root, "x", model=str(tmp_path)))


def test_the_other_engine_gives_the_same_embeddings_and_the_same_bits_again(root: Path) -> None:
    """Two workers of a node export the network once; the name of the work holds no engine."""
    found = [main(job(root, out, engine="onnxruntime", num_workers=2)) for out in ("exported", "again")]
    assert [one.run["parts_by_engine"] for one in found] == [{"onnxruntime": PARTS}] * 2
    assert found[0].fingerprint == found[1].fingerprint
    (ids, vectors), (others, expected) = read(root, "exported"), read(root, "undisturbed")
    assert ids == others and np.abs(vectors - expected).max() < 1e-5
    assert main(job(root, "undisturbed", engine="onnxruntime")).run["parts_by_engine"] == {"torch": PARTS}
