"""Settings of reconstruction. No heavy library is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureConfig:
    """Which local features."""

    extractor: Literal["sift", "aliked"] = "sift"
    """sift, by COLMAP; or aliked, a network that learned where to look: it needs --features.weights."""
    weights: str = ""
    """Of aliked: aliked-n16, looked for where known weights lie (python -m ray_jobs.weights), or a .pth or .safetensors
    file of it. Nothing is downloaded."""
    max_features: int = 1024
    """Local features a photo, the strongest."""
    max_side: int | None = None
    """A larger photo is looked at no larger than this, in pixels; None: as it is stored."""

    def __post_init__(self) -> None:
        if self.max_features < 1:
            raise ValueError(f"max_features is {self.max_features}, expected 1 or more.")
        if self.max_side is not None and self.max_side < 32:
            raise ValueError(f"max_side is {self.max_side}, expected 32 or more.")
        if (self.extractor == "aliked") != bool(self.weights):
            raise ValueError(
                f"extractor is {self.extractor} and weights '{self.weights}': aliked needs weights, for example "
                f"aliked-n16 or a file of it, and sift has none."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructConfig:
    """How tuples are found."""

    max_features: int = 4096
    """Local features a photo, the strongest."""
    num_words: int = 4096
    """Size of the vocabulary; fewer where the sample is small."""
    vocabulary_sample: int = 200_000
    """Descriptors, drawn from all photos alike, that the vocabulary is trained on."""
    num_candidates: int = 15
    """Photos each photo is checked against: those with most words in common."""
    rounds: int = 2
    """Times that photos which link to one and the same photo are checked as well, `num_candidates` a photo at most."""
    strong_inliers: int = 30
    """Matches that fit one geometry, from which two photos are mapped together."""
    weak_inliers: int = 15
    """From which two photos may show one place: they share a cluster, so neither is the other's negative."""
    min_images: int = 3
    """Photos a model has at least."""
    min_points: int = 50
    """3D points a model has at least."""
    min_shared: int = 15
    """3D points that a query and a candidate positive both see, at least."""
    val_fraction: float = 0.15
    """Part of the clusters kept for choosing among epochs."""
    seed: int = 0
    """Draws the vocabulary's sample and the clusters of val."""

    def __post_init__(self) -> None:
        for name in ("max_features", "num_words", "vocabulary_sample", "num_candidates", "min_shared"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if not MIN_LINK <= self.weak_inliers <= self.strong_inliers:
            raise ValueError(
                f"weak_inliers is {self.weak_inliers} and strong_inliers {self.strong_inliers}, expected "
                f"{MIN_LINK} <= weak_inliers <= strong_inliers."
            )
        if self.rounds < 0:
            raise ValueError(f"rounds is {self.rounds}, expected 0 (only words propose pairs) or more.")
        if self.min_images < 2 or not 0 <= self.val_fraction < 1:
            raise ValueError(
                f"min_images is {self.min_images}, expected 2 or more; val_fraction {self.val_fraction}, expected 0 "
                f"or more and less than 1."
            )


MIN_LINK = 12
"""Fewer matches than this, even if one geometry fits them, are what chance gives."""
