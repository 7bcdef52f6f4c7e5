"""Settings of how a photo is prepared and how faces are looked for. No heavy library is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright photo; x2 and y2 are exclusive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Probabilities and strengths. The first two are the published recipe's, the others were measured to help."""

    erase: float = 0.5
    """Probability of RandomErasing: one rectangle of 2 to 33 % of the area (Zhong et al., arXiv:1708.04896)."""
    drop_regions: float = 0.3
    """Probability of region dropout: 1 to 8 small squares, each a tenth of the side."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    shift: float = 0.03
    """Standard deviation of the shift, as a fraction of the side; of the scale 1.7 times that."""
    light: float = 0.2
    """Standard deviation of the log of contrast, and 0.4 times it of brightness (of 1 = white)."""

    def __post_init__(self) -> None:
        for name in ("erase", "drop_regions", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is a probability, 0 to 1, got {getattr(self, name)}.")
        for name in ("shift", "light"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}, expected 0 to 1, for example 0.1.")


CASCADE_FILES = {
    "alt2": "haarcascade_frontalface_alt2.xml",
    "alt": "haarcascade_frontalface_alt.xml",
    "default": "haarcascade_frontalface_default.xml",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """How faces are searched: first in a much reduced image, then in larger ones for as long as none is found."""

    cascade: Literal["alt2", "alt", "default"] = "alt2"
    """OpenCV's frontal-face Haar cascade. alt2 gives the fewest false boxes."""
    scale_factor: float = 1.1
    """Ratio between two searched face sizes. Nearer to 1 finds a little more and takes longer."""
    min_neighbors: int = 3
    """Raw detections that must agree on a face."""
    min_face: int = 32
    """Smallest face searched, in pixels of the reduced image: 32 of 160 is a fifth of the photo's long side."""
    detect_side: int = 160
    """Long side of the reduced image searched first, in pixels."""
    max_detect_side: int = 640
    """While no face is found the search repeats at twice the size, up to this long side (or the photo's own)."""

    def __post_init__(self) -> None:
        if self.cascade not in CASCADE_FILES:
            raise ValueError(f"Unknown cascade '{self.cascade}'. Choose one of: {', '.join(CASCADE_FILES)}.")
        if not 1 < self.scale_factor < math.inf:
            raise ValueError(f"scale_factor is {self.scale_factor}, expected more than 1, for example 1.1.")
        if self.min_neighbors < 0:
            raise ValueError(f"min_neighbors is {self.min_neighbors}, expected 0 or more, for example 3.")
        if not 20 <= self.min_face <= self.detect_side <= self.max_detect_side:
            raise ValueError(
                f"Expected 20 <= min_face <= detect_side <= max_detect_side, got min_face {self.min_face}, "
                f"detect_side {self.detect_side}, max_detect_side {self.max_detect_side}."
            )


MAX_PIXELS_LIMIT = 170_000_000
"""Pillow itself refuses images above 178,956,970 pixels; a higher limit of ours could not be kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig(DetectorConfig):
    """What is done to every photograph, gallery or query. Travels in the model bundle as `preparation`."""

    crop: Literal["haar", "box", "none", "fit"] = "haar"
    """haar: cut out the best face found. box: cut out the box that the source gives. none: the whole photo, stretched
    to a square (for sets that are cropped already). fit: the whole photo in its own shape (for places)."""
    margin: float = 0.15
    """Room around the face on each side, as a part of the face box's side. Negative cuts tighter."""
    size: int = 218
    """Side of the stored square, in pixels; with fit the longer side, at most: smaller photos are not enlarged."""
    quality: int = 95
    """JPEG quality of the stored square, 1 to 100."""
    max_pixels: int = 50_000_000
    """Larger photos are rejected before they are decoded."""
    min_side: int = 16
    """Photos with a shorter side than this many pixels are rejected."""

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)  # super() does not work in a dataclass with slots
        if self.crop not in ("haar", "box", "none", "fit"):
            raise ValueError(f"Unknown crop '{self.crop}'. Choose one of: haar, box, none, fit.")
        if not -0.4 <= self.margin <= 2:
            raise ValueError(f"margin is {self.margin}, expected -0.4 to 2, for example 0.15.")
        if not 16 <= self.size <= 2048:
            raise ValueError(f"size is {self.size}, expected 16 to 2048 pixels.")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}, expected 1 to 100.")
        if not 1 <= self.max_pixels <= MAX_PIXELS_LIMIT:
            raise ValueError(f"max_pixels is {self.max_pixels}, expected 1 to {MAX_PIXELS_LIMIT}.")
        if self.min_side < 1:
            raise ValueError(f"min_side is {self.min_side}, expected 1 or more pixels.")
