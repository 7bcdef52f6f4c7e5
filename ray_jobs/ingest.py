"""Ingest: a folder of photographs -> a collection of face crops, with books of what was kept and what was not.

    python -m ray_jobs.ingest --source PHOTOS --out COLLECTION
    ray job submit --working-dir . -- python -m ray_jobs.ingest --source s3://bucket/photos --out s3://bucket/collection

Run it again after an interruption: it goes on with the parts that are not done. Rejected photographs are in
COLLECTION/rejected/*.parquet with their reasons, what the source lacked is in COLLECTION/source.json.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.detector import with_detector
from ray_jobs.runtime.inputs import source_must_be_there
from ray_jobs.runtime.news import meters
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.placement import GB, Needs
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.collection import KIND
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.data.settings import Layout, SplitConfig
from retrieval.images.settings import PrepareConfig

if TYPE_CHECKING:
    from retrieval.data.source import SourceReport

logger = logging.getLogger(__name__)
_MEMORY = GB // 2  # of a worker: a photo of 50 million pixels, the detector's maps of it, and a part's crops
_SORT = Needs(memory=2 * GB)  # of a task that makes a table, however long: see `artifacts.node.scratch`


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """Turn photographs into a collection."""

    source: str
    """Folder of photographs, of tars or Parquet files with photographs in them, or one such file, or a manifest (CSV,
    Parquet): a path that every node sees, or a URI such as s3://..."""
    out: str
    """Folder or URI of the collection to make. One that was begun with the same settings is continued."""
    layout: Layout = "auto"
    """How the source is laid out. celeba: its published files. lfw: one folder a person or place. folder: any tree, no
    labels. manifest: a table with a column path. webdataset: tars of photos, with labels beside them. parquet: Parquet
    files with the photos in a column. auto: told by what is there; folders are taken for people only where
    photos are named after them, as LFW's are. What it was taken for is said before any work."""
    prepare: Annotated[PrepareConfig, tyro.conf.arg(name="")] = field(default_factory=PrepareConfig)
    """What is done to each photograph."""
    split: Annotated[SplitConfig, tyro.conf.arg(name="")] = field(default_factory=SplitConfig)
    """How identities are divided."""
    part_size: int | None = None
    """Photographs a part, the unit of work and of resuming. None: at most 256, less for a small source."""
    cpus_per_part: float = 1.0
    """CPUs reserved for each part under work; lower runs more of them at once, for slow storage."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying."""

    def __post_init__(self) -> None:
        if self.part_size is not None and self.part_size < 1:
            raise ValueError(f"part_size is {self.part_size}, expected 1 or more.")
        if self.cpus_per_part <= 0:
            raise ValueError(f"cpus_per_part is {self.cpus_per_part}, expected more than 0, for example 0.5.")


# What the road of a pipeline asks of a job: see runtime/road.py.
CONFIG = IngestConfig  # and KIND, which is the collection's
SPEED = ("cpus_per_part", "limits")


@alone
def main(cfg: IngestConfig) -> Folder:
    """Make the collection, or finish it. Returns its folder, sealed.

    Raises: ValueError for what the user can put right, in words.
    """
    source_must_be_there(cfg.source)
    from retrieval.data import catalog

    out = Folder.of(cfg.out)
    prepare, network = with_detector(cfg.prepare)
    cfg = dataclasses.replace(cfg, prepare=prepare)
    settings = {name: value for name, value in plain(cfg).items() if name not in catalog.NOT_COMPARED}
    with session(cfg.limits, writes=out, reads=[cfg.source]):
        manifest = make_collection(
            out,
            cfg.source,
            layout=cfg.layout,
            prepare=prepare,
            split=cfg.split,
            settings=settings,
            network=network,
            part_size=cfg.part_size,
            cpus_per_part=cfg.cpus_per_part,
        )
    _report(out, manifest)
    return out


def source_fingerprint(source: str, layout: Layout = "auto") -> str:
    """The source's fingerprint, worked out on the cluster: listing millions of names is no work for a driver."""
    from retrieval.data import catalog

    return on_cluster(catalog.source_fingerprint, Folder.of(source).uri, layout, says="list photos", needs=_SORT)


def _say_source(source: str, report: SourceReport) -> None:
    """What the source was taken for, before any work is put into it."""
    from retrieval.data.source import told

    for line in told(report):
        logger.info("%s: %s", source, line)


def _report(out: Folder, manifest: Manifest) -> None:
    for book in manifest.books:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(book["rejected"].items())) or "none"
        logger.info("%s: %d in, %d kept, rejected: %s", book["stage"], book["taken"], book["kept"], reasons)
    counts = {name: count for name, count in manifest.counts.items() if not isinstance(count, dict) and count}
    logger.info("collection at %s: %s", out, ", ".join(f"{name} {count}" for name, count in counts.items()))


def make_collection(
    out: Folder,
    source: str,
    *,
    layout: Layout,
    prepare: PrepareConfig,
    split: SplitConfig,
    settings: dict[str, Any],
    network: bytes | None = None,
    part_size: int | None = None,
    cpus_per_part: float = 1.0,
) -> Manifest:
    """Prepare all photos of a source and seal the collection; parts that are done already are kept.

    Args:
        prepare: with the detector resolved, see `runtime.detector`.
        settings: what the manifest records and a second run must repeat.
        network: the detector's file, where it has one.
    """
    from retrieval.data import catalog
    from retrieval.data.ingestion import ingest_part, try_photos

    plan = on_cluster(
        catalog.plan_collection,
        out.uri,
        says="plan",
        needs=_SORT,
        source=Folder.of(source).uri,
        layout=layout,
        config=settings,
        part_size=part_size,
        network=network,
    )
    _say_source(source, plan["source"])
    if plan["sealed"]:
        return read_manifest(out, KIND)
    logger.info("ingest: %d photos in %d parts -> %s", plan["photos"], plan["parts"], out)
    fixed = {"folder": out, "source": Folder(plan["root"]), "config": prepare}
    parts = range(plan["parts"])
    rows = run_parts(
        "ingest",
        parts,
        ingest_part,
        total_items=plan["photos"],
        fixed=fixed,
        attempt=try_photos,
        listed=out / "rejected",
        needs=Needs(cpus=cpus_per_part, memory=_MEMORY),
    )
    done = []
    for row in rows:
        done.append(row)
        meters.left_out("ingest", {} if row["resumed"] else row["rejected"])
    if resumed := sum(part["resumed"] for part in done):
        logger.info("ingest: %d of %d parts had been done before", resumed, plan["parts"])
    made_of = catalog.parts_digest(done)
    divided = on_cluster(catalog.write_catalog, out.uri, plan["parts"], split, made_of, says="catalogue", needs=_SORT)
    return catalog.seal_collection(out, settings, plan, done, divided)


if __name__ == "__main__":
    command(IngestConfig, main, __doc__)
