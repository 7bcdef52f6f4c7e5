"""Evaluate: how well photos of the same person or place find each other, in figures, plots and a report to read.

Compare systems on a collection's own queries and gallery (what the pipeline does, before and after training):

    python -m ray_jobs.evaluate --collection C --out R --systems before=M1,E1,I1 after=M2,E2,I2
    python -m ray_jobs.evaluate ... --protocol leave-one-out --expansion.num 10 --rerank 100

Or try any bundle on any labelled photos: every photo is a query against all the others (leave one out):

    python -m ray_jobs.evaluate --model BUNDLE --source PHOTOS --out DIR
    ray job submit --working-dir . -- python -m ray_jobs.evaluate --model s3://... --source s3://... --out s3://...

The first writes metrics.json, timings.json, report.html and its pictures to R; the second to DIR/report, beside the
collection and the embeddings it had to make. The tables are printed at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from ray_jobs.embed import make_embeddings
from ray_jobs.ingest import make_collection
from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.detector import with_detector
from ray_jobs.runtime.inputs import must_be_at_least, must_be_sealed, source_must_be_there
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.placement import Needs, holding
from ray_jobs.runtime.parallel.spread import by_tasks
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.collection import detector_of
from retrieval.artifacts.embeddings import left_out
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import Manifest, begin, check_made_from, read_manifest, seal
from retrieval.artifacts.progress import Progress, silent
from retrieval.data.settings import Layout, SplitConfig
from retrieval.evaluation import tasks
from retrieval.evaluation.settings import System
from retrieval.models.settings import Device, Engine, Precision
from retrieval.reports import tables
from retrieval.search.settings import ExpansionConfig

_PHOTO = 150  # bytes of a photo that is scored: numbers of its row, forty attributes and a copy of them
_BLOCK = 1 << 13  # queries at once, see `evaluation.systems`
_RESULTS = 1 << 30  # bytes of what they find and of their positives
_VECTORS = 10.5  # times the vectors are in memory meanwhile, where they all are at once
# On a command line a system is one word; from Python it is the object, whose folders may have any name.
_AS_TEXT = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="NAME=MODEL,EMBEDDINGS,INDEX",
    instance_from_str=lambda words: System.parse(words[0]),
    is_instance=lambda value: isinstance(value, System),
    str_from_instance=lambda system: [str(system.name)],
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Measure systems on a collection, or a bundle on a labelled source."""

    out: str
    """Folder or URI for the results: new, empty, or left by an unfinished run of the same settings."""
    collection: str | None = None
    """Folder or URI of a sealed collection, whose queries are asked of its gallery."""
    systems: tuple[Annotated[System, _AS_TEXT], ...] = ()
    """What to compare on it, the starting point first: NAME=MODEL,EMBEDDINGS,INDEX, three folders or URIs each.
    The index must be one of the gallery alone (build_index --splits gallery); without one the search is exact."""
    protocol: Literal["query-gallery", "leave-one-out", "mined-places"] = "query-gallery"
    """With --systems: the catalog's queries ask its gallery, or each photo of both asks all the others. mined-places,
    where nothing is labelled: photos of the places that mining kept for validation, by --tuples, ask all the others."""
    subject: Literal["auto", "person", "place"] = "auto"
    """What a label names, for the report's words. auto: a place if photos are kept whole (crop fit), else a person."""
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)
    """Query expansion: each system is scored a second time with it, if --expansion.num is above 0."""
    augmentation: ExpansionConfig = field(default_factory=ExpansionConfig)
    """The same over the gallery itself (database-side augmentation), if --augmentation.num is above 0. Not with
    leave-one-out, where the gallery would take on the queries."""
    rerank: int = 0
    """The first so many results are put in order of the local features that fit one geometry, and the first and the
    last system are scored once more; 0: not. Costs about 0.3 s a photo and 0.03 s a result on one core."""
    features: str = ""
    """Folder or URI of the collection's local features (python -m ray_jobs.describe) that --rerank goes by. Without it
    SIFT is taken of each stored photo, each time."""
    tuples: str = ""
    """Folder or URI of training tuples, to show what they were mined from: cameras, points, tuples."""
    model: str | None = None
    """Folder or URI of a bundle to try on --source."""
    source: str | None = None
    """Labelled photos to try --model on, in any layout that ingest reads."""
    layout: Layout = "auto"
    """How --source is laid out, see ingest --help."""
    ks: tuple[int, ...] = tasks.KS
    """Numbers of results to measure attribute agreement and query time at; clipped to what the gallery has."""
    sheet_queries: int = 8
    """Queries drawn for the ranked-result sheets."""
    max_queries: int | None = None
    """Ask with this many queries, drawn, instead of all: each is compared with the whole gallery, so that all of a
    million with all of a million would take days. Not with mined-places."""
    seed: int = 0
    """Draws the sheets' queries, and those of --max-queries."""
    device: Device = "auto"
    """With --source: where the model runs: auto, cpu or cuda."""
    engine: Engine = "auto"
    """Of --source: what runs the model, see python -m ray_jobs.embed."""
    precision: Precision = "auto"
    """With --source. auto: bfloat16 where the hardware has it and it leaves embeddings as they are."""
    num_workers: int = 0
    """With --source: processes that hold the model; 0: one a GPU, or one a CPU core where there is no GPU."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying."""

    def __post_init__(self) -> None:
        compare = self.collection is not None and bool(self.systems) and self.model is None and self.source is None
        attempt = self.model is not None and self.source is not None and self.collection is None and not self.systems
        if not compare and not attempt:
            raise ValueError(
                "Give either --collection and --systems (compare systems on a collection), or --model and --source "
                "(try a bundle on labelled photos)."
            )
        if not self.ks or min(self.ks) < 1 or self.sheet_queries < 1:
            raise ValueError(f"ks is {self.ks} and sheet_queries {self.sheet_queries}, expected numbers of 1 or more.")
        if self.protocol == "mined-places" and not self.tuples:
            raise ValueError("The protocol mined-places asks with photos of mined places. Name them with --tuples.")
        if self.augmentation.num and (self.protocol != "query-gallery" or self.source is not None):
            raise ValueError(
                "augmentation.num is above 0 and every photo asks all others: each would be in the vectors that it is "
                "to find. Augment with --protocol query-gallery, or in ray_jobs.benchmark."
            )
        names = [system.name for system in self.systems]
        if len(set(names)) != len(names):
            raise ValueError(f"Two systems share a name: {', '.join(names)}. Give each its own.")
        must_be_at_least(0, self, "rerank", "num_workers")
        if self.features and not (compare and self.rerank):
            raise ValueError("--features is what --rerank goes by: give --collection, --systems and --rerank with it.")
        if self.max_queries is not None:
            must_be_at_least(1, self, "max_queries")


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "report", EvaluateConfig
SPEED = ("device", "engine", "num_workers", "limits")


@alone
def main(cfg: EvaluateConfig) -> Manifest:
    """Run the job and print its tables. Results sealed under the same settings and inputs are printed again.

    Raises: ValueError for settings or inputs that do not fit.
    """
    if cfg.collection is not None:
        inputs_of(cfg, Folder.of(cfg.collection), cfg.systems)  # what does not belong together is refused at once
    else:
        must_be_sealed(model=str(cfg.model))
        source_must_be_there(str(cfg.source))
    with session(cfg.limits, writes=cfg.out):
        if cfg.collection is not None:
            return _report(cfg, Folder.of(cfg.out), Folder.of(cfg.collection), cfg.systems, cfg.protocol)
        out = Folder.of(cfg.out)
        system = System(name="model", model=Folder.of(str(cfg.model)), embeddings=out / "embeddings")
        _ingest_source(cfg, out / "collection", system.model)
        make_embeddings(
            out / "collection",
            system.model,
            system.embeddings,
            workers=cfg.num_workers,
            device=cfg.device,
            precision=cfg.precision,
            engine=cfg.engine,
        )
        return _report(cfg, out / "report", out / "collection", (system,), "leave-one-out")


def inputs_of(cfg: EvaluateConfig, collection: Folder, systems: tuple[System, ...]) -> dict[str, str]:
    """Fingerprints of all that is compared.

    Raises: ValueError for a folder that is not sealed, or that was not made from the others.
    """
    collected = read_manifest(collection, "collection")
    inputs = {"collection": collected.fingerprint}
    for system in systems:
        inputs |= system.fingerprints(collected)
    if cfg.tuples:
        tuples = read_manifest(Folder.of(cfg.tuples), "tuples")
        check_made_from(cfg.tuples, tuples, "collection", collected.fingerprint)
        inputs["tuples"] = tuples.fingerprint
    if cfg.features:
        features = read_manifest(Folder.of(cfg.features), "features")
        check_made_from(cfg.features, features, "collection", collected.fingerprint)
        inputs["features"] = features.fingerprint
    return inputs


def _report(
    cfg: EvaluateConfig, out: Folder, collection: Folder, systems: tuple[System, ...], protocol: str
) -> Manifest:
    from retrieval.reports.comparison import ASIDE

    names = [system.name for system in systems]
    subject = tasks.subject_of(read_manifest(collection, "collection")) if cfg.subject == "auto" else cfg.subject
    settings = {name: getattr(cfg, name) for name in ("ks", "sheet_queries", "max_queries", "seed")}
    settings |= {"subject": subject, "rerank": cfg.rerank}
    settings |= {"expansion": plain(cfg.expansion), "augmentation": plain(cfg.augmentation)}
    work: dict[str, Any] = {
        "kind": "report",
        "config": settings | {"protocol": protocol, "systems": names},
        "inputs": inputs_of(cfg, collection, systems),
    }
    manifest = begin(out, **work)
    if manifest is None:
        needs = scoring_of(*(system.embeddings for system in systems), whole=cfg.augmentation.num > 0)
        metrics = on_cluster(write, cfg, out, collection, systems, protocol, subject, says="evaluate", needs=needs)
        counts = {name: metrics["data"][name] for name in ("num_queries", "num_gallery", "num_identities")}
        for name, figures in metrics["systems"].items():
            counts |= {f"{name}/{key}": figures[key] for key in tables.RETRIEVAL_METRICS}
        manifest = seal(out, counts=counts, aside=ASIDE, **work)
    print(f"\n{tables.as_text(tables.read_metrics(out))}\n\nReport: {out}/report.html", flush=True)
    return manifest


def scoring_of(*embeddings: str | Folder, whole: bool = False) -> Needs:
    """Of a task that scores these, one after another. Args: whole: it holds all vectors of one at once."""
    counts = [read_manifest(Folder.of(folder), "embeddings").counts for folder in embeddings]
    held = (_VECTORS * 4 * one["dim"] * (one["num"] if whole else _BLOCK) for one in counts)
    return holding(_RESULTS + max(held) + _PHOTO * max(one["num"] for one in counts))


def write(
    cfg: EvaluateConfig,
    out: Folder,
    collection: Folder,
    systems: tuple[System, ...],
    protocol: str,
    subject: str,
    progress: Progress = silent,
) -> dict[str, Any]:
    from retrieval.evaluation.systems import Scoring
    from retrieval.reports.comparison import Shown, write_report

    tuples = Folder.of(cfg.tuples) if cfg.tuples else None
    away = {image_id for system in systems for image_id in left_out(Folder.of(system.embeddings))}
    if protocol == "query-gallery":
        task = tasks.query_gallery(collection, cfg.ks, cfg.max_queries, cfg.seed, without=away)
    elif protocol == "mined-places":
        task = tasks.mined_places(collection, Folder.of(cfg.tuples), cfg.ks, without=away)
    else:
        task = tasks.leave_one_out(
            collection,
            cfg.ks,
            cfg.max_queries,
            cfg.seed,
            ("query", "gallery") if cfg.collection is not None else None,
            distractors=subject != "person",
            without=away,
        )
    kept = Folder.of(cfg.features) if cfg.features else None
    scoring = Scoring(expansion=cfg.expansion, augmentation=cfg.augmentation, rerank=cfg.rerank, features=kept)
    shown = Shown(subject=subject, sheet_queries=cfg.sheet_queries, seed=cfg.seed, tuples=tuples)
    return write_report(out, collection, systems, task, scoring, shown, count_inliers, by_tasks, progress)


def count_inliers(collection: Folder, asked: np.ndarray, found: np.ndarray, kept: Folder | None) -> np.ndarray:
    """As `rerank.count_inliers`, a block of queries a task."""
    import ray

    from retrieval.search import rerank

    num = max(1, min(len(asked), int(ray.cluster_resources().get("CPU", 1))))
    count: Any = ray.remote(rerank.count_inliers)  # its stub knows no defaults
    blocks = zip(np.array_split(asked, num), np.array_split(found, num), strict=True)
    return np.concatenate(ray.get([count.remote(collection, *block, kept) for block in blocks]))


def _ingest_source(cfg: EvaluateConfig, out: Folder, bundle: Folder) -> None:
    """Make the collection of --source, its photos prepared as the bundle wants them."""
    from retrieval.models.spec import preparation_of

    prepare, network = preparation_of(bundle), detector_of(bundle)
    if network is None:
        prepare, network = with_detector(prepare)
    split = SplitConfig(test_fraction=0.0, val_fraction=0.0)  # leave-one-out asks with everything: nothing is set aside
    settings = {"layout": cfg.layout, "prepare": plain(prepare), "split": plain(split)}
    make_collection(
        out, str(cfg.source), layout=cfg.layout, prepare=prepare, split=split, settings=settings, network=network
    )


if __name__ == "__main__":
    command(EvaluateConfig, main, __doc__)
