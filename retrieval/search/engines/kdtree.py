"""A KD-tree of hyperplanes with best-first backtracking: exact by default, approximate under a visit budget.

How its nodes split is in `kdtree_nodes`. Leaves are visited best bound first; a leaf whose bound cannot reach the k-th
best so far ends the search.

Vectors are ranked by inner product q.x. With d the lower bound on |q - x| in a leaf, and M the largest norm in it,
q.x = (|q|^2 + |x|^2 - |q - x|^2) / 2 <= (|q|^2 + M^2 - d^2) / 2: valid for vectors of any length, tight for
L2-normalised ones, where nearest in L2 and largest inner product are the same.

In 128 dimensions an exact search visits most leaves of any KD-tree, so the work is arranged in matrix products: bounds
of all nodes for a block of queries, level by level, then leaf by leaf the products of all queries that need that leaf.
Node bounds only grow downwards, so taking leaves in order of bound is the order in which a priority queue pops them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from retrieval.artifacts.folder import Folder
from retrieval.search.blocks import Blocks
from retrieval.search.engines.engine import Kind, is_scanned
from retrieval.search.engines.kdtree_file import NODE_FIELDS, write_tree
from retrieval.search.engines.kdtree_nodes import Nodes, grow, norms_of
from retrieval.search.ranking import Neighbours, as_queries, inner_products, rounding_margin, scan, top_k
from retrieval.search.settings import IndexConfig

_BOUND_ELEMENTS = 1 << 22  # bounds held at once: queries in a block x nodes, 32 MiB

_MAX_BLOCK = 1024


class KDTree:
    """Immutable once built. Positions it returns are those of the vectors given to `build`."""

    def __init__(
        self,
        nodes: Nodes,
        axes: np.ndarray,
        scale: float,
        vectors: np.ndarray,
        order: np.ndarray,
        max_visits: int | None,
    ) -> None:
        self.nodes = nodes
        self.axes = axes  # (A, D) float64, orthonormal rows; W of a node is axes[axis] / scale
        self.scale = scale
        self.vectors = vectors  # (n, D) float32, leaf after leaf
        self.order = order  # (n,) int64: vectors[i] was number order[i] when built
        self.max_visits = max_visits
        self._leaves = np.flatnonzero(nodes.child < 0)
        norms = norms_of(vectors)
        self._radius = float(np.sqrt(np.mean(norms**2))) or 1.0
        self._max_norm = float(norms.max())
        self._place: np.ndarray | None = None

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    @property
    def num_leaves(self) -> int:
        return len(self._leaves)

    @classmethod
    def build(cls, vectors: np.ndarray, *, leaf_size: int = 64, max_visits: int | None = None) -> KDTree:
        """See `grow`.

        Args:
            vectors: (n, D) float32, n > 0, finite, of any length.
            max_visits: default visit budget of `search`.

        Deterministic: the same vectors give the same tree.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        nodes, axes, scale, order = grow(vectors, leaf_size)
        return cls(nodes, axes, scale, vectors[order], order, max_visits)

    def configure(self, config: IndexConfig) -> None:
        """Visit as many leaves as it says."""
        self.max_visits = config.max_visits

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, max_visits: int | None = None
    ) -> Neighbours:
        """The k largest inner products, equal ones in order of position.

        Args:
            queries: (Q, D) float32. k: 1 to n.
            allowed: (n,) bool by position, which may be found; None: all. Then no budget is kept that would leave a
                list short.
            max_visits: leaves visited per query, at most; None takes the tree's own, where None is until exact.

        Returns: Neighbours; a budget too small to reach k vectors leaves row -1 at the end.
        """
        if allowed is None:
            return self.search_counting(queries, k, max_visits)[0]
        num = int(np.count_nonzero(allowed))
        if not is_scanned(num, len(self.order)):
            found = self.search_counting(queries, k, max_visits, allowed[self.order])[0]
            if ((found.rows >= 0).sum(axis=1) == min(k, num)).all():
                return found
        local = np.flatnonzero(allowed)
        found = scan(queries, self.vectors_of(local), k)
        return Neighbours(found.scores, np.where(found.rows >= 0, local[found.rows], -1) if num else found.rows)

    def search_counting(
        self, queries: np.ndarray, k: int, max_visits: int | None = None, among: np.ndarray | None = None
    ) -> tuple[Neighbours, np.ndarray]:
        """`search`, and how many leaves each query visited: (Q,) int64.

        Args: among: (n,) bool, which may be found, in the order of `vectors`; None: all.
        """
        queries = as_queries(queries, self.dim)
        budget = max_visits or self.max_visits or self.num_leaves
        step = int(np.clip(_BOUND_ELEMENTS // len(self.nodes.child), 1, _MAX_BLOCK))
        blocks = [self._search(queries[i : i + step], k, budget, among) for i in range(0, len(queries), step)]
        found = Neighbours(
            np.concatenate([found.scores for found, _ in blocks] or [np.empty((0, k), np.float32)]),
            np.concatenate([found.rows for found, _ in blocks] or [np.empty((0, k), np.int64)]),
        )
        return found, np.concatenate([visits for _, visits in blocks] or [np.empty(0, np.int64)])

    def _search(
        self, queries: np.ndarray, k: int, budget: int, among: np.ndarray | None
    ) -> tuple[Neighbours, np.ndarray]:
        bounds = self.leaf_bounds(queries)
        order = np.argsort(-bounds, axis=1, kind="stable")  # best first; equal bounds by leaf
        bounds = np.take_along_axis(bounds, order, axis=1)
        margin = 2 * rounding_margin(queries, self._max_norm)
        pool = _Pool(len(queries), k, margin)
        visits = np.zeros(len(queries), dtype=np.int64)
        begin, width = 0, max(1, -(-2 * k * self.num_leaves // len(self.vectors)))
        while begin < min(budget, self.num_leaves):
            end = min(begin + width, budget, self.num_leaves)
            # A leaf that can at best equal the k-th score may still hold an equal one with a smaller row.
            query, place = np.nonzero(bounds[:, begin:end] >= (pool.kth - margin)[:, None])
            if not query.size:
                break
            np.add.at(visits, query, 1)
            self._visit(queries, query, order[query, begin + place], pool, among)
            # Few leaves first, for a k-th score that prunes; then more at once, for larger products.
            begin, width = end, 2 * width
        candidates = pool.candidates()
        scores = inner_products(queries, self.vectors, candidates)
        return top_k(scores, np.where(candidates >= 0, self.order[candidates], -1), k), visits

    def leaf_bounds(self, queries: np.ndarray) -> np.ndarray:
        """Upper bounds on the inner product of each query with every vector of each leaf: (Q, num_leaves) float64."""
        exact = queries.astype(np.float64)
        norms = np.linalg.norm(exact, axis=1, keepdims=True)
        # Scaling a query changes no order; at the vectors' own length, L2 bounds are tightest.
        shrink = np.where(norms > 0, self._radius / np.where(norms > 0, norms, 1.0), 1.0)
        exact = exact * shrink
        squared = self._squared_distances(exact @ self.axes.T)[:, self._leaves]
        lengths = np.square(exact).sum(axis=1, keepdims=True)
        return 0.5 * (lengths + np.square(self.nodes.max_norm[self._leaves]) - squared) / shrink

    def _squared_distances(self, projected: np.ndarray) -> np.ndarray:
        """Lower bounds on the squared distance of each query, given as (Q, A) along the axes, to each node: (Q, M)."""
        nodes = self.nodes
        squared = np.zeros((len(projected), len(nodes.child)))
        begin = 0
        for end in nodes.level_ends:
            inner = begin + np.flatnonzero(nodes.child[begin:end] >= 0)
            y = projected[:, nodes.axis[inner]]
            below, above = np.maximum(nodes.low[inner] - y, 0), np.maximum(y - nodes.high[inner], 0)
            # The node's own share of this axis is replaced by the narrower slab of the child.
            others = squared[:, inner] - np.square(below + above)
            to_left, to_right = np.maximum(y - nodes.left_high[inner], 0), np.maximum(nodes.right_low[inner] - y, 0)
            squared[:, nodes.child[inner]] = others + np.square(np.maximum(below, to_left))
            squared[:, nodes.child[inner] + 1] = others + np.square(np.maximum(above, to_right))
            begin = end
        return squared

    def _visit(
        self, queries: np.ndarray, query: np.ndarray, leaf: np.ndarray, pool: _Pool, among: np.ndarray | None
    ) -> None:
        """Score every (query, leaf) pair, all queries of a leaf in one product."""
        by_leaf = np.argsort(leaf, kind="stable")
        query, leaf = query[by_leaf], leaf[by_leaf]
        cuts = np.flatnonzero(np.diff(leaf)) + 1
        for some, first in zip(np.split(query, cuts), leaf[np.concatenate([[0], cuts])], strict=True):
            node = self._leaves[first]
            start, end = int(self.nodes.start[node]), int(self.nodes.end[node])
            inside = None if among is None else among[start:end]
            pool.offer(some, start, queries[some] @ self.vectors[start:end].T, inside)
        pool.settle()

    def vectors_of(self, local: np.ndarray) -> np.ndarray:
        """(n, D) float32: the vectors at these positions of those given to `build`."""
        if not len(local):
            return np.empty((0, self.dim), dtype=np.float32)
        if self._place is None:
            self._place = np.argsort(self.order)  # 8 bytes a vector, for those who ask
        return self.vectors[self._place[local]]

    def to_bytes(self, **extra: np.ndarray) -> bytes:
        """The tree as safetensors, with any more named arrays beside it."""
        file = io.BytesIO()
        write_tree(file, self.nodes, self.axes, self.scale, self.order, self.max_visits, extra, self.vectors)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[KDTree, dict[str, np.ndarray]]:
        """What `to_bytes` made: the tree, and the extra arrays.

        Raises: ValueError if it is not a whole tree.
        """
        try:
            arrays = load(data)
            nodes = Nodes(**{name: arrays[f"node.{name}"] for name in NODE_FIELDS})
            scale, visits = float(arrays["scale"][0]), int(arrays["max_visits"][0]) or None
            tree = cls(nodes, arrays["axes"], scale, arrays["vectors"], arrays["order"], visits)
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"Not the bytes of a whole KD-tree: {error}.") from error
        extra = {name.removeprefix("extra."): value for name, value in arrays.items() if name.startswith("extra.")}
        return tree, extra


class _Pool:
    """The vectors that may still be among the k best of each query of a block, as flat (query, position, score)."""

    def __init__(self, num_queries: int, k: int, margin: np.ndarray) -> None:
        self.kth = np.full(num_queries, -np.inf)  # k-th best float32 score so far
        self._k = k
        self._margin = margin
        self._query, self._row = np.empty(0, np.int64), np.empty(0, np.int64)
        self._score = np.empty(0, np.float32)
        self._offers: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def offer(self, query: np.ndarray, start: int, scores: np.ndarray, among: np.ndarray | None = None) -> None:
        """`scores`: (len(query), leaf) float32 of the vectors from `start` on. among: (leaf,) bool, which count."""
        enough = scores >= (self.kth - self._margin)[query, None]
        i, j = np.nonzero(enough if among is None else enough & among)
        self._offers.append((query[i], start + j, scores[i, j]))

    def settle(self) -> None:
        """Take the offers in, raise `kth`, and drop what is now surely too small."""
        query, row, score = (np.concatenate(column) for column in zip(*self._offers, strict=True))
        self._offers = []
        query, row = np.concatenate([self._query, query]), np.concatenate([self._row, row])
        score = np.concatenate([self._score, score])
        order = np.lexsort((-score, query))
        query, row, score = query[order], row[order], score[order]
        first = np.searchsorted(query, np.arange(len(self.kth) + 1))
        full = np.flatnonzero(np.diff(first) >= self._k)
        self.kth[full] = score[first[full] + self._k - 1]
        keep = score >= (self.kth - self._margin)[query]
        self._query, self._row, self._score = query[keep], row[keep], score[keep]

    def candidates(self) -> np.ndarray:
        """(Q, C) int64 positions, -1 where a query has fewer than C."""
        counts = np.bincount(self._query, minlength=len(self.kth))
        out = np.full((len(self.kth), max(1, counts.max(initial=0))), -1, dtype=np.int64)
        out[self._query, np.arange(len(self._query)) - np.repeat(np.cumsum(counts) - counts, counts)] = self._row
        return out


def _build(config: IndexConfig, _trained: bytes, blocks: Blocks) -> Callable[[Any], None]:
    vectors = blocks.fill(np.empty((len(blocks), blocks.dim), dtype=np.float32))
    nodes, axes, scale, order = grow(vectors, config.leaf_size)
    extra = {"rows": blocks.rows}
    return lambda file: write_tree(file, nodes, axes, scale, order, config.max_visits, extra, vectors, order)


def _load(folder: Folder, name: str, _num_threads: int, _mmap: bool) -> tuple[KDTree, np.ndarray]:
    tree, extra = KDTree.from_bytes(folder.read_bytes(name))
    return tree, extra["rows"]


KIND = Kind(factory="KDTree", suffix=".kdtree", build=_build, load=_load)
