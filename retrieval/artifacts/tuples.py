"""Training tuples: which photographs show the same place, what else may be shown, and which were given up, why.

A "tuples" folder holds `images.parquet` (every image that was looked at, its cluster and what became of it) and
`tuples.parquet` (every query with the images that may be its positive). Negatives are of other clusters and are mined
while training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest

KIND = "tuples"

IMAGES, TUPLES = "images.parquet", "tuples.parquet"

REGISTERED, UNREGISTERED, REJECTED = "registered", "unregistered", "rejected"

IMAGES_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("cluster", pa.int32()),  # images of different clusters show different places
        ("split", pa.string()),  # train or val, by cluster
        ("status", pa.string()),  # registered (in a model), unregistered (why) or rejected
        ("reason", pa.string()),  # null when registered
        ("model", pa.int32()),  # number of the model it is registered in, -1 for none
        ("num_points", pa.int32()),  # 3D points it sees
    ]
)

TUPLES_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("cluster", pa.int32()),
        ("split", pa.string()),
        ("candidates", pa.list_(pa.string())),  # images that share points with the query, sorted
        ("shared_points", pa.list_(pa.int32())),
        ("scale_change", pa.list_(pa.float32())),  # >= 1
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TupleSet:
    """Tuples by row: `image_ids` are the N images, sorted, and all else refers to their rows.

    clusters: (N,) int64. splits: (N,) object of str. usable: (N,) bool, not rejected. queries: (Q,) int64. Of query q,
    candidates[q], shared_points[q], scale_change[q]: (K_q,) int64, int64, float64.
    """

    image_ids: list[str]
    clusters: np.ndarray
    splits: np.ndarray
    usable: np.ndarray
    queries: np.ndarray
    candidates: Sequence[np.ndarray]
    shared_points: Sequence[np.ndarray]
    scale_change: Sequence[np.ndarray]


def write_tuples(folder: Folder, images: pa.Table, tuples: pa.Table) -> None:
    """Both tables, atomically each."""
    folder.write_table(IMAGES, images.cast(IMAGES_SCHEMA), about={})
    folder.write_table(TUPLES, tuples.cast(TUPLES_SCHEMA), about={})


def read_tuples(folder: Folder) -> TupleSet:
    """Raises: ValueError if the folder is not sealed tuples."""
    return as_set(read_images(folder), folder.read_table(TUPLES))


def read_images(folder: Folder) -> pa.Table:
    """Every image that was looked at, as IMAGES_SCHEMA, sorted by image_id.

    Raises: ValueError if the folder is not sealed tuples.
    """
    read_manifest(folder, KIND)
    return folder.read_table(IMAGES).sort_by("image_id")


def as_set(images: pa.Table, tuples: pa.Table) -> TupleSet:
    """The tables by row."""
    images = images.sort_by("image_id")
    image_ids = images["image_id"].to_pylist()
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    return TupleSet(
        image_ids=image_ids,
        clusters=images["cluster"].to_numpy().astype(np.int64),
        splits=np.array(images["split"].to_pylist(), dtype=object),
        usable=np.array([status != REJECTED for status in images["status"].to_pylist()], dtype=bool),
        queries=np.array([row_of[query] for query in tuples["query"].to_pylist()], dtype=np.int64),
        candidates=[np.array([row_of[name] for name in names], np.int64) for names in tuples["candidates"].to_pylist()],
        shared_points=[np.array(shared, np.int64) for shared in tuples["shared_points"].to_pylist()],
        scale_change=[np.array(change, np.float64) for change in tuples["scale_change"].to_pylist()],
    )
