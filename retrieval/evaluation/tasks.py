"""Who is asked about whom, and reading what that takes out of a collection and its embeddings.

`query_gallery`: the catalog's queries against its gallery. `leave_one_out`: every photo that has another of its
identity is a query against all the others. `mined_places`: the same where nothing is labelled, by what mining found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
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
from retrieval.data.layouts.celeba import ATTRIBUTES

KS = (10, 20, 50, 100, 1000)

_COLUMNS = ("image_id", "label", "split", "reason", "attributes", "part", "row")

_NOT_COMPARABLE = ("duplicate", "unlabelled")

LEAVE_ONE_OUT = "leave-one-out"

_MINED = ("places mined for validation", "places mined and trained on")


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Images of one side, sorted by image_id.

    labels: (N,) object array of str or None. attributes: (N, A) int8, a row of zeros where they are not known.
    parts, rows: (N,) int, where each lies in the collection.
    """

    ids: list[str]
    labels: np.ndarray
    attributes: np.ndarray
    parts: np.ndarray
    rows: np.ndarray

    def places(self, rows: np.ndarray) -> np.ndarray:
        """(...) rows -> (..., 2) int64: the part of the collection each lies in and its row there; -1, -1 of row -1."""
        found = np.stack([self.parts[rows], self.rows[rows]], axis=-1).astype(np.int64)
        return np.where(np.asarray(rows)[..., None] >= 0, found, -1)

    def place(self, row: int) -> tuple[int, int]:
        """Part and row in it of one image."""
        return int(self.parts[row]), int(self.rows[row])

    def take(self, rows: np.ndarray) -> Images:
        ids = [self.ids[row] for row in rows]
        return Images(
            ids=ids,
            labels=self.labels[rows],
            attributes=self.attributes[rows],
            parts=self.parts[rows],
            rows=self.rows[rows],
        )


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
        return len(self.gallery.ids) - int(self.asks_itself)

    @property
    def ks(self) -> list[int]:
        """The ks asked for, clipped to the results that a query can have, ascending."""
        return sorted({min(k, self.most) for k in self.ks_asked})


def query_gallery(collection: Folder, ks: Sequence[int] = KS) -> Task:
    """The catalog's own queries against its gallery.

    Raises: ValueError if the collection has no queries.
    """
    catalog = read_catalog(collection, columns=_COLUMNS)
    splits = np.asarray(catalog["split"].to_pylist(), dtype=object)
    queries, gallery = (_images(catalog.filter(pa.array(splits == name))) for name in ("query", "gallery"))
    if not queries.ids or not gallery.ids:
        raise ValueError(
            f"{collection} has {len(queries.ids)} query and {len(gallery.ids)} gallery photos: it was made of photos "
            f"without labels, or of too few people. Give labels (layouts celeba, lfw, manifest), or more people."
        )
    exclude = np.full(len(queries.ids), -1, dtype=np.int64)
    return Task(protocol="query/gallery", queries=queries, gallery=gallery, exclude=exclude, ks_asked=tuple(ks))


def leave_one_out(
    collection: Folder,
    ks: Sequence[int] = KS,
    max_queries: int | None = None,
    seed: int = 0,
    splits: Sequence[str] | None = None,
    *,
    distractors: bool = True,
) -> Task:
    """Every photo with another of its identity against all other photos.

    Exact duplicates are left out, and photos dropped for having no label: they may be a match or not. Unlabelled photos
    that the split kept are distractors: they answer and do not ask.

    Args:
        max_queries: draw this many of the queries, for sets where all against all takes too long.
        splits: only photos of these; None takes all, those set aside as singles too.
        distractors: whether unlabelled photos answer. Of places they do, since none of them shows a labelled place; of
            people they may show one who asks, and a right answer would count as wrong.

    Raises: ValueError if no identity has two photos.
    """
    catalog = read_catalog(collection, splits, _COLUMNS)
    if not distractors:
        catalog = catalog.filter(pc.is_valid(catalog["label"]))
    reasons = np.asarray(catalog["reason"].to_pylist(), dtype=object)
    gallery = _images(catalog.filter(pa.array([reason not in _NOT_COMPARABLE for reason in reasons], pa.bool_())))
    _, group, counts = np.unique(gallery.labels.astype(str), return_inverse=True, return_counts=True)
    asking = np.flatnonzero(counts[group] > 1)
    labelled = np.array([label is not None for label in gallery.labels], dtype=bool)
    asking = asking[labelled[asking]]
    if not len(asking):
        raise ValueError(
            f"No identity of {collection} has two different photos ({len(gallery.ids)} photos): there is nothing to "
            f"find again. Name a source with labels and two photos or more a person (layouts celeba, lfw, manifest)."
        )
    if max_queries is not None and max_queries < len(asking):
        asking = np.sort(np.random.default_rng(seed).choice(asking, max_queries, replace=False))
    return Task(
        protocol=LEAVE_ONE_OUT, queries=gallery.take(asking), gallery=gallery, exclude=asking, ks_asked=tuple(ks)
    )


def mined_places(collection: Folder, tuples: Folder, ks: Sequence[int] = KS) -> Task:
    """Photos of the places that mining kept for validation against all other photos that it looked at.

    For collections in which nothing is labelled: a cluster stands for a place. Where mining kept none, those that were
    trained on ask, and the protocol's name says so. Images of an asking cluster that no model holds are left out: they
    may be a match or not.

    Raises: ValueError if the tuples are not sealed.
    """
    known = read_tuples(tuples)
    states = read_images(tuples)["status"].to_pylist()
    kept = "val" if (known.splits[known.queries] == "val").any() else "train"
    queries = known.queries[known.splits[known.queries] == kept]
    asking = set(known.clusters[queries].tolist())
    places = {
        image_id: f"place {cluster}" if cluster in asking else None
        for image_id, cluster, state in zip(known.image_ids, known.clusters.tolist(), states, strict=True)
        if cluster not in asking or state == "registered"
    }
    catalog = read_catalog(collection, columns=_COLUMNS)
    gallery = _images(catalog.filter(pc.is_in(catalog["image_id"], pa.array(sorted(places)))))
    labels = np.array([places[image_id] for image_id in gallery.ids], dtype=object)
    gallery = dataclasses.replace(gallery, labels=labels)
    wanted = {known.image_ids[row] for row in queries}
    rows = np.array([row for row, image_id in enumerate(gallery.ids) if image_id in wanted], dtype=np.int64)
    protocol = _MINED[kept == "train"]
    return Task(protocol=protocol, queries=gallery.take(rows), gallery=gallery, exclude=rows, ks_asked=tuple(ks))


def without(task: Task, image_ids: Collection[str]) -> Task:
    """The task without these images, among those that ask and those that answer."""
    asks = [row for row, image_id in enumerate(task.queries.ids) if image_id not in image_ids]
    answers = [row for row, image_id in enumerate(task.gallery.ids) if image_id not in image_ids]
    new_row = np.full(len(task.gallery.ids) + 1, -1, dtype=np.int64)  # the last for -1, none
    new_row[answers] = np.arange(len(answers))
    return dataclasses.replace(
        task,
        queries=task.queries.take(np.array(asks, dtype=np.int64)),
        gallery=task.gallery.take(np.array(answers, dtype=np.int64)),
        exclude=new_row[task.exclude[asks]],
    )


def subject_of(collected: Manifest) -> str:
    """What a label of a collection names: a place where photos were kept whole in their own shape, else a person."""
    return "place" if collected.config["prepare"]["crop"] == "fit" else "person"


def anything_labelled(collection: Folder, splits: Sequence[str] = ("query", "gallery")) -> bool:
    """Whether two photos of these splits share a label, so that one can be asked for the other."""
    labels = read_catalog(collection, splits, ("label",))["label"].drop_null()
    return len(labels.unique()) < len(labels)


def _images(catalog: pa.Table) -> Images:
    attributes = np.zeros((len(catalog), len(ATTRIBUTES)), dtype=np.int8)
    for row, values in enumerate(catalog["attributes"].to_pylist()):
        if values is not None:
            attributes[row] = values
    return Images(
        ids=catalog["image_id"].to_pylist(),
        labels=np.array(catalog["label"].to_pylist(), dtype=object),
        attributes=attributes,
        parts=catalog["part"].to_numpy(),
        rows=catalog["row"].to_numpy(),
    )


def labelled_photos(task: Task) -> Images:
    """All photos of a task whose label is known, each once: those that ask and those that answer, by image_id.

    None of a task over mined places: its labels are guesses, and where they are wrong is not known.
    """
    known = np.array([label is not None for label in task.gallery.labels], dtype=bool)
    if task.protocol in _MINED:
        return task.gallery.take(np.zeros(0, dtype=np.int64))
    gallery = task.gallery.take(np.flatnonzero(known))
    if task.asks_itself:
        return gallery
    asking = [row for row, label in enumerate(task.queries.labels) if label is not None]
    both = [task.queries.take(np.array(asking, dtype=np.int64)), gallery]
    ids = [*both[0].ids, *both[1].ids]
    columns = {
        name: np.concatenate([getattr(side, name) for side in both])
        for name in ("labels", "attributes", "parts", "rows")
    }
    return Images(ids=ids, **columns).take(np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64))


def describe(task: Task) -> dict[str, Any]:
    """The `data` of metrics.json: what was asked of what."""
    gallery_labels = set(task.gallery.labels)
    matchless = 0
    if not task.asks_itself:
        matchless = sum(label not in gallery_labels for label in task.queries.labels)
    return {
        "protocol": task.protocol,
        "num_queries": len(task.queries.ids),
        "num_gallery": len(task.gallery.ids),
        "asks_itself": task.asks_itself,
        "num_identities": len(set(task.queries.labels)),
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
