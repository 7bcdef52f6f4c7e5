"""Embed: a collection + a model bundle -> embeddings, one Parquet part for each part of the collection.

    python -m ray_jobs.embed --collection W/collection --model W/model --out W/embeddings
    ray job submit --working-dir . -- python -m ray_jobs.embed --collection s3://... --model s3://... --out s3://...

A pool of actors holds the model. A dead actor is replaced and its part done again; run the job again after a crash and
only the missing parts are done. Bytes go storage -> actor -> storage.
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from ray_jobs.parts import make_embeddings
from ray_jobs.session import session
from retrieval.artifacts import Folder, Manifest
from retrieval.precision import Precision


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
    device: str = "auto"
    """auto: GPUs if the cluster has any; cpu; cuda."""
    precision: Precision = "auto"
    """auto: bfloat16 where the hardware has it and it leaves embeddings as they are."""


def main(cfg: EmbedConfig) -> Manifest:
    """Embed, or find it done. Returns the embeddings' manifest.

    Raises: ValueError if the collection or the model is not sealed, or `out` holds other work.
    """
    with session():
        return make_embeddings(
            Folder.of(cfg.collection),
            Folder.of(cfg.model),
            Folder.of(cfg.out),
            workers=cfg.num_workers,
            cpus=cfg.cpus_per_worker,
            batch_size=cfg.batch_size,
            device=cfg.device,
            precision=cfg.precision,
        )


if __name__ == "__main__":
    main(tyro.cli(EmbedConfig))
