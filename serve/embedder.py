"""Photo -> embedding: the part of the service that runs the model."""

import asyncio
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retrieval.artifacts.collection import detector_of
from retrieval.artifacts.published import Pair
from retrieval.images import pixels
from retrieval.images.faces import make_detector
from retrieval.images.pixels import BadImage
from retrieval.images.preparation import Prepared, prepare
from retrieval.images.settings import Box
from retrieval.models import embedder
from retrieval.models.queries.reader import query_preparation
from serve.batching import Batcher
from serve.messages import Embedded, Unusable
from serve.schemas import ModelInfo, ServeArgs


def checked_box(box: Box, width: int, height: int, min_side: int) -> Box:
    """The box in whole pixels.

    Raises: BadImage if it is not in the photo of width x height pixels.
    """
    x1, y1, x2, y2 = (float(round(edge)) for edge in box)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise BadImage(
            "bad-box",
            f"the box is {','.join(f'{edge:g}' for edge in box)} and the upright photo {width} x {height} pixels; "
            f"expected x1,y1,x2,y2 with 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}",
        )
    if min(x2 - x1, y2 - y1) < min_side:
        raise BadImage("bad-box", f"the box is {x2 - x1:g} x {y2 - y1:g} pixels; expected {min_side} or more a side")
    return x1, y1, x2, y2


class Embedder:
    """Photo bytes -> embedding, through the same kernel that made the gallery."""

    def __init__(self, args: ServeArgs, pair: Pair) -> None:
        threads = max(1, int(args.embedder_cpus))
        pixels.limit_threads(1)
        self._embedder = embedder.Embedder(
            pair.model.uri,
            device=args.device,
            precision=args.precision,
            num_threads=threads,
            engine=args.engine,
            num_photos=None,
        )
        if self._embedder.fingerprint != pair.model_fingerprint:
            raise ValueError(
                f"{pair.model} holds model {self._embedder.fingerprint[:12]}, expected {pair.model_fingerprint[:12]}: "
                f"it was replaced while the service started. Start it again."
            )
        spec = self._embedder.spec
        self._config = query_preparation(spec.preparation, args.max_pixels)
        # A part of a photo is shrunk as much as the whole photo would be, on all its way into the network: with the
        # stored size alone, a part could enter it at a larger scale than the gallery's photos do.
        self._part_config = dataclasses.replace(self._config, size=min(self._config.size, spec.config.image_size))
        self._network = detector_of(pair.model) or detector_of(pair.collection)
        self._local = threading.local()
        self._prepare_pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
        self._embed: Batcher[bytes, np.ndarray] = Batcher(
            lambda jpegs: list(self._embedder.embed_jpegs(jpegs)), args.max_batch, "embed"
        )
        self._warm_up(threads)

    def _warm_up(self, threads: int) -> None:
        """What is made on first use is made now: no client should wait for it."""
        size = self._config.size
        blank = pixels.encode_jpeg(np.zeros((size, size, 3), np.uint8))
        for done in [self._prepare_pool.submit(self._prepare, blank) for _ in range(threads)]:
            if not isinstance(done.exception(), BadImage | None):
                done.result()
        self._embedder.embed_jpegs([blank])

    async def embed(self, photo: bytes, box: Box | None = None) -> Embedded | Unusable:
        """Prepare the photo, or the part of it in `box`, in a thread, then embed it with whatever else is waiting."""
        if box is not None and self._config.crop != "fit":
            detail = f"box: this service finds by itself what to search with (crop '{self._config.crop}'). Leave it out"
            return Unusable(reason="bad-parameter", detail=detail)
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        try:
            ready, width, height = await loop.run_in_executor(self._prepare_pool, self._prepare, photo, box)
        except BadImage as error:
            return Unusable(reason=error.reason, detail=error.detail)
        prepared = time.perf_counter()
        embedding = await self._embed(ready.jpeg)
        return Embedded(
            embedding=embedding,
            model=self._embedder.fingerprint,
            width=width,
            height=height,
            box=ready.box,
            crop=ready.jpeg,
            prepare_seconds=prepared - started,
            embed_seconds=time.perf_counter() - prepared,
        )

    def _prepare(self, photo: bytes, box: Box | None = None) -> tuple[Prepared, int, int]:
        if not hasattr(self._local, "detector"):  # one a thread: OpenCV's classifier keeps state while it searches
            self._local.detector = make_detector(self._config, self._network)
        width, height = pixels.upright_size(photo)
        part = None if box is None else checked_box(box, width, height, self._config.min_side)
        config = self._config if part is None else self._part_config
        return prepare(photo, config, self._local.detector, part), width, height

    def describe(self) -> ModelInfo:
        return ModelInfo(
            fingerprint=self._embedder.fingerprint,
            embedding_dim=self._embedder.dim,
            device=str(self._embedder.device),
            crop=self._config.crop,
        )
