"""Losses side by side: the preset `faces-train` with each, the same epochs, several seeds, on people kept aside.

    python -m ray_jobs.ingest --source LFW --layout lfw --out C --crop aligned --detector yunet --margin 0
    python benchmarks/compare_losses.py --collection C --weights mobilenet_v2.pth

A row a loss: recall@1 and mAP of a query photo of each person kept aside against the gallery (people of the test
split), and of each of these photos asking all the others; mAP on the people that choose the epoch; seconds of processor
time an epoch takes on one thread, mining and validation included, in the quickest run. Behind a mean, its seeds. The
frozen layers' maps are computed once for all runs, with one draw of augmented views, so that runs differ by loss and
seed alone.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray_jobs.presets import FACES_TRAIN, FacesTrainConfig
from retrieval.artifacts.collection import LocalCollection, localise
from retrieval.artifacts.folder import Folder
from retrieval.evaluation.metrics import leave_one_out, ranked_metrics
from retrieval.models import bundle
from retrieval.search.index import flat_search
from retrieval.training.feature_cache import FeatureCache
from retrieval.training.label_recipe import LabelRecipe
from retrieval.training.losses import LABEL_LOSSES
from retrieval.training.settings import TrainConfig
from retrieval.training.trainer import Trainer

FIGURES = ("recall@1", "mAP", "all recall@1", "all mAP", "val mAP", "s an epoch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is trained on, by what."""

    collection: str
    """A sealed collection of labelled photos, with all its splits."""
    weights: str
    """Weights file of the backbone."""
    losses: tuple[str, ...] = ("triplet", *LABEL_LOSSES)
    """Names of losses, as train --train.loss."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A run each."""
    preset: FacesTrainConfig = field(default_factory=lambda: FACES_TRAIN)
    """The rest of the recipe: model and train of it count."""
    cache: str = ""
    """Folder for crops and frozen features, which are taken from there the next time, and for the figures of each run,
    one a line; empty: a temporary one."""
    threads: int = 1
    """Of PyTorch."""


def main(cfg: Config) -> dict[str, dict[str, float]]:
    """Run, print a row each, return the means."""
    torch.set_num_threads(cfg.threads)
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(cfg.cache or temp)
        local = localise(Folder.of(cfg.collection), folder / "crops", ("train", "val", "query", "gallery"))
        runs: dict[str, list[dict[str, float]]] = {loss: [] for loss in cfg.losses}
        for seed in cfg.seeds:
            for loss in cfg.losses:
                train = dataclasses.replace(cfg.preset.train, loss=loss, seed=seed)
                runs[loss].append(run(cfg, local, train, folder))
                print(loss, seed, {name: round(value, 4) for name, value in runs[loss][-1].items()}, flush=True)
    print(f"| loss | {' | '.join(FIGURES)} |\n|{'---|' * (len(FIGURES) + 1)}")
    return {loss: row(loss, found) for loss, found in runs.items()}


def row(loss: str, runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Print a loss's means, its seeds in brackets, and return them."""
    means = {name: statistics.mean(each[name] for each in runs) for name in FIGURES}
    means["s an epoch"] = min(each["s an epoch"] for each in runs)
    shown = [f"{means[name]:.3f} ({', '.join(f'{each[name]:.3f}' for each in runs)})" for name in FIGURES[:-1]]
    print(f"| {loss} | {' | '.join(shown)} | {means['s an epoch']:.1f} |", flush=True)
    return means


class _Recipe(LabelRecipe):
    """With the frozen layers' maps of all splits, kept from run to run."""

    def _fill_cache(self) -> None:
        size, views = self.net.spec.config.image_size, self._base_views + self.config.views
        shape = self._run_frozen(torch.zeros(1, size, size, 3, dtype=torch.uint8)).shape[1:]
        whole = FeatureCache(self._scratch / "frozen.f16", len(self.local), views, shape)
        self._cache, done = whole, self._scratch / "filled"
        if done.exists():
            return
        own, self.config = self.config, dataclasses.replace(self.config, seed=0)
        whole.fill(np.concatenate([self.pool, self.val]), self._pixels, self._run_frozen)
        whole.num_views = self._base_views  # who is only asked for is not augmented
        whole.fill(self.tested, self._pixels, self._run_frozen)
        self.config, whole.num_views = own, views
        done.touch()

    @property
    def tested(self) -> np.ndarray:
        """Rows of queries, then of the gallery."""
        return np.concatenate([self.local.rows_of("query"), self.local.rows_of("gallery")])


def run(cfg: Config, local: LocalCollection, train: TrainConfig, folder: Path) -> dict[str, float]:
    """One training, and what its best epoch finds; read from the file of figures if it was made before."""
    name = {"model": dataclasses.asdict(cfg.preset.model), "train": dataclasses.asdict(train)}
    kept = folder / "runs.jsonl"
    for line in kept.read_text().splitlines() if kept.exists() else []:
        if json.loads(line)["of"] == json.loads(json.dumps(name)):
            return json.loads(line)["figures"]
    net = bundle.build(cfg.preset.model, weights=cfg.weights)
    where = f"{cfg.preset.model.backbone}-{cfg.preset.model.cut}-{cfg.preset.model.image_size}-{train.unfreeze_layers}"
    recipe = _Recipe(local, train, scratch=folder / f"{where}-{train.views}")
    trainer = Trainer(net, recipe)
    started = time.process_time()
    list(trainer.run())
    seconds = (time.process_time() - started) / train.epochs
    trainer.load_best()
    figures = {**found_by(recipe), "val mAP": float(trainer.best["val/mAP"]), "s an epoch": seconds}
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a") as file:
        file.write(json.dumps({"of": name, "figures": figures}) + "\n")
    return figures


def found_by(recipe: _Recipe) -> dict[str, float]:
    """What the network finds of people that it was neither trained on nor chosen by."""
    rows, num = recipe.tested, len(recipe.local.rows_of("query"))
    vectors, labels = recipe._embed_shared(rows, base_views=True).cpu().numpy(), recipe.local.labels[rows]
    found = flat_search(vectors[num:])(vectors[:num], len(rows) - num)
    apart = ranked_metrics(found.rows, labels[:num], labels[num:], ks=(1,)).values
    among = leave_one_out(vectors, labels, ks=(1,)).values
    return {
        "recall@1": apart["recall@1"],
        "mAP": apart["mAP"],
        "all recall@1": among["recall@1"],
        "all mAP": among["mAP"],
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
