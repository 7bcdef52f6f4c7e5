"""Settings of how a source is read and its photos are divided. No heavy library is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["auto", "celeba", "lfw", "folder", "manifest", "webdataset", "parquet"]
"""How a source is laid out: auto, or a name of `listing.LAYOUTS`."""
Split = Literal["train", "val", "query", "gallery"]
"""What a photo of the catalog is for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """How identities are divided."""

    test_fraction: float = 0.2
    """Part of the identities kept for testing: queries and gallery. 1: nobody is trained on, all photos are these."""
    val_fraction: float = 0.1
    """Part of the other identities kept for choosing among models."""
    keep_singles: bool = False
    """Keep photos without a label, or alone under theirs, as distractors; if no photo has a label, all train (unless
    test_fraction is 1). For places, where nobody labels: an unlabelled photo must not show a labelled place."""
    honour_source: bool = False
    """Take the source's own split where it says query or gallery, as the benchmarks' ground truth does."""
    seed: int = 0
    """Draws the identities and each one's query photo."""

    def __post_init__(self) -> None:
        if not 0 <= self.test_fraction <= 1:
            raise ValueError(f"test_fraction is {self.test_fraction}, expected 0 to 1, for example 0.2.")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction is {self.val_fraction}, expected 0 or more and less than 1, such as 0.1.")
