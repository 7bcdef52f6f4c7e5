"""Settings of adapters. No heavy library is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from retrieval.training.losses import LOSSES
from retrieval.training.settings import TupleLoss

Candidate = Literal["whitening", "linear", "residual"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptConfig:
    """Which adapters are tried, and what one must gain to be kept."""

    candidates: tuple[Candidate, ...] = get_args(Candidate)
    """whitening: learned from pairs that match (Lw). linear: a matrix, trained from the identity. residual: two layers
    whose output is added to the embedding, trained from nothing added."""
    epochs: int = 20
    """Of linear and residual; negatives are mined anew in each. The last one's weights are taken."""
    loss: TupleLoss = "triplet"
    """triplet: the positive nearer than each negative. contrastive: matching pairs together, others `margin` apart."""
    margin: float = 0.2
    """triplet: difference of squared distances. contrastive: distance, say 0.7."""
    learning_rate: float = 3e-4
    """Peak of a one-cycle schedule, AdamW's."""
    weight_decay: float = 0.01
    """Draws the adapter back to the identity: what decays is what it changes."""
    hidden: int = 256
    """residual: units of its hidden layer."""
    shrinkage: float = 0.3
    """whitening: how far the pairs' covariance is drawn to a multiple of the identity, 0 to 1."""
    least_gain: float = 2.0
    """Standard errors by which mAP on val must be above that of the identity; their unit is a person or place. Where
    several candidates are tried, one error is passed by chance too often."""
    max_photos: int = 200_000
    """Photos trained on, at most: whole people or places, drawn."""
    max_val_photos: int = 20_000
    """Photos validated on, at most, likewise."""
    seed: int = 0
    """Decides all draws."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", tuple(self.candidates))  # JSON has lists only
        if not self.candidates or set(self.candidates) - set(get_args(Candidate)):
            raise ValueError(
                f"candidates are {list(self.candidates)}, expected one or more of: {', '.join(get_args(Candidate))}."
            )
        for name in ("epochs", "hidden", "max_photos", "max_val_photos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("learning_rate", "margin"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("weight_decay", "least_gain"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not 0 <= self.shrinkage <= 1:
            raise ValueError(f"shrinkage must be from 0 to 1, got {self.shrinkage}.")
        if self.loss not in LOSSES:
            raise ValueError(f"Unknown loss '{self.loss}'. Choose one of: {', '.join(LOSSES)}.")
