"""Collections and embeddings, made part by part on the cluster: what the jobs ingest, embed and evaluate share."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import Counter
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from ray_jobs.session import on_cluster, run_parts
from retrieval import catalog
from retrieval.artifacts import Books, Folder, Manifest, begin, part_name, read_manifest, seal
from retrieval.datasets import Layout
from retrieval.embedder import Embedder, embed_part
from retrieval.images import limit_threads
from retrieval.ingestion import PrepareConfig, ingest_part
from retrieval.precision import Precision
from retrieval.splits import SplitConfig

logger = logging.getLogger(__name__)


def make_collection(
    out: Folder,
    source: str,
    *,
    layout: Layout,
    prepare: PrepareConfig,
    split: SplitConfig,
    settings: dict[str, Any],
    part_size: int | None = None,
    cpus_per_part: float = 1.0,
) -> Manifest:
    """Prepare all photos of a source and seal the collection; parts that are done already are kept.

    Args: settings: what the manifest records and a second run must repeat.
    """
    plan = on_cluster(
        catalog.plan_collection,
        out.uri,
        source=Folder.of(source).uri,
        layout=layout,
        config=settings,
        part_size=part_size,
    )
    if plan["sealed"]:
        return read_manifest(out, catalog.KIND)
    logger.info("ingest: %d photos in %d parts -> %s", plan["photos"], plan["parts"], out)
    fixed = {"out": out.uri, "root": plan["root"], "config": prepare}
    parts = list(range(plan["parts"]))
    rows = run_parts("ingest", parts, ingest_batch, total_items=plan["photos"], fn_kwargs=fixed, num_cpus=cpus_per_part)
    taken = stored = resumed = 0
    rejected: Counter[str] = Counter()
    files: dict[str, str] = {}
    for row in rows:
        result = json.loads(row["result"])
        taken, stored, resumed = taken + result["taken"], stored + result["stored"], resumed + result["resumed"]
        rejected.update(result["rejected"])
        files |= result["files"]
    if resumed:
        logger.info("ingest: %d of %d parts had been done before", resumed, plan["parts"])
    divided = on_cluster(catalog.write_catalog, out.uri, plan["parts"], split)
    counts = {"source": plan["photos"], "stored": stored, "rejected": taken - stored}
    counts["rejected_by_reason"] = dict(sorted(rejected.items()))
    kept = stored - divided["counts"]["dropped"]
    return seal(
        out,
        kind=catalog.KIND,
        config=settings,
        inputs={"source": plan["fingerprint"]},
        counts=counts | divided["counts"],
        books=[
            Books(stage="plan", taken=plan["photos"], kept=taken),
            Books(stage="ingest", taken=taken, kept=stored, rejected=dict(rejected)),
            Books(stage="split", taken=stored, kept=kept, rejected=divided["dropped"]),
        ],
        files=files | divided["files"],
    )


def ingest_batch(batch: dict[str, Any], *, out: str, root: str, config: PrepareConfig) -> dict[str, Any]:
    """One part on one worker: {"part": [n]} -> its counts, as a row that is small whatever the part."""
    limit_threads(1)
    result = ingest_part(Folder(out), int(batch["part"][0]), Folder(root), config)
    return {"taken": [result.taken], "result": [json.dumps(dataclasses.asdict(result))]}


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
) -> Manifest:
    """Embed all stored images of a collection by a pool of actors and seal the result; parts that are done are kept.

    Args:
        workers: actors; 0 is one a GPU, or one for every `cpus` cores where there is no GPU.
        precision: decides the result, so it is recorded; the other settings are for speed only.
    """
    photos = read_manifest(collection, "collection")
    inputs = {"collection": photos.fingerprint, "model": read_manifest(model, "model").fingerprint}
    config = {"precision": precision}
    if (done := begin(out, kind="embeddings", config=config, inputs=inputs)) is not None:
        logger.info("embed: %s is sealed already, %d embeddings", out, done.counts["num"])
        return done
    parts = sorted(int(name[-13:-8]) for name in photos.files if name.startswith("images/"))
    resources = ray.cluster_resources()
    use_gpu = device != "cpu" and resources.get("GPU", 0) >= 1
    most = int(resources.get("GPU", 0)) if use_gpu else int(resources.get("CPU", 1)) // cpus
    settings = {"batch_size": batch_size, "precision": precision, "num_threads": cpus}
    started = time.monotonic()
    rows = list(
        run_parts(
            "embed",
            parts,
            EmbedPart,
            total_items=photos.counts["stored"],
            fn_constructor_args=(collection, model, out, {**settings, "device": device if use_gpu else "cpu"}),
            compute=ActorPoolStrategy(size=max(1, min(workers or most, len(parts)))),
            num_cpus=cpus,
            num_gpus=1 if use_gpu else 0,
        )
    )
    taken, kept = sum(row["taken"] for row in rows), sum(row["kept"] for row in rows)
    counts = {
        "num": kept,
        "dim": read_manifest(model).counts["embedding_dim"],
        "seconds": time.monotonic() - started,
        "seconds_in_model": sum(row["seconds"] for row in rows),
        "resumed_parts": sum(row["resumed"] for row in rows),
        "parts_by_format": dict(Counter(row["format"] for row in rows if not row["resumed"])),  # what auto came to
    }
    return seal(
        out,
        kind="embeddings",
        config=config,
        inputs=inputs,
        counts=counts,
        books=[
            Books(stage="embed", taken=photos.counts["stored"], kept=taken),
            Books(stage="write", taken=taken, kept=kept),
        ],
        files={part_name(row["part"]): row["sha256"] for row in rows},
    )


class EmbedPart:
    """One actor of the pool: a loaded model, and the folders it reads from and writes to."""

    def __init__(self, collection: Folder, model: Folder, out: Folder, settings: dict[str, Any]) -> None:
        self._embedder = Embedder(model, **settings)
        self._collection, self._out = collection, out

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = embed_part(self._embedder, self._collection, self._out, int(batch["part"][0]))
        return {name: [value] for name, value in done.items()}
