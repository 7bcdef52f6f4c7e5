"""The train job without a cluster: what its result depends on, what it refuses, what it keeps of an epoch and seals."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ray_jobs import train
from ray_jobs.runtime import session
from ray_jobs.train import ByLabels, ByTuples, TrainJobConfig, chosen
from retrieval.artifacts.collection import LocalCollection, localise
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.artifacts.tuples import read_tuples, write_tuples
from retrieval.geometry import tuples
from retrieval.models import bundle
from retrieval.models.backbones import build_trunk
from retrieval.models.settings import ModelConfig
from retrieval.training.settings import TrainConfig, TupleTrainConfig
from retrieval.training.trainer import Trainer
from retrieval.training.workers import Rank
from tests.support.patterns import make_patterns

NET = ModelConfig(backbone="resnet18", cut="layer2.1", image_size=64, embedding_dim=16)
LANDMARKS = ModelConfig(cut="features.2", pooling="gem", head="none", image_size=64, keep_aspect=True)
LABELS = TrainConfig(epochs=1, groups_per_batch=3, companions=2, images_per_identity=2, views=0, precision="fp32")
SIAMESE = TupleTrainConfig(epochs=1, image_size=64, num_negatives=2, queries_per_epoch=4, val_distractors=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a collection of six people to train on and two to validate, and tuples of the same."""
    folder = tmp_path_factory.mktemp("job")
    made = make_patterns(folder / "collection")
    local = localise(Folder.of(folder / "collection"), folder / "cache", ("train", "val"))
    ids = sorted(local.image_ids)
    tables = tuples.divide(*tuples.labelled_tables(ids, [name[:3] for name in ids]), val_fraction=0.25)
    write_tuples(Folder.of(folder / "tuples"), *tables)
    seal(Folder.of(folder / "tuples"), kind="tuples", config={}, inputs={"collection": made.fingerprint}, counts={})
    return folder


def job(root: Path, **settings: Any) -> TrainJobConfig:
    usual: dict[str, Any] = {"collection": str(root / "collection"), "weights": "none", "model": NET, "train": LABELS}
    usual["siamese"] = SIAMESE
    return TrainJobConfig(**(usual | settings))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], torch.Tensor]]:
    """What each run of main() would train with: its inputs, and the start's weights."""
    found: list[tuple[dict[str, str], torch.Tensor]] = []

    def fit(cfg: TrainJobConfig, out: Folder, start: torch.nn.Module, inputs: dict[str, str], tracker: object) -> None:
        found.append((dict(inputs), torch.cat([value.flatten().float() for value in start.state_dict().values()])))
        seal(out, kind="model", config=cfg, inputs=inputs, counts={}, ignore=chosen(cfg).ignore)

    monkeypatch.setattr(train, "_fit", fit)
    monkeypatch.setattr(session, "session", lambda *_, **__: nullcontext())
    return found


def test_a_result_depends_on_the_collection_the_weights_content_and_the_tuples(
    root: Path, tmp_path: Path, started: list[tuple[dict[str, str], torch.Tensor]]
) -> None:
    weights = tmp_path / "start.pth"
    for number in (0, 1, 0):  # another file under the same name, and the first again
        torch.manual_seed(number)
        torch.save(build_trunk(NET.backbone).state_dict(), weights)
        train.main(job(root, out=str(tmp_path / f"{len(started)}"), weights=str(weights), train=LABELS))
    (first, start), (second, other), (third, same) = started
    collected = read_manifest(Folder.of(root / "collection")).fingerprint
    assert set(first) == {"collection", "weights"} and first["collection"] == collected
    assert first["weights"] != second["weights"] and first == third
    assert not torch.equal(start, other) and torch.equal(start, same)
    train.main(job(root, out=str(tmp_path / "siamese"), tuples=str(root / "tuples"), model=LANDMARKS))
    assert started[3][0]["tuples"] == read_manifest(Folder.of(root / "tuples")).fingerprint


def test_the_recipe_s_seed_draws_the_head_it_starts_from(
    root: Path, tmp_path: Path, started: list[tuple[dict[str, str], torch.Tensor]]
) -> None:
    for out, seed in (("a", 1), ("b", 2), ("c", 1)):
        train.main(job(root, out=str(tmp_path / out), train=dataclasses.replace(LABELS, seed=seed)))
    for out, seed in (("d", 1), ("e", 2)):
        siamese = dataclasses.replace(SIAMESE, seed=seed)
        train.main(job(root, out=str(tmp_path / out), tuples=str(root / "tuples"), siamese=siamese))
    digests = [inputs["weights"] for inputs, _ in started]
    assert digests[0] == digests[2] == digests[3] and digests[1] == digests[4] and digests[0] != digests[1]


def test_the_same_work_is_not_done_again_and_other_work_is_refused(
    root: Path, tmp_path: Path, started: list[tuple[dict[str, str], torch.Tensor]]
) -> None:
    cfg = job(root, out=str(tmp_path / "out"))
    made = train.main(cfg)
    alike = (
        dataclasses.replace(cfg, num_workers=3, device="cpu", cache="elsewhere", max_failures=0, cpus_per_worker=2),
        dataclasses.replace(cfg, siamese=dataclasses.replace(SIAMESE, margin=0.1), tracking_uri="sqlite:///x.db"),
    )
    for other in alike:
        assert train.main(other) == made
    assert len(started) == 1
    for other in (
        dataclasses.replace(cfg, train=dataclasses.replace(LABELS, margin=0.1)),
        dataclasses.replace(cfg, model=dataclasses.replace(NET, embedding_dim=8)),
    ):
        with pytest.raises(ValueError, match="made with other settings"):
            train.main(other)
    with pytest.raises(ValueError, match="other|inputs"):
        train.main(dataclasses.replace(cfg, tuples=str(root / "tuples")))


def test_each_recipe_ignores_the_settings_of_the_other(root: Path) -> None:
    labels, by_tuples = chosen(job(root, out="x")), chosen(job(root, out="x", tuples="y"))
    assert isinstance(labels, ByLabels) and labels.config == LABELS
    assert isinstance(by_tuples, ByTuples) and by_tuples.config == SIAMESE
    assert "siamese" in labels.ignore and "train" not in labels.ignore
    assert "train" in by_tuples.ignore and "siamese" not in by_tuples.ignore
    speed = {"num_workers", "cpus_per_worker", "device", "cache", "max_failures", "tracking_uri", "limits"}
    places = {"collection", "out", "weights", "tuples"}
    assert set(labels.ignore) == speed | places | {"siamese"}


def test_tuples_of_another_collection_are_refused_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    make_patterns(tmp_path / "other", shots=3)
    cfg = job(root, out=str(tmp_path / "out"), collection=str(tmp_path / "other"), tuples=str(root / "tuples"))
    with pytest.raises(ValueError, match="made with collection"):
        train.main(cfg)
    assert not (tmp_path / "out").exists()


# -- an epoch's end, and the run's ------------------------------------------------------------------------------------


def run_of(cfg: TrainJobConfig, root: Path, scratch: Path) -> tuple[Trainer[Any, Any], LocalCollection]:
    """The run's trainer, done, in this process."""
    local = localise(Folder.of(root / "collection"), root / "cache", ("train", "val"))
    trainer = Trainer(bundle.build(cfg.model, preparation={"crop": "none"}), chosen(cfg).make(local, scratch))
    list(trainer.run())
    return trainer, local


@pytest.mark.parametrize("what", ["labels", "tuples"])
def test_a_bundle_is_the_best_epoch_with_its_history_and_counts(root: Path, tmp_path: Path, what: str) -> None:
    cfg = job(root, out=str(tmp_path / "out"))
    if what == "tuples":
        cfg = dataclasses.replace(cfg, tuples=str(root / "tuples"), model=LANDMARKS)
    trainer, local = run_of(cfg, root, tmp_path / "scratch")
    best = {name: value.clone() for name, value in trainer.best["state"].items()}
    with torch.no_grad():
        for value in trainer.net.parameters():
            value.add_(1)  # what came after the best epoch
    train._seal(trainer, local, cfg, {"collection": "c", "weights": "w"})
    made = read_manifest(Folder.of(cfg.out), "model")
    state = trainer._trained.state_dict()
    assert all(torch.equal(state[name], value) for name, value in best.items())
    saved = bundle.load_bundle(cfg.out).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in trainer.net.state_dict().items())
    assert made.inputs == {"collection": "c", "weights": "w"}
    assert made.counts["best_epoch"] == trainer.best["epoch"]
    assert made.counts["best_val_mAP"] == trainer.best["val/mAP"]
    recipe = trainer.recipe
    told = {"train_images": len(recipe.pool), "val_images": len(recipe.val), "unfrozen": len(recipe.unfrozen)}
    assert {name: made.counts[name] for name in told} == told and told["train_images"] == 24
    history = Folder.of(cfg.out).read_json("history.json")
    assert [row["epoch"] for row in history] == [0, 1] and history[1]["tuples_sha256"] == trainer.history[1][
        "tuples_sha256"
    ]
    assert set(made.all_files) - {"model.safetensors", "model.json", "history.json"} == {"curves.png"} | (
        {"tuples.jpg"} if what == "tuples" else set()
    )


def test_tuples_that_the_recipe_reads_are_those_named(root: Path, tmp_path: Path) -> None:
    local = localise(Folder.of(root / "collection"), root / "cache", ("train", "val"))
    made: Any = chosen(job(root, out="x", tuples=str(root / "tuples"))).make(local, tmp_path)
    assert made.known.queries.tolist() == read_tuples(Folder.of(root / "tuples")).queries.tolist()
    assert made.config == SIAMESE


def test_without_validation_no_figure_is_claimed(root: Path, tmp_path: Path) -> None:
    cfg = job(root, out=str(tmp_path / "out"))
    trainer, local = run_of(cfg, root, tmp_path / "scratch")
    for row in trainer.history:
        row.pop("val/mAP")
    train._seal(trainer, local, cfg, {})
    assert read_manifest(Folder.of(cfg.out)).counts["best_val_mAP"] is None


class Tracker:
    def __init__(self, reported: list[Any]) -> None:
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.after: list[int] = []
        self._reported = reported

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        self.logged.append((metrics, step))
        self.after.append(len(self._reported))


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], bytes | None]]:
    """What Ray Train is told, from a stand-in for it."""
    found: list[tuple[dict[str, Any], bytes | None]] = []

    def report(metrics: dict[str, Any], checkpoint: Path | None = None) -> None:
        found.append((metrics, None if checkpoint is None else (checkpoint / train.CHECKPOINT).read_bytes()))

    made = SimpleNamespace(report=report, Checkpoint=SimpleNamespace(from_directory=Path))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(train=made))
    monkeypatch.setitem(sys.modules, "ray.train", made)
    return found


def test_rank_0_keeps_an_epoch_and_logs_it_and_the_others_only_take_part(
    root: Path, tmp_path: Path, reported: list[tuple[dict[str, Any], bytes | None]]
) -> None:
    trainer, _ = run_of(job(root, out="x"), root, tmp_path / "scratch")
    metrics, tracker = trainer.history[-1], Tracker(reported)
    train._report_epoch(trainer, metrics, tracker)  # type: ignore[arg-type]
    assert tracker.logged == [(metrics, 1)]
    ((told, kept),) = reported
    assert tracker.after == [1], "the checkpoint comes first"
    assert told == metrics and kept is not None
    assert torch.load(io.BytesIO(kept), weights_only=True)["history"] == trainer.history
    trainer.rank = Rank(rank=1, world=2)
    train._report_epoch(trainer, metrics, tracker)  # type: ignore[arg-type]
    assert reported[1] == (metrics, None) and len(tracker.logged) == 1


@pytest.mark.parametrize(
    ("cores", "workers", "each"),
    [
        ([8.0], 2, 4),
        ([8.0], 3, 2),
        ([8.0, 4.0, 0.0], 2, 4),
        ([16.0, 3.0], 2, 8),
        ([8.0, 4.0], 3, 4),
        ([2.0], 5, 1),
        ([], 1, 1),
        ([6.0], 0, 6),
    ],
)
def test_workers_get_as_many_cores_as_there_are_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch, cores: list[float], workers: int, each: int
) -> None:
    nodes: Callable[[], list[dict[str, Any]]] = lambda: [  # noqa: E731
        *({"Alive": True, "Resources": {"CPU": number} if number else {}} for number in cores),
        {"Alive": False, "Resources": {"CPU": 1.0}},
    ]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=nodes))
    assert session.cpus_per_worker(workers) == each


def test_workers_with_a_gpu_get_the_cores_of_machines_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than those never fit, and the run would wait without a word."""
    nodes = [{"CPU": 8.0, "GPU": 4.0}, *[{"CPU": 16.0}] * 3]
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes])
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    assert (session.cpus_per_worker(4, gpus=1), session.cpus_per_worker(1, gpus=1)) == (2, 8)
    assert session.cpus_per_worker(4) == 8  # on CPUs: two on each of the others
