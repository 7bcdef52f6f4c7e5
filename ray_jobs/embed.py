"""Embed: a collection + a model bundle -> embeddings, one Parquet part for each part of the collection.

    python -m ray_jobs.embed --collection W/collection --model W/model --out W/embeddings
    ray job submit --working-dir . -- python -m ray_jobs.embed --collection s3://... --model s3://... --out s3://...

A pool of actors holds the model. A dead actor is replaced and its part done again; run the job again after a crash and
only the missing parts are done. Bytes go storage -> actor -> storage.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import ray
import tyro
from ray.data import ActorPoolStrategy

from ray_jobs.session import run_parts, session
from retrieval.artifacts import Books, Folder, Manifest, begin, part_name, read_manifest, seal
from retrieval.embedder import Embedder, Precision, embed_part

logger = logging.getLogger(__name__)
_SPEED_ONLY = ("collection", "model", "out", "num_workers", "cpus_per_worker", "device", "batch_size")


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
    """Images in one forward pass."""
    device: str = "auto"
    """auto: GPUs if the cluster has any; cpu; cuda."""
    precision: Precision = "auto"
    """auto: bfloat16 where the hardware multiplies it natively."""


class EmbedPart:
    """The actor: a loaded model, and the two folders it reads from and writes to."""

    def __init__(self, cfg: EmbedConfig, use_gpu: bool) -> None:
        device = cfg.device if use_gpu else "cpu"
        self._embedder = Embedder(
            cfg.model,
            device=device,
            precision=cfg.precision,
            batch_size=cfg.batch_size,
            num_threads=cfg.cpus_per_worker,
        )
        self._collection, self._out = Folder.of(cfg.collection), Folder.of(cfg.out)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = embed_part(self._embedder, self._collection, self._out, int(batch["part"][0]))
        return {name: [value] for name, value in done.items()}


def main(cfg: EmbedConfig) -> Manifest:
    """Embed, or find it done. Returns the embeddings' manifest.

    Raises: ValueError if the collection or the model is not sealed, or `out` holds other work.
    """
    collection, bundle, out = Folder.of(cfg.collection), Folder.of(cfg.model), Folder.of(cfg.out)
    photos, model = read_manifest(collection, "collection"), read_manifest(bundle, "model")
    inputs = {"collection": photos.fingerprint, "model": model.fingerprint}
    if (done := begin(out, kind="embeddings", config=cfg, inputs=inputs, ignore=_SPEED_ONLY)) is not None:
        logger.info("embed: %s is sealed already, %d embeddings", out, done.counts["num"])
        return done
    parts = sorted(int(name[-13:-8]) for name in photos.files if name.startswith("images/"))
    with session():
        started = time.monotonic()
        rows = list(_run(cfg, parts, photos.counts["stored"]))
        seconds = time.monotonic() - started
    taken, kept = sum(row["taken"] for row in rows), sum(row["kept"] for row in rows)
    counts = {
        "num": kept,
        "dim": rows[0]["dim"],
        "seconds": seconds,
        "seconds_in_model": sum(row["seconds"] for row in rows),
        "resumed_parts": sum(row["resumed"] for row in rows),
    }
    return seal(
        out,
        kind="embeddings",
        config=cfg,
        inputs=inputs,
        counts=counts,
        books=[
            Books(stage="embed", taken=photos.counts["stored"], kept=taken),
            Books(stage="write", taken=taken, kept=kept),
        ],
        files={part_name(row["part"]): row["sha256"] for row in rows},
        ignore=_SPEED_ONLY,
    )


def _run(cfg: EmbedConfig, parts: list[int], total: int) -> Any:
    resources = ray.cluster_resources()
    use_gpu = cfg.device != "cpu" and resources.get("GPU", 0) >= 1
    most = int(resources.get("GPU", 0)) if use_gpu else int(resources.get("CPU", 1)) // cfg.cpus_per_worker
    size = max(1, min(cfg.num_workers or most, len(parts)))
    return run_parts(
        "embed",
        parts,
        EmbedPart,
        total_items=total,
        fn_constructor_kwargs={"cfg": cfg, "use_gpu": use_gpu},
        compute=ActorPoolStrategy(size=size),
        num_cpus=cfg.cpus_per_worker,
        num_gpus=1 if use_gpu else 0,
    )


if __name__ == "__main__":
    main(tyro.cli(EmbedConfig))
