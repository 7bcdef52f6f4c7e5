"""Pipeline: from a folder of photographs to a search service, every step in turn.

    python -m ray_jobs.pipeline demo
    python -m ray_jobs.pipeline faces --source PHOTOS --workspace W
    ray job submit --working-dir . -- python -m ray_jobs.pipeline faces --source s3://... --workspace s3://...

Each step writes to W/<step>/<key>, where the key stands for its settings and inputs: a step that is there, sealed, is
not done again; one that was interrupted goes on; changed settings make a new folder and leave the old one alone.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import ray
import tyro

from ray_jobs import build_index, embed, evaluate, ingest, train
from ray_jobs.presets import PRESETS, PipelineConfig
from ray_jobs.session import run_parts, session
from ray_jobs.tracking import Registration, Tracker, open_run, store_uri
from retrieval import artifacts, demo_faces, model
from retrieval.artifacts import Folder, digest, plain, read_manifest
from retrieval.demo_faces import DemoConfig
from retrieval.model import ModelConfig

logger = logging.getLogger(__name__)
_STEPS = 7
_DEMO_PART = 100  # photos drawn by one task
_NOT_IN_KEY = ("workspace", "num_workers", "device", "tracking_uri")


def main(cfg: PipelineConfig) -> dict[str, Folder]:
    """Run all steps. Returns the folders made: collection, before, model, index, report.

    Raises: ValueError for settings or inputs that do not fit, before the long steps where that can be known.
    """
    workspace = Folder.of(cfg.workspace)
    started = time.monotonic()
    with session():
        tracker = open_run(
            store_uri(cfg.tracking_uri or None, workspace),
            experiment=cfg.model_name,
            key=digest([workspace.uri, _without(plain(cfg))])[:24],
            name=f"{cfg.model.backbone}-{digest(_without(plain(cfg)))[:6]}",
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
    before = _starting_point(cfg, workspace, weights)
    collection = _collect(cfg, workspace)
    trained = _train(cfg, workspace, collection, weights, tracker)
    systems, served = [], Folder("")
    for name, bundle in (("before", before), ("after", trained)):
        _step(4 if name == "before" else 5, f"embed and index with the model {name} training")
        embeddings = _embed(cfg, workspace, collection, bundle)
        gallery = _index(cfg, workspace, collection, embeddings, ("gallery",))
        systems.append(f"{name}={bundle},{embeddings},{gallery}")
        if bundle == trained:
            served = _index(cfg, workspace, collection, embeddings, cfg.served_splits)
    report = _evaluate(workspace, collection, systems)
    _step(7, "publish and register")
    artifacts.publish(workspace, collection=collection, model=trained, index=served)
    folders = {"collection": collection, "before": before, "model": trained, "index": served, "report": report}
    return folders, _track(cfg, tracker, folders)


def _starting_point(cfg: PipelineConfig, workspace: Folder, weights: str) -> Folder:
    """The bundle that training is compared with: the same trunk, whole, average-pooled, with no head."""
    _step(1, f"starting point: {cfg.model.backbone}, weights {cfg.weights}")
    config = ModelConfig(backbone=cfg.model.backbone, head="none", image_size=cfg.model.image_size)
    preparation = plain(cfg.prepare)
    net = model.build(config, weights=weights, preparation=preparation, seed=cfg.train.seed)
    inputs = {"weights": model.digest_of(net)}
    out = _folder(workspace, "model", {"config": config, "preparation": preparation, "inputs": inputs})
    if artifacts.begin(out, kind="model", config=net.spec, inputs=inputs) is None:
        model.save_bundle(net, out, inputs=inputs)
    return out


def _collect(cfg: PipelineConfig, workspace: Folder) -> Folder:
    source = cfg.source or _draw(cfg.demo, workspace / "photos" / digest(plain(cfg.demo))[:10])
    _step(2, f"ingest {source}")
    fingerprint = ingest.source_fingerprint(source, cfg.layout)
    parts = {"layout": cfg.layout, "prepare": cfg.prepare, "split": cfg.split}
    out = _folder(workspace, "collection", {**parts, "inputs": fingerprint})
    return ingest.main(ingest.IngestConfig(source=source, out=out.uri, **parts))


def _draw(demo: DemoConfig, out: Folder) -> str:
    """The demo's photos, drawn by tasks in ranges; the identity file, written last, says that they are all there."""
    if not out.is_local:
        raise ValueError(f"The demo draws its faces on a local disk, the workspace is {out}. Give --source, or a path.")
    if not out.exists("identity_CelebA.txt"):
        starts = range(0, demo.num_images, _DEMO_PART)
        for _ in run_parts(
            "draw", list(starts), _draw_part, total_items=demo.num_images, fn_kwargs={"out": out, "demo": demo}
        ):
            pass
        ray.get(ray.remote(demo_faces.write_lists).remote(Path(out.path), demo))
    return out.uri


def _draw_part(batch: dict[str, Any], *, out: Folder, demo: DemoConfig) -> dict[str, Any]:
    start = int(batch["part"][0])
    stop = min(start + _DEMO_PART, demo.num_images)
    demo_faces.draw_images(Path(out.path), start, stop, demo)
    return {"taken": [stop - start]}


def _train(cfg: PipelineConfig, workspace: Folder, collection: Folder, weights: str, tracker: Tracker) -> Folder:
    _step(3, f"train {cfg.train.epochs} epochs")
    inputs = {"collection": read_manifest(collection).fingerprint, "weights": weights}
    out = _folder(workspace, "model", {"model": cfg.model, "train": cfg.train, "inputs": inputs})
    job = train.TrainJobConfig(
        collection=collection.uri,
        out=out.uri,
        weights=weights,
        model=cfg.model,
        train=cfg.train,
        num_workers=cfg.num_workers,
        device=cfg.device,
    )
    train.main(job, tracker)
    return out


def _embed(cfg: PipelineConfig, workspace: Folder, collection: Folder, bundle: Folder) -> Folder:
    out = _folder(workspace, "embeddings", {"inputs": _fingerprints(collection, bundle)})
    embed.main(embed.EmbedConfig(collection=collection.uri, model=bundle.uri, out=out.uri, device=cfg.device))
    return out


def _index(
    cfg: PipelineConfig, workspace: Folder, collection: Folder, embeddings: Folder, splits: tuple[str, ...]
) -> Folder:
    inputs = _fingerprints(collection, embeddings)
    out = _folder(workspace, "index", {"index": cfg.index, "splits": splits, "inputs": inputs})
    job = build_index.BuildIndexConfig(
        embeddings=embeddings.uri, collection=collection.uri, out=out.uri, splits=splits, index=cfg.index
    )
    build_index.main(job)
    return out


def _evaluate(workspace: Folder, collection: Folder, systems: list[str]) -> Folder:
    _step(6, "evaluate before and after")
    sealed = [read_manifest(Folder(part)).fingerprint for system in systems for part in system.split("=")[1].split(",")]
    out = _folder(workspace, "report", {"inputs": [read_manifest(collection).fingerprint, *sealed]})
    evaluate.main(evaluate.EvaluateConfig(out=out.uri, collection=collection.uri, systems=tuple(systems)))
    return out


def _track(cfg: PipelineConfig, tracker: Tracker, folders: dict[str, Folder]) -> Registration | None:
    """Figures, report and bundle into MLflow; the bundle is registered if it was validated."""
    tracker.log_inputs(folders)
    tracker.log_folder(folders["report"], to="report")
    for name, figures in folders["report"].read_json("metrics.json")["systems"].items():
        tracker.log_metrics(figures, prefix=f"test/{name}")
    counts = read_manifest(folders["model"]).counts
    if counts["best_val_mAP"] is None:
        logger.warning("No validation identities, so the bundle has no figure to be ranked by: it is not registered.")
        return None
    return tracker.register_bundle(
        folders["model"],
        name=cfg.model_name,
        metric="val/mAP",
        value=counts["best_val_mAP"],
        measured_on=read_manifest(folders["collection"]).fingerprint,
    )


def _folder(workspace: Folder, step: str, made_of: dict[str, Any]) -> Folder:
    """<workspace>/<step>/<key>: other settings or inputs, another folder."""
    return workspace / step / digest({name: plain({"": value})[""] for name, value in made_of.items()})[:10]


def _fingerprints(*folders: Folder) -> list[str]:
    return [read_manifest(folder).fingerprint for folder in folders]


def _without(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _NOT_IN_KEY}


def _step(number: int, what: str) -> None:
    logger.info("[%d/%d] %s", number, _STEPS, what)


def _say_where(
    cfg: PipelineConfig,
    workspace: Folder,
    folders: dict[str, Folder],
    tracker: Tracker,
    registration: Registration | None,
    seconds: float,
) -> None:
    print(f"\nDone in {seconds:.0f} s.")
    for name in ("collection", "model", "index"):
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
