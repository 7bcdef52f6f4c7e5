"""A tiny sealed collection for tests of the model and of training, without faces: each identity is a coloured pattern.

Photos of one identity are its pattern shifted and with noise, so that a small network can learn to tell them apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.artifacts import manifest
from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_SCHEMA, LocalCollection, localise
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import Manifest
from retrieval.images.pixels import encode_jpeg, resize

PREPARE = {"crop": "none", "size": 64}


def pattern(identity: int, shot: int, size: int = 64, noise: float = 25.0) -> np.ndarray:
    """(size, size, 3) uint8: a 4 x 4 colour pattern of the identity, moved and spoilt by the shot."""
    tiles = np.random.default_rng([identity]).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    rng = np.random.default_rng([identity, shot])
    image = np.roll(resize(tiles, size, size), rng.integers(-6, 7, 2), axis=(0, 1)).astype(np.float64)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def make_patterns(
    folder: Path, *, train: int = 6, val: int = 2, query: int = 1, shots: int = 4, part_size: int = 8
) -> Manifest:
    """Write and seal a collection with so many identities of each split, `shots` photos each, in mixed order."""
    names = ["train"] * train + ["val"] * val + ["query"] * query
    rows = [(f"{identity:03d}/{shot}.jpg", identity, shot) for identity in range(len(names)) for shot in range(shots)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    out, listed = Folder.of(folder), []
    for part, start in enumerate(range(0, len(rows), part_size)):
        stored = []
        for row, (image_id, identity, shot) in enumerate(rows[start : start + part_size]):
            photo = {"image_id": image_id, "jpeg": encode_jpeg(pattern(identity, shot)), "box": [0, 0, 64, 64]}
            stored.append(photo | {"width": 64, "height": 64})
            label = {"image_id": image_id, "label": f"p{identity:03d}", "split": names[identity]}
            listed.append({**label, "part": part, "row": row})
        out.write_table(f"images/{part_name(part)}", pa.Table.from_pylist(stored, schema=IMAGE_SCHEMA))
    listed.sort(key=lambda row: row["image_id"])
    out.write_table("catalog.parquet", pa.Table.from_pylist(listed, schema=CATALOG_SCHEMA))
    return manifest.seal(
        out, kind="collection", config={"prepare": PREPARE}, inputs={}, counts={"stored": len(rows), "train": train}
    )


def local_patterns(root: Path, **sizes: int) -> LocalCollection:
    """The train and val photos of `make_patterns`, localised below `root`."""
    make_patterns(root / "collection", **sizes)
    return localise(Folder.of(root / "collection"), root / "cache", ("train", "val"))
