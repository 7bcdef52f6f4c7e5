"""Which photos siamese training uses: positives, hard negatives anew every epoch, those that are validated.

Radenovic et al., arXiv:1711.02512, sec. 4.2 and 4.3. Rows are those of a `TupleSet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.artifacts.hashing import draw_key
from retrieval.artifacts.tuples import TupleSet
from retrieval.training.settings import Negatives, Positives

_BLOCK = 256  # queries compared at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """What an epoch works with, as rows of a TupleSet.

    queries: (q,) int64 positions in TupleSet.queries, in training order. pool: (n,) int64 rows, where negatives are
    looked for.
    """

    queries: np.ndarray
    pool: np.ndarray


def draw_epoch(
    with_positive: np.ndarray, usable: np.ndarray, *, num_queries: int, pool_size: int, seed: int, epoch: int
) -> Draw:
    """The epoch's queries and pool: a function of the seed and the epoch, so that a resumed run draws alike.

    Args:
        with_positive: (Q,) int64 positions of the training queries that have a positive.
        usable: (N,) int64 rows of the training images.
        num_queries, pool_size: how many; all, where there are fewer.
    """
    rng = np.random.default_rng([seed, epoch, 0x7A])
    queries = rng.permutation(with_positive)[:num_queries]
    pool = np.sort(rng.permutation(usable)[:pool_size])
    return Draw(queries=queries, pool=pool)


def mine_negatives(
    queries: Tensor,
    query_clusters: np.ndarray,
    pool: Tensor,
    pool_clusters: np.ndarray,
    *,
    num: int,
    strategy: Negatives = "N2",
) -> np.ndarray:
    """The `num` most similar pool images of each query that do not match it.

    N1: the nearest of other clusters than the query's. N2: of these, the nearest of each cluster only, so that they
    show different places; near copies of one hard negative teach little.

    Args: queries: (q, D) float. pool: (n, D) float. query_clusters, pool_clusters: (q,) and (n,) int64.
    Returns: (q, num) int64 rows of the pool, most similar first; ties by row.
    Raises: ValueError if the pool has too few clusters, or images of other clusters.
    """
    _check(query_clusters, pool_clusters, num, strategy)
    found = np.empty((len(queries), num), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ pool.T
        left, depth = np.arange(len(scores)), min(len(pool), 8 * num)
        while len(left):
            ranked, sure = _ranked(scores[left], depth)
            missed = []
            for at, row in enumerate(left):
                mine = _accepted(ranked[at, : sure[at]], int(query_clusters[start + row]), pool_clusters, num, strategy)
                if len(mine) == num:
                    found[start + row] = mine
                else:
                    missed.append(row)
            left, depth = np.array(missed, dtype=np.int64), min(len(pool), 4 * depth)
    return found


def _ranked(scores: Tensor, depth: int) -> tuple[np.ndarray, list[int]]:
    """The `depth` best of each row of (q, n), best first, ties by row; and how many of them hold, whatever the depth.

    A stable order makes ties, as two copies of a photo give, fall the same way everywhere. Those with the last of them
    may have been cut off anywhere, and do not hold.
    """
    best = scores.topk(depth, dim=1)
    order = torch.sort(best.indices, dim=1)
    again = torch.sort(best.values.gather(1, order.indices), dim=1, descending=True, stable=True)
    sure = again.values > again.values[:, -1:] if depth < scores.shape[1] else torch.ones_like(again.values)
    return order.values.gather(1, again.indices).cpu().numpy(), sure.sum(dim=1).int().tolist()


def _accepted(ranked: np.ndarray, cluster: int, pool_clusters: np.ndarray, num: int, strategy: Negatives) -> list[int]:
    seen, kept = {cluster}, []
    for row in ranked:
        theirs = int(pool_clusters[row])
        if theirs not in seen:
            kept.append(int(row))
            if strategy == "N2":
                seen.add(theirs)
            if len(kept) == num:
                break
    return kept


def _check(query_clusters: np.ndarray, pool_clusters: np.ndarray, num: int, strategy: Negatives) -> None:
    if strategy not in ("N1", "N2"):
        raise ValueError(f"Unknown negatives '{strategy}'. Choose N1 or N2.")
    names, counts = np.unique(pool_clusters, return_counts=True)
    for cluster in np.unique(query_clusters):
        others = names != cluster
        available = int(others.sum() if strategy == "N2" else counts[others].sum())
        if available < num:
            what = "clusters" if strategy == "N2" else "images of clusters"
            raise ValueError(
                f"The pool has {available} {what} other than the query's, expected at least {num}, one a negative. Add "
                f"photos of other things (they need no label), enlarge --siamese.pool-size, lower "
                f"--siamese.num-negatives, or use --siamese.negatives N1, which takes several of one cluster."
            )


def beyond_margin(queries: Tensor, pool: Tensor, negatives: np.ndarray, margin: float) -> np.ndarray:
    """(T, K) bool, which negatives are at least `margin` away from their query: contrastive loss is zero there.

    Args: queries: (T, D) float. pool: (n, D) float. negatives: (T, K) int64 rows of the pool.
    """
    beyond = np.zeros(negatives.shape, dtype=bool)
    for at in range(0, len(negatives), _BLOCK):
        some = slice(at, at + _BLOCK)
        apart = torch.linalg.vector_norm(queries[some, None] - pool[torch.from_numpy(negatives[some])], dim=-1)
        beyond[some] = (apart >= margin).cpu().numpy()
    return beyond


def validated_rows(known: TupleSet, pool: np.ndarray, *, num_distractors: int, seed: int) -> np.ndarray:
    """Rows ranked when validating: val's images that a tuple knows, and drawn ones of `pool`, which match none of them.

    Returns: (n,) int64, sorted; empty without a query of val.
    """
    of_val = [at for at, query in enumerate(known.queries) if known.splits[query] == "val"]
    if not of_val:
        return np.empty(0, dtype=np.int64)
    own = np.unique(np.concatenate([known.queries[of_val], *(known.candidates[at] for at in of_val)]))
    return np.union1d(own, np.random.default_rng([seed, 0x7B]).permutation(pool)[:num_distractors])


def rows_among(known: TupleSet, image_ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """(N,) int64, where each image of the tuples lies among a collection's `image_ids`.

    Raises: ValueError if one is missing.
    """
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    missing = [image_id for image_id in known.image_ids if image_id not in row_of]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(known.image_ids)} photos of the tuples are not in the collection's train and "
            f"val splits, for example {missing[0]}. Reconstruct this collection again."
        )
    return np.array([row_of[image_id] for image_id in known.image_ids], dtype=np.int64)


def choose_positives(
    tuples: TupleSet,
    method: Positives,
    *,
    descriptors: np.ndarray | None = None,
    min_shared: float = 0.2,
    max_scale_change: float = 1.5,
    seed: int = 0,
) -> np.ndarray:
    """Each query's positive, for the whole run   (Radenovic et al., arXiv:1711.02512, sec. 4.2).

    m1: the candidate nearest by descriptor. m2: the one with most shared points. m3: drawn among those that share
    enough points at a bounded change of scale, so that hard but truly matching views come up too.

    Args:
        descriptors: (N, D) float, of all images; m1 only.
        min_shared: m3: shared points, as a part of the most that this query shares with any candidate.
        max_scale_change: m3: candidates in which the place is more times larger or smaller are left out.
        seed: m3: draws; a query's draw does not depend on the others.

    Returns: (Q,) int64 rows; -1 where no candidate fits.
    """
    if method == "m1" and (descriptors is None or len(descriptors) != len(tuples.image_ids)):
        raise ValueError("Positives by m1 need a descriptor of every image, of shape (N, D).")
    chosen = np.full(len(tuples.queries), -1, dtype=np.int64)
    for at, query in enumerate(tuples.queries):
        candidates = tuples.candidates[at]
        if not len(candidates):
            continue
        if method == "m1" and descriptors is not None:
            chosen[at] = candidates[int(np.argmax(descriptors[candidates] @ descriptors[query]))]
        elif method == "m2":
            chosen[at] = candidates[int(np.argmax(tuples.shared_points[at]))]
        else:
            shared = tuples.shared_points[at]
            fits = candidates[(shared >= min_shared * shared.max()) & (tuples.scale_change[at] <= max_scale_change)]
            if len(fits):
                name = tuples.image_ids[query]
                chosen[at] = min(fits, key=lambda row: draw_key(seed, "m3", name, tuples.image_ids[row]))
    return chosen
