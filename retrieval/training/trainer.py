"""What both trainers keep of a run: its history, the best epoch, and the bytes from which a fresh trainer goes on."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Resumable:
    """Base of a trainer. It sets what trains (`_trained`, a module, and `_optimiser`) and where (`device`) by itself.

    Attributes:
        history: the metrics of each epoch so far, the starting point first.
        best: its epoch, its val/mAP (without validation the epoch's number: the last is the best) and its weights.
    """

    device: torch.device
    _trained: Any
    _optimiser: torch.optim.Optimizer

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": 0, "val/mAP": -1.0, "state": None}

    def state(self, **more: Any) -> bytes:
        """Everything a fresh trainer needs to go on: weights, optimiser, history, the best so far, and `more`."""
        buffer = io.BytesIO()
        run = {"history": self.history, "best": self.best, "optimiser": self._optimiser.state_dict(), **more}
        torch.save({"trained": self._trained.state_dict(), **run}, buffer)
        return buffer.getvalue()

    def load_state(self, data: bytes) -> dict[str, Any]:
        """Go on from what `state` gave. Returns all that it held."""
        state = torch.load(io.BytesIO(data), map_location=self.device, weights_only=True)
        self._trained.load_state_dict(state["trained"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.history, self.best = state["history"], state["best"]
        return state

    def load_best(self) -> None:
        """Put the best epoch's weights in place, ready to be saved."""
        if self.best["state"] is not None:
            self._trained.load_state_dict(self.best["state"])

    def _close_epoch(self, metrics: dict[str, Any]) -> None:
        self.history.append(metrics)
        score = metrics.get("val/mAP", float(metrics["epoch"]))
        if score > self.best["val/mAP"]:
            state = {name: value.detach().cpu().clone() for name, value in self._trained.state_dict().items()}
            self.best = {"epoch": metrics["epoch"], "val/mAP": score, "state": state}


def spread(embeddings: Tensor) -> float:
    """How far the embeddings keep apart: mean squared distance of two of them, 2 (1 - ||mean||^2).

    2 for directions spread evenly, 0 when all are one point: the collapse that hardest negatives can cause early
    (FaceNet, section 3.2).
    """
    return float(2 * (1 - embeddings.mean(dim=0).square().sum()))


def tuples_digest(tuples: np.ndarray) -> str:
    """sha256 hex of an epoch's groups of rows in training order: what a resumed run must reproduce."""
    return hashlib.sha256(np.ascontiguousarray(tuples, dtype="<i8").tobytes()).hexdigest()
