"""How good a grouping is that nobody labelled, once labels are looked at: BCubed and pairwise precision and recall.

Everything follows from how many photos of each label lie in each group, so a grouping is counted block by block and
nothing of size N x N is held; memory grows with the number of (group, label) pairs that occur.

BCubed: Bagga and Baldwin, "Algorithms for Scoring Coreference Chains" (LREC 1998); why it is to be preferred: Amigo et
al., "A comparison of extrinsic clustering evaluation metrics based on formal constraints" (Information Retrieval 12,
2009, doi:10.1007/s10791-008-9066-8). Pairwise: Manning et al., "Introduction to Information Retrieval" (2008), 16.3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass


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


class ClusteringTally:
    """Counts of a grouping, taken block by block."""

    def __init__(self) -> None:
        self._cells: Counter[tuple[Hashable, Hashable]] = Counter()
        self._alone: Counter[Hashable] = Counter()
        self._unlabelled = 0

    def add(self, groups: Iterable[Hashable | None], labels: Iterable[Hashable | None]) -> None:
        """Count some photos: the group of each, None: it is alone; and what it shows, None: nobody knows.

        Raises: ValueError if there are not as many of one as of the other.
        """
        for group, label in zip(groups, labels, strict=True):
            if label is None:
                self._unlabelled += 1
            elif group is None:
                self._alone[label] += 1
            else:
                self._cells[group, label] += 1

    def metrics(self) -> ClusteringMetrics:
        """The figures of what was counted so far."""
        of_group, of_label = Counter[Hashable](), Counter(self._alone)
        for (group, label), count in self._cells.items():
            of_group[group] += count
            of_label[label] += count
        num, alone = of_label.total(), self._alone.total()
        # fsum rounds once, so that the order in which photos were counted is not seen.
        precise = math.fsum(count**2 / of_group[group] for (group, _), count in self._cells.items())
        recalled = math.fsum(
            [
                *(count / of_label[label] for label, count in self._alone.items()),
                *(count**2 / of_label[label] for (_, label), count in self._cells.items()),
            ]
        )
        common = _pairs(self._cells)
        return ClusteringMetrics(
            bcubed_precision=_share(alone + precise, num),
            bcubed_recall=_share(recalled, num),
            pair_precision=_share(common, _pairs(of_group)),
            pair_recall=_share(common, _pairs(of_label)),
            num=num,
            num_groups=sum(size > 1 for size in of_group.values()),
            num_labels=len(of_label),
            num_unlabelled=self._unlabelled,
        )


def clustering_metrics(groups: Iterable[Hashable | None], labels: Iterable[Hashable | None]) -> ClusteringMetrics:
    """BCubed and pairwise figures of a whole grouping at once; arguments as `ClusteringTally.add`.

    Example: two of Ann's three photos are together with Bob's, her third is alone.
        >>> found = clustering_metrics([1, 1, None, 1], ["ann", "ann", "ann", "bob"])
        >>> round(found.bcubed_precision, 4), round(found.bcubed_recall, 4)
        (0.6667, 0.6667)
        >>> round(found.pair_precision, 4), round(found.pair_recall, 4), round(found.pair_f, 4)
        (0.3333, 0.3333, 0.3333)
    """
    tally = ClusteringTally()
    tally.add(groups, labels)
    return tally.metrics()


def _pairs(counts: Counter) -> int:
    return sum(count * (count - 1) // 2 for count in counts.values())


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 1.0


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0
