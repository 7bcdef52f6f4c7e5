"""Build index: embeddings -> index/shard-*.faiss, in parallel, searchable as one.

    python -m ray_jobs.build_index --embeddings W/embeddings/... --collection W/collection/... --out W/index/flat
    python -m ray_jobs.build_index ... --index.recall 0.95 --index.memory 8GB --index.latency 20ms
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
from ray_jobs.runtime.parallel.placement import GB, Needs, holding, largest_cores
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import CHOICE
from retrieval.artifacts.manifest import Manifest
from retrieval.data.settings import Split
from retrieval.search.settings import IndexConfig

if TYPE_CHECKING:
    from retrieval.search.shards import IndexPlan

logger = logging.getLogger(__name__)
_SORT = Needs(memory=2 * GB)  # of a task that sorts a table, however long: see `artifacts.node.scratch`
_ROW = 400  # bytes of an image in lists of samples; 174 were measured, with ids of 26 letters
_SAMPLE = 3.0  # times its sample is in memory while an index is trained: as read, and as FAISS takes of it
_CHOOSING = 2e9  # bytes while kinds are tried on a sample
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
    from retrieval.search.promise import choose_kind
    from retrieval.search.shards import assign_rows, begin_index, plan_index, seal_index, write_trained

    embeddings, collection, out = Folder.of(cfg.embeddings), Folder.of(cfg.collection), Folder.of(cfg.out)
    plan = plan_index(embeddings, collection, out, cfg.splits, cfg.index)
    if (done := begin_index(plan)) is not None:
        logger.info("build_index: %s is sealed already, %d images", out, done.counts["num"])
        return done
    with session(cfg.limits, writes=out, reads=[collection, embeddings]):
        found = on_cluster(assign_rows, collection, out, cfg.splits, embeddings, says="rows", needs=_SORT)
        num = sum(found.get(split, 0) for split in set(cfg.splits))
        index, places = cfg.index, (embeddings, out)
        if cfg.index.is_chosen:
            needs = _on_all_cores(_CHOOSING)
            index, why = on_cluster(choose_kind, *places, cfg.index, plan.dim, says="choose index", **needs)
            logger.info("build_index: %s", why)
        trained_on = on_cluster(
            write_trained, *places, index, plan.dim, says="train index", **_training(plan, index, num)
        )
        shards = _build_shards(index, embeddings, out, plan.dim, num)
        promise = _keep_promise(index, embeddings, out, plan.dim, num, len(shards)) if index.promises else None
    logger.info("build_index: %d images in %d shards of '%s' at %s", num, len(shards), index.factory, out)
    return seal_index(plan, found, trained_on, shards, promise)


def _on_all_cores(num_bytes: float) -> dict[str, Any]:
    """What a task needs that may use all cores of a machine, and how many threads that is."""
    cores = largest_cores()
    return {"num_threads": cores, "needs": dataclasses.replace(holding(num_bytes), cpus=cores)}


def _training(plan: IndexPlan, index: IndexConfig, num: int) -> dict[str, Any]:
    """What training needs: one core, if it looks at no vectors."""
    from retrieval.search.index import sample_size

    sample = min(sample_size(index, plan.dim), num)
    memory = (_ROW + _SAMPLE * 4 * plan.dim) * sample
    return _on_all_cores(memory) if sample else {"needs": holding(memory)}


def _build_shards(index: IndexConfig, embeddings: Folder, out: Folder, dim: int, num: int) -> list[dict[str, Any]]:
    from retrieval.search.shards import num_shards, write_shard

    shards = num_shards(index, num, dim)
    fixed = {"embeddings": embeddings, "out": out, "config": index, "dim": dim, "shards": shards}
    needs = holding(_BLOCKS + (_VECTORS * 4 * dim + _BESIDE) * -(-num // shards))
    how: dict[str, Any] = {"takes": "shard", "total_items": num, "fixed": fixed, "needs": needs}
    rows = run_parts("build_index", range(shards), write_shard, **how)
    return sorted(rows, key=lambda row: row["name"])


def _keep_promise(
    index: IndexConfig, embeddings: Folder, out: Folder, dim: int, num: int, shards: int
) -> dict[str, Any]:
    """Measure shards that are built, choose how hard to look, refuse an index that breaks its promise."""
    from retrieval.search.promise import shards_to_try, try_shard

    needs = holding(_BLOCKS + (_VECTORS * 4 * dim + _BESIDE) * -(-num // shards))
    tried = [  # one after another: shards that are measured beside each other on one machine are slower than they are
        on_cluster(try_shard, embeddings, out, index, dim, shard, shards, says=f"measure shard {shard}", needs=needs)
        for shard in shards_to_try(shards)
    ]
    promise = on_cluster(_conclude, out, index, tried, num, shards, says="keep promise")
    logger.info("build_index: %s", promise["why"])
    return promise


def _conclude(out: Folder, index: IndexConfig, tried: Any, num: int, shards: int) -> dict[str, Any]:
    from retrieval.reports.charts import trade_off_png
    from retrieval.search.promise import keep, measured_in

    promise = keep(out, index, tried, num, shards)
    out.write_bytes(CHOICE, trade_off_png(*measured_in(out), recall=index.recall, seconds=index.max_seconds))
    return promise


if __name__ == "__main__":
    command(BuildIndexConfig, main, __doc__)
