"""Tasks of an evaluation, and what asks in them, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval.evaluation.pieces.gallery import Gallery
from retrieval.evaluation.pieces.images import Images
from retrieval.evaluation.pieces.slices import Held
from retrieval.evaluation.systems import Asking
from retrieval.evaluation.tasks import Task
from retrieval.search.ranking import Neighbours, Search


def ids_of(images: Images) -> list[str]:
    return images.ids.to_pylist()


def labels_of(images: Images) -> list[str | None]:
    return [images.label(row) for row in range(len(images))]


def images_of(ids: Sequence[str], labels: Sequence[str], attributes: np.ndarray) -> Images:
    """Images of one part, in order."""
    names, codes = np.unique(labels, return_inverse=True)
    return Images(
        ids=pa.chunked_array([ids], pa.large_string()),
        codes=codes.astype(np.int32),
        labels=pa.array(names.tolist(), pa.large_string()),
        attributes=attributes,
        parts=np.zeros(len(ids), np.int32),
        rows=np.arange(len(ids), dtype=np.int32),
    )


@dataclass
class Searching:
    """A piece of a gallery that answers as it likes."""

    search: Callable[[np.ndarray, int], Neighbours]

    def open(self) -> Searching:
        return self


def asking(task: Task, queries: np.ndarray, vectors: np.ndarray, search: Search | None = None) -> Asking:
    """Queries and a gallery in memory, searched exactly or in another way."""
    gallery = Gallery.held(vectors)
    if search is not None:
        gallery = Gallery(slices=gallery.slices, shards=lambda: [Searching(search)])  # type: ignore[list-item]
    return Asking(task=task, asked=queries.__getitem__, gallery=gallery)


def in_pieces(vectors: np.ndarray, num: int) -> Gallery:
    """(N, D) vectors in pieces that do not follow each other in the gallery, as parts of a collection do not."""
    rows = [np.arange(first, len(vectors), num) for first in range(num)]
    pieces = [Held(rows=some, vectors=vectors[some]) for some in rows]
    return Gallery(slices=lambda: pieces, shards=lambda: pieces)
