"""Reconstruct: unordered photos -> training tuples, by structure-from-motion, nobody labelling anything.

    python -m ray_jobs.reconstruct --collection W/collection --out W/tuples
    python -m ray_jobs.reconstruct --collection W/collection --out W/tuples --features W/aliked
    python -m ray_jobs.reconstruct --collection W/collection --out W/tuples --labels-as-clusters
    ray job submit --working-dir . -- python -m ray_jobs.reconstruct --collection s3://... --out s3://...

Local features, a vocabulary, candidate pairs, geometric checks and mapping each run as tasks that write their own
file. A dead worker's task is done again; run the job again after a crash and only what is missing is done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_there
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.placement import GB, Needs, holding
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts import tuples
from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Books, Manifest, begin, check_made_from, read_manifest, seal
from retrieval.data.settings import Split
from retrieval.geometry.settings import FeatureConfig, ReconstructConfig

logger = logging.getLogger(__name__)
_DESCRIPTOR = 2000  # bytes of each descriptor of the sample while words are trained; reckoned
_LISTED = 500  # bytes of each photo while all are listed
_PAIRED = 1000  # bytes of each while pairs are joined or followed, or groups are made: benchmarks/bench_pairs.py
_PAIRS_PER_BLOCK = 256
_PHOTOS_PER_BLOCK = 4096  # a block reads all vectors, and holds 100 MB of its own
_PLACES = ("collection", "out", "features", "cpus_per_task", "limits")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructJobConfig:
    """Find which photos show the same place."""

    collection: str
    """Folder or URI of a sealed collection (python -m ray_jobs.ingest), its photos whole (--crop fit)."""
    out: str
    """Folder or URI of the tuples to make. One that was begun with the same settings is continued."""
    splits: tuple[Split, ...] = ("train",)
    """Which photos are looked at, by split of the catalog: never those that test."""
    labels_as_clusters: bool = False
    """Take the collection's labels for the places instead of looking for them."""
    models: str = ""
    """Folder of COLMAP sparse models of these photos to take instead of mapping them."""
    database: str = ""
    """A retrieval-SfM database file (.pkl) whose tuples are of these photos, to take instead of looking for them."""
    features: str = ""
    """Folder or URI of the collection's local features (python -m ray_jobs.describe), SIFT or learned ones; empty: SIFT
    is taken of each photo here, --reconstruct.max-features of it."""
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    """How they are found."""
    cpus_per_task: float = 1.0
    """CPU cores that Ray sets aside for each task."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying."""

    def __post_init__(self) -> None:
        if self.labels_as_clusters + bool(self.models) + bool(self.database) > 1:
            raise ValueError("Give one of --labels-as-clusters, --models and --database, or none to look for places.")
        if self.features and (self.labels_as_clusters or self.models or self.database):
            raise ValueError("--features are what places are looked for by: leave them out with these.")
        if self.cpus_per_task <= 0:
            raise ValueError(f"cpus_per_task is {self.cpus_per_task}, expected more than 0, for example 1.")


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "tuples", ReconstructJobConfig
SPEED = ("cpus_per_task", "limits")


@alone
def main(cfg: ReconstructJobConfig) -> Manifest:
    """Run the job; sealed tuples of the same settings and inputs are returned as they are.

    Raises: ValueError if the collection is not sealed, or no photo shares a place with another.
    """
    collection, out = Folder.of(cfg.collection), Folder.of(cfg.out)
    inputs = {"collection": read_manifest(collection, "collection").fingerprint}
    if cfg.features:
        features = read_manifest(Folder.of(cfg.features), "features")
        check_made_from(cfg.features, features, "collection", inputs["collection"])
        inputs["features"] = features.fingerprint
    for place, what in ((cfg.models, "--models: COLMAP's sparse models"), (cfg.database, "--database: a .pkl file")):
        if place:
            must_be_there(place, f"Name {what}.")
    work: dict[str, Any] = {"kind": tuples.KIND, "config": cfg, "inputs": inputs, "ignore": _PLACES}
    if (done := begin(out, **work)) is not None:
        logger.info("reconstruct: %s is sealed already, %d queries", out, done.counts["queries"])
        return done
    with session(cfg.limits, writes=out, reads=[collection, cfg.features]):
        if cfg.labels_as_clusters or cfg.models or cfg.database:
            counts = on_cluster(_take, cfg, collection, out, says="tuples")
        else:
            counts = _look(cfg, collection, out)
        books = [
            Books(
                stage="reconstruct",
                taken=counts["images"],
                kept=counts["registered"],
                rejected=counts["unregistered"],
            )
        ]
        logger.info("reconstruct: %s", ", ".join(f"{name} {value}" for name, value in counts.items()))
        return on_cluster(seal, out, says="seal", counts=counts, books=books, **work)


def _take(cfg: ReconstructJobConfig, collection: Folder, out: Folder) -> dict[str, Any]:
    """Tuples that somebody else found."""
    from retrieval.data import retrieval_sfm
    from retrieval.geometry.tuples import from_labels, from_models, write

    photos = read_catalog(collection, cfg.splits)
    config = cfg.reconstruct
    if cfg.labels_as_clusters:
        found = from_labels(photos, config)
    elif cfg.models:
        found = from_models(photos, cfg.models, config)
    else:
        found = *retrieval_sfm.from_database(photos, cfg.database), ()
    return write(out, *found)


def _look(cfg: ReconstructJobConfig, collection: Folder, out: Folder) -> dict[str, Any]:
    """All stages, each over the cluster; the driver sees counts."""
    from retrieval.geometry import extraction, pairing, reconstruction

    described = Folder.of(cfg.features) if cfg.features else None
    config, fixed = cfg.reconstruct, {"out": out, "config": cfg.reconstruct, "described": described}
    parts, num = on_cluster(extraction.parts_of, collection, cfg.splits)
    options: dict[str, Any] = {"needs": Needs(cpus=cfg.cpus_per_task, memory=GB)}
    if described is None:
        sift = FeatureConfig(max_features=config.max_features)
        extract = {"out": out, "config": sift, "collection": collection, "splits": cfg.splits}
        told = {"fixed": extract, "attempt": extraction.try_features, "listed": out / "rejected", **options}
        list(run_parts("features", parts, extraction.extract_part, total_items=num, **told))
    pairs, possible, paired = 0, num * (num - 1) // 2, holding(_PAIRED, num)
    for round_ in range(1 + config.rounds):
        more = (
            on_cluster(pairing.follow_links, out, round_, config, says="pairs", needs=paired)
            if round_
            else _pairs(cfg, collection, out, described, parts, num)
        )
        pairs += more
        logger.info("pairs: %d more of %d possible are worth a check", more, possible)
        blocks, check = range(-(-more // _PAIRS_PER_BLOCK)), fixed | {"round_": round_, "size": _PAIRS_PER_BLOCK}
        verify = reconstruction.verify_block
        list(run_parts("links", blocks, verify, takes="block", total_items=more, fixed=check, **options))
    joined = on_cluster(reconstruction.group, out, config, says="groups", needs=paired)
    logger.info("groups: %(groups)d, joined by %(strong)d strong links of %(links)d", joined)
    groups = range(joined["groups"])
    mapped = {"fixed": fixed, "attempt": reconstruction.try_mapping, "listed": out / "rejected", **options}
    list(run_parts("models", groups, reconstruction.map_group, takes="number", **mapped))
    on_cluster(pairing.remove_vectors, out)
    counts = on_cluster(reconstruction.assemble, out, joined["groups"], config, described, says="tuples")
    return counts | {"pairs": pairs, "pairs_possible": possible, "links": joined["links"]}


def _pairs(
    cfg: ReconstructJobConfig, collection: Folder, out: Folder, described: Folder | None, parts: list[int], num: int
) -> int:
    """Words by part, candidates by block. Returns the number of pairs."""
    from retrieval.geometry import pairing, stages

    if (done := out.done(stages.pairs_name(0))) is not None:
        return done.about["pairs"]
    options: dict[str, Any] = {"needs": Needs(cpus=cfg.cpus_per_task, memory=GB)}
    config, words = cfg.reconstruct, holding(_DESCRIPTOR, cfg.reconstruct.vocabulary_sample)
    on_cluster(pairing.train_vocabulary, collection, out, cfg.splits, config, described, says="vocabulary", needs=words)
    assigned = {"out": out, "described": described}
    list(run_parts("words", parts, pairing.assign_part, total_items=num, fixed=assigned, **options))
    on_cluster(pairing.list_photos, collection, out, cfg.splits, says="photos", needs=holding(_LISTED, num))
    slices, each = range(-(-num // pairing.SLICE)), {"takes": "number", "fixed": {"out": out}, "total_items": num}
    list(run_parts("vectors", slices, pairing.write_slice, **each, **options))
    fixed = {"out": out, "config": config, "num": num, "size": _PHOTOS_PER_BLOCK}
    blocks, look_up = -(-num // _PHOTOS_PER_BLOCK), pairing.look_up_block
    list(run_parts("candidates", range(blocks), look_up, takes="block", total_items=num, fixed=fixed, **options))
    return on_cluster(pairing.join_blocks, out, _PHOTOS_PER_BLOCK, num, says="pairs", needs=holding(_PAIRED, num))


if __name__ == "__main__":
    command(ReconstructJobConfig, main, __doc__)
