"""Tuples that others found: a label's photos, COLMAP models on disk, the published retrieval-SfM database files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from retrieval import ground_truth, reconstruction, sfm, tuples
from retrieval.artifacts import Folder
from retrieval.covisibility import SparseModel
from retrieval.reconstruction import ReconstructConfig
from retrieval.sparse_models import write_model

logger = logging.getLogger(__name__)

Found = tuple[pa.Table, pa.Table, Sequence[SparseModel]]
"""Rows of IMAGES_SCHEMA, rows of TUPLES_SCHEMA, and the models they come from, if any."""


def from_labels(photos: pa.Table, config: ReconstructConfig) -> Found:
    """A label is a place. Args: photos: image_id, label."""
    images, found = tuples.labelled_tables(
        photos["image_id"].to_pylist(), photos["label"].to_pylist(), seed=config.seed
    )
    return *tuples.divide(images, found, val_fraction=config.val_fraction, seed=config.seed), ()


def from_models(photos: pa.Table, folder: str, config: ReconstructConfig) -> Found:
    """COLMAP models whose image names are the photos' ids, or ends of them, or end in them; one cluster a model.

    Raises: ValueError if no image of any model is among the photos.
    """
    image_ids = photos["image_id"].to_pylist()
    models, unknown, taken = [], 0, set[str]()
    for model in sorted(sfm.read_models(Path(folder)), key=lambda model: -len(model.image_ids)):
        named = _renamed(model, image_ids)
        unknown += sum(name is None for name in named)
        away = {name for name, found in zip(model.image_ids, named, strict=True) if found is None or found in taken}
        own = reconstruction.without(model, away)
        if len(own.image_ids) < 2:
            continue
        own = _sorted(own, [str(found) for name, found in zip(model.image_ids, named, strict=True) if name not in away])
        taken |= set(own.image_ids)
        models.append(own)
    if not models:
        raise ValueError(f"No image of the models in {folder} is among the {len(image_ids)} photos. Check the names.")
    if unknown:
        logger.warning("%d images of the models in %s are not among the photos", unknown, folder)
    cluster = {name: number for number, model in enumerate(models) for name in model.image_ids}
    clusters = [cluster.get(name, len(models) + row) for row, name in enumerate(image_ids)]
    images = tuples.images_table(image_ids, clusters, models, dict.fromkeys(image_ids, "in none of the models"))
    found = tuples.tuples_table(images, models, min_shared=config.min_shared)
    return *tuples.divide(images, found, val_fraction=config.val_fraction, seed=config.seed), models


def _renamed(model: SparseModel, image_ids: Sequence[str]) -> list[str | None]:
    """The photo of each image: its name is the photo's id, an end of it, or the other way round.

    None where none fits, or several do, or another image is that photo already: its folders tell which is meant.
    """
    whole, ids_by_end = set(image_ids), dict[str, list[str]]()
    for image_id in image_ids:
        for end in _ends(image_id):
            ids_by_end.setdefault(end, []).append(image_id)
    photo_of: dict[str, str] = {}
    taken: set[str] = set()
    # The surer first: a name that is an id, then the end of one, then a longer one.
    for name in sorted(model.image_ids, key=lambda name: (name not in whole, name not in ids_by_end)):
        longer = ids_by_end.get(name, [])
        fits = [name] if name in whole else longer or [end for end in _ends(name) if end in whole][:1]
        if len(fits) == 1 and fits[0] not in taken:
            photo_of[name] = fits[0]
            taken.add(fits[0])
    return [photo_of.get(name) for name in model.image_ids]


def _ends(name: str) -> list[str]:
    """The name itself, then without its folders, one after another: a/b/c.jpg, b/c.jpg, c.jpg."""
    parts = PurePosixPath(name).parts
    return ["/".join(parts[at:]) for at in range(len(parts))]


def _sorted(model: SparseModel, names: Sequence[str]) -> SparseModel:
    """The model under other names, its images in their order."""
    order = sorted(range(len(names)), key=names.__getitem__)
    new_row = sorted(range(len(order)), key=order.__getitem__)
    return SparseModel(
        image_ids=[names[row] for row in order],
        centres=model.centres[order],
        directions=model.directions[order],
        points=model.points,
        colours=model.colours,
        obs_image=pa.array(new_row).take(pa.array(model.obs_image)).to_numpy(),
        obs_point=model.obs_point,
        obs_scale=model.obs_scale,
    )


def from_database(photos: pa.Table, path: str) -> Found:
    """The published files of retrieval-SfM-120k and -30k: {"train": {cids, cluster, qidxs, pidxs}, "val": {...}}.

    A photo is known by the file name, which is its cid (with or without an ending).

    Raises: ValueError if the file is not such a database, or none of its images is among the photos.
    """
    folder, _, name = path.rpartition("/")
    value = ground_truth.load_plain(Folder.of(folder or ".").read_bytes(name))
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
        for query, positive in zip(part["qidxs"], part["pidxs"], strict=True):
            pair = names[int(query)], names[int(positive)]
            if pair[0] is None or pair[1] is None:
                continue
            known = {"query": pair[0], "cluster": clusters[int(query)], "split": split}
            row = found.setdefault(pair[0], known | {"candidates": [], "shared_points": [], "scale_change": []})
            for name_of, item in (("candidates", pair[1]), ("shared_points", 0), ("scale_change", 1.0)):
                row[name_of].append(item)
    if not found:
        raise ValueError(f"No pair of {path} is among the {len(image_ids)} photos. Check that they are named by cid.")
    if missing:
        logger.warning("%d images of %s are not among the photos; their pairs are left out", missing, path)
    for row, image_id in enumerate(image_ids):
        alone = {"image_id": image_id, "cluster": offset + row, "split": "train", "status": tuples.UNREGISTERED}
        rows.setdefault(image_id, alone | {"reason": "not in the database"})
    table = [{"reason": None, "model": -1, "num_points": 0} | rows[name] for name in sorted(rows)]
    queries = [found[name] for name in sorted(found)]
    return pa.Table.from_pylist(table, tuples.IMAGES_SCHEMA), pa.Table.from_pylist(queries, tuples.TUPLES_SCHEMA), ()


def _part_of_database(value: Any, split: str, path: str) -> Mapping[str, Sequence[Any]]:
    part = value.get(split) if isinstance(value, dict) else None
    wanted = ("cids", "cluster", "qidxs", "pidxs")
    if not isinstance(part, dict) or any(name not in part for name in wanted):
        raise ValueError(f"{path} has no '{split}' with {', '.join(wanted)}: it is not a retrieval-SfM database file.")
    return part


def write(out: Folder, images: pa.Table, found: pa.Table, models: Sequence[SparseModel]) -> dict[str, Any]:
    """Store the tables and models. Returns the counts, as `reconstruction.assemble` does.

    Raises: ValueError if there is no tuple.
    """
    unregistered = Counter(reason for reason in images["reason"].to_pylist() if reason is not None)
    if not len(found):
        raise ValueError(
            f"No two of the {len(images)} photos show one place ({dict(unregistered)}): nothing to train on."
        )
    for number, model in enumerate(models):
        write_model(out, number, model)
    tuples.write_tuples(out, images, found)
    return {
        "images": len(images),
        "registered": len(images) - sum(unregistered.values()),
        "unregistered": dict(sorted(unregistered.items())),
        "models": len(models),
        "points": sum(len(model.points) for model in models),
        "clusters": len(set(images["cluster"].to_pylist())),
        "queries": len(found),
    }
