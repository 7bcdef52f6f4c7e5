"""Settings of the drawn faces and places. No heavy library is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Which faces are drawn. Two equal configs draw the same bytes (on one machine)."""

    num_identities: int = 60
    """People in the set."""

    images_per_identity: int = 12
    """Photos of each person."""

    seed: int = 0
    """Another seed draws other people."""

    size: tuple[int, int] = (178, 218)
    """Width and height of the photos, in pixels. CelebA's aligned photos have 178 x 218."""

    flaws: bool = False
    """Spoil 2.5 % of the photos as real sets do: cut short, no face, a copy, missing, a person seen only once."""

    def __post_init__(self) -> None:
        if min(self.num_identities, self.images_per_identity) < 1 or self.seed < 0:
            raise ValueError(
                f"Cannot draw {self.num_identities} people x {self.images_per_identity} photos with seed {self.seed}. "
                "Give at least 1 person and 1 photo, and a seed of 0 or more."
            )
        if min(self.size) < 48:
            raise ValueError(
                f"Photos of {self.size[0]} x {self.size[1]} pixels are too small for a face. Use at least 48 x 48."
            )

    @property
    def num_images(self) -> int:
        """Lines in each list; with flaws, a few fewer files."""
        return self.num_identities * self.images_per_identity


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneConfig:
    """How many places are drawn, and how large."""

    num_places: int = 20
    """Buildings that are photographed more than once."""
    images_per_place: int = 8
    """Photos of each."""
    num_distractors: int = 40
    """Buildings that are photographed once."""
    size: int = 480
    """Longer side of a photo, pixels."""
    seed: int = 0
    """Draws everything."""

    def __post_init__(self) -> None:
        for name, least in (
            ("num_places", 1),
            ("images_per_place", 1),
            ("num_distractors", 0),
            ("size", 64),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more.")
