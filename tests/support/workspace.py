"""A tiny published workspace for tests, made by the library's own functions, without Ray: drawn faces to a FAISS index.

The model has random weights, so its scores say nothing about people; but a stored photo is its own nearest neighbour.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.artifacts import hashing, manifest, published
from retrieval.artifacts.collection import keep_detector
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import Manifest
from retrieval.data import catalog
from retrieval.data.demo.faces import IMAGE_FOLDER, draw_collection
from retrieval.data.ingestion import ingest_part
from retrieval.data.settings import Layout, SplitConfig
from retrieval.images.settings import PrepareConfig
from retrieval.models.bundle import save_bundle, start
from retrieval.models.embedder import Embedder, begin_embeddings, embed_part, seal_embeddings
from retrieval.models.settings import ModelConfig
from retrieval.search import promise, shards
from retrieval.search.settings import IndexConfig
from tests.support.photos import yunet

INDEXED = ("query", "gallery", "train", "val")

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
    prepare = prepare or PrepareConfig(size=96, detector="haar")
    collection = publish_made(folder, drawn, prepare, config, weights=weights, index=index)
    rows = collection.read_table("catalog.parquet", columns=["image_id", "label", "split"]).to_pylist()
    labels = {row["image_id"]: row["label"] for row in rows if row["split"] in INDEXED}
    photos = {image_id: drawn / IMAGE_FOLDER / Path(image_id).name for image_id in labels}
    return Workspace(folder=folder, photos=photos, labels=labels)


def publish_made(
    folder: Folder,
    source: Path,
    prepare: PrepareConfig,
    config: ModelConfig,
    *,
    weights: str = "none",
    index: IndexConfig | None = None,
    split: SplitConfig | None = None,
) -> Folder:
    """Ingest photos, embed, index and publish them in a workspace; its collection."""
    collection, bundle = folder / "collection/test", folder / "model/test"
    embeddings, built = folder / "embeddings/test", folder / "index/test"
    make_collection(collection, source, prepare, split)
    keep_detector(collection, bundle)
    save_bundle(start(config, weights=weights, preparation=hashing.plain(prepare)), bundle)
    embed(embeddings, collection, bundle)
    make_index(built, embeddings, index or IndexConfig(num_shards=2), collection)
    published.publish(folder, collection=collection, model=bundle, index=built)
    return collection


def make_collection(
    folder: Folder,
    source: Path,
    prepare: PrepareConfig,
    split: SplitConfig | None = None,
    part_size: int = 8,
    layout: Layout = "auto",
) -> Manifest:
    """What the job ingest does, part by part, here."""
    split = split or SplitConfig()
    settings = {"layout": layout, "part_size": part_size}
    settings |= {"prepare": hashing.plain(prepare), "split": hashing.plain(split)}
    network = yunet() if prepare.needs_network else None
    listed = {"source": str(source), "layout": layout, "part_size": part_size}
    plan = catalog.plan_collection(folder.uri, config=settings, network=network, **listed)
    parts = [ingest_part(folder, part, Folder.of(plan["root"]), prepare) for part in range(plan["parts"])]
    divided = catalog.write_catalog(folder.uri, plan["parts"], split)
    return catalog.seal_collection(folder, settings, plan, [dataclasses.asdict(part) for part in parts], divided)


def embed(folder: Folder, collection: Folder, bundle: Folder) -> Manifest:
    """What the job embed does, part by part, here, in float32."""
    begin_embeddings(collection, bundle, folder, "fp32")
    embedder = Embedder(bundle, precision="fp32", num_threads=1)
    parts = sum(name.startswith("images/") for name in manifest.read_manifest(collection).files)
    done = [embed_part(embedder, collection, folder, part) for part in range(parts)]
    return seal_embeddings(collection, bundle, folder, "fp32", done, seconds=0.0)


def stored_vectors(made: Folder) -> np.ndarray:
    """(N, D) float32: the embeddings of a workspace by row of its index, joined by image_id."""
    index, embeddings = made / "index/test", made / "embeddings/test"
    names = [name for name in embeddings.list() if name.startswith("part-")]
    rows = [row for name in names for row in embeddings.read_table(name).to_pylist()]
    known = {row["image_id"]: row["embedding"] for row in rows}
    ids = index.read_table(IDS, columns=["image_id"])["image_id"].to_pylist()
    return np.array([known[image_id] for image_id in ids], dtype=np.float32)


def make_index(folder: Folder, embeddings: Folder, config: IndexConfig, collection: Folder) -> Manifest:
    """What the job build_index does, shard by shard, here: all that was not dropped is indexed."""
    plan = shards.plan_index(embeddings, collection, folder, INDEXED, config)
    shards.begin_index(plan)
    found = shards.assign_rows(collection, folder, plan.splits)
    trained_on = shards.write_trained(embeddings, folder, config, plan.dim)
    num = shards.num_shards(config, sum(found.get(split, 0) for split in plan.splits), plan.dim)
    built = [shards.write_shard(embeddings, folder, config, plan.dim, shard, num) for shard in range(num)]
    kept = None
    if config.promises:
        tried = [promise.try_shard(embeddings, folder, config, plan.dim, shard, num) for shard in range(num)]
        kept = promise.keep(folder, config, tried, sum(int(one["num"]) for one in built), num)
    return shards.seal_index(plan, found, trained_on, built, kept)


def with_index(made: Workspace, folder: Path, factory: str) -> Folder:
    """The workspace with another index, at another place: what lies in it is found by its relative path."""
    there = Folder.of(shutil.copytree(made.folder.path, folder, ignore=shutil.ignore_patterns("index")))
    index = there / "index/test"
    make_index(index, there / "embeddings/test", IndexConfig(factory=factory, num_shards=2), there / "collection/test")
    published.publish(there, collection=there / "collection/test", model=there / "model/test", index=index)
    return there


def queries_near(gallery: np.ndarray, num: int = 4) -> np.ndarray:
    """(num, D) float32, unit norm: the gallery's first vectors, a little off."""
    x = gallery[:num] + 0.05 * np.random.default_rng(0).normal(size=(num, gallery.shape[1]))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
