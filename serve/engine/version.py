"""A model, an index and a gallery that were made from each other, loaded: photo in, neighbours out."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retrieval.artifacts.calibration import Calibration, KnownThreshold
from retrieval.artifacts.collection import detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.published import Pair, Published, version_name
from retrieval.images import pixels
from retrieval.images.settings import Box, PrepareConfig
from retrieval.live.entries import Hit
from retrieval.live.filters import Filter
from retrieval.live.rows import preparation_key
from retrieval.live.store import Store
from retrieval.live.view import GalleryView
from retrieval.models import embedder
from retrieval.models.queries.reader import query_preparation
from retrieval.models.spec import known_threshold
from retrieval.models.text.tower import TextTower, open_text
from retrieval.search.index import Searchable
from serve.batching import Batcher
from serve.photos.messages import Look, Which
from serve.schemas import IndexInfo, ModelInfo
from serve.settings import ServeArgs

if TYPE_CHECKING:
    from retrieval.search.rerank import KeptFeatures

Made = TypeVar("Made")

QUICK = 20_000
"""Images that a search takes a few milliseconds for at most, whatever the index."""


_HELD = 128  # images whose local features stay in memory: 300 KB each


@dataclass(frozen=True, slots=True)
class _Asked:
    """A crop to embed, and what may be done with its embedding at once."""

    jpeg: bytes
    then: Callable[[np.ndarray], Any] | None = None


@dataclass(frozen=True, slots=True)
class _Embedded:
    """(D,) float32; with what was made of it, and the seconds that took."""

    embedding: np.ndarray
    then: tuple[Any, float] | None = None


class Version:
    """Holds no lock and changes nothing: a query takes it once and uses nothing else.

    name: 12 hex digits of the three fingerprints. config: how a query photo is prepared. calibration, known: what its
    scores mean, if that was measured, or its publisher says. prepared: how its crops are cut, as the store of changes
    notes it. local: local features of its images, if they were published. text: its text tower, if it has one.
    """

    def __init__(
        self,
        args: ServeArgs,
        pair: Pair,
        batched: Callable[[int], None] = lambda num: None,
        shards: Searchable | None = None,
    ) -> None:
        """Loads all of it, which takes seconds.

        Args: batched: told the size of every batch. shards: what searches the index, where it is not held here.

        Raises: ValueError if a part is not the one of the pair, or cannot do what the settings want of every query.
        """
        self.pair = pair
        self.published: Published | None = None
        """What the workspace said of it, where it was taken from there."""
        self.closing = ExitStack()
        """What ends with it."""
        self.name = version_name(pair.collection_fingerprint, pair.model_fingerprint, pair.index_fingerprint)
        self.embedder = _embedder(args, pair)
        spec = self.embedder.spec
        self.config: PrepareConfig = query_preparation(spec.preparation, args.max_pixels)
        # A part of a photo is shrunk as much as the whole photo would be, on all its way into the network: with the
        # stored size alone, a part could enter it at a larger scale than the gallery's photos do.
        self._part_config = dataclasses.replace(self.config, size=min(self.config.size, spec.config.image_size))
        self.text: TextTower | None = open_text(pair.model, spec, threads=args.threads, gpu=args.device != "cpu")
        self._network: bytes | None = detector_of(pair.model) or detector_of(pair.collection)
        self.prepared = preparation_key(plain(self.config))
        with ExitStack() as failing:
            store = Store.open_if_possible(pair.workspace)
            if store is not None:
                failing.callback(store.close)  # it may follow a log, in a thread of its own
            self.gallery = GalleryView(
                pair,
                store,
                self.embedder.embed_jpegs,
                self.prepared,
                None if shards is None else [shards],
                _cache(args, pair),
            )
            if args.expand and self.gallery.vectors == "none":
                raise ValueError(
                    f"Queries cannot be expanded by default (expand=...): {self.gallery.why_no_vectors()}."
                )
            self.local = None if pair.features is None else _local(pair.features)
            self.calibration: Calibration | None = pair.calibration()
            self.known: KnownThreshold | None = known_threshold(pair.model)
            self._batched = batched
            self._batcher: Batcher[_Asked, _Embedded] = Batcher(self._embed, args.max_batch, "embed")
            self._words: Batcher[list[int], np.ndarray] = Batcher(self._embed_words, args.max_batch, "words")
            # Who waits for other processes needs no core, and holds up the network of nobody.
            num_threads = args.threads if shards is None else max(args.threads, args.max_queue)
            self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="search")
            self._is_spread = shards is not None
            self._warm_up()
            failing.pop_all()

    @classmethod
    def load(
        cls,
        args: ServeArgs,
        pair: Pair,
        batched: Callable[[int], None] = lambda num: None,
        shards: Searchable | None = None,
    ) -> Version:
        """The pair, ready to answer."""
        return cls(args, pair, batched, shards)

    def _warm_up(self) -> None:
        """What is made on first use is made now: no client should wait for it."""
        size = self.config.size
        self._blank = pixels.encode_jpeg(np.zeros((size, size, 3), np.uint8))
        self._asked = self.embedder.embed_jpegs([self._blank])
        if self.local is not None:
            self.local.look(self._blank)
        if self.text is not None:
            self._embed_words([[self.text.tokens.pad]])
        self.gallery.search(self._asked, 1)

    async def check_model(self) -> None:
        """Raises: ValueError if the network does not give what it gave at the start."""
        if not np.allclose(await self.embed(self._blank), self._asked[0], atol=1e-2):
            raise ValueError("The network gives another embedding than it did at the start.")

    async def check_index(self) -> None:
        """Raises: ValueError if the index finds nothing."""
        if not (await self.search(self._asked, 1))[0]:
            raise ValueError("The index finds nothing.")

    async def check_gallery(self) -> None:
        """Raises: whatever reading a stored crop raises; not from the memory of those asked for last."""
        await asyncio.to_thread(self.gallery.read_one)

    def _embed(self, asked: list[_Asked]) -> list[_Embedded]:
        self._batched(len(asked))
        embeddings, then = self.embedder.embed_jpegs([one.jpeg for one in asked]), asked[0].then
        if len(asked) > 1 or then is None or not self._is_quick():
            return [_Embedded(embedding) for embedding in embeddings]
        started = time.perf_counter()
        return [_Embedded(embeddings[0], (then(embeddings[0]), time.perf_counter() - started))]

    def _is_quick(self) -> bool:
        """Asked each time: photos are added while it answers, and each of those is compared."""
        return not self._is_spread and len(self.gallery.sealed) + self.gallery.num_added <= QUICK

    def look(self, faces: Which = "best", box: Box | None = None) -> Look:
        """How to look at a query photo for this gallery."""
        config = self.config if box is None else self._part_config
        return Look(config=config, network=self._network, faces=faces, box=box)

    async def embed(self, jpeg: bytes) -> np.ndarray:
        """(D,) float32, unit norm, of a crop as `look` cuts it; embedded with whatever else is waiting."""
        return (await self._batcher(_Asked(jpeg))).embedding

    async def embed_and(
        self, jpeg: bytes, then: Callable[[np.ndarray], Made]
    ) -> tuple[np.ndarray, tuple[Made, float] | None]:
        """The same, and what `then` made of the embedding in the network's own thread, and the seconds of that: to wake
        another costs as much as to search. None where others wait for the network, or the gallery is large."""
        found = await self._batcher(_Asked(jpeg, then))
        return found.embedding, found.then

    async def embed_words(self, ids: list[int]) -> np.ndarray:
        """(D,) float32, unit norm, of the tokens of a text (`text.tokens.ids`); embedded with whatever else is
        waiting."""
        return await self._words(ids)

    def _embed_words(self, rows: list[list[int]]) -> Sequence[np.ndarray]:
        assert self.text is not None
        return list(self.text.run(*self.text.tokens.filled(rows)))

    async def search(self, queries: np.ndarray, k: int, allowed: Filter | None = None) -> list[list[Hit]]:
        """The k best of each query, best first. Args: queries: (Q, D) float32. allowed: which images may answer."""
        return await self.in_thread(lambda: self.gallery.search(queries, k, allowed))

    async def in_thread(self, work: Callable[[], Made]) -> Made:
        """In one of the threads for searches: what takes a millisecond holds up nobody who asks for a page."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def says(self, live: int | None = None) -> dict[str, Any]:
        """Which gallery an answer comes from: the fields of `FromGallery`.

        Args: live: the newest change that the answer knows; None: that the gallery knows.
        """
        return {
            "model": self.pair.model_fingerprint,
            "index": self.pair.index_fingerprint,
            "version": self.name,
            "live": self.gallery.seq if live is None else live,
        }

    def describe(self) -> ModelInfo:
        return ModelInfo(
            fingerprint=self.embedder.fingerprint,
            embedding_dim=self.embedder.dim,
            device=str(self.embedder.device),
            crop=self.config.crop,
        )

    def describe_index(self) -> IndexInfo:
        gallery = self.gallery
        return IndexInfo(
            fingerprint=self.pair.index_fingerprint,
            factory=gallery.factory,
            num_images=len(gallery),
            num_identities=gallery.num_identities,
            dim=gallery.dim,
            vectors=gallery.vectors,
        )

    def close(self) -> None:
        """Nobody asks it any more: its memory and its maps are let go at once, not when a collector comes by."""
        self._threads.shutdown(wait=False)
        self._batcher.close()
        self._words.close()
        if hasattr(self, "gallery"):
            self.gallery.close()
            del self.gallery, self.embedder, self.text
            self._batcher.forget()
            self._words.forget()
        self.closing.close()


def _cache(args: ServeArgs, pair: Pair) -> NodeCache | None:
    """Where processes of this node share what they map: where copies of the workspace lie anyway. Of a workspace on
    this machine nothing is left behind, so that what is erased there is nowhere else."""
    return NodeCache.of_node(args.cache, args.cache_gb) if args.cache_local or not pair.workspace.is_local else None


def _local(folder: Folder) -> KeptFeatures:
    from retrieval.search.rerank import KeptFeatures  # COLMAP comes with it

    return KeptFeatures(folder, held=_HELD)


def _embedder(args: ServeArgs, pair: Pair) -> embedder.Embedder:
    """Raises: ValueError if the bundle is not the one of the pair."""
    made = embedder.Embedder(
        pair.model.uri,
        device=args.device,
        precision=args.precision,
        num_threads=args.threads,
        engine=args.engine,
        num_photos=None,
    )
    if made.fingerprint != pair.model_fingerprint:
        raise ValueError(
            f"{pair.model} holds model {made.fingerprint[:12]}, expected {pair.model_fingerprint[:12]}: "
            f"it was replaced while the service started. Start it again."
        )
    return made
