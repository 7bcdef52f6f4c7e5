"""Tuples as two tables: from labels, from models of others on disk, or from the models that `reconstruction` made."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts import tuples
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import draw_key
from retrieval.artifacts.tuples import IMAGES_SCHEMA, REGISTERED, TUPLES_SCHEMA, UNREGISTERED
from retrieval.geometry import mapping, sparse_model
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel, covisible_pairs, write_model

logger = logging.getLogger(__name__)

Found = tuple[pa.Table, pa.Table, Sequence[SparseModel]]
"""Rows of IMAGES_SCHEMA, rows of TUPLES_SCHEMA, and the models they come from, if any."""


def from_labels(photos: pa.Table, config: ReconstructConfig) -> Found:
    """A label is a place. Args: photos: image_id, label."""
    images, found = labelled_tables(photos["image_id"].to_pylist(), photos["label"].to_pylist(), seed=config.seed)
    return *divide(images, found, val_fraction=config.val_fraction, seed=config.seed), ()


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
                (other for other in rows if other != row), key=lambda o: draw_key(seed, image_ids[row], image_ids[o])
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


def from_models(photos: pa.Table, folder: str, config: ReconstructConfig) -> Found:
    """COLMAP models whose image names are the photos' ids, or ends of them, or end in them; one cluster a model.

    Raises: ValueError if no image of any model is among the photos.
    """
    image_ids = photos["image_id"].to_pylist()
    models, unknown, taken = [], 0, set[str]()
    for model in sorted(mapping.read_models(Path(folder)), key=lambda model: -len(model.image_ids)):
        named = _renamed(model, image_ids)
        unknown += sum(name is None for name in named)
        away = {name for name, found in zip(model.image_ids, named, strict=True) if found is None or found in taken}
        own = sparse_model.without(model, away)
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
    images = images_table(image_ids, clusters, models, dict.fromkeys(image_ids, "in none of the models"))
    found = tuples_table(images, models, min_shared=config.min_shared)
    return *divide(images, found, val_fraction=config.val_fraction, seed=config.seed), models


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
    with_tuples = sorted(set(tuples["cluster"].to_pylist()), key=lambda cluster: draw_key(seed, "cluster", cluster))
    num = round(len(with_tuples) * val_fraction)
    if val_fraction > 0 and len(with_tuples) >= 4:
        num = max(2, num)
    val = set(with_tuples[: max(0, min(num, len(with_tuples) - 2))])

    def split_of(table: pa.Table) -> pa.Array:
        return pa.array(["val" if cluster in val else "train" for cluster in table["cluster"].to_pylist()])

    return tuple(
        table.set_column(table.column_names.index("split"), "split", split_of(table)) for table in (images, tuples)
    )  # type: ignore[return-value]


def write(out: Folder, images: pa.Table, found: pa.Table, models: Sequence[SparseModel]) -> dict[str, Any]:
    """Store the tables and models. Returns counts, and `unregistered`, why -> how many.

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
