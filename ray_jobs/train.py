"""Train: a collection -> a fine-tuned model bundle, by Ray Train (DDP), with negatives re-mined every epoch.

By labels (triplets), or, with --tuples, by what reconstruction found without any (siamese, contrastive):

    python -m ray_jobs.train --collection W/collection --out W/model --weights mobilenet_v2.pth
    python -m ray_jobs.train --collection W/collection --tuples W/tuples --out W/model --model.keep-aspect ...
    ray job submit --working-dir . -- python -m ray_jobs.train --collection s3://... --out s3://... --num-workers 4

A killed worker, or the same command given again after a crash, goes on from the last epoch with the same draws. Photos
that end the workers are named.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_at_least, weights_must_be_there
from ray_jobs.runtime.news.progress import told
from ray_jobs.runtime.parallel.limits import Limits
from retrieval.artifacts.collection import LocalCollection, keep_detector, localise
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.history import CURVES, TUPLES_SHEET, write_history
from retrieval.artifacts.manifest import MANIFEST, Manifest, begin, check_made_from, read_manifest
from retrieval.artifacts.progress import silent
from retrieval.artifacts.storage.patience import patience
from retrieval.artifacts.tuples import read_tuples
from retrieval.images import native
from retrieval.models.settings import Device, ModelConfig
from retrieval.training.settings import TrainConfig, TupleTrainConfig

if TYPE_CHECKING:  # loaded where they are used: --help and a wrong setting are answered before
    from ray_jobs.runtime.tracking.runs import Tracker
    from retrieval.models.network import EmbeddingNet
    from retrieval.training.recipe import Recipe
    from retrieval.training.trainer import Trainer
    from retrieval.training.workers import Rank

logger = logging.getLogger(__name__)
# These do not decide the result: the model, the training settings and the inputs' fingerprints do.
_PLACES = ("collection", "out", "weights", "tuples")
_SPLITS = ("train", "val")
CHECKPOINT = "state.pt"
_SHEET = "tuples of the last epoch: query, positive, hard negatives"
_SHOWN = ("train/loss", "val/mAP", "val/recall@1", "val/recall@10")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJobConfig:
    """Fine-tune a model on a collection."""

    collection: str
    """Folder or URI of a sealed collection (python -m ray_jobs.ingest); with labels, unless --tuples is given."""
    tuples: str = ""
    """Folder or URI of that collection's training tuples (python -m ray_jobs.reconstruct): `siamese` says how they are
    used. Empty: triplets are drawn by the collection's labels, as `train` says."""
    out: str
    """Folder or URI of the bundle to make. One that was begun with the same settings is continued."""
    weights: str = "imagenet"
    """Starting point: imagenet (torchvision, or timm, downloads it), a .pth or .safetensors file, a bundle's folder,
    models:/name@alias in MLflow, or none."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it is fine-tuned by labels."""
    siamese: TupleTrainConfig = field(default_factory=TupleTrainConfig)
    """How it is fine-tuned by --tuples."""
    num_workers: int = 1
    """Processes training together (DDP), one GPU each where there are GPUs. 0: in the job's own process."""
    cpus_per_worker: int = 0
    """CPU cores of each worker; 0: the nodes' cores divided by their workers."""
    device: Device = "auto"
    """auto: a GPU a worker if the cluster has any; cpu; cuda."""
    cache: str = ""
    """Folder on each node's disk for crops and frozen features; empty: the system's temporary folder."""
    max_failures: int = 3
    """How often a lost worker is replaced before the job gives up."""
    tracking_uri: str = ""
    """MLflow store that `models:/` weights are fetched from; empty: MLFLOW_TRACKING_URI."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying."""

    def __post_init__(self) -> None:
        must_be_at_least(0, self, "num_workers", "cpus_per_worker", "max_failures")


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "model", TrainJobConfig
SPEED = ("num_workers", "cpus_per_worker", "device", "cache", "max_failures", "tracking_uri", "limits")


class ByLabels:
    """The recipe for a collection with labels: triplets. `make` gives it, on a worker."""

    ignore = (*_PLACES, *SPEED, "siamese")
    """Settings that do not decide the result: those for speed, and of the recipe that is not used."""

    def __init__(self, cfg: TrainJobConfig) -> None:
        self.config = cfg.train

    def inputs(self, collected: str) -> dict[str, str]:
        """What is trained on beside the collection of fingerprint `collected`, by fingerprint."""
        return {}

    def make(self, local: LocalCollection, scratch: Path) -> Recipe[Any, Any]:
        from retrieval.training.label_recipe import LabelRecipe

        return LabelRecipe(local, self.config, scratch=scratch)


class ByTuples:
    """The recipe for what reconstruction found, without labels: siamese. See `ByLabels`."""

    ignore = (*_PLACES, *SPEED, "train")

    def __init__(self, cfg: TrainJobConfig) -> None:
        self.config, self.tuples = cfg.siamese, cfg.tuples

    def inputs(self, collected: str) -> dict[str, str]:
        """Raises: ValueError if the tuples were made of another collection."""
        manifest = read_manifest(Folder.of(self.tuples), "tuples")
        check_made_from(self.tuples, manifest, "collection", collected)
        return {"tuples": manifest.fingerprint}

    def make(self, local: LocalCollection, scratch: Path) -> Recipe[Any, Any]:
        from retrieval.training.tuple_recipe import TupleRecipe

        return TupleRecipe(local, read_tuples(Folder.of(self.tuples)), self.config)


def chosen(cfg: TrainJobConfig) -> ByLabels | ByTuples:
    """The recipe that the job's settings name."""
    return ByTuples(cfg) if cfg.tuples else ByLabels(cfg)


@alone
def main(cfg: TrainJobConfig, tracker: Tracker | None = None) -> Manifest:
    """Train, or find it done. Returns the bundle's manifest.

    Args: tracker: MLflow run that rank 0 logs each epoch into.

    Raises: ValueError for settings, weights or a collection that do not fit, before any worker starts.
    """
    collection, out, recipe = Folder.of(cfg.collection), Folder.of(cfg.out), chosen(cfg)
    collected = read_manifest(collection, "collection")
    inputs = {"collection": collected.fingerprint, **recipe.inputs(collected.fingerprint)}
    weights = resolve_weights(cfg.weights, cfg.tracking_uri, out)

    from ray_jobs.runtime.session import session
    from retrieval.models import bundle

    # Builds the network once here: a wrong name or file must fail in a second, not after workers have started.
    start = bundle.build(cfg.model, weights=weights, preparation=collected.config["prepare"], seed=recipe.config.seed)
    inputs["weights"] = bundle.digest_of(start)
    if (done := begin(out, kind="model", config=cfg, inputs=inputs, ignore=recipe.ignore)) is not None:
        logger.info("train: %s is sealed already", out)
        return done
    with session(cfg.limits, writes=out, reads=[cfg.collection]):
        _fit(cfg, out, start, inputs, tracker)
    return read_manifest(out, "model")


def resolve_weights(weights: str, tracking_uri: str, near: Folder) -> str:
    """`weights` with an MLflow URI replaced by a local folder, and a local path made absolute.

    Raises: ValueError if there is nothing of that name.
    """
    if weights.startswith("models:/"):
        from ray_jobs.runtime.tracking.registry import fetch_bundle
        from ray_jobs.runtime.tracking.store import store_uri

        uri = store_uri(tracking_uri or None, near)
        return str(fetch_bundle(weights, Path(tempfile.gettempdir()) / "retrieval-bundles", uri=uri))
    weights_must_be_there(weights)
    return weights if weights in ("none", "imagenet") else Folder.of(weights).uri


def _fit(
    cfg: TrainJobConfig, out: Folder, start: EmbeddingNet, inputs: dict[str, str], tracker: Tracker | None
) -> None:
    import ray
    from ray.train import CheckpointConfig, LoggingConfig, RunConfig, ScalingConfig

    from ray_jobs.runtime import places
    from ray_jobs.runtime.parallel import parts
    from ray_jobs.runtime.parallel.placement import Needs, uses_gpu, wait_for
    from ray_jobs.runtime.parallel.training import look_at_photos, train_together
    from ray_jobs.runtime.session import cpus_per_worker

    gpus = int(uses_gpu(cfg.device))
    wait_for(Needs(cpus=cfg.cpus_per_worker or 1, gpus=gpus), "train", parts.limits().wait_seconds, cfg.num_workers)
    cpus = cfg.cpus_per_worker or cpus_per_worker(cfg.num_workers, gpus)
    # Each attempt at the same work goes on from its checkpoints; other work has another name, so never mixes with it.
    name = f"train-{digest([plain(cfg.model), plain(chosen(cfg).config), inputs])[:12]}"
    kept = out.parent / f"{out.name}-checkpoints"
    run = RunConfig(
        name=name,
        **places.as_ray_says(kept),
        checkpoint_config=CheckpointConfig(num_to_keep=2),
        logging_config=LoggingConfig(log_level="WARNING"),
    )
    each = {"CPU": cpus, "GPU": gpus}
    scaling = ScalingConfig(num_workers=cfg.num_workers, use_gpu=bool(gpus), resources_per_worker=each)
    work = {"cfg": cfg, "inputs": inputs, "tracker": tracker, "name": name, "threads": cpus, "start": ray.put(start)}
    work["photo_seconds"] = parts.limits().photo_seconds
    how: dict[str, Any] = {"scaling": scaling, "run": run, "kept": kept / name, "max_failures": cfg.max_failures}
    train_together(train_worker, work, **how, look=lambda: look_at_photos(Folder.of(cfg.collection), _SPLITS))
    if not out.exists(MANIFEST):
        raise RuntimeError("Training ended without a bundle. Run the same command again to go on from the last epoch.")


def train_worker(config: Mapping[str, Any]) -> None:
    """One rank of the run. What rank 0 has to say reaches the driver, of the others only warnings do."""
    from ray_jobs.runtime.rank import rank_of_ray_train

    rank = rank_of_ray_train()
    native.limit(config["photo_seconds"])  # a photo that hangs ends the worker: see `train_together`
    with told(config["progress"], logging.INFO if rank.rank == 0 else logging.WARNING), patience(config["patience"]):
        _train(config, rank)


def _train(config: Mapping[str, Any], rank: Rank) -> None:
    """Localise, train epoch by epoch with a checkpoint each; rank 0 seals the bundle."""
    import ray.train.torch
    import torch

    from retrieval.training.trainer import Trainer

    cfg: TrainJobConfig = config["cfg"]
    torch.set_num_threads(config["threads"])
    cache = Path(cfg.cache or tempfile.gettempdir()) / "retrieval-cache"
    local = localise(Folder.of(cfg.collection), cache, _SPLITS)
    scratch = cache / config["name"]
    trainer = Trainer(
        ray.get(config["start"]),
        chosen(cfg).make(local, scratch),
        rank=rank,
        device=ray.train.torch.get_device() if cfg.device != "cpu" else torch.device("cpu"),
        progress=config["progress"] if rank.rank == 0 else silent,
    )
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            trainer.load_state((Path(folder) / CHECKPOINT).read_bytes())
        logger.info("train: going on after epoch %d", trainer.history[-1]["epoch"])
        if rank.rank == 0 and config["tracker"] is not None:
            config["tracker"].log_history(trainer.history)  # the last may have been lost between checkpoint and store
    for metrics in trainer.run():
        _report_epoch(trainer, metrics, config["tracker"])
    if rank.rank == 0:
        _seal(trainer, local, cfg, config["inputs"])
    if rank.local_rank == 0:  # our own cache of frozen features, nothing else
        shutil.rmtree(scratch, ignore_errors=True)


def _report_epoch(trainer: Trainer, metrics: dict[str, Any], tracker: Tracker | None) -> None:
    """Checkpoint first, that no store of metrics costs an epoch. Every rank must call it: Ray Train waits for all."""
    import ray.train

    if trainer.rank.rank != 0:
        ray.train.report(metrics)
        return
    shown = [f"{name} {metrics[name]:.4f}" for name in _SHOWN if name in metrics]
    logger.info("train: epoch %d: %s", metrics["epoch"], ", ".join(shown))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CHECKPOINT).write_bytes(trainer.state())
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
    if tracker is not None:
        tracker.log_metrics(metrics, step=metrics["epoch"])


def _seal(trainer: Trainer, local: LocalCollection, cfg: TrainJobConfig, inputs: dict[str, str]) -> None:
    """The best epoch's weights, and what shows how they came about."""
    from retrieval.models import bundle
    from retrieval.reports import charts, sheets

    out, recipe = Folder.of(cfg.out), trainer.recipe
    trainer.load_best()
    out.write_bytes(CURVES, charts.curves_png(trainer.history))
    if (sample := trainer.sample()) is not None:
        out.write_bytes(TUPLES_SHEET, sheets.sheet_jpg(sheets.tuple_rows(local, *sample), title=_SHEET))
    keep_detector(Folder.of(cfg.collection), out)
    validated = trainer.best["val/mAP"] if "val/mAP" in trainer.history[0] else None
    counts = {"train_images": len(recipe.pool), "val_images": len(recipe.val), "unfrozen": len(recipe.unfrozen)}
    counts |= {"best_epoch": trainer.best["epoch"], "best_val_mAP": validated}
    work = {"config": cfg, "inputs": inputs, "ignore": chosen(cfg).ignore}
    bundle.save_bundle(trainer.net, out, counts=counts, run=write_history(out, trainer.history), **work)


if __name__ == "__main__":
    command(TrainJobConfig, main, __doc__)
