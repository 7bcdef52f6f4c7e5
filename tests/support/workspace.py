"""A tiny published workspace for tests, made by the library's own functions, without Ray: drawn faces to a FAISS index.

The model has random weights, so its scores say nothing about people; but a stored photo is its own nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.artifacts import hashing, manifest, published
from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import Manifest
from retrieval.data import catalog
from retrieval.data.demo.faces import IMAGE_FOLDER, draw_collection
from retrieval.data.ingestion import ingest_part
from retrieval.data.settings import SplitConfig
from retrieval.images.settings import PrepareConfig
from retrieval.models.bundle import build, save_bundle
from retrieval.models.embedder import Embedder
from retrieval.models.settings import ModelConfig
from retrieval.search import shards
from retrieval.search.index import IDS
from retrieval.search.settings import IndexConfig

INDEXED = ("train", "val", "query", "gallery")

# Random weights make deep features of any two photos alike; after two layers photos still differ.
SHALLOW = ModelConfig(cut="features.1", pooling="grid", head="none", image_size=64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """A workspace with a CURRENT.json, and what its gallery was made from: image_id -> source photo, label."""

    folder: Folder
    photos: dict[str, Path]
    labels: dict[str, str]


def make_workspace(
    root: Path,
    *,
    num_identities: int = 5,
    images_per_identity: int = 4,
    prepare: PrepareConfig | None = None,
    config: ModelConfig = SHALLOW,
    weights: str = "none",
    index: IndexConfig | None = None,
) -> Workspace:
    """Draw, ingest, embed, index and publish below `root`. Takes two seconds as it is by default."""
    drawn, folder = root / "drawn", Folder.of(root / "workspace")
    draw_collection(drawn, num_identities=num_identities, images_per_identity=images_per_identity, seed=3)
    prepare = prepare or PrepareConfig(size=96)
    collection, bundle = folder / "collection/test", folder / "model/test"
    embeddings, built = folder / "embeddings/test", folder / "index/test"
    make_collection(collection, drawn, prepare)
    save_bundle(build(config, weights=weights, preparation=hashing.plain(prepare)), bundle)
    embed(embeddings, collection, bundle)
    make_index(built, embeddings, index or IndexConfig(num_shards=2), collection)
    published.publish(folder, collection=collection, model=bundle, index=built)

    rows = collection.read_table("catalog.parquet", columns=["image_id", "label", "split"]).to_pylist()
    labels = {row["image_id"]: row["label"] for row in rows if row["split"] in INDEXED}
    photos = {image_id: drawn / IMAGE_FOLDER / Path(image_id).name for image_id in labels}
    return Workspace(folder=folder, photos=photos, labels=labels)


def make_collection(folder: Folder, source: Path, prepare: PrepareConfig, part_size: int = 8) -> Manifest:
    """Ingest a folder of photos, part by part, here."""
    config = {"prepare": hashing.plain(prepare)}
    plan = catalog.plan_collection(folder.uri, source=str(source), layout="auto", config=config, part_size=part_size)
    done = [ingest_part(folder, part, Folder.of(plan["root"]), prepare) for part in range(plan["parts"])]
    divided = catalog.write_catalog(folder.uri, plan["parts"], SplitConfig())
    counts = {"stored": sum(part.stored for part in done), "parts": plan["parts"], **divided["counts"]}
    return manifest.seal(
        folder, kind=catalog.KIND, config=config, inputs={"source": plan["fingerprint"]}, counts=counts
    )


def embed(folder: Folder, collection: Folder, bundle: Folder) -> Manifest:
    """Embed a collection, part by part, in float32."""
    collected, embedder = manifest.read_manifest(collection), Embedder(bundle, precision="fp32", num_threads=1)
    for part in range(collected.counts["parts"]):
        table = collection.read_table(f"images/{part_name(part)}", columns=["image_id", "jpeg"])
        vectors = list(embedder.embed_jpegs(table["jpeg"].to_pylist()))
        made = pa.table({"image_id": table["image_id"], "embedding": vectors}, schema=EMBEDDING_SCHEMA)
        folder.write_table(part_name(part), made)
    inputs = {"collection": collected.fingerprint, "model": embedder.fingerprint}
    return manifest.seal(folder, kind="embeddings", config={}, inputs=inputs, counts={"dim": embedder.dim})


def stored_vectors(made: Folder) -> np.ndarray:
    """(N, D) float32: the embeddings of a workspace by row of its index, joined by image_id."""
    index, embeddings = made / "index/test", made / "embeddings/test"
    names = [name for name in embeddings.list() if name.startswith("part-")]
    rows = [row for name in names for row in embeddings.read_table(name).to_pylist()]
    known = {row["image_id"]: row["embedding"] for row in rows}
    ids = index.read_table(IDS, columns=["image_id"])["image_id"].to_pylist()
    return np.array([known[image_id] for image_id in ids], dtype=np.float32)


def make_index(folder: Folder, embeddings: Folder, config: IndexConfig, collection: Folder) -> Manifest:
    """Index all that was not dropped."""
    embedded = manifest.read_manifest(embeddings)
    dim, num = embedded.counts["dim"], config.num_shards
    assert isinstance(num, int)
    shards.assign_rows(collection, folder, INDEXED)
    shards.write_trained(embeddings, folder, config, dim)
    for shard in range(num):
        shards.write_shard(embeddings, folder, config, dim, shard, num)
    inputs = {**embedded.inputs, "embeddings": embedded.fingerprint}
    return manifest.seal(folder, kind="index", config=config, inputs=inputs, counts={"dim": dim})
