"""What both trainers keep of a run: its history, the best epoch, and the bytes from which a fresh trainer goes on."""

from __future__ import annotations

import io
from typing import Any

import torch


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
