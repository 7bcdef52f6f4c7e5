"""Whitening's pairs are those of training places alone, its sums those of a slow loop, its options do what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA
from retrieval.artifacts.embeddings import KIND, write_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import seal
from retrieval.artifacts.tuples import TupleSet
from retrieval.models import whitening
from retrieval.models.whitening import Moments
from retrieval.training import whitening_fit
from retrieval.training.settings import WhitenConfig
from retrieval.training.whitening_fit import moments_of_pairs, moments_of_parts, pairs_of, parts_of, whiten
from tests.support.networks import network

DIM, NUM, PART = 4, 30, 8
SPLITS = ("val", "train", "train", "train", "query")
FIELDS = ("num", "num_pairs", "total", "outer", "queries", "differences")


def name(number: int) -> str:
    """In an order of their own, so that a row of the catalog is not its place on storage."""
    return f"{7 * number % NUM:02d}"


def split(number: int) -> str:
    """Of places of five photos each; part 3 holds none of val."""
    return SPLITS[number // 5 % 5]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Folder, dict[str, np.ndarray]]:
    """A catalog of 30 photos in parts of eight, their embeddings, and these by name."""
    root = tmp_path_factory.mktemp("whitening")
    collection, embeddings = Folder.of(root / "collection"), Folder.of(root / "embeddings")
    vectors = np.random.default_rng(0).normal(size=(NUM, DIM)).astype(np.float32)
    rows = []
    for part, start in enumerate(range(0, NUM, PART)):
        numbers = range(start, min(start + PART, NUM))
        write_part(embeddings, part, [name(number) for number in numbers], vectors[numbers.start : numbers.stop])
        for row, number in enumerate(numbers):
            place = {"split": split(number), "part": part, "row": row}
            rows.append({"image_id": name(number), "label": None, **place})
    rows.sort(key=lambda row: row["image_id"])
    collection.write_table(CATALOG, pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    seal(collection, kind="collection", config={}, inputs={}, counts={})
    seal(embeddings, kind=KIND, config={}, inputs={}, counts={"dim": DIM})
    return embeddings, collection, {name(number): vectors[number] for number in range(NUM)}


def of(splits: Sequence[str]) -> list[str]:
    return [name(number) for number in range(NUM) if split(number) in splits]


def known() -> TupleSet:
    """The photos' places as tuples; each place's first photo has the others as candidates, its second one of them."""
    order = sorted(range(NUM), key=name)
    row_of = {number: row for row, number in enumerate(order)}
    queries = [number for number in range(NUM) if number % 5 < 2]
    candidates = [
        [n for n in range(NUM) if n // 5 == q // 5 and n % 5 > q % 5][: 4 if q % 5 == 0 else 1] for q in queries
    ]
    return TupleSet(
        image_ids=[name(number) for number in order],
        clusters=np.array([number // 5 for number in order]),
        splits=np.array(["val" if split(number) == "val" else "train" for number in order], dtype=object),
        usable=np.ones(NUM, bool),
        queries=np.array([row_of[number] for number in queries]),
        candidates=[np.array([row_of[number] for number in numbers]) for numbers in candidates],
        shared_points=[np.ones(len(numbers), np.int64) for numbers in candidates],
        scale_change=[np.ones(len(numbers)) for numbers in candidates],
    )


def test_pairs_are_every_training_query_with_each_of_its_candidates_and_none_of_val() -> None:
    pairs = list(zip(*pairs_of(known(), WhitenConfig()), strict=True))
    expected = []
    for place in range(6):
        photos = [name(5 * place + number) for number in range(5)]
        if split(5 * place) != "val":
            expected += [(photos[0], other) for other in photos[1:]] + [(photos[1], photos[2])]
    assert sorted(pairs) == sorted(expected) and len(pairs) == 4 * 5
    assert not {image for pair in pairs for image in pair} & set(of(["val"]))


def test_pairs_beyond_the_limit_are_drawn_by_the_seed() -> None:
    whole = list(zip(*pairs_of(known(), WhitenConfig()), strict=True))

    def drawn(seed: int, most: int = 6) -> list[tuple[str, str]]:
        return list(zip(*pairs_of(known(), WhitenConfig(max_pairs=most, seed=seed)), strict=True))

    assert drawn(0) == drawn(0) != drawn(1)
    for seed in range(4):
        assert len(set(drawn(seed))) == 6 and set(drawn(seed)) <= set(whole)
    assert len({pair for seed in range(20) for pair in drawn(seed)}) == len(whole)
    assert drawn(0, most=20) == drawn(1, most=20) == whole


def test_tuples_of_val_alone_hold_no_pair() -> None:
    tuples = known()
    tuples.splits[:] = "val"
    with pytest.raises(ValueError, match="no matching pair.*--whiten.method pca"):
        pairs_of(tuples, WhitenConfig())


def test_parts_are_those_that_hold_an_image_of_the_splits(stored: tuple[Folder, Folder, dict[str, np.ndarray]]) -> None:
    _, collection, _ = stored
    for splits in (("train",), ("val",), ("query", "val"), ()):
        assert parts_of(collection, splits) == sorted({n // PART for n in range(NUM) if split(n) in splits})
    assert parts_of(collection, ("query",)) == [2, 3] and parts_of(collection, ("val",)) == [0, 3]


def same(got: Moments, expected: Moments) -> bool:
    return all(torch.allclose(torch.as_tensor(getattr(got, f)), torch.as_tensor(getattr(expected, f))) for f in FIELDS)


@pytest.mark.parametrize("at_once", [2, 8192])
def test_sums_of_parts_are_over_each_descriptor_of_the_splits_once(
    stored: tuple[Folder, Folder, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    embeddings, collection, vectors = stored
    monkeypatch.setattr(whitening_fit, "_FIT_ROWS", at_once)
    for splits in (("train",), ("train", "val")):
        expected = Moments(DIM)
        for image in of(splits):
            x = vectors[image].astype(np.float64)
            expected.num += 1
            expected.total += torch.from_numpy(x)
            expected.outer += torch.from_numpy(np.outer(x, x))
        whole = moments_of_parts(embeddings, collection, splits, parts_of(collection, splits))
        assert same(whole, expected) and whole.num_pairs == 0
        shares = [moments_of_parts(embeddings, collection, splits, [part]) for part in (3, 1, 2, 0)]
        total = shares[0]
        for share in shares[1:]:
            total.merge(share)
        assert same(total, expected)
    nothing = moments_of_parts(embeddings, collection, ("val",), [1])
    assert nothing.num == 0 and nothing.dim == DIM


@pytest.mark.parametrize("at_once", [3, 8192])
def test_sums_of_pairs_are_over_each_pair_once(
    stored: tuple[Folder, Folder, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    embeddings, collection, vectors = stored
    monkeypatch.setattr(whitening_fit, "_FIT_ROWS", at_once)
    images = of(["train"])
    pairs = (images[:7], images[3:10])
    expected = Moments(DIM)
    for query, positive in zip(*pairs, strict=True):
        q, p = (vectors[image].astype(np.float64) for image in (query, positive))
        expected.num_pairs += 1
        expected.queries += torch.from_numpy(q)
        expected.differences += torch.from_numpy(np.outer(q - p, q - p))
    found = moments_of_pairs(embeddings, collection, ("train",), pairs)
    assert same(found, expected) and found.num == 0
    rejected = [{"image_id": "gone.jpg", "stage": "embeddings", "reason": "crashed", "detail": "SIGSEGV"}]
    embeddings.write_table("rejected.parquet", pa.Table.from_pylist(rejected))
    with_one = ([*pairs[0], "gone.jpg"], [*pairs[1], images[1]])
    try:
        assert same(moments_of_pairs(embeddings, collection, ("train",), with_one), expected)
    finally:
        embeddings.remove("rejected.parquet")


def test_a_pair_beyond_the_splits_is_refused(stored: tuple[Folder, Folder, dict[str, np.ndarray]]) -> None:
    embeddings, collection, _ = stored
    train, val = of(["train"]), of(["val"])
    with pytest.raises(ValueError, match=f"2 images of the tuples are not in the splits train of.*{min(val[:2])}"):
        moments_of_pairs(embeddings, collection, ("train",), ([train[0], val[0]], [val[1], train[1]]))
    moments_of_pairs(embeddings, collection, ("train", "val"), ([train[0], val[0]], [val[1], train[1]]))


# -- the bundle ------------------------------------------------------------------------------------------------------


def shares() -> list[Moments]:
    """Of descriptors of length 16 and of noisy pairs, in three shares."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 16, generator=generator) @ torch.randn(16, 16, generator=generator) + 1
    positive = x[:150] + torch.randn(150, 16, generator=generator) * torch.linspace(0.1, 2, 16)
    first, last = Moments(16).add(x[:100]), Moments(16).add_pairs(x[60:150], positive[60:])
    return [first, Moments(16).add(x[100:]).add_pairs(x[:60], positive[:60]), last]


def whole() -> Moments:
    total, *others = shares()
    for share in others:
        total.merge(share)
    return total


def applied(config: WhitenConfig) -> tuple[Tensor, Tensor]:
    net = whiten(network(), iter(shares()), config)
    assert (net.spec.whitening, net.dim) == (config.method, len(net.whitening_projection))
    return net.whitening_projection, net.whitening_mean


OPTIONS = [
    (WhitenConfig(), whitening.learned(whole())),
    (WhitenConfig(dim=5), whitening.learned(whole(), dim=5)),
    (WhitenConfig(dim=99), whitening.learned(whole(), dim=16)),
    (WhitenConfig(shrinkage=0.4), whitening.learned(whole(), shrinkage=0.4)),
    (WhitenConfig(power=0.5), whitening.learned(whole(), power=0.5)),
    (WhitenConfig(method="pca"), whitening.pca(whole())),
    (WhitenConfig(method="pca", power=0.5, dim=7), whitening.pca(whole(), power=0.5, dim=7)),
]


@pytest.mark.parametrize(
    ("config", "expected"), OPTIONS, ids=lambda value: str(value)[:60] if isinstance(value, WhitenConfig) else ""
)
def test_whitening_is_of_all_shares_by_the_settings(config: WhitenConfig, expected: tuple[Tensor, Tensor]) -> None:
    for got, wanted in zip(applied(config), expected, strict=True):
        assert got.shape == wanted.shape and torch.allclose(got.double(), wanted, rtol=1e-5, atol=1e-6)


def test_no_two_of_these_settings_are_one() -> None:
    found = [expected[0] for _, expected in OPTIONS if expected[0].shape == (16, 16)]
    plain, full = found[0], found[1:]
    assert torch.equal(plain, full.pop(0))  # dim beyond the network's is all of it
    assert len(full) == 3
    assert all((plain - other).abs().max() > 1e-3 for other in full)


def test_a_network_without_shares_or_with_whitening_is_refused() -> None:
    with pytest.raises(ValueError, match="no descriptors to learn whitening from"):
        whiten(network(), [], WhitenConfig())
    with pytest.raises(ValueError, match="has whitening already"):
        whiten(whiten(network(), shares(), WhitenConfig()), shares(), WhitenConfig())
    with pytest.raises(ValueError, match="needs matching pairs"):
        whiten(network(), [Moments(16).add(torch.ones(3, 16))], WhitenConfig())


def test_the_network_given_stays_as_it_was(tmp_path: Path) -> None:
    net = network()
    whiten(net, shares(), WhitenConfig(dim=3))
    assert net.spec.whitening == "none" and net.dim == 16
