"""Group: an index and its embeddings -> people (or places) that nobody named, and what is there twice.

    python -m ray_jobs.group --collection W/collection --embeddings W/embeddings --index W/index --out W/people
    ray job submit --working-dir . -- python -m ray_jobs.group ... --previous s3://.../people --out s3://.../again

Every photo is linked with its nearest, a part of the embeddings a task; one task merges what is linked, by the mean of
all pairs between two groups; pairs that may be one picture are compared a block a task. With --previous the groups
go on, under their numbers. `people.html` in the result shows the groups; labels, where there are any, only score them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_sealed
from ray_jobs.runtime.parallel.limits import TimeLimits
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.placement import Needs, holding
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.calibration import read_calibration
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import Manifest, check_made_from, read_manifest
from retrieval.artifacts.progress import Progress, silent
from retrieval.grouping import threshold as thresholds
from retrieval.grouping.settings import GroupingConfig

if TYPE_CHECKING:
    from ray_jobs.runtime.tracking.runs import Tracker
    from retrieval.grouping.people import PeoplePlan

logger = logging.getLogger(__name__)
# Bytes at the worst moment, measured by benchmarks/bench_merge.py: of a photo beside its vector, and of a link as parts
# count them, while groups are merged; of a photo while the page is drawn.
_MERGED, _LINK, _SHOWN = 100, 16, 500


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupConfig:
    """Group photos by who, or what, they show."""

    index: str
    """Folder or URI of a sealed index (python -m ray_jobs.build_index): its photos are grouped."""
    embeddings: str
    """Folder or URI of the embeddings the index was built from."""
    collection: str
    """Folder or URI of the collection they were made from."""
    out: str
    """Folder or URI for the groups: new, empty, or left by an unfinished run of the same settings."""
    previous: str = ""
    """Folder or URI of earlier groups, whose numbers go on."""
    model: str = ""
    """Folder or URI of the bundle that made the embeddings, for the threshold its publisher names."""
    calibration: str = ""
    """Folder or URI of a report that calibrated this model (python -m ray_jobs.evaluate), for the threshold."""
    group: GroupingConfig = field(default_factory=GroupingConfig)
    """When photos belong together."""
    limits: Annotated[TimeLimits, tyro.conf.arg(name="")] = field(default_factory=TimeLimits)
    """How long to try."""


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "people", GroupConfig
SPEED = ("limits",)


@alone
def main(cfg: GroupConfig, tracker: Tracker | None = None) -> Manifest:
    """Run the job; sealed groups of the same settings and inputs are returned as they are.

    Args: tracker: the MLflow run of a pipeline, for the counts and the page.

    Raises: ValueError for folders that were not made from each other.
    """
    must_be_sealed(index=cfg.index, embeddings=cfg.embeddings, collection=cfg.collection)
    from retrieval.grouping.people import begin_people, plan_people

    plan = plan_people(
        index=Folder.of(cfg.index),
        embeddings=Folder.of(cfg.embeddings),
        collection=Folder.of(cfg.collection),
        out=Folder.of(cfg.out),
        config=cfg.group,
        threshold=threshold_of(cfg),
        previous=Folder.of(cfg.previous) if cfg.previous else None,
    )
    manifest = begin_people(plan)
    if manifest is not None:
        logger.info("group: %s is sealed already, %s", plan.out, _told(manifest))
    else:
        with session(cfg.limits, writes=plan.out, reads=[plan.index, plan.embeddings]):
            manifest = _make(plan)
        logger.info("group: %s; by cosine %s (%s)", _told(manifest), plan.threshold.value, plan.threshold.source)
        logger.info("group: look at %s/people.html", plan.out)
    if tracker is not None:
        tracker.log_metrics(manifest.counts, prefix="group")
        tracker.log_files(plan.out, list(manifest.aside), to="people")
    return manifest


def threshold_of(cfg: GroupConfig) -> thresholds.Threshold:
    """What is said of the model that made the index, by --calibration or the bundle; see `threshold.choose`."""
    index = read_manifest(Folder.of(cfg.index), "index")
    model = index.inputs["model"]
    if cfg.model:
        check_made_from(cfg.index, index, "model", read_manifest(Folder.of(cfg.model), "model").fingerprint)
    if cfg.previous and cfg.group.keep and cfg.group.threshold == "auto":
        earlier = read_manifest(Folder.of(cfg.previous), "people")
        if earlier.inputs["model"] == model:  # groups go on only under the threshold that they were made by
            return thresholds.Threshold(value=earlier.config["threshold"], source="that of the earlier groups")
    calibration = read_calibration(Folder.of(cfg.calibration), model) if cfg.calibration else None
    if cfg.calibration and calibration is None:
        raise ValueError(
            f"{cfg.calibration} calibrated no scores of the model that made the index. Name its own report."
        )
    from retrieval.models.spec import known_threshold

    return thresholds.choose(cfg.group, calibration, known_threshold(cfg.model) if cfg.model else None)


def _make(plan: PeoplePlan) -> Manifest:
    from retrieval.grouping import people

    parts = on_cluster(_parts_of, plan.index)
    linked = list(_link(plan, parts))
    names, num_links = [row["name"] for row in linked], sum(row["links"] for row in linked)
    merging, showing = merging_of(plan, num_links), holding(_SHOWN, plan.num)
    counts = on_cluster(people.write_people, plan, names, says="group", needs=merging)
    if not plan.out.exists(people.DUPLICATES):
        # Pairs are some of the links, and take less.
        blocks = _compare(plan, parts, names, merging) if plan.config.duplicates else 0
        on_cluster(people.write_duplicates, plan, blocks, needs=showing)
    counts |= on_cluster(people.count_duplicates, plan.out)
    counts |= on_cluster(_show, plan, counts, says="draw", needs=showing)
    return people.seal_people(plan, counts, {row["name"]: row["sha256"] for row in linked})


def merging_of(plan: PeoplePlan, num_links: int) -> Needs:
    """What the task that merges holds. Args: num_links: as the parts count them, before those of two are one."""
    dim = read_manifest(plan.embeddings).counts["dim"]
    return holding(1, plan.num * (4 * dim + _MERGED) + num_links * _LINK)


def _link(plan: PeoplePlan, parts: list[int]) -> Any:
    from retrieval.grouping.links import LinkFinder

    where = {"index": plan.index, "embeddings": plan.embeddings, "out": plan.out}
    how = {"neighbours": plan.config.neighbours, "threshold": plan.threshold.value}
    return run_parts("link", parts, LinkFinder, total_items=plan.num, fixed=where | how)


def _compare(plan: PeoplePlan, parts: list[int], names: list[str], pairing: Needs) -> int:
    """Thumbnails of all parts, then the pairs that may be one picture, block by block. Returns how many blocks."""
    from retrieval.grouping import duplicates
    from retrieval.images import likeness

    places = {"index": plan.index, "collection": plan.collection, "out": plan.out, "look": likeness.thumbnail}
    list(run_parts("thumbnails", parts, _thumbnails, total_items=plan.num, fixed=places))
    nearest = plan.config.duplicate_neighbours
    asked = on_cluster(duplicates.write_pairs, plan.index, plan.out, names, nearest, needs=pairing)
    how = {"out": plan.out, "side": likeness.SIDE, "alike": likeness.likeness}
    how["least"] = plan.config.duplicate_likeness
    blocks, total = range(asked["blocks"]), asked["pairs"]
    list(run_parts("compare", blocks, _compare_block, takes="block", total_items=total, fixed=how))
    return asked["blocks"]


def _thumbnails(part: int, progress: Progress = silent, **fixed: Any) -> dict[str, int]:
    from retrieval.grouping.duplicates import write_thumbnails
    from retrieval.images.pixels import limit_threads

    limit_threads(1)  # there is a process a core already
    return write_thumbnails(part=part, progress=progress, **fixed)


def _compare_block(block: int, progress: Progress = silent, **fixed: Any) -> dict[str, int]:
    from retrieval.grouping.duplicates import compare
    from retrieval.images.pixels import limit_threads

    limit_threads(1)
    return compare(block=block, progress=progress, **fixed)


def _parts_of(index: Folder) -> list[int]:
    """The parts of the collection that hold an indexed photo."""
    return index.read_table(IDS, columns=["part"])["part"].unique().sort().to_pylist()


def _show(plan: PeoplePlan, counts: dict[str, Any]) -> dict[str, float]:
    """Draw the groups. Returns how right they are, where the collection has labels; they are looked at only here."""
    import pyarrow.compute as pc

    from retrieval.artifacts.collection import read_catalog
    from retrieval.evaluation.clustering import clustering_metrics
    from retrieval.evaluation.tasks import subject_of
    from retrieval.grouping import duplicates, people
    from retrieval.reports.people import write_page

    duplicates.remove_thumbnails(plan.out)
    grouped, twice = (plan.out.read_table(name) for name in (people.PEOPLE, people.DUPLICATES))
    labels = read_catalog(plan.collection, columns=("image_id", "label"))["label"]
    known = pc.if_else(pc.equal(grouped["role"], "unembedded"), None, labels)
    right: dict[str, float] = {}
    if known.null_count < len(known):
        found = clustering_metrics(grouped["person"], known)
        names = ("bcubed_precision", "bcubed_recall", "pair_precision", "pair_recall", "pair_f")
        right = {name: round(float(getattr(found, name)), 6) for name in names}
    facts = {name: str(value) for name, value in plan.settings.items()} | plan.inputs
    subject = subject_of(read_manifest(plan.collection, "collection"))
    write_page(plan.out, plan.collection, grouped, twice, counts | right, facts, subject)
    return right


def _told(manifest: Manifest) -> str:
    counts = manifest.counts
    text = f"{counts['people']} people in {counts['grouped']} photos, {counts['single']} like no other, "
    text += f"{counts['unembedded']} not indexed, {counts['same_file'] + counts['same_picture']} there twice"
    if "bcubed_precision" in counts:
        text += f"; against the labels BCubed precision {counts['bcubed_precision']:.4f}, "
        text += f"recall {counts['bcubed_recall']:.4f}, pairs F {counts['pair_f']:.4f}"
    return text


if __name__ == "__main__":
    command(GroupConfig, main, __doc__)
