"""A benchmark scored from embeddings on storage: as it is, with its gallery augmented, with its queries expanded.

Embeddings are read a part at a time. Only augmentation holds the gallery, and never the distractors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from retrieval.artifacts.embeddings import read_ids, read_parts
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation import revisited
from retrieval.evaluation.ground_truth import QUERY, GroundTruth
from retrieval.evaluation.revisited import BenchmarkResult, Distractors, Gallery, in_blocks
from retrieval.search.expansion import augment_gallery, expand_by_blocks
from retrieval.search.index import flat_search
from retrieval.search.settings import ExpansionConfig

AS_IT_IS = "model"


def variants(
    truth: GroundTruth,
    embeddings: Folder,
    distractors: Sequence[Folder] = (),
    *,
    expansion: ExpansionConfig,
    augmentation: ExpansionConfig,
) -> Iterator[tuple[str, BenchmarkResult]]:
    """Score a benchmark as it is, then with what was asked: `model`, `model + QE`, `model + DBA`, `model + DBA + QE`.

    Queries are expanded by their nearest among gallery and distractors together, exactly.

    Args: embeddings: of a collection of `benchmark_source.write_manifest`. distractors: embeddings by the same model.

    Raises: ValueError if augmentation is asked for with distractors, which would stay as they are.
    """
    if augmentation.num and distractors:
        raise ValueError(
            "Augmentation is asked for with distractors, and only the gallery would be augmented: the figures would "
            "say nothing. Leave out --augmentation.num, or the distractors."
        )
    queries, known = read_queries(embeddings, truth)
    plain, others = gallery_blocks(embeddings, truth), distractor_blocks(distractors)
    galleries = {AS_IT_IS: plain}
    if augmentation.num:
        galleries[f"{AS_IT_IS} + DBA"] = _augmented(plain, augmentation)
    for name, gallery in galleries.items():
        yield name, revisited.score(truth, queries, gallery, others, known=known)
        if expansion.num:
            everything = itertools.chain((vectors for _, vectors in gallery()), others())
            expanded = expand_by_blocks(queries, everything, expansion)
            yield f"{name} + QE", revisited.score(truth, expanded, gallery, others, known=known)


def _augmented(gallery: Gallery, config: ExpansionConfig) -> Gallery:
    """In order of row, so that equal neighbours are taken on in the order that settles ties everywhere."""
    rows, vectors = (np.concatenate(parts) for parts in zip(*gallery(), strict=True))
    order = np.argsort(rows)
    held = vectors[order]
    return in_blocks(augment_gallery(held, flat_search(held), config), rows=rows[order])


def read_queries(embeddings: Folder, truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """(Q, D) float32 in the ground truth's order, zeros where there is none, and (Q,) bool, where there is one."""
    places = {image_id: row for row, image_id in enumerate(truth.query_ids())}
    queries = np.zeros((len(places), int(read_manifest(embeddings, "embeddings").counts["dim"])), np.float32)
    known = np.zeros(len(places), dtype=bool)
    for rows, vectors in _rows_of(embeddings, places):
        queries[rows], known[rows] = vectors, True
    return queries, known


def gallery_names(embeddings: Folder) -> Iterator[str]:
    """The gallery images that have an embedding. What a classic benchmark's gallery is: its lists do not say."""
    return (image_id for image_id in read_ids(embeddings) if not image_id.startswith(QUERY))


def gallery_blocks(embeddings: Folder, truth: GroundTruth) -> Gallery:
    """The gallery's embeddings as `revisited.score` wants them, a block for each part on storage."""
    places = {image: row for row, image in enumerate(truth.gallery)}
    return lambda: _rows_of(embeddings, places)


def distractor_blocks(folders: Sequence[Folder]) -> Distractors:
    """All embeddings of some folders, a block for each part on storage."""
    return lambda: (vectors for folder in folders for _, vectors in read_parts(folder))


def _rows_of(embeddings: Folder, places: Mapping[str, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for ids, vectors in read_parts(embeddings):
        rows = np.array([places.get(image_id, -1) for image_id in ids], dtype=np.int64)
        if (rows >= 0).any():
            yield rows[rows >= 0], vectors[rows >= 0]
