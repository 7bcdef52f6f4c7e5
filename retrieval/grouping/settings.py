"""Settings of grouping. No heavy library is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

PEOPLE, DUPLICATES = "people.parquet", "duplicates.parquet"
"""Of every stored photo: who is on it. Of every copy: what it repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingConfig:
    """When photos belong together."""

    threshold: float | Literal["auto"] = "auto"
    """Two groups are one if the mean cosine of all pairs between them is at least this. auto: from --calibration, where
    one pair of strangers in 10,000 is so alike; else what the model's publisher says, and 0.04 more; else 0.5."""
    neighbours: int = 50
    """How many of the nearest photos each photo is linked with, at most. More changes little and takes longer."""
    keep: bool = True
    """Who was together in --previous stays so, if model and threshold are the same: groups only grow. no-keep: all are
    found anew, and take the numbers of those they share most photos with."""
    duplicates: bool = True
    """Look for photos of the same content, too: resized, recompressed, cropped a little."""
    duplicate_neighbours: int = 10
    """How many of its nearest photos each is compared with, pixel by pixel."""
    duplicate_likeness: float = 0.97
    """Two photos are one picture if the fine detail of both, laid over each other, correlates at least so much."""

    def __post_init__(self) -> None:
        if self.threshold != "auto" and not (math.isfinite(self.threshold) and -1 <= self.threshold <= 1):
            raise ValueError(f"threshold is {self.threshold}, expected a cosine, -1 to 1, or auto.")
        for name in ("neighbours", "duplicate_neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if not 0 < self.duplicate_likeness <= 1:
            raise ValueError(f"duplicate_likeness is {self.duplicate_likeness}, expected more than 0 and at most 1.")
