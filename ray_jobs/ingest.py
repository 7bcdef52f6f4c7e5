"""Ingest: a folder of photographs -> a collection of face crops, with books of what was kept and what was not.

    python -m ray_jobs.ingest --source PHOTOS --out COLLECTION
    ray job submit --working-dir . -- python -m ray_jobs.ingest --source s3://bucket/photos --out s3://bucket/collection

Run it again after an interruption: it goes on with the parts that are not done. Rejected photographs are in
COLLECTION/rejected/*.parquet with their reasons, what the source lacked is in COLLECTION/source.json.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ray_jobs.parts import make_collection
from ray_jobs.session import on_cluster, session
from retrieval import catalog
from retrieval.artifacts import Folder, Manifest, plain
from retrieval.datasets import Layout
from retrieval.ingestion import PrepareConfig
from retrieval.splits import SplitConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """Turn photographs into a collection."""

    source: str
    """Folder or manifest (CSV, Parquet) of photographs: a path that every node sees, or a URI such as s3://..."""
    out: str
    """Folder or URI of the collection to make. One that was begun with the same settings is continued."""
    layout: Layout = "auto"
    """How the source is laid out. celeba: its published files. lfw: one folder a person. folder: any tree, no labels.
    manifest: a table with a column path. auto: told by what is there."""
    prepare: Annotated[PrepareConfig, tyro.conf.arg(name="")] = field(default_factory=PrepareConfig)
    """What is done to each photograph."""
    split: Annotated[SplitConfig, tyro.conf.arg(name="")] = field(default_factory=SplitConfig)
    """How identities are divided."""
    part_size: int | None = None
    """Photographs a part, the unit of work and of resuming. None: at most 256, less for a small source."""
    cpus_per_part: float = 1.0
    """CPUs reserved for each part under work; lower runs more of them at once, for slow storage."""


def main(cfg: IngestConfig) -> Folder:
    """Make the collection, or finish it. Returns its folder, sealed.

    Raises: ValueError for what the user can put right, in words.
    """
    out = Folder.of(cfg.out)
    settings = {name: value for name, value in plain(cfg).items() if name not in catalog.NOT_COMPARED}
    with session():
        manifest = make_collection(
            out,
            cfg.source,
            layout=cfg.layout,
            prepare=cfg.prepare,
            split=cfg.split,
            settings=settings,
            part_size=cfg.part_size,
            cpus_per_part=cfg.cpus_per_part,
        )
    _report(out, manifest)
    return out


def source_fingerprint(source: str, layout: Layout = "auto") -> str:
    """The source's fingerprint, worked out on the cluster: listing millions of names is no work for a driver."""
    return on_cluster(catalog.source_fingerprint, Folder.of(source).uri, layout)


def _report(out: Folder, manifest: Manifest) -> None:
    for book in manifest.books:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(book["rejected"].items())) or "none"
        logger.info("%s: %d in, %d kept, rejected: %s", book["stage"], book["taken"], book["kept"], reasons)
    counts = {name: count for name, count in manifest.counts.items() if not isinstance(count, dict)}
    logger.info("collection at %s: %s", out, ", ".join(f"{name} {count}" for name, count in counts.items()))


if __name__ == "__main__":
    main(tyro.cli(IngestConfig))
