"""A tiny published workspace for tests, made through the real functions: collection, model, embeddings, index.

The model has random weights, so scores say nothing about people; but a stored photo is its own nearest neighbour.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval import artifacts, model
from retrieval.artifacts import EMBEDDING_SCHEMA, IMAGE_SCHEMA, Folder, part_name
from retrieval.demo_faces import IMAGE_FOLDER, draw_collection
from retrieval.embedder import Embedder
from retrieval.faces import FaceDetector
from retrieval.index import IDS, IndexConfig, build_shard, train_index
from retrieval.ingestion import PrepareConfig, prepare
from retrieval.model import ModelConfig

NUM_PEOPLE, PHOTOS_EACH = 5, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """Where it lies, and the photos its gallery was made from: image_id -> bytes, image_id -> label."""

    folder: Folder
    photos: dict[str, bytes]
    labels: dict[str, str]


def drawn_faces(folder: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Photos of a few drawn people and their labels, by image_id."""
    draw_collection(folder, num_identities=NUM_PEOPLE, images_per_identity=PHOTOS_EACH, seed=3)
    lines = (folder / "identity_CelebA.txt").read_text().split("\n")
    labels = dict(line.split() for line in lines if line.strip())
    return {name: (folder / IMAGE_FOLDER / name).read_bytes() for name in labels}, labels


def make_workspace(root: Path, *, num_parts: int = 2, num_shards: int = 2) -> Workspace:
    """Build and publish a workspace below `root`. Takes about two seconds."""
    folder = Folder.of(root / "workspace")
    photos, labels = drawn_faces(root / "drawn")
    preparation = PrepareConfig(size=96)
    collection = folder / "collection/test"
    stored = _collection(collection, photos, labels, preparation, num_parts)
    bundle = folder / "model/test"
    config = ModelConfig(embedding_dim=16, image_size=64)
    model.save_bundle(model.build(config, preparation=artifacts.plain(preparation)), bundle)
    index = folder / "index/test"
    _index(index, folder / "embeddings/test", collection, bundle, stored, num_shards)
    artifacts.publish(folder, collection=collection, model=bundle, index=index)
    return Workspace(folder=folder, photos={i: photos[i] for i in stored}, labels={i: labels[i] for i in stored})


def _collection(
    folder: Folder, photos: dict[str, bytes], labels: dict[str, str], preparation: PrepareConfig, num_parts: int
) -> dict[str, tuple[int, int]]:
    """Returns: image_id -> (part, row)."""
    detector, places = FaceDetector(preparation), {}
    for part in range(num_parts):
        rows = []
        for image_id in sorted(photos)[part::num_parts]:
            ready = prepare(photos[image_id], preparation, detector)
            places[image_id] = (part, len(rows))
            row = {"image_id": image_id, "jpeg": ready.jpeg, "width": ready.width, "height": ready.height}
            digest = hashlib.sha256(photos[image_id]).hexdigest()
            rows.append({**row, "box": ready.box, "label": labels[image_id], "content_hash": digest})
        table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
        (folder / "images").write_table(part_name(part), table, row_group_size=3)
    counts = {"stored": len(places), "parts": num_parts}
    artifacts.seal(folder, kind="collection", config=preparation, inputs={}, counts=counts)
    return places


def _index(
    index: Folder,
    embeddings: Folder,
    collection: Folder,
    bundle: Folder,
    places: dict[str, tuple[int, int]],
    num_shards: int,
) -> None:
    seals = {"collection": artifacts.read_manifest(collection), "model": artifacts.read_manifest(bundle)}
    made_with = {name: seal.fingerprint for name, seal in seals.items()}
    embedder = Embedder(bundle, device="cpu", precision="fp32", num_threads=1)
    vectors: dict[str, np.ndarray] = {}
    for part in range(seals["collection"].counts["parts"]):
        table = (collection / "images").read_table(part_name(part), columns=["image_id", "jpeg"])
        found = embedder.embed_jpegs(table["jpeg"].to_pylist())
        ids = table["image_id"].to_pylist()
        vectors.update(zip(ids, found, strict=True))
        columns = {"image_id": ids, "embedding": list(found)}
        embeddings.write_table(part_name(part), pa.table(columns, schema=EMBEDDING_SCHEMA))
    counts = {"num": len(vectors), "dim": embedder.dim}
    sealed = artifacts.seal(embeddings, kind="embeddings", config={}, inputs=made_with, counts=counts)

    ids = sorted(vectors)
    matrix, config = np.stack([vectors[image_id] for image_id in ids]), IndexConfig(num_shards=num_shards)
    trained = train_index(config, matrix)
    for shard in range(num_shards):
        rows = np.arange(shard, len(ids), num_shards)
        index.write_bytes(f"shard-{shard:05d}.faiss", build_shard(config, trained, matrix[rows], rows))
    labels = _labels(collection, seals["collection"].counts["parts"])
    columns = {
        "image_id": ids,
        "label": [labels[image_id] for image_id in ids],
        "part": pa.array([places[image_id][0] for image_id in ids], pa.int32()),
        "row_in_part": pa.array([places[image_id][1] for image_id in ids], pa.int32()),
    }
    index.write_table(IDS, pa.table(columns))
    inputs = {**made_with, "embeddings": sealed.fingerprint}
    artifacts.seal(index, kind="index", config=config, inputs=inputs, counts={"num": len(ids)})


def _labels(collection: Folder, num_parts: int) -> dict[str, str]:
    tables = [
        (collection / "images").read_table(part_name(part), columns=["image_id", "label"]) for part in range(num_parts)
    ]
    rows = [row for table in tables for row in table.to_pylist()]
    return {row["image_id"]: row["label"] for row in rows}
