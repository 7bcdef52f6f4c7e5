"""Whitening's sums over a collection's embeddings, a share at a time, and the bundle that carries the result.

Shares are whole parts (`moments_of_parts`) or ranges of pairs (`moments_of_pairs`); their `Moments` add up to the same
sums in any order and on any machines, so the descriptors never lie in one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.embeddings import left_out, read_rows, with_embedding
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.tuples import TupleSet, read_tuples
from retrieval.models import network, whitening
from retrieval.models.network import Network
from retrieval.models.whitening import Moments
from retrieval.training.settings import WhitenConfig

Pairs = tuple[list[str], list[str]]

_FIT_ROWS = 8192  # descriptors added at once


def pairs_of(tuples: Folder | TupleSet, config: WhitenConfig) -> Pairs:
    """(query, positive) image_ids of the training clusters: each query with each of its candidates, drawn if many.

    Raises: ValueError if there is none.
    """
    known = tuples if isinstance(tuples, TupleSet) else read_tuples(tuples)
    train = [number for number, query in enumerate(known.queries) if known.splits[query] == "train"]
    queries = np.concatenate([np.repeat(known.queries[n], len(known.candidates[n])) for n in train] or [np.empty(0)])
    positives = np.concatenate([known.candidates[n] for n in train] or [np.empty(0)])
    if not len(queries):
        raise ValueError("The tuples hold no matching pair to learn whitening from. Use --whiten.method pca.")
    if len(queries) > config.max_pairs:
        drawn = np.sort(np.random.default_rng(config.seed).choice(len(queries), config.max_pairs, replace=False))
        queries, positives = queries[drawn], positives[drawn]
    return [known.image_ids[int(row)] for row in queries], [known.image_ids[int(row)] for row in positives]


def parts_of(collection: Folder, splits: Sequence[str]) -> list[int]:
    """Numbers of the parts that hold images of `splits`."""
    return sorted(set(_catalog(collection, splits)["part"].to_pylist()))


def moments_of_parts(embeddings: Folder, collection: Folder, splits: Sequence[str], parts: Sequence[int]) -> Moments:
    """Sums over all descriptors of `splits` in these parts."""
    catalog = with_embedding(embeddings, _catalog(collection, splits))
    moments = Moments(int(read_manifest(embeddings, "embeddings").counts["dim"]))
    for part in parts:
        vectors = _vectors(embeddings, catalog.filter(pc.equal(catalog["part"], part)), moments.dim)
        for start in range(0, len(vectors), _FIT_ROWS):
            moments.add(vectors[start : start + _FIT_ROWS])
    return moments


def moments_of_pairs(embeddings: Folder, collection: Folder, splits: Sequence[str], pairs: Pairs) -> Moments:
    """Sums over matching pairs. Holds the pairs' descriptors, reading one part at a time.

    A pair of an image that has no embedding is left out.

    Raises: ValueError if a pair's image is not in `splits` of the collection.
    """
    away = left_out(embeddings)
    both = [pair for pair in zip(*pairs, strict=True) if not away.keys() & set(pair)]
    pairs = [query for query, _ in both], [positive for _, positive in both]
    wanted = sorted(set(pairs[0]) | set(pairs[1]))
    catalog = _catalog(collection, splits)
    catalog = catalog.filter(pc.is_in(catalog["image_id"], pa.array(wanted)))
    row_of = {image_id: row for row, image_id in enumerate(catalog["image_id"].to_pylist())}
    if missing := [image_id for image_id in wanted if image_id not in row_of]:
        raise ValueError(
            f"{len(missing)} images of the tuples are not in the splits {', '.join(splits)} of {collection}, for "
            f"example {missing[0]}. Name the collection that the tuples were made of."
        )
    vectors = _vectors(embeddings, catalog)
    moments = Moments(vectors.shape[1])
    for start in range(0, len(pairs[0]), _FIT_ROWS):
        query, positive = (vectors[[row_of[name] for name in side[start : start + _FIT_ROWS]]] for side in pairs)
        moments.add_pairs(query, positive)
    return moments


def whiten(net: Network, shares: Iterable[Moments], config: WhitenConfig) -> Network:
    """The same network with whitening, learned from the sum of `shares`, applied last.

    Raises: ValueError if the network has whitening already, or there are too few pairs.
    """
    if net.spec.whitening != "none":
        raise ValueError("The model has whitening already; it is learned on descriptors without. Name that model.")
    total: Moments | None = None
    for share in shares:
        total = share if total is None else total.merge(share)
    if total is None:
        raise ValueError("There are no descriptors to learn whitening from: the collection has no image to train on.")
    kept = config.dim or net.dim
    options: dict[str, Any] = {"dim": min(kept, net.dim), "power": config.power}
    if config.method == "learned":
        projection, mean = whitening.learned(total, shrinkage=config.shrinkage, **options)
    else:
        projection, mean = whitening.pca(total, **options)
    return network.with_whitening(net, projection, mean, config.method)


def _catalog(collection: Folder, splits: Sequence[str]) -> pa.Table:
    """As they lie on storage, which is the order that sums are taken in."""
    catalog = read_catalog(collection, splits, ("image_id", "part", "row"))
    return catalog.sort_by([("part", "ascending"), ("row", "ascending")])


def _vectors(embeddings: Folder, images: pa.Table, dim: int | None = None) -> torch.Tensor:
    """(n, D) float32 of the rows of `_catalog`."""
    parts, rows = images["part"].to_numpy(), images["row"].to_numpy()
    return torch.from_numpy(read_rows(embeddings, images["image_id"], parts, rows, dim))
