"""How long, how often and how much: where a job stops trying and says so. No heavy library is loaded here."""

from __future__ import annotations

from dataclasses import asdict, dataclass

TRIES = 3
"""How often a part is begun, at most, without learning anything about why it ended its worker."""
FEW = 10
"""So many broken photos stop no job, however few photos there are in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLimits:
    """How long to try."""

    part_seconds: float = 86400.0
    """Longest that one part of the work may take, storage and all; then it is begun anew."""
    wait_seconds: float = 900.0
    """How long to wait for machines that the cluster does not have yet, where it can get them."""

    def __post_init__(self) -> None:
        if self.part_seconds <= 0:
            raise ValueError(f"part_seconds is {self.part_seconds:g}, expected more than 0.")
        if self.wait_seconds < 0:
            raise ValueError(f"wait_seconds is {self.wait_seconds:g}, expected 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits(TimeLimits):
    """When to stop trying, where photos are read."""

    max_rejected: float = 0.2
    """Stop when more than this share of the photos cannot be read, or ends what reads them; 1: never. Photos that only
    show nothing of use, no face say, do not count."""
    photo_seconds: float = 120.0
    """Longest that native code may take over one photo; then it is left out as timed-out. 0: for ever."""

    def __post_init__(self) -> None:
        TimeLimits.__post_init__(self)  # `super()` does not find its class where it has slots
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"max_rejected is {self.max_rejected}, expected a share from 0 to 1.")
        if self.photo_seconds < 0:
            raise ValueError(f"photo_seconds is {self.photo_seconds:g}, expected 0 or more.")

    @classmethod
    def of(cls, limits: TimeLimits | None) -> Limits:
        """Those, and the usual ones where they say nothing."""
        return limits if isinstance(limits, Limits) else cls(**asdict(limits) if limits else {})

    def most_broken(self, photos: int) -> int:
        """How many of so many photos may be broken."""
        return max(FEW, int(self.max_rejected * photos)) if self.max_rejected < 1 else max(FEW, photos)
