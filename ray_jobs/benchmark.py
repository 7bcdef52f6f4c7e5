"""Benchmark: a bundle's mAP on ROxford5k, RParis6k, Oxford5k or Paris6k, beside what others published.

    python -m ray_jobs.benchmark --model BUNDLE --photos ROXFORD/jpg --truth gnd_roxford5k.pkl --out R
    python -m ray_jobs.benchmark ... --distractors REVISITOP1M/jpg --expansion.num 10
    ray job submit --working-dir . -- python -m ray_jobs.benchmark --model s3://... --photos s3://... ...

Photos are prepared as the bundle wants them and embedded on the cluster, once: another run in the same folder, say with
query expansion, only scores. Where photos are missing the figures are called partial and compared with nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ray_jobs.embed import make_embeddings
from ray_jobs.ingest import make_collection
from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_at_least, must_be_sealed, must_be_there
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.placement import holding
from ray_jobs.runtime.session import on_cluster, session
from ray_jobs.runtime.tracking.runs import Tracker, open_run
from ray_jobs.runtime.tracking.store import store_uri
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.manifest import MANIFEST, begin, read_manifest, seal
from retrieval.data.settings import Layout, SplitConfig
from retrieval.evaluation import benchmark_source
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import Device, Engine, Precision
from retrieval.search.settings import ExpansionConfig

if TYPE_CHECKING:
    from retrieval.models.spec import ModelSpec

logger = logging.getLogger(__name__)

_PHOTO = 500  # bytes of a photo that is scored, beside its vector
_VECTORS = 3.0  # times all vectors are in memory meanwhile; reckoned, not measured
_NOT_IN_KEY = ("out", "num_workers", "device", "engine", "tracking_uri", "limits")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig:
    """Score a bundle on a landmark benchmark."""

    model: str
    """Folder or URI of a bundle that takes whole photos (python -m ray_jobs.pipeline landmarks)."""
    photos: str
    """Folder or URI of the benchmark's photos: gallery and queries, NAME.jpg in any sub-folder."""
    truth: str
    """The publishers' gnd_*.pkl, or for the classic benchmarks the folder of their *_query, _good, _ok and _junk.txt.
    A pickle is read without running anything in it."""
    out: str
    """Folder or URI for the collection, the embeddings and the reports. Begun with the same inputs, it is continued."""
    name: str = ""
    """roxford5k, rparis6k, oxford5k, paris6k, or a name of your own; empty: from the name of --truth, gnd_NAME.pkl."""
    distractors: tuple[str, ...] = ()
    """Folders or URIs of photos, or of sealed collections, that answer no query: the 100,000 or million of others."""
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)
    """Query expansion by the nearest of gallery and distractors: scored as well, if --expansion.num is above 0."""
    augmentation: ExpansionConfig = field(default_factory=ExpansionConfig)
    """The same over the gallery itself (database-side augmentation): scored as well. Not with distractors."""
    device: Device = "auto"
    """Where the model runs: auto, cpu or cuda."""
    precision: Precision = "auto"
    """auto: bfloat16 where the hardware has it and it leaves embeddings as they are."""
    engine: Engine = "auto"
    """What runs the model, see python -m ray_jobs.embed."""
    num_workers: int = 0
    """Processes that hold the model; 0: one a GPU, or one a CPU core where there is no GPU."""
    tracking_uri: str = ""
    """MLflow store; empty: MLFLOW_TRACKING_URI, else SQLite in the folder --out."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying."""

    def __post_init__(self) -> None:
        benchmark_source.benchmark_name(self.truth, self.name)
        must_be_at_least(0, self, "num_workers")
        if self.augmentation.num and self.distractors:
            raise ValueError(
                "augmentation.num is above 0 and there are distractors, which would stay as they are: the figures "
                "would say nothing. Leave out one of the two."
            )


@alone
def main(cfg: BenchmarkConfig) -> Folder:
    """Run the job and print its tables. Returns the report's folder, sealed; one sealed before is printed again.

    Raises: ValueError for settings or inputs that do not fit.
    """
    must_be_sealed(model=cfg.model)
    must_be_there(cfg.photos, "Name the folder of the benchmark's photos with --photos.")
    must_be_there(cfg.truth, "Name the publishers' gnd_*.pkl, or the folder of their lists, with --truth.")
    for place in cfg.distractors:
        must_be_there(place, "Name folders of photos, or sealed collections, with --distractors.")
    out = Folder.of(cfg.out)
    name = benchmark_source.benchmark_name(cfg.truth, cfg.name)
    with session(cfg.limits, writes=out, reads=[cfg.photos, *cfg.distractors]):
        work = {key: value for key, value in plain(cfg).items() if key not in _NOT_IN_KEY}
        tracker = open_run(
            store_uri(cfg.tracking_uri or None, out),
            experiment="benchmarks",
            key=digest([out.uri, work])[:24],
            name=f"{name}-{digest(work)[:6]}",
            workspace=out,
        )
        try:
            report = _run(cfg, out, name, tracker)
        except BaseException:
            tracker.finish("FAILED")
            raise
        tracker.finish()
    from retrieval.reports import benchmark

    print(f"\n{benchmark.as_text(report.read_json('metrics.json'))}\n\nReport: {report}/report.html", flush=True)
    return report


def _run(cfg: BenchmarkConfig, out: Folder, name: str, tracker: Tracker) -> Folder:
    from retrieval.models.spec import benchmark_preparation, load_spec

    bundle, photos, truth = Folder.of(cfg.model), out / "photos", Folder.of(cfg.truth).uri
    spec = load_spec(bundle)
    prepare = benchmark_preparation(spec, bundle)
    named = on_cluster(benchmark_source.write_manifest, photos, truth, name, Folder.of(cfg.photos).uri)
    logger.info("%s: %d gallery images and %d queries are named", name, named["gallery"], named["queries"])
    if named["missing"]:
        logger.warning("%s: %d of them have no photo: the figures will be partial", name, named["missing"])
    collect(out / "collection", photos.uri, "manifest", prepare)
    _embed(cfg, out / "collection", bundle, out / "embeddings")
    distractors = [embed_distractors(cfg, out, Folder.of(where), bundle, prepare) for where in cfg.distractors]
    settings = settings_of(spec, prepare, cfg.expansion, cfg.augmentation)
    settings |= {"benchmark": name, "precision": cfg.precision}
    inputs = {"truth": named["truth"], "model": read_manifest(bundle, "model").fingerprint}
    for number, folder in enumerate([out / "embeddings", *distractors]):
        inputs[f"embeddings.{number}"] = read_manifest(folder, "embeddings").fingerprint
    report = report_of(cfg, out, settings, inputs, truth=truth, name=name, distractors=distractors)
    tracker.log_params(settings, prefix="benchmark")
    tracker.log_inputs({"model": bundle, "collection": out / "collection"})
    metrics = report.read_json("metrics.json")
    for system in metrics["order"]:
        prefix = f"{name}/{system.replace(' + ', '_')}"
        tracker.log_metrics(metrics["systems"][system] | metrics["counts"], prefix=prefix)
    tracker.log_folder(report, to="report")
    return report


def report_of(
    cfg: BenchmarkConfig, out: Folder, settings: dict[str, Any], inputs: dict[str, str], **scored: Any
) -> Folder:
    """A folder for each way of scoring, so that several lie beside the embeddings they share."""
    from retrieval.reports import benchmark

    work: dict[str, Any] = {"kind": "benchmark", "config": settings, "inputs": inputs}
    report = out / "reports" / digest(work)[:10]
    if begin(report, **work) is None:
        scored_too = [read_manifest(one, "embeddings").counts for one in (out / "embeddings", *scored["distractors"])]
        metrics = on_cluster(
            benchmark.write_report,
            report,
            needs=holding(sum((_PHOTO + _VECTORS * 4 * one["dim"]) * one["num"] for one in scored_too)),
            collection=out / "collection",
            embeddings=out / "embeddings",
            expansion=cfg.expansion,
            augmentation=cfg.augmentation,
            settings=settings,
            says="score",
            **scored,
        )
        counts = {f"{system}/{key}": value for system, own in metrics["systems"].items() for key, value in own.items()}
        seal(report, counts=metrics["counts"] | counts, aside=benchmark.ASIDE, **work)
    return report


def embed_distractors(
    cfg: BenchmarkConfig, out: Folder, where: Folder, bundle: Folder, prepare: PrepareConfig
) -> Folder:
    """Embeddings of a sealed collection, or of a folder of photos, which is ingested first."""
    from retrieval.models.spec import check_preparation

    own = out / "distractors" / digest(where.uri)[:10]
    if where.exists(MANIFEST):
        collection = where
        check_preparation(read_manifest(where, "collection"), prepare, where)
    else:
        collection = own / "collection"
        collect(collection, where.uri, "auto", prepare)
    _embed(cfg, collection, bundle, own / "embeddings")
    return own / "embeddings"


def collect(out: Folder, source: str, layout: Layout, prepare: PrepareConfig) -> None:
    split = SplitConfig(honour_source=True)
    settings = {"layout": layout, "prepare": plain(prepare), "split": plain(split)}
    collected = make_collection(out, source, layout=layout, prepare=prepare, split=split, settings=settings)
    if rejected := collected.counts["rejected_by_reason"]:
        told = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        logger.warning("%s: photos that are not taken: %s; see its folder rejected", out, told)


def _embed(cfg: BenchmarkConfig, collection: Folder, bundle: Folder, out: Folder) -> None:
    workers = {"workers": cfg.num_workers, "device": cfg.device, "engine": cfg.engine}
    make_embeddings(collection, bundle, out, precision=cfg.precision, **workers)


def settings_of(
    spec: ModelSpec, prepare: PrepareConfig, expansion: ExpansionConfig, augmentation: ExpansionConfig
) -> dict[str, Any]:
    """How the figures were made: what a person needs to compare them with others."""
    config = spec.config
    return {
        "resize": f"long side {prepare.size} pixels at most, never enlarged",
        "query": "box cut at full resolution, then shrunk as much as its whole photo",
        "jpeg_quality": prepare.quality,
        "backbone": config.backbone,
        "pooling": config.pooling,
        "head": config.head,
        "scales": list(config.scales),
        "flip": config.flip,
        "whitening": spec.whitening,
        "whitening_dim": spec.whitening_dim,
        **({"adapter": spec.adapter} if spec.adapter != "none" else {}),
        "expansion": plain(expansion),
        "augmentation": plain(augmentation),
    }


if __name__ == "__main__":
    command(BenchmarkConfig, main, __doc__)
