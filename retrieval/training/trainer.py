"""The trainer: epochs of a recipe on one process or as one rank of many, the best of them, and how a run goes on."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from typing import Any, Generic

import numpy as np
import torch

from retrieval.artifacts.progress import Progress, silent
from retrieval.images.batches import Decoders
from retrieval.models.engines.number_format import pick_dtype
from retrieval.models.network import EmbeddingNet
from retrieval.training.recipe import B, M, Recipe, Worker
from retrieval.training.workers import Rank

logger = logging.getLogger(__name__)


class Trainer(Generic[M, B]):
    """One rank's state through a run. All ranks call the same methods in step.

    Attributes:
        history: the metrics of each epoch so far, the starting point first.
        best: its epoch, its val/mAP (without validation the epoch's number: the last is the best) and its weights.
    """

    def __init__(
        self,
        net: EmbeddingNet,
        recipe: Recipe[M, B],
        *,
        rank: Rank | None = None,
        device: torch.device | None = None,
        progress: Progress = silent,
    ) -> None:
        """Args:
        net: trained in place.
        progress: told of epochs, of steps, and of what the recipe does in between.
        """
        self.net, self.recipe = net, recipe
        self.rank, self.device, self.progress = rank or Rank(), device or torch.device("cpu"), progress
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": 0, "val/mAP": -1.0, "state": None}
        self._rate_scale = 1.0
        # Running statistics stay as they are: only weights change, so no rank and no batch size matters.
        net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        dtype = pick_dtype(net, recipe.config.precision)
        if not self.rank.all(dtype == torch.bfloat16, self.device):  # one that lacks it decides for all
            dtype = torch.float32
        worker = Worker(
            net=net,
            rank=self.rank,
            device=self.device,
            dtype=dtype,
            decoders=Decoders(self.device),
            progress=progress,
        )
        self._trained, self._optimiser = recipe.prepare(worker)
        self.rank.agree(list(self._trained.state_dict().values()))
        self._rates = [float(group["lr"]) for group in self._optimiser.param_groups]

    # -- what an epoch does ------------------------------------------------------------------------------------------

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield the metrics of each epoch still to do, 1 to `epochs`; on a fresh run the starting point, 0, first."""
        epochs = self.recipe.config.epochs
        if not self.history:
            self._close_epoch({"epoch": 0, **self.recipe.validate()})
            yield self.history[-1]
        for epoch in range(len(self.history), epochs + 1):
            self.progress("train", epoch - 1, epochs)
            self._close_epoch({"epoch": epoch, **self._epoch(epoch)})
            self.progress("train", epoch, epochs)
            yield self.history[-1]

    def _epoch(self, epoch: int) -> dict[str, Any]:
        started = time.monotonic()
        mined = self.recipe.mine(epoch, self)
        ready = time.monotonic()
        metrics = {**mined.report, "tuples_sha256": mined.digest, **self.train_on(mined)}
        trained = time.monotonic()
        metrics |= self.recipe.validate()
        seconds = {"mine": ready - started, "train": trained - ready, "validate": time.monotonic() - trained}
        return metrics | {f"seconds/{name}": value for name, value in seconds.items()}

    def train_on(self, mined: M) -> dict[str, Any]:
        """The steps of one epoch; each rank runs its share of each. Returns the recipe's summary."""
        trained = [p for group in self._optimiser.param_groups for p in group["params"]]
        seen = []
        for step, batch in enumerate(self.recipe.batches(mined)):
            scale = self.recipe.rate(mined.epoch, step, mined.steps)
            for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
                group["lr"] = rate * scale * self._rate_scale
            self._optimiser.zero_grad(set_to_none=True)
            loss, known = self.recipe.loss(batch)
            if loss.requires_grad:  # not where this rank has no share of the step
                loss.backward()
            self.rank.sum_gradients(trained)
            self._optimiser.step()
            seen.append(known)
            self.progress("steps", step + 1, mined.steps)
        return self.recipe.summary(mined, seen)

    def sample(self, num: int = 8) -> tuple[np.ndarray, np.ndarray] | None:
        """Some of what the last epoch trained on, with scores by the network as it is now; see `Recipe.sample`."""
        return self.recipe.sample(max(1, len(self.history) - 1), num)

    # -- the best epoch, and going on --------------------------------------------------------------------------------

    def go_back(self, epoch: int) -> None:
        """Collapsed embeddings do not come apart again: return to the best weights, at a quarter of the rate."""
        self._rate_scale /= 4
        self._trained.load_state_dict(self.best["state"])
        self._optimiser.state.clear()
        logger.warning(
            "Epoch %d: the embeddings collapsed to a point; going back to epoch %d with %.3g times the learning rate",
            epoch,
            self.best["epoch"],
            self._rate_scale,
        )

    def load_best(self) -> None:
        """Put the best epoch's weights in place, ready to be saved."""
        if self.best["state"] is not None:
            self._trained.load_state_dict(self.best["state"])

    def state(self) -> bytes:
        """Everything a fresh trainer needs to go on: weights, optimiser, history, the best so far, how slow by now."""
        buffer = io.BytesIO()
        run = {"history": self.history, "best": self.best, "rate_scale": self._rate_scale}
        torch.save({"trained": self._trained.state_dict(), "optimiser": self._optimiser.state_dict(), **run}, buffer)
        return buffer.getvalue()

    def load_state(self, data: bytes) -> None:
        """Go on from what `state` gave."""
        state = torch.load(io.BytesIO(data), map_location=self.device, weights_only=True)
        self._trained.load_state_dict(state["trained"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.history, self.best = state["history"], state["best"]
        self._rate_scale = state.get("rate_scale", 1.0)  # tuples' checkpoints had none

    def _close_epoch(self, metrics: dict[str, Any]) -> None:
        self.history.append(metrics)
        score = metrics.get("val/mAP", float(metrics["epoch"]))
        if score > self.best["val/mAP"]:
            state = {name: value.detach().cpu().clone() for name, value in self._trained.state_dict().items()}
            self.best = {"epoch": metrics["epoch"], "val/mAP": score, "state": state}
