"""A small published gallery for tests of what changes: labels, folders, attributes, faces of one photo, people."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_SCHEMA
from retrieval.artifacts.embeddings import write_part
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import begin, seal
from retrieval.artifacts.published import Pair, publish
from retrieval.images.pixels import encode_jpeg
from retrieval.live.rows import NewImage
from retrieval.search.settings import IndexConfig
from tests.support.grouped import texture
from tests.support.vectors import DIM, clustered
from tests.support.workspace import INDEXED, make_index

NAMES = ("ada", "bob", "cleo", "dan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """vectors, crops: by image_id, of what is indexed."""

    workspace: Folder
    pair: Pair
    vectors: dict[str, np.ndarray]
    crops: dict[str, bytes]


def sealed_gallery(root: Path, factory: str = "Flat", part_size: int = 7, num: int = 40, people: bool = True) -> Sealed:
    """`num` photos of four people in folders a/ and a/b/, of which the last but one is of two faces, and one more, a
    copy of the first, that is not indexed. Every other has 40 attributes."""
    vectors = clustered(num, seed=5)
    rows: list[dict[str, Any]] = []
    for number in range(num):
        label, folder = NAMES[number % len(NAMES)], ("a", "a/b", "c")[number % 3]
        photo, face = f"{folder}/{label}-{number:03d}.jpg", None
        if number >= num - 3:
            photo, face = "c/group.jpg", number - (num - 3)
        rows.append(
            {
                "image_id": photo if face is None else f"{photo}#{face}",
                "label": None if number % 10 == 9 else label,
                "split": INDEXED[number % len(INDEXED)],
                "attributes": [(1, -1)[(number // 2 + place) % 2] for place in range(40)] if number % 2 else None,
                "photo": photo,
                "face": face,
                "vector": vectors[number],
                "jpeg": encode_jpeg(texture(number, side=48)),
            }
        )
    twin = {**rows[0], "image_id": "a/twin.jpg", "photo": "a/twin.jpg", "split": "dropped", "reason": "duplicate"}
    rows.append(twin | {"duplicate_of": rows[0]["image_id"]})
    return published(root, rows, factory, part_size, people)


def published(root: Path, rows: list[dict[str, Any]], factory: str, part_size: int, people: bool) -> Sealed:
    """Collection, model, embeddings, index and people of these rows, sealed and published below `root`."""
    workspace = Folder.of(root)
    kinds = ("collection", "model", "embeddings", "index", "people")
    where = {kind: workspace / kind / "made" for kind in kinds}
    settings = {"prepare": {"crop": "none"}}
    begin(where["collection"], kind="collection", config=settings, inputs={})
    begin(where["model"], kind="model", config={}, inputs={})
    catalog = []
    for part, start in enumerate(range(0, len(rows), part_size)):
        mine = rows[start : start + part_size]
        images = [
            {
                **{name: one.get(name) for name in ("image_id", "jpeg", "label", "attributes", "photo", "face")},
                "box": [0, 0, 48, 48],
                "width": 48,
                "height": 48,
                "content_hash": hashlib.sha256(one["jpeg"]).hexdigest(),
            }
            for one in mine
        ]
        where["collection"].write_table(f"images/{part_name(part)}", pa.Table.from_pylist(images, schema=IMAGE_SCHEMA))
        catalog += [{**one, "part": part, "row": row} for row, one in enumerate(mine)]
    listed = [{name: one.get(name) for name in CATALOG_SCHEMA.names} for one in catalog]
    where["collection"].write_table("catalog.parquet", pa.Table.from_pylist(listed, schema=CATALOG_SCHEMA))
    counts = {"stored": len(rows)}
    made = seal(where["collection"], kind="collection", config=settings, inputs={}, counts=counts)
    model = seal(where["model"], kind="model", config={}, inputs={}, counts={"embedding_dim": DIM})
    inputs = {"collection": made.fingerprint, "model": model.fingerprint}
    begin(where["embeddings"], kind="embeddings", config={"precision": "auto"}, inputs=inputs)
    for part, start in enumerate(range(0, len(rows), part_size)):
        mine = rows[start : start + part_size]
        write_part(
            where["embeddings"], part, [one["image_id"] for one in mine], np.stack([one["vector"] for one in mine])
        )
    about: dict[str, Any] = {"kind": "embeddings", "config": {"precision": "auto"}, "inputs": inputs}
    seal(where["embeddings"], counts={"num": len(rows), "dim": DIM}, **about)
    index = make_index(where["index"], where["embeddings"], IndexConfig(factory=factory), where["collection"])
    if people:
        _group(where["people"], catalog, index.fingerprint, made.fingerprint)
    publish(
        workspace,
        collection=where["collection"],
        model=where["model"],
        index=where["index"],
        people=where["people"] if people else None,
    )
    indexed = [one for one in rows if one["split"] in INDEXED]
    return Sealed(
        workspace=workspace,
        pair=Pair.open(workspace.uri),
        vectors={one["image_id"]: one["vector"] for one in indexed},
        crops={one["image_id"]: one["jpeg"] for one in indexed},
    )


def _group(out: Folder, catalog: list[dict[str, Any]], index: str, collection: str) -> None:
    """Who has a label is of that person, 1 to 4."""
    numbers = {name: number for number, name in enumerate(NAMES, 1)}
    rows = sorted(catalog, key=lambda one: one["image_id"])
    table = pa.table(
        {
            "image_id": [one["image_id"] for one in rows],
            "person": pa.array([numbers.get(one["label"]) for one in rows], pa.int32()),
        }
    )
    inputs = {"index": index, "collection": collection}
    begin(out, kind="people", config={}, inputs=inputs)
    out.write_table("people.parquet", table)
    seal(out, kind="people", config={}, inputs=inputs, counts={})


def new_image(image_id: str, seed: int, photo: str | None = None, **settings: Any) -> NewImage:
    """An image to add: a picture and a vector that no other seed has."""
    jpeg = encode_jpeg(texture(10_000 + seed, side=48))
    vector = np.random.default_rng(seed).normal(size=DIM)
    about: dict[str, Any] = {"width": 48, "height": 48, "content_hash": hashlib.sha256(jpeg).hexdigest()} | settings
    return NewImage(
        image_id=image_id,
        photo=photo or image_id,
        jpeg=jpeg,
        vector=(vector / np.linalg.norm(vector)).astype(np.float32),
        **about,
    )
