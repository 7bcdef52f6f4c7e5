"""The published retrieval-SfM database files: tuples that others found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from retrieval.artifacts import tuples
from retrieval.artifacts.folder import Folder
from retrieval.data import plain_pickle

logger = logging.getLogger(__name__)


def from_database(photos: pa.Table, path: str) -> tuple[pa.Table, pa.Table]:
    """The published files of retrieval-SfM-120k and -30k: {"train": {cids, cluster, qidxs, pidxs}, "val": {...}}.

    A photo is known by the file name, which is its cid (with or without an ending).

    Args: photos: image_id.

    Returns: rows of IMAGES_SCHEMA, rows of TUPLES_SCHEMA.

    Raises: ValueError if the file is not such a database, or none of its images is among the photos.
    """
    folder, _, name = path.rpartition("/")
    value = plain_pickle.load_plain(Folder.of(folder or ".").read_bytes(name))
    image_ids = photos["image_id"].to_pylist()
    by_cid = {PurePosixPath(image_id).name: image_id for image_id in image_ids}
    by_cid |= {PurePosixPath(image_id).stem: image_id for image_id in image_ids}
    rows: dict[str, dict[str, Any]] = {}
    found: dict[str, dict[str, Any]] = {}
    offset, missing = 0, 0
    for split in ("train", "val"):
        part = _part_of_database(value, split, path)
        names = [by_cid.get(str(cid)) for cid in part["cids"]]
        missing += sum(image_id is None for image_id in names)
        clusters = [int(cluster) + offset for cluster in part["cluster"]]
        offset = max(clusters, default=-1) + 1
        for image_id, cluster in zip(names, clusters, strict=True):
            if image_id is not None:
                rows[image_id] = {"image_id": image_id, "cluster": cluster, "split": split, "status": tuples.REGISTERED}
        found |= _pairs(part, names, clusters, split)
    if not found:
        raise ValueError(f"No pair of {path} is among the {len(image_ids)} photos. Check that they are named by cid.")
    if missing:
        logger.warning("%d images of %s are not among the photos; their pairs are left out", missing, path)
    for row, image_id in enumerate(image_ids):
        alone = {"image_id": image_id, "cluster": offset + row, "split": "train", "status": tuples.UNREGISTERED}
        rows.setdefault(image_id, alone | {"reason": "not in the database"})
    table = [{"reason": None, "model": -1, "num_points": 0} | rows[name] for name in sorted(rows)]
    queries = [found[name] for name in sorted(found)]
    return pa.Table.from_pylist(table, tuples.IMAGES_SCHEMA), pa.Table.from_pylist(queries, tuples.TUPLES_SCHEMA)


def _pairs(
    part: Mapping[str, Sequence[Any]], names: Sequence[str | None], clusters: Sequence[int], split: str
) -> dict[str, dict[str, Any]]:
    """Rows of TUPLES_SCHEMA by their query, of the pairs whose two photos are known by name."""
    found: dict[str, dict[str, Any]] = {}
    for query, positive in zip(part["qidxs"], part["pidxs"], strict=True):
        asking, answer = names[int(query)], names[int(positive)]
        if asking is None or answer is None:
            continue
        known = {"query": asking, "cluster": clusters[int(query)], "split": split}
        row = found.setdefault(asking, known | {"candidates": [], "shared_points": [], "scale_change": []})
        for name, item in (("candidates", answer), ("shared_points", 0), ("scale_change", 1.0)):
            row[name].append(item)
    return found


def _part_of_database(value: Any, split: str, path: str) -> Mapping[str, Sequence[Any]]:
    part = value.get(split) if isinstance(value, dict) else None
    wanted = ("cids", "cluster", "qidxs", "pidxs")
    if not isinstance(part, dict) or any(name not in part for name in wanted):
        raise ValueError(f"{path} has no '{split}' with {', '.join(wanted)}: it is not a retrieval-SfM database file.")
    return part
