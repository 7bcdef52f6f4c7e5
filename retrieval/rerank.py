"""Geometric re-ranking: of the first results, those whose local features fit one geometry with the query's come first.

Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007, sec. 4. The number of
matches that fit is evidence a person can look at: `report_scenes.matches_jpg` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval import sfm
from retrieval.artifacts import Folder
from retrieval.protocols import Images, Task, read_jpegs
from retrieval.ranking import Neighbours
from retrieval.report import MatchedPhotos

MIN_INLIERS = 15


def order_by_inliers(rows: np.ndarray, inliers: np.ndarray, min_inliers: int = MIN_INLIERS) -> np.ndarray:
    """Rows (K,) put in order: those with `min_inliers` or more first, by falling count; all others as they were.

    Args: inliers: (n,) int of the first n rows, n <= K.

    Example:
        >>> order_by_inliers(np.array([7, 8, 9, 4]), np.array([3, 20, 40])).tolist()
        [9, 8, 7, 4]
    """
    counted = np.where(inliers >= min_inliers, inliers, 0)
    order = np.argsort(-counted, kind="stable")
    return np.concatenate([rows[: len(inliers)][order], rows[len(inliers) :]])


def count_inliers(
    collection: Folder, task: Task, found: Neighbours, queries: Sequence[int], top: int, max_features: int = 1024
) -> np.ndarray:
    """Matches that fit one geometry between each of `queries` and its first results.

    Local features are taken from the stored photos, each once.

    Returns: (len(queries), top) int64; 0 where there is no result.
    """
    known: dict[tuple[int, int], sfm.Features] = {}
    places = [_place(task.queries, query) for query in queries]
    rows = [found.rows[query][:top] for query in queries]
    wanted = {*places, *(_place(task.gallery, int(row)) for own in rows for row in own if row >= 0)}
    for place, jpeg in read_jpegs(collection, sorted(wanted)).items():
        known[place] = sfm.extract(jpeg, max_features=max_features)
    counts = np.zeros((len(queries), top), dtype=np.int64)
    for at, (place, own) in enumerate(zip(places, rows, strict=True)):
        for column, row in enumerate(own):
            if row >= 0:
                counts[at, column] = sfm.verify(known[place], known[_place(task.gallery, int(row))]).num_inliers
    return counts


def rerank(found: Neighbours, inliers: np.ndarray, min_inliers: int = MIN_INLIERS) -> Neighbours:
    """The neighbours with their first results in order of `inliers` (Q, top); scores go with their rows."""
    rows, scores = np.empty_like(found.rows), np.empty_like(found.scores)
    for query, counts in enumerate(inliers):
        order = order_by_inliers(np.arange(found.rows.shape[1]), counts[: found.rows.shape[1]], min_inliers)
        rows[query], scores[query] = found.rows[query][order], found.scores[query][order]
    return Neighbours(scores, rows)


def _place(images: Images, row: int) -> tuple[int, int]:
    return int(images.parts[row]), int(images.rows[row])


def evidence(
    collection: Folder, task: Task, found: Neighbours, inliers: np.ndarray, num: int, max_features: int = 1024
) -> list[MatchedPhotos]:
    """The `num` queries' best results with most matches, each query once, with the points that match."""
    best = inliers.max(axis=1)
    picked = []
    for query in np.argsort(-best, kind="stable")[:num]:
        column = int(inliers[query].argmax())
        row = int(found.rows[query][column])
        if best[query] < MIN_INLIERS:
            break
        places = (_place(task.queries, int(query)), _place(task.gallery, row))
        jpegs = read_jpegs(collection, places)
        first, second = (sfm.extract(jpegs[place], max_features=max_features) for place in places)
        matches = sfm.verify(first, second).matches
        picked.append(
            MatchedPhotos(
                jpegs=(jpegs[places[0]], jpegs[places[1]]),
                points=(first.keypoints[matches[:, 0], :2], second.keypoints[matches[:, 1], :2]),
                caption=f"{task.queries.ids[query]} and {task.gallery.ids[row]}",
            )
        )
    return picked
