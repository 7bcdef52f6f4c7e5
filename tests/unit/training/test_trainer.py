"""The trainer with a recipe of twelve numbers: each step, rate, best epoch and resumption worked out beside it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from retrieval.artifacts.progress import silent
from retrieval.models.settings import Precision
from retrieval.training.recipe import Mined, Past, Worker
from retrieval.training.trainer import Trainer
from retrieval.training.workers import Rank

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = torch.randn(12, generator=torch.Generator().manual_seed(1))
RATES = (0.02, 0.005)  # of the weights, of the bias


@dataclass(frozen=True, kw_only=True)
class Settings:
    epochs: int = 3
    precision: Precision = "fp32"


@dataclass
class Numbers:
    """A line through the twelve; the squares of a step are summed. Epoch e's rate falls as 1 / e, and within it."""

    config: Settings = Settings()
    scores: Sequence[float] = ()
    """val/mAP of the starting point and of each epoch; empty: there is no validation."""
    collapses: Sequence[int] = ()
    """Epochs before which it goes back."""
    first: int = 0
    """Of the epochs, the number that is validated first: where a run is resumed."""
    pool: np.ndarray = field(default_factory=lambda: np.arange(12))
    val: np.ndarray = field(default_factory=lambda: np.arange(0))
    unfrozen: list[str] = field(default_factory=list)
    rates: list[tuple[float, float]] = field(default_factory=list)
    at_mining: list[Tensor] = field(default_factory=list)

    def prepare(self, worker: Worker) -> tuple[nn.Module, torch.optim.Optimizer]:
        self.worker, self.net, self.validated = worker, worker.net, self.first
        weight, bias = list(worker.net.parameters())[2:]
        groups = [{"params": [weight]}, {"params": [bias], "lr": RATES[1]}]
        self.optimiser = torch.optim.SGD(groups, lr=RATES[0], momentum=0.9)
        return self.net, self.optimiser

    def mine(self, epoch: int, past: Past) -> Mined:
        if epoch in self.collapses:
            past.go_back(epoch)
        self.at_mining.append(weights(self.net))
        rows = np.random.default_rng(epoch).permutation(9).reshape(-1, 1)  # steps of 3, 3, 2 and 1
        return Mined(epoch=epoch, rows=rows, steps=4, report={"tuples": len(rows)})

    def batches(self, mined: Mined) -> Iterator[np.ndarray]:
        for start, end in ((0, 3), (3, 6), (6, 8), (8, 9)):
            yield mined.rows[start:end, 0][self.worker.rank.mine]

    def loss(self, batch: np.ndarray) -> tuple[Tensor, Tensor]:
        self.rates.append((self.optimiser.param_groups[0]["lr"], self.optimiser.param_groups[1]["lr"]))
        total = torch.zeros(())
        if len(batch):
            total = (self.net(X[batch]) - Y[batch]).square().sum()
        return total, total.detach()

    def summary(self, mined: Mined, seen: Sequence[Tensor]) -> dict[str, Any]:
        return {"train/loss": float(self.worker.rank.total(torch.stack(list(seen)).sum())), "train/steps": len(seen)}

    def rate(self, epoch: int, step: int, steps: int) -> float:
        return (1 - step / steps) / epoch

    def validate(self) -> dict[str, Any]:
        self.validated += 1
        return {"val/mAP": self.scores[self.validated - 1]} if self.scores else {}

    def sample(self, epoch: int, num: int = 8) -> tuple[np.ndarray, np.ndarray]:
        return np.array([epoch]), np.array([num])


class Line(nn.Module):
    """With a norm, whose statistics must not move."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.line = nn.Linear(3, 1)
        with torch.no_grad():
            self.line.weight.copy_(torch.randn(1, 3, generator=torch.Generator().manual_seed(seed)))
            self.line.bias.fill_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x)[:, 0]


def weights(net: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in net.parameters()])


def trainer(recipe: Numbers, seed: int = 0, **others: Any) -> Trainer[Any, Any]:
    return Trainer(Line(seed), recipe, **others)  # type: ignore[arg-type]


def by_hand(w: Tensor, b: Tensor, epochs: Sequence[int], slower: float = 1.0) -> Tensor:
    """The steps of these epochs, written out: gradients of squares, momentum from none. (4,) weights and bias."""
    w, b = w.double(), b.double()
    moved, moved_b = torch.zeros(3).double(), torch.zeros(1).double()
    for epoch in epochs:
        order = np.random.default_rng(epoch).permutation(9)
        for step, rows in enumerate((order[:3], order[3:6], order[6:8], order[8:])):
            off = X[rows].double() @ w + b - Y[rows].double()
            moved, moved_b = 0.9 * moved + 2 * off @ X[rows].double(), 0.9 * moved_b + 2 * off.sum()
            scale = (1 - step / 4) / epoch / slower
            w, b = w - RATES[0] * scale * moved, b - RATES[1] * scale * moved_b
    return torch.cat([w, b]).float()


def test_steps_are_those_worked_out_by_hand() -> None:
    run = trainer(Numbers())
    history = list(run.run())
    start = Line().line
    expected = by_hand(start.weight.detach()[0], start.bias.detach(), (1, 2, 3))
    assert torch.allclose(weights(run.net)[6:], expected, atol=1e-6)
    assert torch.equal(weights(run.net)[:6], weights(Line())[:6])  # the norm's, which the optimiser was not given
    assert [row["epoch"] for row in history] == [0, 1, 2, 3] and run.history == history
    assert not run.net.training  # or statistics would move


def test_every_rate_is_its_group_s_own_times_the_recipe_s() -> None:
    recipe = Numbers(Settings(epochs=2))
    list(trainer(recipe).run())
    scales = [1, 0.75, 0.5, 0.25, 0.5, 0.375, 0.25, 0.125]
    assert recipe.rates == [(pytest.approx(RATES[0] * scale), pytest.approx(RATES[1] * scale)) for scale in scales]


def test_an_epoch_s_metrics_are_the_recipe_s_the_digest_and_the_seconds() -> None:
    recipe = Numbers(Settings(epochs=1), scores=(0.1, 0.2))
    start, epoch = trainer(recipe).run()
    assert start == {"epoch": 0, "val/mAP": 0.1}
    seconds = {"seconds/mine", "seconds/train", "seconds/validate"}
    assert set(epoch) == {"epoch", "tuples", "tuples_sha256", "train/loss", "train/steps", "val/mAP"} | seconds
    assert (epoch["epoch"], epoch["tuples"], epoch["train/steps"], epoch["val/mAP"]) == (1, 9, 4, 0.2)
    assert epoch["tuples_sha256"] == recipe.mine(1, trainer(recipe)).digest
    assert all(epoch[name] >= 0 for name in seconds)


@pytest.mark.parametrize(
    ("scores", "best"),
    [((0.5, 0.7, 0.7, 0.6), 1), ((0.5, 0.4, 0.3, 0.2), 0), ((0.0, 0.0, 0.0, 0.1), 3), ((), 3)],
)
def test_the_first_best_epoch_is_kept_and_without_validation_the_last(scores: tuple[float, ...], best: int) -> None:
    run, after = trainer(Numbers(scores=scores)), []
    for _ in run.run():
        after.append(weights(run.net))
    assert run.best["epoch"] == best
    assert run.best["val/mAP"] == (scores[best] if scores else 3.0)
    run.load_best()
    assert torch.equal(weights(run.net), after[best])
    assert len({tuple(each.tolist()) for each in after}) == 4


def test_a_run_that_goes_on_ends_as_one_that_was_never_cut_short() -> None:
    scores = (0.5, 0.7, 0.6, 0.65)
    whole = trainer(Numbers(scores=scores))
    list(whole.run())
    for after in range(4):
        first = trainer(Numbers(scores=scores))
        for metrics in first.run():
            if metrics["epoch"] == after:
                break
        second = trainer(Numbers(scores=scores, first=after + 1), seed=9)
        second.load_state(first.state())
        assert [row["epoch"] for row in second.run()] == list(range(after + 1, 4))
        assert torch.equal(weights(second.net), weights(whole.net))
        assert without_seconds(second.history) == without_seconds(whole.history)
        second.load_best()
        whole_best = whole.best["state"]
        assert second.best["epoch"] == 1
        assert all(torch.equal(value, whole_best[name]) for name, value in second.net.state_dict().items())


def without_seconds(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in history]


def test_going_back_takes_the_best_weights_no_momentum_and_a_quarter_of_the_rate() -> None:
    recipe, calm = Numbers(scores=(0.1, 0.9, 0.2, 0.3), collapses=(3,)), Numbers(scores=(0.1, 0.9, 0.2, 0.3))
    run, after = trainer(recipe), []
    for _ in run.run():
        after.append(weights(run.net))
    list(trainer(calm).run())
    assert torch.equal(recipe.at_mining[2], after[1]) and not torch.equal(after[2], after[1])
    assert recipe.rates[:8] == calm.rates[:8]
    assert recipe.rates[8:] == [(pytest.approx(a / 4), pytest.approx(b / 4)) for a, b in calm.rates[8:]]
    # As plain descent from there: momentum of before would add to it.
    assert torch.allclose(weights(run.net)[6:], by_hand(after[1][6:9], after[1][9:], (3,), slower=4), atol=1e-6)


def test_a_resumed_run_is_as_slow_as_the_one_before() -> None:
    scores = (0.5, 0.4, 0.3, 0.2, 0.1)
    settings, collapses = Settings(epochs=4), (2, 3)
    whole = trainer(Numbers(settings, scores, collapses))
    list(whole.run())
    first = trainer(Numbers(settings, scores, collapses))
    for _, _ in zip(range(4), first.run()):
        pass
    recipe = Numbers(settings, scores, collapses, first=4)
    second = trainer(recipe)
    second.load_state(first.state())
    list(second.run())
    assert recipe.rates[0] == (pytest.approx(RATES[0] / 4 / 16), pytest.approx(RATES[1] / 4 / 16))
    assert torch.equal(weights(second.net), weights(whole.net))


def test_a_checkpoint_of_before_there_was_a_scale_goes_on_at_the_full_rate() -> None:
    first = trainer(Numbers())
    next(first.run())
    old = torch.load(io.BytesIO(first.state()), weights_only=True)
    del old["rate_scale"]
    buffer = io.BytesIO()
    torch.save(old, buffer)
    recipe = Numbers(Settings(epochs=1), first=1)
    second = trainer(recipe)
    second.load_state(buffer.getvalue())
    list(second.run())
    assert recipe.rates[0] == (pytest.approx(RATES[0]), pytest.approx(RATES[1]))


def test_progress_is_told_of_epochs_and_of_their_steps() -> None:
    told: list[tuple[str, int, int]] = []
    run = trainer(Numbers(Settings(epochs=2)), progress=lambda *what: told.append(what))
    list(run.run())
    steps = [("steps", done, 4) for done in (1, 2, 3, 4)]
    assert told == [("train", 0, 2), *steps, ("train", 1, 2), ("train", 1, 2), *steps, ("train", 2, 2)]
    assert run.recipe.worker.progress is run.progress  # and the recipe tells the same
    assert trainer(Numbers()).progress is silent


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_recipe_s_precision_is_what_it_runs_in(precision: Precision, dtype: torch.dtype) -> None:
    recipe = Numbers(Settings(precision=precision))
    trainer(recipe)
    assert recipe.worker.dtype == dtype


def test_the_sample_is_of_the_last_epoch() -> None:
    run = trainer(Numbers())
    asked = [run.sample()]
    for _ in run.run():
        asked.append(run.sample(num=3))
    assert [tuple(int(values[0]) for values in each or ()) for each in asked] == [
        (1, 8),
        (1, 3),
        (1, 3),
        (2, 3),
        (3, 3),
    ]


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    run = trainer(Numbers(), seed=rank, rank=Rank(rank=rank, world=2))  # rank 1 starts elsewhere, as it must not
    list(run.run())
    found: dict[str, Any] = {"weights": weights(run.net), "loss": [row.get("train/loss") for row in run.history]}
    lacks = Numbers(Settings(precision="bf16" if rank == 0 else "fp32"))  # as auto comes to it on two machines
    trainer(lacks, rank=Rank(rank=rank, world=2))
    torch.save({**found, "dtype": str(lacks.worker.dtype)}, f"{folder}/{rank}")
    dist.destroy_process_group()


def test_two_workers_are_one(tmp_path: Path) -> None:
    """Steps of three, two and one: some are shared unevenly, in one the second has nothing to do."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.start_processes(_one_of_two, args=(str(tmp_path),), nprocs=2, start_method="spawn")  # type: ignore[arg-type]
    zero, one = (torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1))
    alone = trainer(Numbers())
    list(alone.run())
    assert zero["dtype"] == one["dtype"] == "torch.float32", "one format for all ranks"
    assert torch.equal(zero["weights"], one["weights"])
    assert torch.allclose(zero["weights"], weights(alone.net), atol=1e-6)
    assert zero["loss"][1:] == one["loss"][1:] == [pytest.approx(row["train/loss"]) for row in alone.history[1:]]
