"""How right groups are by several rules, on labelled photos with the labels hidden: BCubed and pairwise figures.

    python benchmarks/compare_groups.py --embeddings W/embeddings/... --collection W/collection/...

Ours (average linkage over the links of the index) beside what others keep well: SciPy's connected components of the
same links, SciPy's average linkage over all pairs, scikit-learn's DBSCAN and HDBSCAN. Each at several settings, since
one rule's best threshold is not another's. The others hold all pairs at once: about 4 N^2 bytes and more.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy reads them

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN, HDBSCAN

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder
from retrieval.evaluation.clustering import clustering_metrics
from retrieval.grouping.merging import merge
from retrieval.search.index import flat_search


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to group."""

    embeddings: str
    """Folder of sealed embeddings of labelled photos."""
    collection: str
    """The collection they were made from."""
    neighbours: int = 50
    """Links of each photo, at most."""
    thresholds: tuple[float, ...] = (0.36, 0.38, 0.4, 0.42, 0.44, 0.48, 0.52, 0.56)
    """Cosines to try, by all rules that have one."""
    min_samples: tuple[int, ...] = (1, 2, 3)
    """For DBSCAN and HDBSCAN: photos nearby that make a photo a core one."""


def main(cfg: Config) -> list[tuple[str, str, float, float, float, float]]:
    """Run, print the table, return its rows."""
    catalog = read_catalog(Folder.of(cfg.collection))
    places = catalog["part"].to_numpy(), catalog["row"].to_numpy()
    vectors, labels = read_rows(Folder.of(cfg.embeddings), catalog["image_id"], *places), catalog["label"].to_pylist()
    print(f"{len(vectors)} photos of {len(set(labels))} people, one thread")
    print(f"{'rule':38}{'setting':24}{'B3 prec.':>9}{'recall':>9}{'B3 F':>9}{'pairs F':>9}{'seconds':>9}")
    rows = []
    for name, setting, work in rules(cfg, vectors):
        started = time.perf_counter()
        groups = work()
        seconds = time.perf_counter() - started
        found = clustering_metrics([None if group < 0 else group for group in groups.tolist()], labels)
        row = (found.bcubed_precision, found.bcubed_recall, found.bcubed_f, found.pair_f)
        rows.append((name, setting, *row))
        print(f"{name:38}{setting:24}" + "".join(f"{value:9.4f}" for value in row) + f"{seconds:9.2f}", flush=True)
    return rows


def rules(cfg: Config, vectors: np.ndarray) -> list[tuple[str, str, Callable[[], np.ndarray]]]:
    """Name, setting, and what gives (N,) int groups, -1 for nobody's."""
    low, high, scores = links(vectors, cfg.neighbours)
    distances = 1 - np.clip(vectors.astype(np.float64) @ vectors.T.astype(np.float64), -1, 1)
    np.fill_diagonal(distances, 0)
    tree = linkage(distances[np.triu_indices(len(vectors), 1)], "average")
    found: list[tuple[str, str, Callable[[], np.ndarray]]] = []
    for cut in cfg.thresholds:
        near, of = scores >= cut, f"cosine {cut}"
        found.append(
            ("average linkage over links (ours)", of, lambda n=near, c=cut: merge(vectors.copy(), low[n], high[n], c))
        )
        found.append(("average linkage, all pairs (SciPy)", of, lambda c=cut: fcluster(tree, 1 - c, "distance")))
        found.append(("connected components (SciPy)", of, lambda n=near: components(len(vectors), low[n], high[n])))
        for least in cfg.min_samples[1:]:
            rule = DBSCAN(eps=1 - cut, min_samples=least, metric="precomputed")
            found.append(("DBSCAN (scikit-learn)", f"{of}, {least} samples", lambda r=rule: r.fit_predict(distances)))
    for method in ("eom", "leaf"):
        for least in cfg.min_samples:
            rule = HDBSCAN(
                min_cluster_size=2,
                min_samples=least,
                metric="precomputed",
                cluster_selection_method=method,
                copy=True,  # type: ignore[arg-type]
            )
            setting = f"{method}, {least} samples"
            found.append(("HDBSCAN (scikit-learn)", setting, lambda r=rule: r.fit_predict(distances)))
    return sorted(found, key=lambda rule: rule[0])


def links(vectors: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(E,) low, high and cosine: each photo with its nearest, each pair once."""
    found = flat_search(vectors)(vectors, neighbours + 1)
    row = np.repeat(np.arange(len(vectors)), neighbours + 1)
    other, scores = found.rows.ravel(), found.scores.ravel()
    keys, first = np.unique(np.minimum(row, other) * len(vectors) + np.maximum(row, other), return_index=True)
    low, high = keys // len(vectors), keys % len(vectors)
    return low[low != high], high[low != high], scores[first][low != high]


def components(num: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whoever can be reached by links is one person."""
    return connected_components(coo_array((np.ones(len(low)), (low, high)), shape=(num, num)), directed=False)[1]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
