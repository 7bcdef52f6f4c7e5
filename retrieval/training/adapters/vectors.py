"""What an adapter is trained on and validated on: rows of a collection's embeddings, and which of them match.

By labels, those of one person (or place) match. By tuples, a query matches its candidates, and clusters are kept apart.
Only rows that are used are held; no photo is read.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.embeddings import left_out, read_rows, with_embedding
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.tuples import TupleSet, read_tuples
from retrieval.training.adapters.settings import AdaptConfig
from retrieval.training.group_mining import label_numbers
from retrieval.training.tuple_mining import choose_positives, rows_among

_SPLITS = ("train", "val")
_PARTNERS = 4  # of each photo among those of its label, for whitening's pairs
_ADD_LABELS = "Ingest photos with labels (folders named after people, or a manifest), or name --tuples."


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Photos of one split. vectors: (N, D) float32. labels: (N,) int64 from 0: of one person, place or cluster.

    left_out: photos of this split that are not among them, beyond the limit.
    """

    vectors: np.ndarray
    labels: np.ndarray
    left_out: int

    @property
    def num_labels(self) -> int:
        return int(self.labels.max(initial=-1)) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """train and val share no label. pairs: (P, 2) int64 rows of train that match, for whitening.

    queries, positives: (Q,) int64 rows of train, what tuples begin with; None where batches are drawn by label.
    """

    train: Side
    val: Side
    pairs: np.ndarray
    queries: np.ndarray | None = None
    positives: np.ndarray | None = None


def read_known(embeddings: Folder, collection: Folder, tuples: Folder | None, config: AdaptConfig) -> Known:
    """Everything that adapters are made of.

    Raises: ValueError if there is too little of it: no labels, nothing to validate on, one person only.
    """
    columns = ("image_id", "split", "label", "part", "row")
    catalog = with_embedding(embeddings, read_catalog(collection, _SPLITS, columns))
    if tuples is not None:
        return _by_tuples(embeddings, catalog, read_tuples(tuples), config)
    labelled = catalog.filter(pc.is_valid(catalog["label"]))
    if not len(labelled):
        raise ValueError(f"{len(catalog)} photos of {collection} are for training, and none has a label. {_ADD_LABELS}")
    labels = np.array(labelled["label"].to_pylist(), dtype=object)
    train, val = (
        _side(embeddings, labelled, np.flatnonzero(pc.equal(labelled["split"], split).to_numpy()), labels, most, config)
        for split, most in zip(_SPLITS, (config.max_photos, config.max_val_photos), strict=True)
    )
    _check(train[0], val[0])
    return Known(train=train[0], val=val[0], pairs=pairs_by_label(train[0].labels, config.seed))


def pairs_by_label(labels: np.ndarray, seed: int) -> np.ndarray:
    """Each row with up to four others of its label, in a drawn order: (P, 2) int64. No pair comes twice."""
    order = np.random.default_rng([seed, 0x7C]).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)[labels[order]]
    first = np.searchsorted(labels[order], labels[order])
    place = np.arange(len(order)) - first
    found = []
    for step in range(1, _PARTNERS + 1):
        has = sizes > step
        found.append(np.column_stack([order[has], order[(first + (place + step) % sizes)[has]]]))
    return np.concatenate(found)


def _by_tuples(embeddings: Folder, catalog: pa.Table, known: TupleSet, config: AdaptConfig) -> Known:
    known = _with_vectors(known, set(left_out(embeddings)))
    row = np.full(len(known.image_ids), -1)
    row[known.usable] = rows_among(_only(known, known.usable), catalog["image_id"].to_pylist())
    used = np.zeros(len(known.image_ids), dtype=bool)
    used[known.queries] = True
    for candidates in known.candidates:
        used[candidates] = True
    is_train, sides, places = known.splits == "train", [], []
    for mine, most in ((is_train & known.usable, config.max_photos), (~is_train & used, config.max_val_photos)):
        side, kept = _side(embeddings, catalog.take(pa.array(row[mine])), None, known.clusters[mine], most, config)
        sides.append(side)
        places.append(np.flatnonzero(mine)[kept])
    _check(*sides)
    at = np.full(len(known.image_ids), -1)
    at[places[0]] = np.arange(len(places[0]))
    ours = [n for n, query in enumerate(known.queries) if at[query] >= 0]
    pairs = [(at[known.queries[n]], at[other]) for n in ours for other in known.candidates[n] if at[other] >= 0]
    chosen = choose_positives(known, "m3", seed=config.seed)
    ours = [n for n in ours if chosen[n] >= 0 and at[chosen[n]] >= 0]
    if not ours:
        raise ValueError("The tuples hold no matching pair to train on. Name --tuples of more photos, or use labels.")
    return Known(
        train=sides[0],
        val=sides[1],
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        queries=at[known.queries[ours]],
        positives=at[chosen[ours]],
    )


def _with_vectors(known: TupleSet, away: set[str]) -> TupleSet:
    """Without the photos that have no embedding, as queries, candidates or anything else."""
    usable = known.usable & np.array([name not in away for name in known.image_ids], dtype=bool)
    asks = np.flatnonzero(usable[known.queries]).tolist()
    fit = [usable[known.candidates[n]] for n in asks]
    return dataclasses.replace(
        known,
        usable=usable,
        queries=known.queries[asks],
        candidates=[known.candidates[n][ok] for n, ok in zip(asks, fit, strict=True)],
        shared_points=[known.shared_points[n][ok] for n, ok in zip(asks, fit, strict=True)],
        scale_change=[known.scale_change[n][ok] for n, ok in zip(asks, fit, strict=True)],
    )


def _only(known: TupleSet, mine: np.ndarray) -> TupleSet:
    names = [name for name, keep in zip(known.image_ids, mine, strict=True) if keep]
    return dataclasses.replace(known, image_ids=names)


def _side(
    embeddings: Folder,
    catalog: pa.Table,
    rows: np.ndarray | None,
    labels: np.ndarray,
    most: int,
    config: AdaptConfig,
) -> tuple[Side, np.ndarray]:
    """The photos of these rows of the catalog (None: all), or whole labels of them, drawn; and which rows are kept."""
    rows = np.arange(len(catalog)) if rows is None else rows
    kept = rows[drawn(label_numbers(labels[rows]), most, config.seed)] if len(rows) else rows
    images = catalog.take(pa.array(kept))
    vectors = read_rows(embeddings, images["image_id"], images["part"].to_numpy(), images["row"].to_numpy())
    numbers = label_numbers(labels[kept]) if len(kept) else np.empty(0, np.int64)
    return Side(vectors=vectors, labels=numbers, left_out=len(rows) - len(kept)), kept


def drawn(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rows of whole labels, drawn, `most` at most: all where there are no more. (N,) int64 -> sorted (n,) int64."""
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng([seed, 0x7D]).permutation(int(labels.max()) + 1)
    fits = np.cumsum(np.bincount(labels)[order]) <= most
    return np.flatnonzero(np.isin(labels, order[fits]))


def _check(train: Side, val: Side) -> None:
    if not len(val.labels):
        raise ValueError(
            "The collection has no labelled photos in its val split, so nobody could tell whether an adapter gains. "
            "Ingest with a val fraction above 0 (--val-fraction), or name tuples that have places of val."
        )
    for name, side in (("train", train), ("val", val)):
        several = int((np.bincount(side.labels, minlength=1) > 1).sum())
        if several < 2:
            raise ValueError(
                f"The {name} split has {several} people or places with two photos or more (of {side.num_labels}, "
                f"{len(side.labels)} photos), expected 2 at least: one to match, others to be told from. Add photos."
            )
