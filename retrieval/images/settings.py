"""Settings of how a photo is prepared and how faces are looked for. No heavy library is imported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright photo; x2 and y2 are exclusive."""

Crop = Literal["face", "aligned", "box", "none", "fit"]
Detector = Literal["auto", "yunet", "haar"]


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

    detector: Detector = "auto"
    """yunet: a small network, gives five points and a confidence (needs its file, see `python -m ray_jobs.weights`).
    haar: OpenCV's cascades, need no file. auto: yunet where its file is found, else haar; what was taken is recorded.
    """
    detect_side: int = 160
    """Long side of the reduced image searched first, in pixels."""
    max_detect_side: int = 640
    """While no face is found, or by yunet only small ones, the search repeats at twice the size, up to this long side
    (or the photo's own)."""
    all_side: int = 1920
    """With faces=all the search goes on, whatever was found, up to this long side: faces of 1/50 of it are found."""
    min_confidence: float = 0.85
    """yunet: what is less surely a face, 0 to 1, is none. 0.88 lets no dog or monkey pass and loses a few people who
    look away; 0.7 takes in more of those, and of the blurred, and dogs."""
    cascade: Literal["alt2", "alt", "default"] = "alt2"
    """haar: OpenCV's cascade of frontal faces. alt2 gives the fewest false boxes."""
    scale_factor: float = 1.1
    """haar: ratio between two searched face sizes. Nearer to 1 finds a little more and takes longer."""
    min_neighbors: int = 3
    """haar: raw detections that must agree on a face."""
    min_face: int = 32
    """haar: smallest face searched, in pixels of the reduced image: 32 of 160 is a fifth of the photo's long side."""

    def __post_init__(self) -> None:
        for name, known in (("detector", get_args(Detector)), ("cascade", CASCADE_FILES)):
            if getattr(self, name) not in known:
                raise ValueError(f"Unknown {name} '{getattr(self, name)}'. Choose one of: {', '.join(known)}.")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence is {self.min_confidence}, expected 0 to 1, for example 0.85.")
        if not 1 < self.scale_factor < math.inf:
            raise ValueError(f"scale_factor is {self.scale_factor}, expected more than 1, for example 1.1.")
        if self.min_neighbors < 0:
            raise ValueError(f"min_neighbors is {self.min_neighbors}, expected 0 or more, for example 3.")
        if not 20 <= self.min_face <= self.detect_side <= self.max_detect_side:
            raise ValueError(
                f"Expected 20 <= min_face <= detect_side <= max_detect_side, got min_face {self.min_face}, "
                f"detect_side {self.detect_side}, max_detect_side {self.max_detect_side}."
            )
        if not self.detect_side <= self.all_side <= 8192:
            raise ValueError(f"all_side is {self.all_side}, expected detect_side ({self.detect_side}) to 8192 pixels.")


MAX_PIXELS_LIMIT = 170_000_000
"""Pillow itself refuses images above 178,956,970 pixels; a higher limit of ours could not be kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig(DetectorConfig):
    """What is done to every photograph, gallery or query. Travels in the model bundle as `preparation`."""

    crop: Crop = "face"
    """face: cut a square around the best face found. aligned: turn and scale the face so that eyes, nose and mouth lie
    where networks trained on aligned faces expect them (needs yunet). box: cut out the box that the source gives.
    none: the whole photo, stretched to a square (for sets that are cropped already). fit: the whole photo in its own
    shape (for places)."""
    faces: Literal["best", "all"] = "best"
    """best: a photo is its best face, the largest near the middle. all: each face of a photo is a row of its own."""
    margin: float = 0.15
    """Room around the face on each side, as a part of the face box's side; with aligned, of the template's side, so
    that 0 is the template itself. Negative cuts tighter."""
    size: int = 218
    """Side of the stored square, in pixels; with fit the longer side, at most: smaller photos are not enlarged."""
    quality: int = 95
    """JPEG quality of the stored square, 1 to 100."""
    max_pixels: int = 50_000_000
    """Larger photos are rejected before they are decoded."""
    min_side: int = 16
    """Photos with a shorter side than this many pixels are rejected."""
    min_face_size: int = 16
    """Faces whose box has a shorter side than this many pixels of the photo are rejected."""
    min_sharpness: float = 0.0
    """Faces less sharp than this are rejected; see `retrieval.images.quality`. 0: none is."""
    max_turn: float = 2.0
    """Faces turned away further than this are rejected: how far the nose is from the middle between the eyes, in
    distances of the eyes. About 0.5 at 45 degrees, above 1 in profile. Not asked without points (haar)."""

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)  # super() does not work in a dataclass with slots
        if self.crop not in get_args(Crop):
            raise ValueError(f"Unknown crop '{self.crop}'. Choose one of: {', '.join(get_args(Crop))}.")
        if self.crop == "aligned" and self.detector == "haar":
            raise ValueError("crop 'aligned' needs five points of a face, and haar finds none. Use detector yunet.")
        if self.faces not in ("best", "all"):
            raise ValueError(f"Unknown faces '{self.faces}'. Choose one of: best, all.")
        if self.faces == "all" and not self.looks:
            raise ValueError(f"faces 'all' needs crop face or aligned; with crop '{self.crop}' no face is looked for.")
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
        for name in ("min_face_size", "min_sharpness", "max_turn"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more.")

    @property
    def looks(self) -> bool:
        """Whether faces are looked for."""
        return self.crop in ("face", "aligned")

    @property
    def needs_network(self) -> bool:
        """Whether YuNet's file has to travel with what is prepared so: its queries are searched by it too."""
        return self.detector == "yunet" and self.queries_look

    @property
    def queries_look(self) -> bool:
        """Whether a query is searched for a face: also where the source gave the gallery's boxes."""
        return self.crop not in ("none", "fit")

    def resolved(self, has_network: bool) -> PrepareConfig:
        """The same with the detector that is really used: never auto.

        Args: has_network: whether YuNet's file is at hand.

        Raises: ValueError where yunet is needed and is not at hand.
        """
        if not self.queries_look:  # nothing depends on the machine
            return dataclasses.replace(self, detector="haar")
        if not has_network and (self.detector == "yunet" or self.crop == "aligned"):
            what = "detector 'yunet'" if self.detector == "yunet" else f"crop '{self.crop}'"
            raise ValueError(
                f"{what} needs the file of YuNet, and it was not found. `python -m ray_jobs.weights` says where to get "
                f"it, $RETRIEVAL_WEIGHTS where it is looked for; or use crop face with detector haar."
            )
        if self.detector != "auto":
            return self
        return dataclasses.replace(self, detector="yunet" if has_network else "haar")


def stored_config(stored: Mapping[str, Any]) -> PrepareConfig:
    """The preparation that a bundle or a collection was sealed with, also one from when Haar was the only detector."""
    known = dict(stored)
    known.setdefault("detector", "haar")
    if known.get("crop") == "haar":
        known["crop"] = "face"
    return PrepareConfig(**known)
