"""How alike photos must be to be of one group, and who says so.

A threshold that is right for one pair is too low for a collection: each photo meets all the strangers in it. So it is
the cosine that one pair of strangers in 10,000 reaches, where a calibration can promise that. A published threshold is
one of about one in 1,000; for SFace it is 0.363, and 0.40 lies half-way (in standard deviations) to one in 10,000.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.artifacts.calibration import Calibration, KnownThreshold
from retrieval.grouping.settings import GroupingConfig

FAR = 1e-4
"""Of pairs of strangers, the share that may be as alike as the threshold."""
STRICTER = 0.04
"""What is added to a threshold of one in 1,000, in cosine: half a standard deviation of strangers' cosines."""
UNKNOWN = 0.5
"""For a model that nobody says anything of: few strangers are so alike by any network that is any good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """A cosine, and where it is from."""

    value: float
    source: str


def choose(config: GroupingConfig, calibration: Calibration | None, published: KnownThreshold | None) -> Threshold:
    """The threshold to use: as set, else calibrated, else published, else `UNKNOWN`.

    Example:
        >>> choose(GroupingConfig(), None, KnownThreshold(threshold=0.363, source="opencv.org"))
        Threshold(value=0.403, source='opencv.org, and 0.04 more')
    """
    if config.threshold != "auto":
        return Threshold(value=float(config.threshold), source="as set")
    for far, more in ((FAR, 0.0), (1e-3, STRICTER)):
        found = calibration.threshold(far) if calibration and calibration.rates else None
        if found is not None:
            said = f", and {more} more" if more else ""
            value = round(min(1.0, found + more), 4)
            return Threshold(value=value, source=f"calibration at a false-accept rate of {far:g}{said}")
    if published is not None:
        value = round(min(1.0, published.threshold + STRICTER), 4)
        return Threshold(value=value, source=f"{published.source}, and {STRICTER} more")
    return Threshold(value=UNKNOWN, source="nobody: a guess, look at the groups and set --group.threshold")
