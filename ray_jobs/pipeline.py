"""Pipeline: from a folder of photographs to a search service, every step in turn.

    python -m ray_jobs.pipeline demo
    python -m ray_jobs.pipeline faces --source PHOTOS --workspace W             # people, labelled or not
    python -m ray_jobs.pipeline faces-train --source PHOTOS --workspace W       # a network of your own, from labels
    python -m ray_jobs.pipeline landmarks --source PHOTOS --workspace W         # places
    ray job submit --working-dir . -- python -m ray_jobs.pipeline faces --source s3://... --workspace s3://...

Each step writes to W/<kind>/<key>, where the key stands for its settings and inputs: a step that is there, sealed, is
not done again; one that was interrupted goes on; changed settings make a new folder and leave the old one alone.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ray_jobs import build_index, describe, embed, evaluate, group, ingest, reconstruct, train, whiten
from ray_jobs.draw import draw_faces, draw_places
from ray_jobs.presets import (
    LEARNED,
    PRESETS,
    RERANKED,
    AnyConfig,
    FacesConfig,
    FacesTrainConfig,
    LandmarksConfig,
    PipelineConfig,
    TrainedConfig,
    describes,
    num_steps,
    variants,
)
from ray_jobs.runtime.command import command
from ray_jobs.runtime.detector import with_detector
from ray_jobs.runtime.inputs import source_must_be_there, weights_must_be_there
from ray_jobs.runtime.news import quiet
from ray_jobs.runtime.road import Known, Road
from ray_jobs.runtime.session import on_cluster, session
from ray_jobs.runtime.summary import summary
from ray_jobs.runtime.tracking.runs import Tracker, open_run
from ray_jobs.runtime.tracking.store import store_uri
from retrieval.artifacts import published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.settings import Split
from retrieval.evaluation import tasks
from retrieval.evaluation.settings import System
from retrieval.models.known_weights import find
from retrieval.models.settings import ModelConfig

if TYPE_CHECKING:
    from ray_jobs.runtime.tracking.registry import Registration

logger = logging.getLogger(__name__)

_NOT_THE_WORK = ("workspace", "num_workers", "device", "tracking_uri", "limits")
Config = TypeVar("Config", bound=PipelineConfig, covariant=True)


@dataclass(frozen=True, slots=True)
class Run(Generic[Config]):
    """What every step of a road is given."""

    cfg: Config
    workspace: Folder
    tracker: Tracker
    road: Road
    weights: str
    """Where the network starts from; an MLflow name is a local folder by now."""
    detector: bytes | None = None
    """The file of the network that finds the faces, where one does."""


def main(cfg: AnyConfig) -> dict[str, Folder]:
    """Run all steps. Returns the folders made: collection, model, index; where photos are labelled or training was
    measured, report; trained networks also before, places also tuples, faces that were grouped people.

    Raises: ValueError for settings or inputs that do not fit, before the long steps where that can be known.
    """
    if cfg.source:
        source_must_be_there(cfg.source)
    if isinstance(cfg, TrainedConfig):
        weights_must_be_there(cfg.weights)
    prepare, detector = with_detector(cfg.prepare)  # once, for every step
    cfg = dataclasses.replace(cfg, prepare=prepare)
    workspace = Folder.of(cfg.workspace)
    store = store_uri(cfg.tracking_uri or None, workspace)
    started = time.monotonic()
    quiet.set_up_logging()
    # Said before anything heavy is imported: on a busy machine half a minute would pass without a word.
    logger.info("%s -> %s: starting Ray and MLflow", cfg.source or "photos drawn here", workspace)
    if isinstance(cfg, LandmarksConfig):
        cfg = with_local_features(cfg)
    with session(cfg.limits, writes=workspace, reads=[cfg.source]):
        work = {name: value for name, value in plain(cfg).items() if name not in _NOT_THE_WORK}
        tracker = open_run(
            store,
            experiment=cfg.model_name,
            key=digest([workspace.uri, work])[:24],
            name=f"{cfg.model.backbone}-{digest(work)[:6]}",
            workspace=workspace,
        )
        try:
            folders, registration = _run(cfg, workspace, tracker, detector)
        except BaseException:
            tracker.finish("FAILED")
            raise
        tracker.finish()
    print(summary(workspace, folders, tracker, registration, time.monotonic() - started), flush=True)
    return folders


def _run(
    cfg: AnyConfig, workspace: Folder, tracker: Tracker, detector: bytes | None
) -> tuple[dict[str, Folder], Registration | None]:
    tracker.log_params(plain(cfg), prefix="pipeline")
    road = Road(workspace, num_steps(cfg))
    weights = "none"
    if isinstance(cfg, TrainedConfig):
        weights = train.resolve_weights(cfg.weights, cfg.tracking_uri, workspace)
    if isinstance(cfg, FacesConfig):
        folders = faces(Run(cfg, workspace, tracker, road, weights, detector))
    elif isinstance(cfg, FacesTrainConfig):
        folders = train_faces(Run(cfg, workspace, tracker, road, weights, detector))
    else:
        folders = landmarks(Run(cfg, workspace, tracker, road, weights, detector))
    logger.info("publish and register")
    kinds = ("collection", "model", "index", "report", "people", "features")
    published.publish(workspace, **{kind: folders[kind] for kind in kinds if kind in folders})
    return folders, tracker.log_results(folders, model_name=cfg.model_name)


def faces(run: Run[FacesConfig]) -> dict[str, Folder]:
    """By a network that is taken as it is: who is on which photo. Where photos are labelled it is measured as well."""
    cfg = run.cfg
    model = _start(run, cfg.model)
    collection = _ingest(run, cfg.source or draw_faces(cfg.demo, _photos(run, cfg.demo)))
    system = _embed(run, collection, cfg.model.backbone.removeprefix("onnx:"), model)
    served = _index(run, collection, system, cfg.served_splits)
    made = {"collection": collection, "model": model, "index": served}
    if on_cluster(tasks.anything_labelled, collection):
        asked: dict[str, Any] = {"protocol": "leave-one-out", "subject": "person"}
        made["report"] = run.road.do(evaluate, "evaluate", collection=collection, systems=(system,), **asked)
    else:
        run.road.pass_by("evaluate: nobody said who is on these photos, so nothing can be measured")
    return made | {"people": _people(run, system, **made)}


def train_faces(run: Run[FacesTrainConfig]) -> dict[str, Folder]:
    """By labels: train on triplets, and measure before and after on people that training never saw."""
    cfg = run.cfg
    plain_trunk = ModelConfig(backbone=cfg.model.backbone, head="none", image_size=cfg.model.image_size)
    before = _start(run, plain_trunk, cfg.train.seed)
    collection = _ingest(run, cfg.source or draw_faces(cfg.demo, _photos(run, cfg.demo)))
    trained = _train(run, cfg.train.epochs, collection=collection, weights=_start_of(run, before), train=cfg.train)
    systems = [_embed(run, collection, name, model) for name, model in (("before", before), ("after", trained))]
    systems = [dataclasses.replace(one, index=_index(run, collection, one, ("gallery",))) for one in systems]
    served = _index(run, collection, systems[-1], cfg.served_splits)
    report = run.road.do(evaluate, "evaluate before and after", collection=collection, systems=tuple(systems))
    return {"collection": collection, "before": before, "model": trained, "index": served, "report": report}


def landmarks(run: Run[LandmarksConfig]) -> dict[str, Folder]:
    """By tuples: find places, train, add scales and whitening, and measure on places that training never saw."""
    cfg, labelled = run.cfg, run.cfg.mining == "clusters"
    before = _start(run, dataclasses.replace(cfg.model, head="none"), cfg.siamese.seed)
    collection = _ingest(run, cfg.source or draw_places(cfg.scenes, _photos(run, cfg.scenes)))
    say = "labels as places" if labelled else "find places: local features, pairs, reconstruction"
    looked = {"reconstruct": cfg.reconstruct, "labels_as_clusters": labelled}
    tuples = run.road.do(reconstruct, say, collection=collection, **looked)
    made_from: dict[str, Any] = {"collection": collection, "tuples": tuples}
    start: Folder | Known = _start_of(run, before)
    if cfg.model.head == "linear":  # it starts as whitening of its length, and trains on from there
        start = _whiten(run, _embed(run, collection, "before", before), cfg.model.embedding_dim, **made_from)
    trained = _train(run, cfg.siamese.epochs, weights=start, siamese=cfg.siamese, **made_from)
    systems = _variants(run, before, trained, **made_from)
    served = _index(run, collection, systems[-1], cfg.served_splits)
    protocol = "leave-one-out" if on_cluster(tasks.anything_labelled, collection) else "mined-places"
    asked: dict[str, Any] = {"protocol": protocol, "subject": "place", "expansion": cfg.expansion}
    asked |= {"rerank": cfg.rerank or 0}
    kept: dict[str, Folder] = {}
    if describes(cfg):
        say = "describe: learned local features of every photo"
        kept["features"] = run.road.do(describe, say, collection=collection, features=LEARNED)
    report = run.road.do(evaluate, "evaluate", systems=systems, **asked, **kept, **made_from)
    folders = {"collection": collection, "tuples": tuples, "before": before, "trained": trained, **kept}
    return folders | {"model": systems[-1].model, "index": served, "report": report}


def with_local_features(cfg: LandmarksConfig) -> LandmarksConfig:
    """The settings with `rerank` and `rerank_by` decided, before anything long is begun.

    Raises: ValueError if learned features are asked for and their weights are not at hand.
    """
    if cfg.rerank == 0 or cfg.rerank_by == "sift":
        return dataclasses.replace(cfg, rerank=cfg.rerank or 0)
    if cfg.rerank_by == "auto" and find(LEARNED.weights) is None:
        decided = dataclasses.replace(cfg, rerank=cfg.rerank or 0, rerank_by="sift")
        logger.info(
            "results are %s. Learned local features find more, in pairs that differ in light and season above all: "
            "python -m ray_jobs.weights --fetch %s",
            "put in order by SIFT" if decided.rerank else "not put in order by geometry",
            LEARNED.weights,
        )
        return decided
    describe.network_of(LEARNED)
    return dataclasses.replace(cfg, rerank=cfg.rerank or RERANKED, rerank_by="aliked")


def _photos(run: Run, drawn: Any) -> Folder:
    """Where the photos of a demo are drawn: those of each setting side by side."""
    return run.workspace / "photos" / digest(plain(drawn))[:10]


def _start(run: Run, config: ModelConfig, seed: int = 0) -> Folder:
    """The bundle that a road begins with: a network taken as it is, or what training is compared with."""
    from retrieval.models import bundle

    preparation = plain(run.cfg.prepare)
    net = bundle.start(config, weights=run.weights, preparation=preparation, seed=seed, detector=run.detector)
    decides = {"config": config, "preparation": preparation, "weights": bundle.digest_of(net)}
    say = f"starting point: {config.backbone}" + (f", weights {run.cfg.weights}" if not config.is_frozen else "")
    return run.road.make("model", say, lambda out: bundle.save_start(net, out), **decides)


def _start_of(run: Run, before: Folder) -> Known:
    """The weights that training starts from, known by the bundle they were put into."""
    return Known(run.weights, read_manifest(before).fingerprint)


def _ingest(run: Run, source: str) -> Folder:
    cfg = run.cfg
    photos = Known(source, ingest.source_fingerprint(source, cfg.layout))
    settings = {"layout": cfg.layout, "prepare": cfg.prepare, "split": cfg.split}
    return run.road.do(ingest, f"ingest {source}", source=photos, **settings)


def _train(run: Run, epochs: int, **settings: Any) -> Folder:
    settings |= {"model": run.cfg.model, "num_workers": run.cfg.num_workers, "device": run.cfg.device}
    return run.road.do(train, f"train {epochs} epochs", beside={"tracker": run.tracker}, **settings)


def _embed(run: Run, collection: Folder, name: str, model: Folder) -> System:
    vectors = run.road.do(embed, f"embed: {name}", collection=collection, model=model, device=run.cfg.device)
    return System(name=name, model=model, embeddings=vectors)


def _whiten(run: Run[LandmarksConfig], system: System, dim: int, **made_from: Folder) -> Folder:
    settings = {"whiten": dataclasses.replace(run.cfg.whiten, dim=dim), **made_from}
    return run.road.do(whiten, f"whiten: {system.name}", model=system.model, embeddings=system.embeddings, **settings)


def _index(run: Run, collection: Folder, system: System, splits: tuple[Split, ...]) -> Folder:
    settings = {"collection": collection, "embeddings": system.embeddings, "index": run.cfg.index}
    return run.road.do(build_index, f"index: {system.name}, {' '.join(splits)}", splits=splits, **settings)


def _people(run: Run[FacesConfig], system: System, report: Folder | None = None, **made: Folder) -> Folder:
    """Who is who. Numbers of the groups that the workspace has published go on, whatever was added since."""
    settings: dict[str, Any] = {"embeddings": system.embeddings, "calibration": report or "", "group": run.cfg.grouping}
    # Groups that were published go on in these. They are no part of the key: else each run would group anew, since the
    # one before it did.
    before = published.read_current(run.workspace).get("people") if published.is_published(run.workspace) else None
    settings["previous"] = Known(before.uri, "") if before is not None else Known("", "")
    return run.road.do(group, "group: who is who", beside={"tracker": run.tracker}, **settings, **made)


def _variants(run: Run[LandmarksConfig], before: Folder, trained: Folder, **made_from: Folder) -> tuple[System, ...]:
    """What is compared, each made from one that is shorter by a part; the last is the one that is served."""
    cfg, made = run.cfg, dict[tuple[str, ...], System]()
    for parts in sorted(variants(cfg), key=len):
        if parts[-1] == "Lw":
            model = _whiten(run, made[parts[:-1]], cfg.whiten.dim, **made_from)
        elif parts[-1] == "ms":
            model = _at_scales(run, made[parts[:-1]])
        else:
            model = {"before": before, "after": trained}[parts[-1]]
        made[parts] = _embed(run, made_from["collection"], " + ".join(parts), model)
    return tuple(made[parts] for parts in variants(cfg))


def _at_scales(run: Run[LandmarksConfig], system: System) -> Folder:
    """The same network, describing photos at several scales."""
    from retrieval.models import bundle

    scales, model = run.cfg.scales, system.model
    say = f"describe at {len(scales)} scales: {system.name}"
    return run.road.make("model", say, lambda out: bundle.save_scaled(model, out, scales), scales=scales, model=model)


if __name__ == "__main__":
    command(PRESETS, main, __doc__)
