"""How good a grouping is that nobody labelled, once labels are looked at: BCubed and pairwise precision and recall.

Everything follows from how many photos of each label lie in each group: nothing of size N x N is held, but a few
numbers a photo.

BCubed: Bagga and Baldwin, "Algorithms for Scoring Coreference Chains" (LREC 1998); why it is to be preferred: Amigo et
al., "A comparison of extrinsic clustering evaluation metrics based on formal constraints" (Information Retrieval 12,
2009, doi:10.1007/s10791-008-9066-8). Pairwise: Manning et al., "Introduction to Information Retrieval" (2008), 16.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusteringMetrics:
    """Figures of a grouping, each 0 to 1; of nothing, 1.

    bcubed_precision: of a photo's group, the share that shows the same as the photo, itself included; mean over photos.
    bcubed_recall: of all photos that show the same, the share that lies in the photo's group; mean over photos.
    pair_precision, pair_recall: of all pairs in one group, those of one label; of all pairs of one label, those in one
    group. Large groups weigh more here: a group of n has n (n - 1) / 2 pairs.
    num, num_groups, num_labels: photos counted, groups of two or more among them, labels.
    num_unlabelled: photos left out, since nobody knows whom they show.
    """

    bcubed_precision: float
    bcubed_recall: float
    pair_precision: float
    pair_recall: float
    num: int
    num_groups: int
    num_labels: int
    num_unlabelled: int = 0

    @property
    def bcubed_f(self) -> float:
        """Harmonic mean of BCubed precision and recall."""
        return _harmonic(self.bcubed_precision, self.bcubed_recall)

    @property
    def pair_f(self) -> float:
        """Harmonic mean of pairwise precision and recall."""
        return _harmonic(self.pair_precision, self.pair_recall)


def clustering_metrics(
    groups: Iterable[Any] | pa.ChunkedArray, labels: Iterable[Any] | pa.ChunkedArray
) -> ClusteringMetrics:
    """BCubed and pairwise figures of a grouping.

    Args: groups: (N,) the group of each photo, None: it is alone. labels: (N,) what it shows, None: nobody knows.

    Raises: ValueError if there are not as many of one as of the other.

    Example: two of Ann's three photos are together with Bob's, her third is alone.
        >>> found = clustering_metrics([1, 1, None, 1], ["ann", "ann", "ann", "bob"])
        >>> round(found.bcubed_precision, 4), round(found.bcubed_recall, 4)
        (0.6667, 0.6667)
        >>> round(found.pair_precision, 4), round(found.pair_recall, 4), round(found.pair_f, 4)
        (0.3333, 0.3333, 0.3333)
    """
    group, label = _codes(groups), _codes(labels)
    if len(group) != len(label):
        raise ValueError(
            f"There are {len(group)} groups and {len(label)} labels, expected one of each for every photo."
        )
    known, together = label >= 0, (group >= 0) & (label >= 0)
    of_label, of_group = np.bincount(label[known]), np.bincount(group[together])
    keys, cells = np.unique(group[together].astype(np.int64) * len(of_label) + label[together], return_counts=True)
    in_group, in_label = of_group[keys // max(len(of_label), 1)], of_label[keys % max(len(of_label), 1)]
    alone = of_label[label[known & (group < 0)]]
    num = int(known.sum())
    return ClusteringMetrics(
        bcubed_precision=_share(len(alone) + _shares(cells, in_group), num),
        bcubed_recall=_share(_shares(np.ones_like(alone), alone) + _shares(cells, in_label), num),
        pair_precision=_share(_pairs(cells), _pairs(of_group)),
        pair_recall=_share(_pairs(cells), _pairs(of_label)),
        num=num,
        num_groups=int((of_group > 1).sum()),
        num_labels=int((of_label > 0).sum()),
        num_unlabelled=len(label) - num,
    )


def _codes(values: Iterable[Any] | pa.ChunkedArray) -> np.ndarray:
    """(N,) int64: equal for equal values, -1 for None."""
    found = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values)])
    chunks = found.dictionary_encode().chunks  # which have one dictionary
    codes = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate([np.empty(0, np.int64), *codes]).astype(np.int64)


def _shares(counts: np.ndarray, of: np.ndarray) -> float:
    """The sum of count^2 / of. Rounded in an order that does not know that of the photos."""
    pairs, times = np.unique(np.stack([counts, of], axis=1), axis=0, return_counts=True)
    return math.fsum(n * c * c / o for (c, o), n in zip(pairs.tolist(), times.tolist(), strict=True))


def _pairs(counts: np.ndarray) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 1.0


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0
