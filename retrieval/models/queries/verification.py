"""Two photos: do they show the same? Same, different or cannot tell, with what that rests on, and why."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.artifacts.calibration import Answer, Calibration, KnownThreshold, judge
from retrieval.images.pixels import BadImage
from retrieval.models.queries.reader import PhotoReader


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is said of two photos. None stands for what is not known; `why` is a sentence."""

    answer: Answer
    why: str
    far: float
    """The false-accept rate that was asked for."""
    score: float | None = None
    threshold: float | None = None
    promised: bool = False
    """Whether the threshold is one at that rate, and not its publisher's."""


def verify(
    first: bytes,
    second: bytes,
    reader: PhotoReader,
    *,
    far: float = 1e-3,
    calibration: Calibration | None = None,
    known: KnownThreshold | None = None,
    names: tuple[str, str] = ("the first photo", "the second photo"),
) -> Verdict:
    """Whether two photos show the same, by the model of `reader`.

    Args:
        far: the share of pairs of two different people that may be called the same.
        calibration: of this model; without one, or where it promises nothing at `far`, `known` decides.
        known: the threshold that the network's publisher names.
        names: what the photos are called in `why`.

    Raises: ValueError for a rate that the calibration was not made for.
    """
    if calibration is not None:
        calibration.rate(far)  # an unknown rate is refused before anything is looked at
    described, unusable = [], []
    for name, photo in zip(names, (first, second), strict=True):
        try:
            described.append(reader.describe(photo).embedding)
        except BadImage as error:
            unusable.append(f"{name} cannot be used: {error.detail} ({error.reason})")
    if unusable:
        return Verdict(answer="cannot tell", why="; ".join(unusable), far=far)
    score = float(described[0] @ described[1])
    found = judge(score, far, calibration, known)
    return Verdict(
        answer=found.answer,
        why=found.why,
        far=far,
        score=score,
        threshold=found.threshold,
        promised=found.promised,
    )
