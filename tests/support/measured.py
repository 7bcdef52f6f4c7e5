"""Eight photos of three people in a collection, and systems to measure on it: enough to count everything by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_SCHEMA
from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.history import write_history
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.evaluation.settings import System
from retrieval.images.pixels import encode_jpeg

PEOPLE = ("ann", "ann", "ann", "bob", "bob", "cyd", None, "ann")
REASONS = (None, None, None, None, None, "single-image identity", "unlabelled", "duplicate")
SPLITS = ("query", "gallery", "gallery", "query", "gallery", "dropped", "dropped", "dropped")


def photo(number: int) -> bytes:
    """A JPEG of one colour, another for each number."""
    return encode_jpeg(np.full((24, 20, 3), 30 * number, np.uint8))


def write_collection(folder: Folder, *, crop: str = "none") -> Folder:
    """Eight photos in two parts, sealed; the attributes of the fifth are not known."""
    rng = np.random.default_rng(5)
    rows = []
    for number, (label, split, reason) in enumerate(zip(PEOPLE, SPLITS, REASONS)):
        attributes = None if number == 4 else rng.choice([-1, 1], len(ATTRIBUTES)).tolist()
        place = {"part": number % 2, "row": number // 2}
        known = {"image_id": f"{number}.jpg", "label": label, "split": split, "reason": reason}
        rows.append(known | place | {"attributes": attributes})
    folder.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    for part in (0, 1):
        photos = [{"image_id": f"{number}.jpg", "jpeg": photo(number)} for number in range(part, 8, 2)]
        (folder / "images").write_table(part_name(part), pa.Table.from_pylist(photos, IMAGE_SCHEMA), row_group_size=3)
    counts = {"parts": 2, "stored": 8}
    seal(folder, kind="collection", config={"prepare": {"crop": crop}}, inputs={}, counts=counts)
    return folder


def write_system(
    root: Folder,
    collection: Folder,
    name: str = "before",
    *,
    seed: int = 6,
    dim: int = 4,
    seconds: float = 12.5,
    trained: bool = False,
) -> System:
    """Random embeddings of all eight photos by a model that is none, both sealed. Args: trained: it has a history."""
    model, embeddings, rng = root / f"model-{name}", root / f"embeddings-{name}", np.random.default_rng(seed)
    model.write_json("model.json", {"name": name})
    run = {}
    if trained:
        run = write_history(model, [{"epoch": n, "val/mAP": 0.1 * n, "seconds/train": seconds} for n in range(3)])
        model.write_bytes("tuples.jpg", photo(4))
    made = seal(model, kind="model", config={}, inputs={}, counts={}, run=run, aside=("*.jpg",))
    for part in (0, 1):
        vectors = [{"image_id": f"{n}.jpg", "embedding": rng.normal(size=dim)} for n in range(part, 8, 2)]
        embeddings.write_table(part_name(part), pa.Table.from_pylist(vectors, EMBEDDING_SCHEMA))
    inputs = {"collection": read_manifest(collection).fingerprint, "model": made.fingerprint}
    run = {"seconds": seconds, "seconds_in_model": 3.25}
    seal(embeddings, kind="embeddings", config={}, inputs=inputs, counts={"num": 8, "dim": dim}, run=run)
    return System(name=name, model=model, embeddings=embeddings)
