"""What searches one shard, by local position: the protocol that every kind of index keeps."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from retrieval.search.ranking import Neighbours

KD_TREE = "KDTree"


class Engine(Protocol):
    """What searches one shard, by local position; `dim` is the embeddings' dimension. KDTree is one too."""

    @property
    def dim(self) -> int: ...

    def search(self, queries: np.ndarray, k: int) -> Neighbours: ...
