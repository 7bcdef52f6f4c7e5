"""Embed: a collection + a model bundle -> embeddings, one Parquet part for each part of the collection.

    python -m ray_jobs.embed --collection W/collection --model W/model --out W/embeddings
    ray job submit --working-dir . -- python -m ray_jobs.embed --collection s3://... --model s3://... --out s3://...

A pool of actors holds the model. A dead actor is replaced and its part done again; run the job again after a crash and
only the missing parts are done. Bytes go storage -> actor -> storage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_at_least, must_be_sealed
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.parts import limits, run_parts
from ray_jobs.runtime.parallel.placement import GB, Needs, all_have_bfloat16, uses_gpu, wait_for
from ray_jobs.runtime.session import session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, held_so_far, read_manifest
from retrieval.artifacts.progress import Progress, silent
from retrieval.images.native import BadImage
from retrieval.models.settings import Device, Engine, Precision

logger = logging.getLogger(__name__)
_MEMORY = 3 * GB // 2  # of an actor: the network, its maps of a batch, a part's crops


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedConfig:
    """Embed every stored image of a collection."""

    collection: str
    """Folder or URI of a sealed collection (python -m ray_jobs.ingest)."""
    model: str
    """Folder or URI of a model bundle (python -m ray_jobs.train)."""
    out: str
    """Folder or URI of the embeddings to make. One that was begun with the same inputs is continued."""
    num_workers: int = 0
    """Actors that hold the model; 0: one a GPU, or one a CPU core where there is no GPU."""
    cpus_per_worker: int = 1
    """CPU cores of each actor."""
    batch_size: int = 64
    """Images in one forward pass, at most; on a CPU fewer go at once, as many as its cache holds."""
    device: Device = "auto"
    """auto: GPUs if the cluster has any; cpu; cuda."""
    precision: Precision = "auto"
    """auto: bfloat16 where all machines of the job have it and it leaves embeddings as they are."""
    engine: Engine = "auto"
    """auto: the faster one here for a network trained here: onnxruntime on a CPU, PyTorch on a GPU or in bfloat16."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying."""

    def __post_init__(self) -> None:
        must_be_at_least(0, self, "num_workers")
        must_be_at_least(1, self, "cpus_per_worker", "batch_size")


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "embeddings", EmbedConfig
SPEED = ("num_workers", "cpus_per_worker", "batch_size", "device", "engine", "limits")


@alone
def main(cfg: EmbedConfig) -> Manifest:
    """Embed, or find it done. Returns the embeddings' manifest.

    Raises: ValueError if the collection or the model is not sealed, or `out` holds other work.
    """
    must_be_sealed(collection=cfg.collection, model=cfg.model)
    with session(cfg.limits, writes=cfg.out, reads=[cfg.collection, cfg.model]):
        return make_embeddings(
            Folder.of(cfg.collection),
            Folder.of(cfg.model),
            Folder.of(cfg.out),
            workers=cfg.num_workers,
            cpus=cfg.cpus_per_worker,
            batch_size=cfg.batch_size,
            device=cfg.device,
            precision=cfg.precision,
            engine=cfg.engine,
        )


def make_embeddings(
    collection: Folder,
    model: Folder,
    out: Folder,
    *,
    workers: int = 0,
    cpus: int = 1,
    batch_size: int = 64,
    device: str = "auto",
    precision: Precision = "auto",
    engine: Engine = "auto",
) -> Manifest:
    """Embed all stored images of a collection by a pool of actors and seal the result; parts that are done are kept.

    Args:
        workers: actors; 0 is one a GPU, or one for every `cpus` cores where there is no GPU.
        precision: decides the result, so it is recorded; the other settings are for speed only.
        engine: what runs the network; embeddings are equal but for their last bits.
    """

    from retrieval.artifacts.collection import image_parts
    from retrieval.data.recheck import try_stored
    from retrieval.models.embedder import begin_embeddings, seal_embeddings

    if (done := begin_embeddings(collection, model, out, precision)) is not None:
        logger.info("embed: %s is sealed already, %d embeddings", out, done.counts["num"])
        return done
    photos = read_manifest(collection, "collection")
    parts = image_parts(photos)
    use_gpu = uses_gpu(device)
    needs = Needs(cpus=cpus, gpus=int(use_gpu), memory=_MEMORY)
    needs = wait_for(needs, "embed", limits().wait_seconds)  # who is there then is asked below
    settings = {"batch_size": batch_size, "num_threads": cpus, "engine": engine, **_one_format(out, precision, use_gpu)}
    settings["num_photos"] = photos.counts["stored"]  # of the whole job, so that each part runs in the same engine
    settings["device"] = device if use_gpu else "cpu"
    started = time.monotonic()
    rows = list(
        run_parts(
            "embed",
            parts,
            EmbedPart,
            total_items=photos.counts["stored"],
            fixed={"collection": collection, "model": model, "out": out, "settings": settings},
            attempt=try_stored,
            listed="this log, and later in its rejected.parquet",
            workers=workers,
            needs=needs,
        )
    )
    return seal_embeddings(collection, model, out, precision, rows, time.monotonic() - started)


def _one_format(out: Folder, precision: Precision, use_gpu: bool) -> dict[str, Any]:
    """Settings by which every worker comes to one format of numbers, whichever machine it is on, also when the job is
    resumed: bfloat16 only where all machines that were there have it. One that comes later, without, emulates it."""
    if precision != "auto":
        return {"precision": precision}
    if held_so_far(out, "bfloat16", all_have_bfloat16(gpu=use_gpu)):
        return {"precision": "auto", "assume_bfloat16": True}
    logger.info("embed: not all machines have bfloat16, so all embed in float32")
    return {"precision": "fp32"}


class EmbedPart:
    """One actor of the pool: a loaded model, and the folders it reads from and writes to."""

    def __init__(self, collection: Folder, model: Folder, out: Folder, settings: dict[str, Any]) -> None:
        from retrieval.models.embedder import Embedder, embed_part

        self._embedder, self._embed = Embedder(model, **settings), embed_part
        self._collection, self._out = collection, out

    def __call__(
        self, part: int, progress: Progress = silent, without: Mapping[int, BadImage] = MappingProxyType({})
    ) -> dict[str, Any]:
        return self._embed(self._embedder, self._collection, self._out, part, progress, without)


if __name__ == "__main__":
    command(EmbedConfig, main, __doc__)
