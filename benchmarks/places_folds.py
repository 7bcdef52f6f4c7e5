"""Real places in folds: who asks whom, pairs of photos verified once for all that is compared, figures and intervals.

Used by `real_places.py` and `compare_places.py`; not run by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ray_jobs.presets import RERANKED
from retrieval.evaluation.metrics import ranked_metrics
from retrieval.geometry.features import Features
from retrieval.geometry.matching.planes import verify_plane
from retrieval.search.expansion import expand_by_search
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours
from retrieval.search.rerank import rerank
from retrieval.search.settings import ExpansionConfig

SAME = {"entry_P10": "castle_P30"}  # two sets of one building
_DRAWS = 1000


def list_photos(root: Path) -> list[tuple[Path, str]]:
    """(path below root, place), the place empty for a distractor.

    Raises: ValueError if the folder is laid out otherwise.
    """
    found = []
    for kind in ("sfm", "pairs", "distractors"):
        files = sorted(path for path in (root / kind).rglob("*") if path.is_file() and path.suffix != ".txt")
        if not files:
            raise ValueError(f"{root / kind} holds no photo, expected sfm/PLACE/*, pairs/PLACE/*, distractors/*.")
        for path in files:
            place = "" if kind == "distractors" else SAME.get(path.parent.name, path.parent.name)
            found.append((path.relative_to(root), place))
    return found


def deal(photos: list[tuple[Path, str]], folds: int) -> dict[str, int]:
    """Place -> fold, those of sfm/ and of pairs/ dealt in turn; and distractor's path -> fold, by hash."""
    fold_of = {}
    for kind in ("sfm", "pairs"):
        places = {place for path, place in photos if path.parts[0] == kind}
        fold_of |= {place: at % folds for at, place in enumerate(sorted(places, key=_draw))}
    return fold_of | {str(path): int.from_bytes(_draw(str(path))[:4]) % folds for path, place in photos if not place}


def _draw(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Photos that search each other. rows: (N,) int64, their numbers in the list of all photos. labels: their places,
    None without one. hard: (N,) bool, of a hard pair. queries: (Q,) int64 among the N, those whose place has another.

    counted: points of two photos on one plane, by kind of features and (query, other), filled as it is asked for.
    """

    rows: np.ndarray
    labels: list[str | None]
    hard: np.ndarray
    queries: np.ndarray
    counted: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)

    @classmethod
    def of(cls, photos: Sequence[tuple[Path, str]], rows: np.ndarray) -> Fold:
        labels = [photos[row][1] or None for row in rows]
        return cls(
            rows=rows,
            labels=labels,
            hard=np.array([photos[row][0].parts[0] == "pairs" for row in rows]),
            queries=np.flatnonzero([label is not None and labels.count(label) > 1 for label in labels]),
        )

    def search(self, vectors: np.ndarray, num_expanded: int = 0) -> Neighbours:
        """All other photos of each query, (N, D) float32 vectors' nearest first, after expansion by so many of them."""
        search, asked = flat_search(vectors), vectors[self.queries]
        asked = expand_by_search(asked, vectors, search, ExpansionConfig(num=num_expanded), exclude=self.queries)
        found = search(asked, len(vectors))
        kept = found.rows != self.queries[:, None]
        shape = (len(self.queries), -1)
        return Neighbours(found.scores[kept].reshape(shape), found.rows[kept].reshape(shape))

    def in_order(self, found: Neighbours, kind: str, features: Sequence[Features], top: int = RERANKED) -> Neighbours:
        """The same with its first results in order of points on one plane. Args: features: of all photos there are."""
        known = self.counted.setdefault(kind, {})
        best = found.rows[:, :top]
        counts = np.zeros(best.shape, dtype=np.int64)
        for at, query in enumerate(self.queries.tolist()):
            for column, other in enumerate(best[at].tolist()):
                if (query, other) not in known:
                    first, second = (features[int(self.rows[one])] for one in (query, other))
                    known[query, other] = verify_plane(first, second).num_inliers
                counts[at, column] = known[query, other]
        return rerank(found, counts)

    def figures(self, found: Neighbours) -> Figures:
        """Of a ranking of all other photos."""
        asked = [self.labels[query] for query in self.queries]
        ranked = ranked_metrics(found.rows, asked, self.labels, exclude_rows=self.queries)
        places = np.array(asked, dtype=object)
        return Figures(ranked.average_precision, ranked.first_hit == 0, self.hard[self.queries], places)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of Q queries each: average precision, whether the first result is right, whether it is hard, its place."""

    precision: np.ndarray
    first: np.ndarray
    hard: np.ndarray
    places: np.ndarray

    @classmethod
    def pooled(cls, folds: Sequence[Figures]) -> Figures:
        parts = ([getattr(fold, name) for fold in folds] for name in cls.__slots__)
        return cls(*(np.concatenate(part) for part in parts))

    def means(self) -> dict[str, float]:
        """mAP, recall@1, and both of hard pairs apart."""
        of = {"mAP": self.precision, "recall@1": self.first}
        of |= {f"{name}/hard": values[self.hard] for name, values in of.items()}
        return {name: float(values.mean()) if len(values) else float("nan") for name, values in of.items()}

    def interval(self, less: Figures | None = None) -> tuple[float, float]:
        """The middle 95 % of mAP over places drawn anew, 1,000 times. Args: less: of another ranking of the same
        queries: then that of the difference, which is far narrower, since places differ more than rankings do."""
        return interval(self.precision - (0 if less is None else less.precision), self.places)


def interval(each: np.ndarray, places: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the mean of (Q,) values over places (Q,) drawn anew, 1,000 times."""
    of_place = [np.flatnonzero(places == place) for place in sorted(set(places))]
    rng = np.random.default_rng(0)
    drawn = [
        each[np.concatenate([of_place[place] for place in rng.integers(0, len(of_place), len(of_place))])].mean()
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
