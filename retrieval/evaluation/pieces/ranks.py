"""Where a gallery image stands in a query's ranking, counted piece by piece.

The rank of an image is the number of others with a higher score, and of those with the same score in an earlier row. So
it is the sum of what each piece of the gallery counts, in any order. A score is an inner product in float64, rounded
once to float32: it does not depend on the piece that it was taken in.
"""

from __future__ import annotations

import numpy as np

_AT_ONCE = 1 << 22  # numbers that are gathered at once: 32 MiB of float64
_TILE = 1 << 14  # vectors that are scored together: their rows of scores stay near the cache when they are sorted


class Positives:
    """The gallery rows that carry each label code, for expanding queries into (query, positive row) pairs."""

    def __init__(self, codes: np.ndarray) -> None:
        self._codes = codes
        self._order = np.argsort(codes, kind="stable")
        self._sorted = codes[self._order]

    def pairs(self, wanted: np.ndarray, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each wanted code in turn (negative: none), its rows but the excluded one: (P,) index into wanted, (P,)
        row. Args: exclude: of each, a row or -1."""
        begin, counts = self._runs(wanted)
        query = np.repeat(np.arange(len(wanted)), counts)
        within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        row = self._order[begin[query] + within]
        others = row != exclude[query]
        return query[others], row[others]

    def counts(self, wanted: np.ndarray) -> np.ndarray:
        """How many rows carry each wanted code, (W,) int64, none a negative one."""
        return self._runs(wanted)[1]

    def _runs(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begin = np.searchsorted(self._sorted, wanted, side="left")
        return begin, np.where(wanted >= 0, np.searchsorted(self._sorted, wanted, side="right") - begin, 0)


def scores_of(queries: np.ndarray, vectors: np.ndarray, query: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(P,) float32 score of each pair. Args: query, at: (P,) int64, rows of `queries` and of `vectors`."""
    out = np.empty(len(query), dtype=np.float32)
    step = max(1, _AT_ONCE // max(1, queries.shape[1]))
    for start in range(0, len(query), step):
        some = slice(start, start + step)
        left, right = queries[query[some]].astype(np.float64), vectors[at[some]].astype(np.float64)
        out[some] = np.einsum("pd,pd->p", left, right)
    return out


def count_before(
    queries: np.ndarray,
    vectors: np.ndarray,
    columns: np.ndarray,
    exclude: np.ndarray,
    query: np.ndarray,
    score: np.ndarray,
    row: np.ndarray,
) -> np.ndarray:
    """Of each pair of a query and a gallery row: how many of these vectors come before it.

    Args:
        queries: (Q, D) float32. vectors: (n, D) float32, of the gallery rows `columns`: (n,) int64, ascending.
        exclude: (Q,) int64, a gallery row that each query is not compared with, -1 for none.
        query, score, row: (P,) each, the pairs, query after query; see `scores_of`.

    Returns: (P,) int64.
    """
    counts = np.zeros(len(query), dtype=np.int64)
    for start in range(0, len(columns), _TILE):
        tile = slice(start, start + _TILE)
        exact, rows = vectors[tile].astype(np.float64).T, columns[tile]
        step = max(1, _AT_ONCE // len(rows))
        for first in range(0, len(queries), step):
            some = slice(*np.searchsorted(query, (first, first + step)))
            if some.start == some.stop:
                continue
            scores = (queries[first : first + step].astype(np.float64) @ exact).astype(np.float32)
            _put(scores, rows, np.arange(len(scores)), exclude[first : first + step], -np.inf)
            mine = query[some] - first
            _put(scores, rows, mine, row[some], score[some])  # the same to the last bit, here and elsewhere
            counts[some] += _before(scores, rows, mine, score[some], row[some])
    return counts


def _put(scores: np.ndarray, rows: np.ndarray, query: np.ndarray, row: np.ndarray, value: np.ndarray | float) -> None:
    """Set the scores of these pairs, of those whose row is among `rows`, ascending."""
    at = np.minimum(np.searchsorted(rows, row), len(rows) - 1)
    here = np.flatnonzero(rows[at] == row)
    scores[query[here], at[here]] = value[here] if isinstance(value, np.ndarray) else value


def _before(scores: np.ndarray, rows: np.ndarray, query: np.ndarray, score: np.ndarray, row: np.ndarray) -> np.ndarray:
    ordered, width = np.sort(scores, axis=1), scores.shape[1]
    begins = np.searchsorted(query, np.arange(len(scores) + 1))
    counts = np.empty(len(query), dtype=np.int64)
    for i in np.flatnonzero(np.diff(begins)):
        mine = slice(begins[i], begins[i + 1])
        above = width - np.searchsorted(ordered[i], score[mine], side="right")
        equal = width - np.searchsorted(ordered[i], score[mine], side="left") - above
        counts[mine] = above
        for j in np.flatnonzero(equal) + begins[i]:
            counts[j] += np.count_nonzero(scores[i, : np.searchsorted(rows, row[j])] == score[j])
    return counts
