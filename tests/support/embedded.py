"""Embeddings of people or places that nobody photographed: a catalog, vectors, and tuples if they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from retrieval.artifacts import tuples
from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA
from retrieval.artifacts.embeddings import KIND, write_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest, seal

PART = 50


def people(
    num: int = 40, photos: int = 4, dim: int = 16, noise: float = 2.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(N, dim) float32 unit vectors and (N,) int64 people: told apart by the first half of the numbers, the others are
    noise."""
    rng, half = np.random.default_rng(seed), dim // 2
    x = np.concatenate([rng.normal(size=(num, half)), np.zeros((num, dim - half))], axis=1).repeat(photos, axis=0)
    x[:, :half] += 0.4 * rng.normal(size=(len(x), half))
    x[:, half:] += noise * rng.normal(size=(len(x), dim - half))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), np.arange(num).repeat(photos)


def store(
    root: Folder,
    vectors: np.ndarray,
    labels: Sequence[str | None],
    splits: Sequence[str],
    model: Folder | None = None,
) -> tuple[Folder, Folder]:
    """collection and embeddings below `root`, sealed. Names are in an order of their own."""
    collection, embeddings = root / "collection", root / "embeddings"
    names = [f"{(7919 * number) % 100_003:06}.jpg" for number in range(len(vectors))]
    rows = []
    for part, start in enumerate(range(0, len(vectors), PART)):
        these = range(start, min(start + PART, len(vectors)))
        write_part(embeddings, part, [names[n] for n in these], vectors[these.start : these.stop])
        rows += [
            {"image_id": names[n], "label": labels[n], "split": splits[n], "part": part, "row": row}
            for row, n in enumerate(these)
        ]
    collection.write_table(CATALOG, pa.Table.from_pylist(sorted(rows, key=lambda r: r["image_id"]), CATALOG_SCHEMA))
    made = seal(collection, kind="collection", config={}, inputs={}, counts={"stored": len(vectors)})
    inputs = {"collection": made.fingerprint}
    if model is not None:
        inputs["model"] = read_manifest(model, "model").fingerprint
    counts = {"dim": vectors.shape[1], "num": len(vectors)}
    seal(embeddings, kind=KIND, config={}, inputs=inputs, counts=counts)
    return collection, embeddings


def store_tuples(folder: Folder, collection: Folder) -> Folder:
    """The labels of a stored collection as clusters: each photo asks, all others of its label may be its positive."""
    rows = [row for row in collection.read_table(CATALOG).to_pylist() if row["split"] in ("train", "val")]
    number = {label: n for n, label in enumerate(sorted({row["label"] for row in rows}))}
    images = [
        {"image_id": row["image_id"], "cluster": number[row["label"]], "split": row["split"], "status": "registered"}
        | {"reason": None, "model": 0, "num_points": 9}
        for row in rows
    ]
    asks = []
    for image in images:
        others = [one["image_id"] for one in images if one["cluster"] == image["cluster"] and one is not image]
        same = {"shared_points": [9] * len(others), "scale_change": [1.0] * len(others)}
        asks.append(
            {"query": image["image_id"], "cluster": image["cluster"], "split": image["split"]}
            | {"candidates": sorted(others), **same}
        )
    tuples.write_tuples(
        folder, pa.Table.from_pylist(images, tuples.IMAGES_SCHEMA), pa.Table.from_pylist(asks, tuples.TUPLES_SCHEMA)
    )
    inputs = {"collection": read_manifest(collection).fingerprint}
    seal(folder, kind=tuples.KIND, config={}, inputs=inputs, counts={})
    return folder
