"""Embedding -> neighbours: the part of the service that searches."""

import dataclasses
import time

import numpy as np

from retrieval.artifacts.index import factory_of
from retrieval.artifacts.published import Pair
from retrieval.search.expansion import expand_found
from retrieval.search.index import Searcher
from retrieval.search.ranking import Neighbours
from retrieval.search.settings import ExpansionConfig
from retrieval.search.vectors import GalleryVectors
from serve.messages import Found, Unusable
from serve.schemas import IndexInfo


class IndexShard:
    """Embedding -> neighbours. Holds every shard of the index, mapped from disk where FAISS can."""

    def __init__(self, pair: Pair, must_expand: bool = False) -> None:
        """Args: must_expand: refuse an index whose queries cannot be expanded, since all of them shall be."""
        self._pair = pair
        # One thread a query: two are slower on one query, and other queries have a use for the second core.
        self._searcher = Searcher.open(pair.index, num_threads=1)
        loaded = self._searcher.manifest.fingerprint
        if loaded != pair.index_fingerprint:
            raise ValueError(
                f"{pair.index} holds index {loaded[:12]}, expected {pair.index_fingerprint[:12]}: it was replaced "
                f"while the service started. Start it again."
            )
        self._vectors = GalleryVectors(self._searcher, pair.workspace)
        if must_expand and self._vectors.source == "none":
            raise ValueError(f"Queries cannot be expanded by default (expand=...): {self._why_not()}.")

    def search(
        self, embedding: np.ndarray, k: int, model: str, expansion: ExpansionConfig | None = None
    ) -> Found | Unusable:
        """The k nearest, to the query as it is or expanded. Both searches are done here: a hop costs more than one.

        `model` is the fingerprint of the model that made the embedding.

        Raises: ValueError if that is not the model of this index.
        """
        started = time.perf_counter()
        if model != self._pair.model_fingerprint:
            ours = self._pair.model_fingerprint[:12]
            raise ValueError(
                f"The query was embedded by model {model[:12]}, this index is of {ours}. Ask its own pair."
            )
        asked = embedding[None]
        if expansion is not None:
            if self._vectors.source == "none":
                return Unusable(reason="bad-parameter", detail=f"expand: {self._why_not()}")
            near = self._nearest(asked, expansion.num)
            asked = expand_found(asked, near, self._vectors, expansion.alpha)
            expansion = dataclasses.replace(expansion, num=int((near.rows >= 0).sum()))
        found = self._nearest(asked, k)
        rows = found.rows[0][found.rows[0] >= 0]
        return Found(
            rows=rows.tolist(),
            scores=found.scores[0][: len(rows)].tolist(),
            image_ids=self._searcher.ids[rows].tolist(),
            labels=self._searcher.labels[rows].tolist(),
            index=self._pair.index_fingerprint,
            seconds=time.perf_counter() - started,
            expansion=expansion,
        )

    def _nearest(self, asked: np.ndarray, k: int) -> Neighbours:
        return self._searcher.search(asked, min(k, len(self._searcher)))

    def _why_not(self) -> str:
        kind = f"index '{factory_of(self._searcher.manifest)}' holds codes instead of embeddings"
        return f"{kind}, and those it was built from are not in the workspace"

    def describe(self) -> IndexInfo:
        manifest = self._searcher.manifest
        return IndexInfo(
            fingerprint=manifest.fingerprint,
            factory=factory_of(manifest),
            num_images=len(self._searcher),
            num_identities=len({label for label in self._searcher.labels if label is not None}),
            dim=self._searcher.dim,
            vectors=self._vectors.source,
        )
