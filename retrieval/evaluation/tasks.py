"""Who is asked about whom, and reading what that takes out of a collection and its embeddings.

`query_gallery`: the catalog's queries against its gallery. `leave_one_out`: every photo that has another of its
identity is a query against all the others. `mined_places`: the same where nothing is labelled, by what mining found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest
from retrieval.artifacts.tuples import read_images, read_tuples
from retrieval.evaluation.pieces.images import Images, as_sides, read_side

KS = (10, 20, 50, 100, 1000)

_NAME = pa.large_string()

_NOT_COMPARABLE = ("duplicate", "unlabelled")

LEAVE_ONE_OUT = "leave-one-out"

_MINED = ("places mined for validation", "places mined and trained on")

_CALIBRATED = 100_000  # photos at most that scores are calibrated on: what more of them say is no news


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is asked of what. `exclude`: (Q,) int64, a gallery row that each query is not compared with, -1 for none."""

    protocol: str
    queries: Images
    gallery: Images
    exclude: np.ndarray
    ks_asked: tuple[int, ...]

    @property
    def asks_itself(self) -> bool:
        """Whether the queries are photos of the gallery, each compared with all the others."""
        return bool((self.exclude >= 0).any())

    @property
    def most(self) -> int:
        """The results that a query can have."""
        return len(self.gallery) - int(self.asks_itself)

    @property
    def ks(self) -> list[int]:
        """The ks asked for, clipped to the results that a query can have, ascending."""
        return sorted({min(k, self.most) for k in self.ks_asked})


def query_gallery(
    collection: Folder,
    ks: Sequence[int] = KS,
    max_queries: int | None = None,
    seed: int = 0,
    *,
    without: Collection[str] = (),
) -> Task:
    """The catalog's own queries against its gallery.

    Args: max_queries, seed: draw this many of the queries. without: image_ids that neither ask nor answer.

    Raises: ValueError if the collection has no queries.
    """
    read = (read_side(collection, without, f"split = '{name}'") for name in ("query", "gallery"))
    queries, gallery = as_sides(*read)
    if not len(queries) or not len(gallery):
        raise ValueError(
            f"{collection} has {len(queries)} query and {len(gallery)} gallery photos: it was made of photos "
            f"without labels, or of too few people. Give labels (layouts celeba, lfw, manifest), or more people."
        )
    queries = queries.take(_drawn(np.arange(len(queries)), max_queries, seed))
    exclude = np.full(len(queries), -1, dtype=np.int64)
    return Task(protocol="query/gallery", queries=queries, gallery=gallery, exclude=exclude, ks_asked=tuple(ks))


def leave_one_out(
    collection: Folder,
    ks: Sequence[int] = KS,
    max_queries: int | None = None,
    seed: int = 0,
    splits: Sequence[str] | None = None,
    *,
    distractors: bool = True,
    without: Collection[str] = (),
) -> Task:
    """Every photo with another of its identity against all other photos.

    Exact duplicates are left out, and photos dropped for having no label: they may be a match or not. Unlabelled photos
    that the split kept are distractors: they answer and do not ask.

    Args:
        max_queries: draw this many of the queries, for sets where all against all takes too long.
        splits: only photos of these; None takes all, those set aside as singles too.
        distractors: whether unlabelled photos answer. Of places they do, since none of them shows a labelled place; of
            people they may show one who asks, and a right answer would count as wrong.
        without: image_ids that neither ask nor answer.

    Raises: ValueError if no identity has two photos.
    """
    wanted = [f"(reason IS NULL OR reason NOT IN {_listed(_NOT_COMPARABLE)})"]
    wanted += [f"split IN {_listed(splits)}"] if splits is not None else []
    wanted += [] if distractors else ["label IS NOT NULL"]
    [gallery] = as_sides(read_side(collection, without, " AND ".join(wanted)))
    asking = np.flatnonzero(gallery.codes >= 0)
    asking = asking[np.bincount(gallery.codes[asking], minlength=1)[gallery.codes[asking]] > 1]
    if not len(asking):
        raise ValueError(
            f"No identity of {collection} has two different photos ({len(gallery)} photos): there is nothing to "
            f"find again. Name a source with labels and two photos or more a person (layouts celeba, lfw, manifest)."
        )
    asking = _drawn(asking, max_queries, seed)
    return Task(
        protocol=LEAVE_ONE_OUT, queries=gallery.take(asking), gallery=gallery, exclude=asking, ks_asked=tuple(ks)
    )


def _drawn(asking: np.ndarray, max_queries: int | None, seed: int) -> np.ndarray:
    if max_queries is None or max_queries >= len(asking):
        return asking
    return np.sort(np.random.default_rng(seed).choice(asking, max_queries, replace=False))


def mined_places(collection: Folder, tuples: Folder, ks: Sequence[int] = KS, *, without: Collection[str] = ()) -> Task:
    """Photos of the places that mining kept for validation against all other photos that it looked at.

    For collections in which nothing is labelled: a cluster stands for a place. Where mining kept none, those that were
    trained on ask, and the protocol's name says so. Images of an asking cluster that no model holds are left out: they
    may be a match or not.

    Args: without: image_ids that neither ask nor answer.

    Raises: ValueError if the tuples are not sealed.
    """
    known = read_tuples(tuples)
    states = read_images(tuples)["status"].to_pylist()
    kept = "val" if (known.splits[known.queries] == "val").any() else "train"
    queries = known.queries[known.splits[known.queries] == kept]
    asking = set(known.clusters[queries].tolist())
    places = {
        image_id: cluster if cluster in asking else -1
        for image_id, cluster, state in zip(known.image_ids, known.clusters.tolist(), states, strict=True)
        if cluster not in asking or state == "registered"
    }
    [every] = as_sides(read_side(collection, without, "true"))
    gallery = every.take(np.flatnonzero(pc.is_in(every.ids, pa.array(sorted(places), every.ids.type)).to_numpy()))
    ids = gallery.ids.to_pylist()
    labels, codes = np.unique([places[image_id] for image_id in ids], return_inverse=True)
    names = pa.array([f"place {cluster}" for cluster in labels if cluster >= 0], _NAME)
    unknown = int((labels < 0).sum())  # -1, which comes first
    gallery = dataclasses.replace(gallery, codes=(codes - unknown).astype(np.int32), labels=names)
    wanted = {known.image_ids[row] for row in queries}
    rows = np.array([row for row, image_id in enumerate(ids) if image_id in wanted], dtype=np.int64)
    protocol = _MINED[kept == "train"]
    return Task(protocol=protocol, queries=gallery.take(rows), gallery=gallery, exclude=rows, ks_asked=tuple(ks))


def subject_of(collected: Manifest) -> str:
    """What a label of a collection names: a place where photos were kept whole in their own shape, else a person."""
    return "place" if collected.config["prepare"]["crop"] == "fit" else "person"


def anything_labelled(collection: Folder, splits: Sequence[str] = ("query", "gallery")) -> bool:
    """Whether two photos of these splits share a label, so that one can be asked for the other."""
    labels = read_catalog(collection, splits, ("label",))["label"].drop_null()
    return len(labels.unique()) < len(labels)


def _listed(names: Iterable[str]) -> str:
    """As SQL has a list of names."""
    return "(" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + ")"


def labelled_photos(task: Task) -> Images:
    """Photos of a task whose label is known, each once: those that ask and those that answer, by image_id. All of them,
    or all photos of identities drawn until there are a hundred thousand.

    None of a task over mined places: its labels are guesses, and where they are wrong is not known.
    """
    if task.protocol in _MINED:
        return task.gallery.take(np.zeros(0, dtype=np.int64))
    sides = [task.gallery] if task.asks_itself else [task.queries, task.gallery]
    known = np.concatenate([side.codes[side.codes >= 0] for side in sides])
    sizes = np.bincount(known, minlength=len(task.gallery.labels))
    order = np.random.default_rng(0).permutation(len(sizes)) if sizes.sum() > _CALIBRATED else np.arange(len(sizes))
    drawn = np.zeros(len(sizes) + 1, dtype=bool)  # the last is that of no label
    drawn[order[np.cumsum(sizes[order]) <= _CALIBRATED]] = True
    some = [side.take(np.flatnonzero(drawn[side.codes])) for side in sides]
    columns = {
        name: np.concatenate([getattr(side, name) for side in some])
        for name in ("codes", "attributes", "parts", "rows")
    }
    ids = pa.chunked_array([chunk for side in some for chunk in side.ids.chunks], _NAME)
    both = Images(ids=ids, labels=task.gallery.labels, **columns)
    return both.take(pc.sort_indices(ids).to_numpy().astype(np.int64))


def describe(task: Task) -> dict[str, Any]:
    """The `data` of metrics.json: what was asked of what."""
    matchless = 0
    if not task.asks_itself:
        matchless = int((~np.isin(task.queries.codes, task.gallery.codes)).sum())
    return {
        "protocol": task.protocol,
        "num_queries": len(task.queries),
        "num_gallery": len(task.gallery),
        "asks_itself": task.asks_itself,
        "num_identities": len(np.unique(task.queries.codes)),
        "num_without_positive": matchless,
        "num_queries_without_attributes": int((~task.queries.attributes.any(axis=1)).sum()),
        "num_gallery_without_attributes": int((~task.gallery.attributes.any(axis=1)).sum()),
        "ks_asked": list(task.ks_asked),
        "ks": task.ks,
    }


def read_embeddings(folder: Folder, images: Images) -> np.ndarray:
    """(N, D) float32 embeddings of `images`, one part in memory at a time.

    Raises: ValueError if a part holds other images than the catalog says.
    """
    return read_rows(folder, images.ids, images.parts, images.rows)
