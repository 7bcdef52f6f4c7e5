"""A small collection of people for tests of grouping: drawn textures as photos, vectors by people, an index of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_SCHEMA
from retrieval.artifacts.embeddings import write_part
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import begin, seal
from retrieval.images.pixels import Pixels, encode_jpeg
from retrieval.search.settings import IndexConfig
from tests.support.workspace import make_index

DIM = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """label: whom it shows, None: nobody knows. vector: (DIM,) float32. copy_of: of which it has the very bytes."""

    image_id: str
    label: str | None
    vector: np.ndarray
    pixels: Pixels
    split: str = "gallery"
    copy_of: str | None = None


def texture(seed: int, side: int = 96) -> Pixels:
    """(side, side, 3) uint8: a picture with detail that no other seed has."""
    noise = np.random.default_rng(seed).uniform(0, 255, (side, side)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255
    return np.repeat(smooth.astype(np.uint8)[:, :, None], 3, axis=2)


def people(num: int, each: int, seed: int = 0, noise: float = 0.12) -> list[Photo]:
    """`each` photos of `num` people, p0 to ..., their names in no order: cosine about 0.65 within a person."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:num]
    names = rng.permutation(num * each)
    photos = []
    for number in range(num * each):
        vector = centres[number // each] + noise * rng.normal(size=DIM)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        name, label = f"photo {names[number]:03d}.jpg", f"p{number // each}"
        photos.append(Photo(image_id=name, label=label, vector=vector, pixels=texture(1000 * seed + number)))
    return photos


def make_folders(root: Path, photos: list[Photo], part_size: int = 7, model: str = "m") -> dict[str, Folder]:
    """collection, embeddings and index of these photos, sealed; the index holds those that are not dropped."""
    where = {name: Folder.of(root / name) for name in ("collection", "embeddings", "index")}
    collection, embeddings = where["collection"], where["embeddings"]
    settings = {"prepare": {"crop": "aligned"}}
    begin(collection, kind="collection", config=settings, inputs={})
    begin(embeddings, kind="embeddings", config={}, inputs={})
    rows = []
    for part, start in enumerate(range(0, len(photos), part_size)):
        mine = photos[start : start + part_size]
        images = [
            {"image_id": one.image_id, "jpeg": encode_jpeg(one.pixels), "label": one.label, "content_hash": "h"}
            for one in mine
        ]
        collection.write_table(f"images/{part_name(part)}", pa.Table.from_pylist(images, schema=IMAGE_SCHEMA))
        write_part(embeddings, part, [one.image_id for one in mine], np.stack([one.vector for one in mine]))
        rows += [
            {"image_id": one.image_id, "label": one.label, "split": "dropped" if one.copy_of else one.split}
            | {"duplicate_of": one.copy_of, "part": part, "row": row}
            for row, one in enumerate(mine)
        ]
    collection.write_table("catalog.parquet", pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    made = seal(collection, kind="collection", config=settings, inputs={}, counts={"stored": len(photos)})
    inputs, counts = {"collection": made.fingerprint, "model": model * 64}, {"num": len(photos), "dim": DIM}
    seal(embeddings, kind="embeddings", config={}, inputs=inputs, counts=counts)
    make_index(where["index"], embeddings, IndexConfig(num_shards=2), collection)
    return where
