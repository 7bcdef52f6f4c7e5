"""Models of the parts of one group, joined by the photos that parts share.

Where two models made points of the same features of the same photos, those points say how one model lies in the other:
a rotation, a scale and a shift (Umeyama, TPAMI 1991), found by drawing threes of them. Models are joined if most of
their common points agree; then each such point is one, and photos of either part that see it share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from retrieval.geometry.sparse_model import SparseModel

_MAX_ERROR = 8.0  # pixels that a common point may be off, as it is seen from where it was
_LEAST = 15  # common points that agree, and at least this part of all:
_MOST = 0.5
_DRAWS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarity:
    """x -> scale * rotation @ x + shift, in the units of the model that it leads to."""

    scale: float
    rotation: np.ndarray
    shift: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return self.scale * points @ self.rotation.T + self.shift

    def after(self, first: Similarity) -> Similarity:
        """This one of what `first` gives."""
        shift = self(first.shift[None])[0]
        return Similarity(scale=self.scale * first.scale, rotation=self.rotation @ first.rotation, shift=shift)

    def back(self) -> Similarity:
        turned = self.rotation.T
        return Similarity(scale=1 / self.scale, rotation=turned, shift=-(turned @ self.shift) / self.scale)


SAME = Similarity(scale=1.0, rotation=np.eye(3), shift=np.zeros(3))


def join(models: Sequence[SparseModel]) -> list[SparseModel]:
    """The models, those that agree made one; a photo may still be in several of the others.

    Args: models: with `obs_feature`, the largest first.
    """
    common = _common_points(models)
    to_root, root = dict.fromkeys(range(len(models)), SAME), list(range(len(models)))
    for one, two in sorted(common, key=lambda pair: (-len(common[pair]), pair)):
        if root[one] == root[two] or (over := _fit(models[two], models[one], common[one, two][:, ::-1])) is None:
            continue
        # What leads from the tree of `two` to that of `one`: back to `two`, over to `one`, on to its root.
        over = to_root[one].after(over).after(to_root[two].back())
        moved = root[two]
        for at in range(len(models)):
            if root[at] == moved:
                to_root[at], root[at] = over.after(to_root[at]), root[one]
    trees = [[at for at in range(len(models)) if root[at] == tree] for tree in sorted(set(root))]
    agreed = [np.empty((0, 4), np.int64)]
    for (one, two), pairs in common.items():
        if root[one] == root[two]:
            x, y = models[two].points[pairs[:, 1]], models[one].points[pairs[:, 0]]
            fits = _fitting(to_root[one].back().after(to_root[two]), x, y, _pixels(models[one])[pairs[:, 0]])
            of = np.full(fits.sum(), one), pairs[fits, 0], np.full(fits.sum(), two), pairs[fits, 1]
            agreed.append(np.column_stack(of))
    same = np.concatenate(agreed)
    return [models[tree[0]] if len(tree) == 1 else _merged(models, tree, to_root, same) for tree in trees]


def _common_points(models: Sequence[SparseModel]) -> dict[tuple[int, int], np.ndarray]:
    """Two models, the first before the second -> (n, 2) int64: points of both that are of one feature of one photo."""
    number = {name: at for at, name in enumerate(sorted({name for model in models for name in model.image_ids}))}
    rows = []
    for at, model in enumerate(models):
        image = np.array([number[name] for name in model.image_ids], np.int64)[model.obs_image]
        rows.append(np.column_stack([image, _features(model), np.full(len(image), at), model.obs_point]))
    seen = np.concatenate(rows) if rows else np.empty((0, 4), np.int64)
    seen = seen[np.lexsort(seen.T[::-1])]
    found, step = [np.empty((0, 4), np.int64)], 1
    # A feature is seen in as many models as its photo: each is compared with the next, the one after it, ...
    while len(alike := np.flatnonzero((seen[:-step, :2] == seen[step:, :2]).all(axis=1))):
        found.append(np.column_stack([seen[alike, 2], seen[alike + step, 2], seen[alike, 3], seen[alike + step, 3]]))
        step += 1
    both = np.unique(np.concatenate(found), axis=0)
    both = both[both[:, 0] != both[:, 1]]
    begins = np.flatnonzero(np.diff(both[:, :2], axis=0, prepend=-1).any(axis=1))
    return {(int(own[0, 0]), int(own[0, 1])): own[:, 2:] for own in np.split(both, begins)[1:]}


def _features(model: SparseModel) -> np.ndarray:
    assert model.obs_feature is not None, "models are joined by their features"
    return model.obs_feature


def _fit(source: SparseModel, target: SparseModel, pairs: np.ndarray) -> Similarity | None:
    """What leads from one model to another by (n, 2) pairs of points; None if too few of them agree."""
    if len(pairs) < _LEAST:
        return None
    x, y, pixels = source.points[pairs[:, 0]], target.points[pairs[:, 1]], _pixels(target)[pairs[:, 1]]
    rng, best = np.random.default_rng(0), np.zeros(len(pairs), bool)
    for _ in range(_DRAWS):
        drawn = rng.choice(len(pairs), 3, replace=False)
        fits = _fitting(_umeyama(x[drawn], y[drawn]), x, y, pixels)
        if fits.sum() > best.sum():
            best = fits
    similarity = SAME
    for _ in range(3):
        if best.sum() < max(_LEAST, _MOST * len(pairs)):
            return None
        similarity = _umeyama(x[best], y[best])
        best = _fitting(similarity, x, y, pixels)
    return similarity


def _fitting(similarity: Similarity, x: np.ndarray, y: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(n,) bool: which points it brings to theirs. Args: pixels: that a unit of length takes at each of `y`."""
    return np.linalg.norm(similarity(x) - y, axis=1) * pixels <= _MAX_ERROR


def _pixels(model: SparseModel) -> np.ndarray:
    """(P,) float64: pixels that a unit of length at each point takes, where it is seen largest."""
    most = np.zeros(len(model.points))
    good = np.isfinite(model.obs_scale)
    np.maximum.at(most, model.obs_point[good], model.obs_scale[good])
    return most


def _umeyama(x: np.ndarray, y: np.ndarray) -> Similarity:
    """The similarity that brings (n, 3) points closest to others, in the sum of squares."""
    of_x, of_y = x.mean(axis=0), y.mean(axis=0)
    u, spread, vt = np.linalg.svd((y - of_y).T @ (x - of_x) / len(x))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = float((spread * sign).sum() / max(((x - of_x) ** 2).sum() / len(x), 1e-30))
    return Similarity(scale=max(scale, 1e-12), rotation=rotation, shift=of_y - scale * rotation @ of_x)


def _merged(
    models: Sequence[SparseModel], tree: Sequence[int], to_root: dict[int, Similarity], agreed: np.ndarray
) -> SparseModel:
    """One model of several, in the frame of their root; of what two have, that of the first is kept."""
    starts = np.cumsum([0] + [len(models[at].points) for at in tree])
    start = {at: starts[number] for number, at in enumerate(tree)}
    own = agreed[np.isin(agreed[:, 0], tree)]
    one, two = (np.array([start[at] for at in own[:, c].tolist()], np.int64) + own[:, c + 1] for c in (0, 2))
    edges = sparse.coo_array((np.ones(len(one), bool), (one, two)), shape=(starts[-1], starts[-1]))
    label = csgraph.connected_components(edges, directed=False)[1]
    first, point = np.unique(label, return_index=True, return_inverse=True)[1:]
    names = sorted({name for at in tree for name in models[at].image_ids})
    row = {name: number for number, name in enumerate(names)}
    centres, directions = np.zeros((2, len(names), 3))
    for at in reversed(tree):
        rows = [row[name] for name in models[at].image_ids]
        centres[rows] = to_root[at](models[at].centres)
        directions[rows] = models[at].directions @ to_root[at].rotation.T
    return SparseModel(
        image_ids=names,
        centres=centres,
        directions=directions,
        points=np.concatenate([to_root[at](models[at].points) for at in tree])[first],
        colours=np.concatenate([models[at].colours for at in tree])[first],
        obs_image=np.concatenate(
            [np.array([row[n] for n in models[at].image_ids], np.int64)[models[at].obs_image] for at in tree]
        ),
        obs_point=np.concatenate([point[start[at] + models[at].obs_point] for at in tree]),
        obs_scale=np.concatenate([models[at].obs_scale / to_root[at].scale for at in tree]),
        obs_feature=np.concatenate([_features(models[at]) for at in tree]),
    )
