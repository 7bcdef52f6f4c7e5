"""A gallery that no process holds: asked a block of queries at a time, each of its pieces by a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS, KIND, shards_of
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation.pieces.images import Images
from retrieval.evaluation.pieces.slices import (
    Held,
    ShardFile,
    Slice,
    count_and_find,
    cuts_of,
    score_pairs,
    search_piece,
    slice_of,
)
from retrieval.search.ranking import Neighbours, merge_top_k

Spread = Callable[..., Iterator[Any]]
"""(function, pieces, *others) -> function(piece, *others) of each piece, in order: `here`, or the same by tasks."""


def here(function: Callable[..., Any], pieces: Iterable[Any], *others: Any) -> Iterator[Any]:
    """In this process, one after another."""
    for piece in pieces:
        yield function(piece, *others)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """What is asked. slices: all its embeddings. shards: what searches them; the slices themselves where no index was
    built, exactly. They are made anew each time: a slice carries the names of its images."""

    slices: Callable[[], Iterable[Held | Slice]]
    shards: Callable[[], Iterable[Held | Slice | ShardFile]]
    spread: Spread = field(default=here)

    @classmethod
    def of(
        cls, images: Images, embeddings: Folder, dim: int, index: Folder | None = None, spread: Spread = here
    ) -> Gallery:
        """Images with embeddings and, if there is one, an index of them.

        Raises: ValueError if it does not hold exactly these: other images among the results would change the figures.
        """

        cuts = cuts_of(images, dim)

        def slices() -> Iterator[Slice]:
            return (slice_of(embeddings, images, rows) for rows in cuts)

        if index is None:
            return cls(slices=slices, shards=slices, spread=spread)
        _check_same(index, images)
        shards = [ShardFile(index=index, name=name) for name in shards_of(read_manifest(index, KIND))]
        return cls(slices=slices, shards=lambda: shards, spread=spread)

    @classmethod
    def held(cls, vectors: np.ndarray) -> Gallery:
        """(N, D) float32 vectors in memory."""
        pieces = [Held(rows=np.arange(len(vectors)), vectors=vectors)]
        return cls(slices=lambda: pieces, shards=lambda: pieces)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        """The k best of each query. Args: queries: (Q, D) float32, Q as many as a task may hold with its results."""
        return self.timed(queries, [k])[0]

    def timed(self, queries: np.ndarray, ks: Sequence[int]) -> tuple[Neighbours, dict[int, float]]:
        """`search` for the last of `ks`, and the seconds that all pieces took for each, one after another."""
        best, seconds = None, dict.fromkeys(ks, 0.0)
        for found, took in self.spread(search_piece, self.shards(), queries, ks):
            best = found if best is None else merge_top_k([best, found], ks[-1])
            seconds = {k: seconds[k] + took[k] for k in ks}
        if best is None:
            raise ValueError("The gallery is empty, expected images to search.")
        return best, seconds

    def rank(
        self, queries: np.ndarray, exclude: np.ndarray, query: np.ndarray, row: np.ndarray, near: int
    ) -> tuple[np.ndarray, Neighbours]:
        """Exactly where pairs of a query and a gallery row stand, and the `near` nearest, a query itself among them.

        Args: queries, exclude, query, row: as `ranks.count_before`. Returns: (P,) int64 ranks from 0, and neighbours.
        """
        score, ranks, best = np.zeros(len(query), np.float32), np.zeros(len(query), np.int64), None
        for which, scores in self.spread(score_pairs, self.slices(), queries, query, row):
            score[which] = scores
        for counts, found in self.spread(count_and_find, self.slices(), queries, exclude, query, score, row, near):
            ranks += counts
            best = found if best is None else merge_top_k([best, found], near)
        if best is None:
            raise ValueError("The gallery is empty, expected images to rank.")
        return ranks, best


def _check_same(index: Folder, images: Images) -> None:
    at, same = 0, index.num_rows(IDS) == len(images)
    for batch in index.read_batches(IDS, ["image_id"]) if same else ():
        names = images.ids.slice(at, len(batch)).combine_chunks()
        same = same and bool(pc.all(pc.equal(batch["image_id"].cast(names.type), names)).as_py() in (True, None))
        at += len(batch)
    if not same:
        raise ValueError(
            f"The index {index} holds {index.num_rows(IDS)} images, the gallery has {len(images)}, and they differ. "
            f"Evaluation needs an index of the gallery alone: python -m ray_jobs.build_index --splits gallery ..."
        )
