"""Build index: embeddings -> index/shard-*.faiss, in parallel, searchable as one.

    python -m ray_jobs.build_index --embeddings W/embeddings/... --collection W/collection/... --out W/index/flat
    ray job submit --working-dir . -- python -m ray_jobs.build_index --index.factory IVF256,Flat ...

Every embedding goes from storage to the task that builds its shard and on into that shard's file: the driver sees
counts and hashes only.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_sealed
from ray_jobs.runtime.parallel.limits import TimeLimits
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.placement import holding, largest_cores
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest
from retrieval.data.settings import Split
from retrieval.search.settings import IndexConfig

if TYPE_CHECKING:
    from retrieval.search.shards import IndexPlan

logger = logging.getLogger(__name__)
_ROW = 400  # bytes of an image in lists of rows and of samples; 174 were measured, with ids of 26 letters
_SAMPLE = 3.0  # times its sample is in memory while an index is trained: as read, and as FAISS takes of it
_VECTORS = 1.1  # times its vectors are in memory while a shard is built of them
_BESIDE = 400  # bytes an image beside its vector: what names it, links of HNSW32 (260)
_BLOCKS = 96 << 20  # bytes of what is read, decoded, added and written at once


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildIndexConfig:
    """Build a search index from embeddings."""

    embeddings: str
    """Folder or URI of sealed embeddings (python -m ray_jobs.embed)."""
    collection: str
    """Folder or URI of the collection the embeddings were made from."""
    out: str
    """Folder or URI to write the index to: new, empty, or left by an unfinished run of the same settings."""
    splits: tuple[Split, ...] = ("query", "gallery", "train", "val")
    """Which images are indexed, by split of the catalog. Evaluation uses only gallery."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """What kind of index."""
    limits: Annotated[TimeLimits, tyro.conf.arg(name="")] = field(default_factory=TimeLimits)
    """How long to try."""


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "index", BuildIndexConfig
SPEED = ("limits",)


@alone
def main(cfg: BuildIndexConfig) -> Manifest:
    """Run the job; a sealed index of the same settings and inputs is returned as it is.

    Raises: ValueError if the embeddings were made from another collection, or the settings do not fit them.
    """
    must_be_sealed(embeddings=cfg.embeddings, collection=cfg.collection)
    from retrieval.search.shards import assign_rows, begin_index, plan_index, seal_index, write_trained

    embeddings, collection, out = Folder.of(cfg.embeddings), Folder.of(cfg.collection), Folder.of(cfg.out)
    plan = plan_index(embeddings, collection, out, cfg.splits, cfg.index)
    if (done := begin_index(plan)) is not None:
        logger.info("build_index: %s is sealed already, %d images", out, done.counts["num"])
        return done
    with session(cfg.limits, writes=out, reads=[collection, embeddings]):
        rows = holding(_ROW, plan.num)
        found = on_cluster(assign_rows, collection, out, cfg.splits, embeddings, says="rows", needs=rows)
        num = sum(found.get(split, 0) for split in set(cfg.splits))
        trained_on = on_cluster(
            write_trained, embeddings, out, cfg.index, plan.dim, says="train index", **_training(plan, num)
        )
        shards = _build_shards(cfg, embeddings, out, plan.dim, num)
    logger.info("build_index: %d images in %d shards of '%s' at %s", num, len(shards), cfg.index.factory, out)
    return seal_index(plan, found, trained_on, shards)


def _training(plan: IndexPlan, num: int) -> dict[str, Any]:
    """What training needs, and how many threads it may use: all cores of a machine, if it looks at vectors at all."""
    sample = min(plan.sample, num)
    cores = largest_cores() if sample else 1
    memory = holding((_ROW + _SAMPLE * 4 * plan.dim) * sample)
    return {"num_threads": cores, "needs": dataclasses.replace(memory, cpus=cores)}


def _build_shards(cfg: BuildIndexConfig, embeddings: Folder, out: Folder, dim: int, num: int) -> list[dict[str, Any]]:
    from retrieval.search.shards import num_shards, write_shard

    shards = num_shards(cfg.index, num, dim)
    fixed = {"embeddings": embeddings, "out": out, "config": cfg.index, "dim": dim, "shards": shards}
    needs = holding(_BLOCKS + (_VECTORS * 4 * dim + _BESIDE) * -(-num // shards))
    how: dict[str, Any] = {"takes": "shard", "total_items": num, "fixed": fixed, "needs": needs}
    rows = run_parts("build_index", range(shards), write_shard, **how)
    return sorted(rows, key=lambda row: row["name"])


if __name__ == "__main__":
    command(BuildIndexConfig, main, __doc__)
