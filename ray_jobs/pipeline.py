"""Pipeline: from a folder of photographs to a search service, every step in turn.

    python -m ray_jobs.pipeline demo
    python -m ray_jobs.pipeline faces --source PHOTOS --workspace W
    python -m ray_jobs.pipeline landmarks --source PHOTOS --workspace W
    ray job submit --working-dir . -- python -m ray_jobs.pipeline faces --source s3://... --workspace s3://...

Each step writes to W/<step>/<key>, where the key stands for its settings and inputs: a step that is there, sealed, is
not done again; one that was interrupted goes on; changed settings make a new folder and leave the old one alone.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import tyro

from ray_jobs import build_index, embed, evaluate, ingest, reconstruct, train, whiten
from ray_jobs.draw import draw_faces, draw_places
from ray_jobs.presets import PRESETS, PipelineConfig
from ray_jobs.runtime.registry import Registration
from ray_jobs.runtime.road import Steps, fingerprints, folder_of, without
from ray_jobs.runtime.runs import Tracker, open_run
from ray_jobs.runtime.session import on_cluster, session
from ray_jobs.runtime.store import store_uri
from retrieval.artifacts import manifest, published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation import tasks
from retrieval.models import network
from retrieval.models.bundle import build, digest_of, keep_history, kept_counts, load_bundle, save_bundle
from retrieval.models.settings import ModelConfig

logger = logging.getLogger(__name__)


def main(cfg: PipelineConfig) -> dict[str, Folder]:
    """Run all steps. Returns the folders made: collection, before, model, index, report; and tuples, if found.

    Raises: ValueError for settings or inputs that do not fit, before the long steps where that can be known.
    """
    workspace = Folder.of(cfg.workspace)
    started = time.monotonic()
    with session():
        tracker = open_run(
            store_uri(cfg.tracking_uri or None, workspace),
            experiment=cfg.model_name,
            key=digest([workspace.uri, without(plain(cfg))])[:24],
            name=f"{cfg.model.backbone}-{digest(without(plain(cfg)))[:6]}",
        )
        try:
            folders, registration = _run(cfg, workspace, tracker)
        except BaseException:
            tracker.finish("FAILED")
            raise
        tracker.finish()
    _say_where(cfg, workspace, folders, tracker, registration, time.monotonic() - started)
    return folders


def _run(cfg: PipelineConfig, workspace: Folder, tracker: Tracker) -> tuple[dict[str, Folder], Registration | None]:
    tracker.log_params(plain(cfg), prefix="pipeline")
    weights = train.resolve_weights(cfg.weights, cfg.tracking_uri, workspace)
    if cfg.mining == "labels":
        folders = _by_labels(cfg, workspace, weights, tracker)
    else:
        folders = _by_tuples(cfg, workspace, weights, tracker)
    logger.info("publish and register")
    published.publish(workspace, collection=folders["collection"], model=folders["model"], index=folders["index"])
    return folders, _track(cfg, tracker, folders)


def _by_labels(cfg: PipelineConfig, workspace: Folder, weights: str, tracker: Tracker) -> dict[str, Folder]:
    steps = Steps(6)
    steps.next(f"starting point: {cfg.model.backbone}, weights {cfg.weights}")
    before = _starting_point(cfg, workspace, weights)
    collection = _collect(cfg, workspace, steps)
    steps.next(f"train {cfg.train.epochs} epochs")
    trained = _train(cfg, workspace, collection, weights, tracker)
    systems, served = [], Folder("")
    for name, bundle in (("before", before), ("after", trained)):
        steps.next(f"embed and index with the model {name} training")
        embeddings = _embed(cfg, workspace, collection, bundle)
        gallery = _index(cfg, workspace, collection, embeddings, ("gallery",))
        systems.append(f"{name}={bundle},{embeddings},{gallery}")
        if bundle == trained:
            served = _index(cfg, workspace, collection, embeddings, cfg.served_splits)
    steps.next("evaluate before and after")
    report = _evaluate(workspace, collection, systems)
    return {"collection": collection, "before": before, "model": trained, "index": served, "report": report}


def _by_tuples(cfg: PipelineConfig, workspace: Folder, weights: str, tracker: Tracker) -> dict[str, Folder]:
    """As `_by_labels`, with tuples found first, and whitening and scales added to the trained model."""
    steps = Steps(7)
    steps.next(f"starting point: {cfg.model.backbone}, weights {cfg.weights}")
    before = _starting_point(cfg, workspace, weights)
    collection = _collect(cfg, workspace, steps)
    steps.next(
        "find places: local features, pairs, reconstruction" if cfg.mining == "structure" else "labels as places"
    )
    tuples = _reconstruct(cfg, workspace, collection)
    steps.next(f"train {cfg.siamese.epochs} epochs")
    if cfg.model.head == "linear":
        weights = _whitened_start(cfg, workspace, collection, tuples, before).uri
    trained = _train(cfg, workspace, collection, weights, tracker, tuples)
    steps.next("embed, whitened and at several scales")
    systems, served, embeddings = _variants(cfg, workspace, collection, tuples, before, trained)
    steps.next("index")
    index = _index(cfg, workspace, collection, embeddings, cfg.served_splits)
    steps.next("evaluate")
    report = _evaluate(workspace, collection, systems, cfg, tuples)
    folders = {"collection": collection, "tuples": tuples, "before": before, "trained": trained}
    return folders | {"model": served, "index": index, "report": report}


def _variants(
    cfg: PipelineConfig, workspace: Folder, collection: Folder, tuples: Folder, before: Folder, trained: Folder
) -> tuple[list[str], Folder, Folder]:
    """What is compared, as NAME=MODEL,EMBEDDINGS; the bundle that is served, put last, and its embeddings."""
    made: dict[str, tuple[Folder, Folder]] = {}

    def add(name: str, bundle: Folder) -> Folder:
        embeddings = _embed(cfg, workspace, collection, bundle)
        made[name] = (bundle, embeddings)
        return embeddings

    def whitened(name: str, bundle: Folder, embeddings: Folder) -> None:
        add(f"{name} + Lw", _whiten(cfg, workspace, collection, tuples, bundle, embeddings))

    several = len(cfg.scales) > 1
    whitening = cfg.whitened and cfg.model.head != "linear"  # which is whitening that was trained
    served = "after" + (" + ms" if several else "") + (" + Lw" if whitening else "")
    for name, base in (("before", before), ("after", trained)):
        embeddings = add(name, base)
        if cfg.ablate or served == f"{name} + Lw":
            whitened(name, base, embeddings)
        if several and (cfg.ablate or served.startswith(f"{name} + ms")):
            scaled = _scaled(cfg, workspace, base)
            embeddings = add(f"{name} + ms", scaled)
            if cfg.ablate or served == f"{name} + ms + Lw":
                whitened(f"{name} + ms", scaled, embeddings)
    order = [name for name in made if name != served] + [served]
    return [f"{name}={made[name][0]},{made[name][1]}" for name in order], *made[served]


def _whitened_start(
    cfg: PipelineConfig, workspace: Folder, collection: Folder, tuples: Folder, before: Folder
) -> Folder:
    """The starting point with whitening of the head's length: a linear head starts as it and trains on from there."""
    embeddings = _embed(cfg, workspace, collection, before)
    learned = dataclasses.replace(cfg.whiten, dim=cfg.model.embedding_dim)
    return _whiten(dataclasses.replace(cfg, whiten=learned), workspace, collection, tuples, before, embeddings)


def _reconstruct(cfg: PipelineConfig, workspace: Folder, collection: Folder) -> Folder:
    settings = {"reconstruct": cfg.reconstruct, "labels_as_clusters": cfg.mining == "clusters"}
    out = folder_of(workspace, "tuples", {**settings, "inputs": fingerprints(collection)})
    reconstruct.main(reconstruct.ReconstructJobConfig(collection=collection.uri, out=out.uri, **settings))
    return out


def _whiten(
    cfg: PipelineConfig, workspace: Folder, collection: Folder, tuples: Folder, bundle: Folder, embeddings: Folder
) -> Folder:
    inputs = fingerprints(collection, tuples, bundle, embeddings)
    out = folder_of(workspace, "model", {"whiten": cfg.whiten, "inputs": inputs})
    job = whiten.WhitenJobConfig(
        model=bundle.uri,
        collection=collection.uri,
        embeddings=embeddings.uri,
        tuples=tuples.uri,
        out=out.uri,
        whiten=cfg.whiten,
    )
    whiten.main(job)
    return out


def _scaled(cfg: PipelineConfig, workspace: Folder, bundle: Folder) -> Folder:
    """The same network, describing photos at several scales."""
    sealed = read_manifest(bundle, "model")
    inputs = {"model": sealed.fingerprint}
    out = folder_of(workspace, "model", {"scales": cfg.scales, "inputs": inputs})
    net = network.with_scales(load_bundle(bundle), cfg.scales)
    if manifest.begin(out, kind="model", config=net.spec, inputs=inputs) is None:
        save_bundle(net, out, inputs=inputs, counts=kept_counts(sealed), run=keep_history(bundle, out))
    return out


def _starting_point(cfg: PipelineConfig, workspace: Folder, weights: str) -> Folder:
    """The bundle that training is compared with: the same trunk with no head, for faces whole and average-pooled."""
    if cfg.mining == "labels":
        config = ModelConfig(backbone=cfg.model.backbone, head="none", image_size=cfg.model.image_size)
    else:
        config = dataclasses.replace(cfg.model, head="none")
    preparation = plain(cfg.prepare)
    net = build(config, weights=weights, preparation=preparation, seed=cfg.train.seed)
    inputs = {"weights": digest_of(net)}
    out = folder_of(workspace, "model", {"config": config, "preparation": preparation, "inputs": inputs})
    if manifest.begin(out, kind="model", config=net.spec, inputs=inputs) is None:
        save_bundle(net, out, inputs=inputs)
    return out


def _collect(cfg: PipelineConfig, workspace: Folder, steps: Steps) -> Folder:
    source = cfg.source
    if not source and cfg.mining == "labels":
        source = draw_faces(cfg.demo, workspace / "photos" / digest(plain(cfg.demo))[:10])
    elif not source:
        source = draw_places(cfg.scenes, workspace / "photos" / digest(plain(cfg.scenes))[:10])
    steps.next(f"ingest {source}")
    fingerprint = ingest.source_fingerprint(source, cfg.layout)
    parts = {"layout": cfg.layout, "prepare": cfg.prepare, "split": cfg.split}
    out = folder_of(workspace, "collection", {**parts, "inputs": fingerprint})
    return ingest.main(ingest.IngestConfig(source=source, out=out.uri, **parts))


def _train(
    cfg: PipelineConfig,
    workspace: Folder,
    collection: Folder,
    weights: str,
    tracker: Tracker,
    tuples: Folder | None = None,
) -> Folder:
    inputs = {"collection": read_manifest(collection).fingerprint, "weights": weights}
    recipe = {"train": cfg.train} if tuples is None else {"siamese": cfg.siamese, "tuples": fingerprints(tuples)}
    out = folder_of(workspace, "model", {"model": cfg.model, **recipe, "inputs": inputs})
    job = train.TrainJobConfig(
        collection=collection.uri,
        out=out.uri,
        weights=weights,
        model=cfg.model,
        train=cfg.train,
        tuples=tuples.uri if tuples is not None else "",
        siamese=cfg.siamese,
        num_workers=cfg.num_workers,
        device=cfg.device,
    )
    train.main(job, tracker)
    return out


def _embed(cfg: PipelineConfig, workspace: Folder, collection: Folder, bundle: Folder) -> Folder:
    out = folder_of(workspace, "embeddings", {"inputs": fingerprints(collection, bundle)})
    embed.main(embed.EmbedConfig(collection=collection.uri, model=bundle.uri, out=out.uri, device=cfg.device))
    return out


def _index(
    cfg: PipelineConfig, workspace: Folder, collection: Folder, embeddings: Folder, splits: tuple[str, ...]
) -> Folder:
    inputs = fingerprints(collection, embeddings)
    out = folder_of(workspace, "index", {"index": cfg.index, "splits": splits, "inputs": inputs})
    job = build_index.BuildIndexConfig(
        embeddings=embeddings.uri, collection=collection.uri, out=out.uri, splits=splits, index=cfg.index
    )
    build_index.main(job)
    return out


def _evaluate(
    workspace: Folder,
    collection: Folder,
    systems: list[str],
    cfg: PipelineConfig | None = None,
    tuples: Folder | None = None,
) -> Folder:
    """Args: cfg, tuples: for places, where each photo of the test places, or of mined ones, asks all others."""
    sealed = [read_manifest(Folder(part)).fingerprint for system in systems for part in system.split("=")[1].split(",")]
    options: dict[str, Any] = {}
    if cfg is not None and tuples is not None:
        labelled = on_cluster(tasks.anything_labelled, collection)
        options = {"protocol": "leave-one-out" if labelled else "mined-places", "subject": "place"}
        options |= {"expansion": cfg.expansion, "rerank": cfg.rerank, "tuples": tuples.uri}
    settings = {"inputs": [read_manifest(collection).fingerprint, *sealed], "options": options}
    out = folder_of(workspace, "report", settings if options else {"inputs": settings["inputs"]})
    evaluate.main(evaluate.EvaluateConfig(out=out.uri, collection=collection.uri, systems=tuple(systems), **options))
    return out


def _track(cfg: PipelineConfig, tracker: Tracker, folders: dict[str, Folder]) -> Registration | None:
    """Figures, report and bundle into MLflow; the bundle is registered if it was validated."""
    tracker.log_inputs(folders)
    tracker.log_folder(folders["report"], to="report")
    for name, figures in folders["report"].read_json("metrics.json")["systems"].items():
        tracker.log_metrics(figures, prefix=f"test/{name.replace(' + ', '_')}")
    counts = read_manifest(folders["model"]).counts
    if counts["best_val_mAP"] is None:
        logger.warning("Nothing to validate on, so the bundle has no figure to be ranked by: it is not registered.")
        return None
    return tracker.register_bundle(
        folders["model"],
        name=cfg.model_name,
        metric="val/mAP",
        value=counts["best_val_mAP"],
        measured_on=read_manifest(folders["collection"]).fingerprint,
    )


def _say_where(
    cfg: PipelineConfig,
    workspace: Folder,
    folders: dict[str, Folder],
    tracker: Tracker,
    registration: Registration | None,
    seconds: float,
) -> None:
    print(f"\nDone in {seconds:.0f} s.")
    for name in (name for name in ("collection", "tuples", "model", "index") if name in folders):
        print(f"  {name:<11}{folders[name]}")
    print(f"  {'report':<11}{folders['report']}/report.html")
    print(f"  {'MLflow':<11}run {tracker.run_id}: mlflow ui --backend-store-uri {tracker.uri}")
    if registration is not None:
        alias = " (champion)" if registration.is_champion else ""
        print(f"  {'registered':<11}{registration.name} version {registration.version}{alias}: {registration.reason}")
    print(f"Serve it:\n  serve run serve.app:build_app workspace={workspace}", flush=True)


def cli() -> PipelineConfig:
    """The preset named first on the command line, with the flags that follow laid over it."""
    return tyro.extras.overridable_config_cli(PRESETS, prog="python -m ray_jobs.pipeline", description=__doc__)


if __name__ == "__main__":
    main(cli())
