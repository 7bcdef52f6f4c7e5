"""Describe: local features of a collection's photos, SIFT or learned ones, taken once and kept.

    python -m ray_jobs.describe --collection W/collection --out W/features
    python -m ray_jobs.describe --collection W/collection --out W/aliked --features.extractor aliked \\
        --features.weights aliked-n16
    ray job submit --working-dir . -- python -m ray_jobs.describe --collection s3://... --out s3://...

`evaluate --features` puts results in order by them. Each part of the collection is a task that writes its own file:
run the job again after a crash and only what is missing is done.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_sealed
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.placement import GB, Needs
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import Books, Manifest, begin, read_manifest, seal
from retrieval.data.settings import Split
from retrieval.geometry.settings import FeatureConfig
from retrieval.models.known_weights import KNOWN, find

logger = logging.getLogger(__name__)
PUBLISHED = "aliked-n16"


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeConfig:
    """Take local features of photos."""

    collection: str
    """Folder or URI of a sealed collection (python -m ray_jobs.ingest), its photos whole (--crop fit)."""
    out: str
    """Folder or URI of the features to make. One that was begun with the same settings is continued."""
    splits: tuple[Split, ...] = ("train", "val", "query", "gallery")
    """Which photos, by split of the catalog."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """Which features."""
    cpus_per_task: float = 1.0
    """CPU cores that Ray sets aside for each task."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying."""

    def __post_init__(self) -> None:
        if self.cpus_per_task <= 0:
            raise ValueError(f"cpus_per_task is {self.cpus_per_task}, expected more than 0, for example 1.")


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "features", DescribeConfig
SPEED = ("cpus_per_task", "limits")


@alone
def main(cfg: DescribeConfig) -> Manifest:
    """Run the job; sealed features of the same settings and inputs are returned as they are.

    Raises: ValueError if the collection is not sealed, has no such photos, or the weights are of something else.
    """
    must_be_sealed(collection=cfg.collection)
    collection, out = Folder.of(cfg.collection), Folder.of(cfg.out)
    network = network_of(cfg.features)
    work = work_of(cfg, collection, network)
    if (done := begin(out, **work)) is not None:
        logger.info("describe: %s is sealed already, %d features", out, done.counts["features"])
        return done
    with session(cfg.limits, writes=out, reads=[collection]):
        counts, rejected = _look(cfg, collection, out, network)
        kept = counts["photos"] - sum(rejected.values())
        books = [Books(stage="describe", taken=counts["photos"], kept=kept, rejected=rejected)]
        logger.info("describe: %(features)d features of %(photos)d photos", counts)
        return on_cluster(seal, out, says="seal", counts=counts, books=books, **work)


def work_of(cfg: DescribeConfig, collection: Folder, network: bytes | None) -> dict[str, Any]:
    """What the features are made from: weights by what is in them, not by where they lie."""
    features = plain(cfg.features)
    if network is not None:
        from retrieval.geometry.extractors.aliked import digest_of

        features["weights"] = digest_of(network)
    return {
        "kind": KIND,
        "config": {"splits": list(cfg.splits), "features": features},
        "inputs": {"collection": read_manifest(collection, "collection").fingerprint},
    }


def network_of(config: FeatureConfig) -> bytes | None:
    """The weights of its extractor as `extractors.aliked.packed` gives them; None where it has none.

    Raises: ValueError if they are not there, or of something else.
    """
    if config.extractor == "sift":
        return None
    from retrieval.geometry.extractors.aliked import packed
    from retrieval.models.backbones import read_state

    path = _named(config.weights) if config.weights in KNOWN else config.weights
    weights = packed(read_state(path), path)
    logger.info("local features: %s, weights of %s", PUBLISHED, path)
    return weights


def _named(name: str) -> str:
    """Where known weights lie. Nothing is downloaded."""
    if name != PUBLISHED:
        raise ValueError(f"'{name}' is {KNOWN[name].what}. Local features need {PUBLISHED}, or a file of it.")
    if (found := find(name)) is None:
        raise ValueError(
            f"The weights {name} are not here. `python -m ray_jobs.weights --fetch {name}` gets them; or name a file "
            f"of them."
        )
    return str(found)


def _look(
    cfg: DescribeConfig, collection: Folder, out: Folder, network: bytes | None
) -> tuple[dict[str, int], dict[str, int]]:
    """All parts, over the cluster. Returns counts, and why photos were left out -> how many."""
    from retrieval.geometry import extraction
    from retrieval.geometry.stages import left_out

    if network is not None:
        out.write_bytes(extraction.NETWORK, network, about={})
    parts, num = on_cluster(extraction.parts_of, collection, cfg.splits)
    fixed = {"collection": collection, "out": out, "splits": cfg.splits, "config": cfg.features}
    told: dict[str, Any] = {"attempt": extraction.try_features, "listed": out / "rejected"}
    needs = Needs(cpus=cfg.cpus_per_task, memory=GB)
    rows = list(
        run_parts("features", parts, extraction.extract_part, total_items=num, fixed=fixed, needs=needs, **told)
    )
    counts = {"photos": sum(row["taken"] for row in rows), "features": sum(row["features"] for row in rows)}
    return counts, dict(Counter(on_cluster(left_out, out).values()))


if __name__ == "__main__":
    command(DescribeConfig, main, __doc__)
