"""Every job on small inputs, in one process: what is made before it, how it is run.

A job is run on a cluster that is none (`tests.support.inline`): all that it writes is written by one process, one file
after another, so its N-th write is the same one each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data.settings import SplitConfig
from retrieval.evaluation.settings import System
from retrieval.geometry.settings import FeatureConfig, ReconstructConfig
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from retrieval.search.settings import IndexConfig
from retrieval.training.adapters.settings import AdaptConfig
from retrieval.training.settings import TrainConfig, WhitenConfig
from tests.faults.inputs import MADE_ALONE, MODEL


@dataclass(frozen=True, slots=True)
class Case:
    """One job. run: (folder with all inputs, where to write). needs: its inputs, as INPUTS names them. shared: it
    changes a workspace, which is copied for each run."""

    run: Callable[[Path, Folder], None]
    needs: tuple[str, ...] = ()
    shared: str = ""
    on_disk_only: bool = False


def prepare(root: Path, jobs: Iterable[str] = ()) -> None:
    """The inputs of these jobs, or of all, below `root`, made by the jobs themselves."""
    for name in dict.fromkeys(what for job in jobs or JOBS for what in _all_needs(job)):
        INPUTS[name](root)


def _all_needs(job: str) -> list[str]:
    """What is made before a job, in order."""
    needs = JOBS[job].needs
    return [one for need in needs for one in (*(_all_needs(MADE_BY[need]) if need in MADE_BY else ()), need)]


MADE_BY = {"collection": "ingest", "model": "train", "embeddings": "embed", "index": "build_index"}


def _ingest(root: Path, out: Folder) -> None:
    from ray_jobs import ingest

    ingest.main(
        ingest.IngestConfig(
            source=f"{root}/drawn",
            out=out.uri,
            prepare=PrepareConfig(size=48, crop="none"),
            split=SplitConfig(test_fraction=0.4, val_fraction=0.4),
            part_size=11,
        )
    )


def _train(root: Path, out: Folder) -> None:
    from ray_jobs import train

    train.main(
        train.TrainJobConfig(
            collection=f"{root}/collection",
            out=out.uri,
            weights="none",
            model=MODEL,
            train=TrainConfig(epochs=1, groups_per_batch=1, precision="fp32", seed=3),
            cache=f"{root}/cache-{os.getpid()}",
            device="cpu",
        )
    )


def _fit(cfg: Any, out: Folder, start: Any, inputs: dict[str, str], tracker: Any) -> None:
    """What one worker of `train._fit` does, without Ray Train, whose checkpoints are its own."""
    from ray_jobs.train import _seal, chosen
    from retrieval.artifacts.collection import localise
    from retrieval.training.trainer import Trainer

    local = localise(Folder.of(cfg.collection), Path(cfg.cache), ("train", "val"))
    trainer = Trainer(start, chosen(cfg).make(local, Path(cfg.cache) / "scratch"))
    for _ in trainer.run():
        pass
    _seal(trainer, local, cfg, inputs)
    shutil.rmtree(cfg.cache)


def _freeze(root: Path, out: Folder) -> None:
    from ray_jobs import freeze

    model = ModelConfig(backbone=f"onnx:{root}/net")
    freeze.main(freeze.FreezeConfig(collection=f"{root}/collection", out=out.uri, model=model))


def _whiten(root: Path, out: Folder) -> None:
    from ray_jobs import whiten

    folders: dict[str, Any] = {name: f"{root}/{name}" for name in ("collection", "model", "embeddings", "tuples")}
    whiten.main(whiten.WhitenJobConfig(**folders, out=out.uri, whiten=WhitenConfig(dim=4, max_pairs=100)))


def _adapt(root: Path, out: Folder) -> None:
    from ray_jobs import adapt

    folders: dict[str, Any] = {name: f"{root}/{name}" for name in ("collection", "model", "embeddings")}
    config = AdaptConfig(epochs=1, hidden=4, least_gain=0.0)
    adapt.main(adapt.AdaptJobConfig(**folders, out=out.uri, adapt=config))


def _embed(root: Path, out: Folder) -> None:
    from ray_jobs import embed

    where: dict[str, Any] = {"collection": f"{root}/collection", "model": f"{root}/model"}
    embed.main(embed.EmbedConfig(**where, out=out.uri, precision="fp32", device="cpu"))


def _build_index(root: Path, out: Folder) -> None:
    from ray_jobs import build_index

    where: dict[str, Any] = {"collection": f"{root}/collection", "embeddings": f"{root}/embeddings"}
    index = IndexConfig(factory="IVF2,Flat", num_shards=2)
    build_index.main(build_index.BuildIndexConfig(**where, out=out.uri, splits=("gallery",), index=index))


def _group(root: Path, out: Folder) -> None:
    from ray_jobs import group
    from retrieval.grouping.settings import GroupingConfig

    where: dict[str, Any] = {name: f"{root}/{name}" for name in ("collection", "embeddings", "index")}
    group.main(group.GroupConfig(**where, out=out.uri, group=GroupingConfig(threshold=0.5)))


def _evaluate(root: Path, out: Folder) -> None:
    from ray_jobs import evaluate

    model, embeddings = Folder.of(root / "model"), Folder.of(root / "embeddings")
    system = System(name="after", model=model, embeddings=embeddings, index=Folder.of(root / "index"))
    collection = f"{root}/collection"
    evaluate.main(
        evaluate.EvaluateConfig(collection=collection, systems=(system,), out=out.uri, ks=(2, 5), sheet_queries=1)
    )


def _reconstruct(root: Path, out: Folder) -> None:
    """All stages, from photos of two places."""
    from ray_jobs import reconstruct

    config = ReconstructConfig(num_words=64, num_candidates=3, max_features=600, min_shared=5, rounds=1)
    config = dataclasses.replace(config, min_images=3, min_points=10)
    reconstruct.main(reconstruct.ReconstructJobConfig(collection=f"{root}/places", out=out.uri, reconstruct=config))


def _benchmark(root: Path, out: Folder) -> None:
    """With what it calls: ingest and embed."""
    from ray_jobs import benchmark

    where: dict[str, Any] = {"model": f"{root}/whole", "photos": f"{root}/landmarks"}
    where |= {"truth": f"{root}/landmarks/gnd_drawn.pkl", "tracking_uri": f"sqlite:///{root}/mlflow.db"}
    benchmark.main(benchmark.BenchmarkConfig(**where, out=out.uri, precision="fp32", device="cpu", engine="torch"))


def _describe(root: Path, out: Folder) -> None:
    from ray_jobs import describe

    features = FeatureConfig(extractor="aliked", weights=f"{root}/aliked.safetensors", max_features=50, max_side=128)
    describe.main(describe.DescribeConfig(collection=f"{root}/places", out=out.uri, features=features))


def _publish(root: Path, out: Folder) -> None:
    from ray_jobs import publish

    where: dict[str, Any] = {name: f"{root}/{name}" for name in ("collection", "model", "index")}
    publish.main(publish.PublishConfig(workspace=out.uri, **where))


def _draw(root: Path, out: Folder) -> None:
    from ray_jobs import draw
    from ray_jobs.runtime import session
    from retrieval.data.demo.settings import DemoConfig

    with session.session():  # a step of pipelines, which have one
        draw.draw_faces(DemoConfig(num_identities=2, images_per_identity=3, size=(60, 72)), out)


def _compact(root: Path, out: Folder) -> None:
    from ray_jobs import compact

    compact.main(compact.CompactConfig(workspace=out.uri, wait_s=0))


JOBS = {
    "draw": Case(_draw, on_disk_only=True),
    "ingest": Case(_ingest, ("drawn",)),
    "reconstruct": Case(_reconstruct, ("places",)),
    "describe": Case(_describe, ("places", "aliked.safetensors")),
    "train": Case(_train, ("collection",)),
    "freeze": Case(_freeze, ("collection", "net")),
    "embed": Case(_embed, ("collection", "model")),
    "whiten": Case(_whiten, ("embeddings", "tuples")),
    "adapt": Case(_adapt, ("embeddings",)),
    "build_index": Case(_build_index, ("embeddings",)),
    "group": Case(_group, ("index",)),
    "evaluate": Case(_evaluate, ("index",)),
    "benchmark": Case(_benchmark, ("landmarks",)),
    "publish": Case(_publish, ("index",)),
    "compact": Case(_compact, ("gallery",), shared="gallery", on_disk_only=True),
}

INPUTS: dict[str, Callable[[Path], None]] = MADE_ALONE | {
    made: lambda root, made=made, job=job: JOBS[job].run(root, Folder.of(root / made)) for made, job in MADE_BY.items()
}


def here(patch: pytest.MonkeyPatch) -> None:
    """All jobs are done in this process, on no cluster, and show no sign of life: it is written when the clock says so,
    and may fail."""
    from ray_jobs import train
    from ray_jobs.runtime import alone, session
    from tests.support.inline import install

    names = "adapt benchmark build_index compact describe draw embed evaluate group ingest reconstruct train whiten"
    jobs = [importlib.import_module(f"ray_jobs.{name}") for name in names.split()]
    cluster = install(patch, *jobs, session)
    patch.setattr(alone, "beating", lambda *_: contextlib.nullcontext())
    patch.setattr(train, "_fit", _fit)
    patch.setattr(session, "session", cluster.session)
