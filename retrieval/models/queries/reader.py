"""A photo's bytes to its embedding, by the kernel that made the gallery: find, cut out, describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.images.faces import make_detector
from retrieval.images.preparation import Prepared, prepare
from retrieval.images.settings import PrepareConfig, stored_config
from retrieval.models.embedder import Embedder


def query_preparation(preparation: Mapping[str, Any], max_pixels: int | None = None) -> PrepareConfig:
    """The gallery's own preparation, with another limit on pixels if one is given.

    A gallery cut by its source's boxes (crop='box') is searched by the best face: a query photo brings no box.
    """
    config = stored_config(preparation)
    limit = config.max_pixels if max_pixels is None else max_pixels
    return dataclasses.replace(config, max_pixels=limit, crop="face" if config.crop == "box" else config.crop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """embedding: (D,) float32, unit norm. prepared: what of the photo it describes."""

    embedding: np.ndarray
    prepared: Prepared


class PhotoReader:
    """One a process or thread: a detector keeps state while it searches."""

    def __init__(self, embedder: Embedder, network: bytes | None = None) -> None:
        """Args: network: the face detector's file, sealed with the bundle or its collection.

        Raises: ValueError if the bundle does not say how photos are prepared for it, or needs a detector's file.
        """
        if not embedder.spec.preparation:
            raise ValueError("The bundle does not say how photos are prepared for it. Name one that was trained here.")
        self._embedder = embedder
        self._config = query_preparation(embedder.spec.preparation)
        self._detector = make_detector(self._config, network)

    def describe(self, photo: bytes) -> Described:
        """Raises: BadImage with the reason, where the photo cannot be read, or shows no face that is good enough."""
        prepared = prepare(photo, self._config, self._detector)
        return Described(embedding=self._embedder.embed_jpegs([prepared.jpeg])[0], prepared=prepared)
