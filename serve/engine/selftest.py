"""What a version must show before it answers anybody: its files are what was sealed, and it finds its own photos.

Crops of the gallery are embedded again: each must come out as the vector that the index holds of it, and must be found
first. A model of another gallery, an index whose rows are mixed up and a network that this machine computes wrongly all
fail that, whatever their fingerprints say.
"""

from __future__ import annotations

import numpy as np

from retrieval.artifacts import manifest as sealed
from retrieval.artifacts.collection import CATALOG, DETECTOR
from retrieval.artifacts.index import small_files
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import Pair
from serve.engine.version import Version

QUERIES = 16
"""Photos of the gallery that are asked for again."""

SAME = 0.98
"""Least cosine of a crop's embedding to the one that the index holds. Other number formats come to 0.999."""

_TIE = 1e-3
_EXACT = ("Flat", "KDTree")
_NEAR, _LEAST_NEAR, _LEAST_FIRST = 10, 0.9, 0.5


class Unfit(ValueError):
    """A version that must not answer; the message says why, in a sentence for those who run the service."""


def check_files(pair: Pair, *, with_shards: bool = True) -> None:
    """Every file of the model and of the index, and the tables of the collection, are what was sealed.

    Photos of the collection are looked at when they are shown; here it is enough that they are there.

    Args: with_shards: whether the shards of the index are looked at here too.

    Raises: Unfit.
    """
    index = read_manifest(pair.index)
    names = index.all_files if with_shards else small_files(index)
    try:
        sealed.check_files(pair.model, read_manifest(pair.model).all_files)
        sealed.check_files(pair.index, {name: index.all_files[name] for name in names})
        sealed.check_files(pair.collection, read_manifest(pair.collection).all_files, (CATALOG, DETECTOR))
    except ValueError as error:
        raise Unfit(str(error)) from error


def check_answers(version: Version) -> None:
    """It finds its own photos. Takes as long as embedding `QUERIES` photos.

    Raises: Unfit.
    """
    gallery = version.gallery
    rows = gallery.some_sealed_rows(QUERIES).tolist()
    if not rows:  # all of it was deleted since
        return
    if version.embedder.dim != gallery.dim:
        raise Unfit(f"The model gives {version.embedder.dim} numbers a photo, and the index holds {gallery.dim}.")
    ids = [gallery.sealed.columns.ids[row].as_py() for row in rows]
    asked = version.embedder.embed_jpegs([gallery.jpeg_at(row) for row in rows])
    if not np.isfinite(asked).all():
        raise Unfit("The model gives numbers that are none (NaN) for photos of the gallery.")
    if gallery.vectors != "none":
        _check_vectors(ids, asked, gallery.vectors_of(ids))
    # Of the index alone: copies of a photo that were added since may all come before it.
    found = gallery.sealed.nearest(asked, _NEAR)
    hits = found.rows == np.array(rows)[:, None]
    near = hits.any(axis=1)
    first = (hits & (found.scores >= found.scores[:, :1] - _TIE)).any(axis=1)
    exact = gallery.factory in _EXACT
    if not (np.mean(first) >= (1.0 if exact else _LEAST_FIRST) and np.mean(near) >= (1.0 if exact else _LEAST_NEAR)):
        raise Unfit(
            f"It does not find its own photos: of {len(ids)} that were asked for, {sum(first)} came first and "
            f"{sum(near)} among the first {_NEAR} (index '{gallery.factory}')."
        )


def _check_vectors(ids: list[str], asked: np.ndarray, stored: np.ndarray) -> None:
    norms = np.maximum(np.linalg.norm(asked, axis=1) * np.linalg.norm(stored, axis=1), 1e-12)
    cosines = (asked * stored).sum(axis=1) / norms
    if not (cosines >= SAME).all():
        worst = int(cosines.argmin())
        raise Unfit(
            f"The model does not give the vectors that the index holds: of {ids[worst]!r} the cosine is "
            f"{cosines[worst]:.3f}, expected {SAME} or more ({int((cosines < SAME).sum())} of {len(ids)} are below)."
        )
