"""What the parts of the service tell each other."""

from dataclasses import dataclass

import numpy as np

from retrieval.images.settings import Box
from retrieval.search.settings import ExpansionConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """What Embedder found in a photo. `embedding` is (D,) float32, L2-normalised, of the model named by `model`."""

    embedding: np.ndarray
    model: str
    width: int
    height: int
    box: Box
    crop: bytes
    prepare_seconds: float
    embed_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """A query that cannot be answered: a value, not an exception, so that no log calls it a failure of ours."""

    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The neighbours of one query, best first, in the index named by `index`.

    `expansion` says how the query was expanded before, its num being the neighbours that there were; None: it was not.
    """

    rows: list[int]
    scores: list[float]
    image_ids: list[str]
    labels: list[str | None]
    index: str
    seconds: float
    expansion: ExpansionConfig | None
