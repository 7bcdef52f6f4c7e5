"""Adapters are trained on the train split alone and tried on the val split alone, with each photo's own embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.collection import REJECTED_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.training.adapters.settings import AdaptConfig
from retrieval.training.adapters.vectors import drawn, pairs_by_label, read_known
from tests.support.embedded import people, store, store_tuples

SPLIT_OF = ("train", "train", "val", "gallery", "train")  # of every fifth person


def stored(root: Folder, num: int = 20, photos: int = 3) -> tuple[Folder, Folder, np.ndarray, np.ndarray, np.ndarray]:
    vectors, who = people(num, photos)
    splits = np.array([SPLIT_OF[person % 5] for person in who], dtype=object)
    collection, embeddings = store(root, vectors, [f"p{person:03}" for person in who], list(splits))
    return collection, embeddings, vectors, who, splits


def as_sets(vectors: np.ndarray, labels: np.ndarray) -> set[frozenset[bytes]]:
    """Each label's vectors, whatever the labels' numbers and the order."""
    return {frozenset(row.tobytes() for row in vectors[labels == label]) for label in np.unique(labels)}


@pytest.mark.parametrize("by_tuples", [False, True])
def test_each_split_has_its_own_photos_with_their_own_labels(by_tuples: bool, tmp_path: Path) -> None:
    root = Folder.of(tmp_path)
    collection, embeddings, vectors, who, splits = stored(root)
    tuples = store_tuples(root / "tuples", collection) if by_tuples else None
    known = read_known(embeddings, collection, tuples, AdaptConfig())
    for side, split in ((known.train, "train"), (known.val, "val")):
        mine = splits == split
        assert as_sets(side.vectors, side.labels) == as_sets(vectors[mine], who[mine])
        assert side.num_labels == len(np.unique(who[mine])) and side.left_out == 0
        assert sorted(set(side.labels.tolist())) == list(range(side.num_labels))
    labels = known.train.labels
    assert (labels[known.pairs[:, 0]] == labels[known.pairs[:, 1]]).all() and len(known.pairs) == 2 * len(labels)
    assert (known.queries is None) != by_tuples
    if known.queries is not None and known.positives is not None:
        assert sorted(known.queries) == list(range(len(labels))) and (known.queries != known.positives).all()
        assert (labels[known.queries] == labels[known.positives]).all()


@pytest.mark.parametrize("by_tuples", [False, True])
def test_a_photo_without_an_embedding_is_nowhere(by_tuples: bool, tmp_path: Path) -> None:
    root = Folder.of(tmp_path)
    collection, embeddings, vectors, who, splits = stored(root)
    tuples = store_tuples(root / "tuples", collection) if by_tuples else None
    gone = [int(np.flatnonzero(splits == split)[0]) for split in ("train", "val")]
    rows = [{"image_id": f"{(7919 * n) % 100_003:06}.jpg", "stage": "embeddings", "reason": "crashed"} for n in gone]
    embeddings.write_table("rejected.parquet", pa.Table.from_pylist(rows, REJECTED_SCHEMA))
    known = read_known(embeddings, collection, tuples, AdaptConfig())
    for side, split in ((known.train, "train"), (known.val, "val")):
        mine = (splits == split) & ~np.isin(np.arange(len(who)), gone)
        assert as_sets(side.vectors, side.labels) == as_sets(vectors[mine], who[mine])


@pytest.mark.parametrize("by_tuples", [False, True])
def test_beyond_the_limits_whole_people_are_drawn_and_the_rest_is_counted(by_tuples: bool, tmp_path: Path) -> None:
    root = Folder.of(tmp_path)
    collection, embeddings, vectors, who, splits = stored(root)
    tuples = store_tuples(root / "tuples", collection) if by_tuples else None
    found = []
    for seed in (0, 0, 1):
        config = AdaptConfig(max_photos=20, max_val_photos=7, seed=seed)
        known = read_known(embeddings, collection, tuples, config)
        assert (len(known.train.labels), known.train.left_out) == (18, 18)
        assert (len(known.val.labels), known.val.left_out) == (6, 6)
        assert (np.bincount(known.train.labels) == 3).all()
        assert known.pairs.max() < 18 and (known.queries is None or known.queries.max() < 18)
        found.append(as_sets(known.train.vectors, known.train.labels))
        assert found[-1] <= as_sets(vectors[splits == "train"], who[splits == "train"])
    assert found[0] == found[1] != found[2]


def test_whole_labels_fit_the_limit_or_are_left_out() -> None:
    labels = np.repeat(np.arange(6), [1, 5, 2, 4, 3, 2])
    for most in range(1, 20):
        rows = drawn(labels, most, seed=0)
        assert len(rows) <= most and (np.diff(rows) > 0).all()
        sizes = np.bincount(labels[rows], minlength=6)
        assert all(size in (0, whole) for size, whole in zip(sizes, np.bincount(labels), strict=True))
    assert len(drawn(labels, 17, seed=0)) == 17


def test_pairs_are_of_one_label_and_none_comes_twice() -> None:
    labels = np.repeat(np.arange(4), [1, 2, 3, 9])
    pairs = pairs_by_label(labels, seed=0)
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all() and (pairs[:, 0] != pairs[:, 1]).all()
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs) == 0 + 2 * 1 + 3 * 2 + 9 * 4
    assert (pairs_by_label(labels, seed=0) == pairs).all()


ADVICE = "Ingest photos with labels"


@pytest.mark.parametrize(
    ("labels", "splits", "refused"),
    [
        ([None] * 8, ["train"] * 4 + ["val"] * 4, f"none has a label. {ADVICE}"),
        (list("aabbaabb"), ["train"] * 8, "no labelled photos in its val split.*--val-fraction"),
        (list("aaaabbcc"), ["train"] * 4 + ["val"] * 4, "train split has 1 people or places with two photos or more"),
        (list("aabbcccc"), ["train"] * 4 + ["val"] * 4, "val split has 1 people or places with two photos or more"),
        (list("aabbcdef"), ["train"] * 4 + ["val"] * 4, "val split has 0 people .*of 4, 4 photos"),
        (list("aabbccdd"), ["gallery"] * 4 + ["val"] * 4, "train split has 0 people"),
    ],
)
def test_too_little_is_refused_with_what_is_missing(
    labels: list[str | None], splits: list[str], refused: str, tmp_path: Path
) -> None:
    collection, embeddings = store(Folder.of(tmp_path), people(2, 4)[0], labels, splits)
    with pytest.raises(ValueError, match=refused):
        read_known(embeddings, collection, None, AdaptConfig())


def test_tuples_without_places_of_val_are_refused(tmp_path: Path) -> None:
    root = Folder.of(tmp_path)
    vectors, who = people(4, 3)
    collection, embeddings = store(root, vectors, [str(one) for one in who], ["train"] * len(who))
    tuples = store_tuples(root / "tuples", collection)
    with pytest.raises(ValueError, match="val split, so nobody could tell"):
        read_known(embeddings, collection, tuples, AdaptConfig())
