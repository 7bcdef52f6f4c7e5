"""Training tuples: which photographs show the same place, what else may be shown, and which were given up, why.

A "tuples" folder holds `images.parquet` (every image that was looked at, its cluster and what became of it) and
`tuples.parquet` (every query with the images that may be its positive). Negatives are of other clusters and are mined
while training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from retrieval.artifacts import Folder, read_manifest
from retrieval.covisibility import SparseModel, covisible_pairs

KIND = "tuples"
Positives = Literal["m1", "m2", "m3"]
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


def images_table(
    image_ids: Sequence[str],
    clusters: Sequence[int] | np.ndarray,
    models: Sequence[SparseModel],
    reasons: Mapping[str, str],
) -> pa.Table:
    """Rows of IMAGES_SCHEMA, sorted by image_id, all in `train`; see `divide`.

    Args:
        reasons: image_id -> why it is in no model.

    Raises: ValueError if an image is in no model and has no reason, or is in two.
    """
    model_of: dict[str, tuple[int, int]] = {}
    for number, model in enumerate(models):
        for image_id, seen in zip(model.image_ids, covisible_pairs(model).num_points, strict=True):
            if image_id in model_of:
                raise ValueError(f"{image_id} is in models {model_of[image_id][0]} and {number}, expected one at most.")
            model_of[image_id] = (number, int(seen))
    rows: list[dict[str, Any]] = []
    for image_id, cluster in sorted(zip(image_ids, clusters, strict=True)):
        number, seen = model_of.get(image_id, (-1, 0))
        if number < 0 and image_id not in reasons:
            raise ValueError(f"{image_id} is in no model, and nothing says why: the books do not balance.")
        status = REGISTERED if number >= 0 else UNREGISTERED
        reason = None if number >= 0 else reasons[image_id]
        known = {"image_id": image_id, "cluster": int(cluster), "split": "train", "status": status, "reason": reason}
        rows.append(known | {"model": number, "num_points": seen})
    return pa.Table.from_pylist(rows, IMAGES_SCHEMA)


def tuples_table(images: pa.Table, models: Iterable[SparseModel], *, min_shared: int = 10) -> pa.Table:
    """Rows of TUPLES_SCHEMA: every registered image that shares at least `min_shared` points with another."""
    cluster_of = dict(zip(images["image_id"].to_pylist(), images["cluster"].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = []
    for model in models:
        pairs = covisible_pairs(model)
        enough = pairs.shared >= min_shared
        first, second = pairs.first[enough], pairs.second[enough]
        query, other = np.concatenate([first, second]), np.concatenate([second, first])
        shared, change = np.tile(pairs.shared[enough], 2), np.tile(pairs.scale_change[enough], 2)
        for row in np.unique(query):
            mine = np.flatnonzero(query == row)
            mine = mine[np.argsort(other[mine])]
            image_id = model.image_ids[row]
            rows.append(
                {
                    "query": image_id,
                    "cluster": cluster_of[image_id],
                    "split": "train",
                    "candidates": [model.image_ids[at] for at in other[mine]],
                    "shared_points": shared[mine].tolist(),
                    "scale_change": change[mine].tolist(),
                }
            )
    rows.sort(key=lambda row: row["query"])
    return pa.Table.from_pylist(rows, TUPLES_SCHEMA)


def divide(images: pa.Table, tuples: pa.Table, *, val_fraction: float, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Put whole clusters into `val`: a seeded share of those that have tuples; at least two train if there are three.

    A cluster alone in `val` could not be ranked against another, so `val` gets none or two and more where it can.
    """
    with_tuples = sorted(set(tuples["cluster"].to_pylist()), key=lambda cluster: _draw(seed, "cluster", cluster))
    num = round(len(with_tuples) * val_fraction)
    if val_fraction > 0 and len(with_tuples) >= 4:
        num = max(2, num)
    val = set(with_tuples[: max(0, min(num, len(with_tuples) - 2))])

    def split_of(table: pa.Table) -> pa.Array:
        return pa.array(["val" if cluster in val else "train" for cluster in table["cluster"].to_pylist()])

    return tuple(
        table.set_column(table.column_names.index("split"), "split", split_of(table)) for table in (images, tuples)
    )  # type: ignore[return-value]


def labelled_tables(
    image_ids: Sequence[str], labels: Sequence[str | None], *, max_candidates: int = 50, seed: int = 0
) -> tuple[pa.Table, pa.Table]:
    """Tuples where a label is a cluster: each photo's candidates are the label's others, drawn if there are many.

    A photo without a label, or alone under its own, is a cluster of its own: it can only be a negative.
    """
    ordered = sorted(range(len(image_ids)), key=image_ids.__getitem__)
    members: dict[str, list[int]] = {}
    for row in ordered:
        members.setdefault(f"l{labels[row]}" if labels[row] is not None else f"i{image_ids[row]}", []).append(row)
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for cluster, rows in enumerate(members.values()):
        for row in rows:
            alone = "no label" if labels[row] is None else "its label has no other image"
            known = {"image_id": image_ids[row], "cluster": cluster, "split": "train"}
            state = (
                {"status": REGISTERED, "reason": None} if len(rows) > 1 else {"status": UNREGISTERED, "reason": alone}
            )
            images.append(known | state | {"model": -1, "num_points": 0})
            others = sorted(
                (other for other in rows if other != row), key=lambda o: _draw(seed, image_ids[row], image_ids[o])
            )
            names = sorted(image_ids[other] for other in others[:max_candidates])
            if names:
                shares = {"shared_points": [0] * len(names), "scale_change": [1.0] * len(names)}
                found.append(
                    {"query": image_ids[row], "cluster": cluster, "split": "train", "candidates": names} | shares
                )
    images.sort(key=lambda row: row["image_id"])
    found.sort(key=lambda row: row["query"])
    return pa.Table.from_pylist(images, IMAGES_SCHEMA), pa.Table.from_pylist(found, TUPLES_SCHEMA)


def write_tuples(folder: Folder, images: pa.Table, tuples: pa.Table) -> None:
    """Both tables, atomically each."""
    folder.write_table("images.parquet", images.cast(IMAGES_SCHEMA))
    folder.write_table("tuples.parquet", tuples.cast(TUPLES_SCHEMA))


def read_tuples(folder: Folder) -> TupleSet:
    """Raises: ValueError if the folder is not sealed tuples."""
    read_manifest(folder, KIND)
    return as_set(folder.read_table("images.parquet"), folder.read_table("tuples.parquet"))


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


def choose_positives(
    tuples: TupleSet,
    method: Positives,
    *,
    descriptors: np.ndarray | None = None,
    min_shared: float = 0.2,
    max_scale_change: float = 1.5,
    seed: int = 0,
) -> np.ndarray:
    """Each query's positive, for the whole run   (Radenovic et al., arXiv:1711.02512, sec. 4.2).

    m1: the candidate nearest by descriptor. m2: the one with most shared points. m3: drawn among those that share
    enough points at a bounded change of scale, so that hard but truly matching views come up too.

    Args:
        descriptors: (N, D) float, of all images; m1 only.
        min_shared: m3: shared points, as a part of the most that this query shares with any candidate.
        max_scale_change: m3: candidates in which the place is more times larger or smaller are left out.
        seed: m3: draws; a query's draw does not depend on the others.

    Returns: (Q,) int64 rows; -1 where no candidate fits.
    """
    if method == "m1" and (descriptors is None or len(descriptors) != len(tuples.image_ids)):
        raise ValueError("Positives by m1 need a descriptor of every image, of shape (N, D).")
    chosen = np.full(len(tuples.queries), -1, dtype=np.int64)
    for at, query in enumerate(tuples.queries):
        candidates = tuples.candidates[at]
        if not len(candidates):
            continue
        if method == "m1":
            assert descriptors is not None
            chosen[at] = candidates[int(np.argmax(descriptors[candidates] @ descriptors[query]))]
        elif method == "m2":
            chosen[at] = candidates[int(np.argmax(tuples.shared_points[at]))]
        else:
            shared = tuples.shared_points[at]
            fits = candidates[(shared >= min_shared * shared.max()) & (tuples.scale_change[at] <= max_scale_change)]
            if len(fits):
                name = tuples.image_ids[query]
                chosen[at] = min(fits, key=lambda row: _draw(seed, "m3", name, tuples.image_ids[row]))
    return chosen


def _draw(*parts: object) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
