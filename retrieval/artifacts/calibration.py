"""What a score means: the probability that two photos show the same, and thresholds at stated false-accept rates.

A report's `calibration.json` holds one `Calibration` for each system that was measured. Only `math` and `json` are
needed to read it, so whoever answers queries may.

    >>> known = KnownThreshold(threshold=0.363, source="opencv.org")
    >>> judge(0.41, 1e-3, None, known).answer
    'same'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain

CALIBRATION = "calibration.json"

FARS = (1e-2, 1e-3, 1e-4)
"""The false-accept rates that thresholds are given for."""

DIFFERENT_BELOW = 0.05
"""Two photos are called different at or below this probability of showing the same."""

MANY = {"person": "people", "place": "places"}
"""What several of a calibration's subject are called."""

Answer = Literal["same", "different", "cannot tell"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Probability that two photos with score s are called the same, where half of all pairs are.

    p = wrong + (1 - 2 wrong) q, ln(q / (1 - q)) = intercept + low ln u - high ln(1 - u), u = (1 + s) / 2: beta
    calibration (Kull, Silva Filho, Flach, AISTATS 2017) and a share of labels that are wrong. Never falls as s grows.

    Raises: ValueError if it does, or is no number.
    """

    intercept: float
    low: float
    high: float
    wrong: float = 0.001

    def __post_init__(self) -> None:
        values = (self.intercept, self.low, self.high, self.wrong)
        if not all(map(math.isfinite, values)) or min(values[1:]) < 0 or not 0 < self.wrong < 0.5:
            raise ValueError(f"{self} is no rising curve: low and high are 0 or more. Run evaluate again.")

    def evidence(self, score: float) -> float:
        """ln(p / (1 - p)): the log of the likelihood ratio. At most ln((1 - wrong) / wrong), on both sides."""
        u = min(max((1 + score) / 2, 1e-6), 1 - 1e-6)
        p = self.wrong + (1 - 2 * self.wrong) * _logistic(
            self.intercept + self.low * math.log(u) - self.high * math.log1p(-u)
        )
        return math.log(p / (1 - p))


def _logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What is promised at one false-accept rate.

    Without a `threshold` nothing is promised, and `why` says what is missing.
    """

    far: float
    """Of pairs of two different people, drawn by people, the share that scores at least `threshold`."""
    threshold: float | None = None
    threshold_interval: Interval | None = None
    """Where the threshold lies that has exactly this rate, 95 times in 100."""
    far_interval: Interval | None = None
    """The rate that as many other people will show at `threshold`, 99 times in 100; the true rate lies within too."""
    true_accept: float | None = None
    """Of pairs of photos of one person, drawn by people, the share that scores at least `threshold`."""
    true_accept_interval: Interval | None = None
    """The share that as many other people will show, 99 times in 100."""
    false_accepts: float = 0.0
    """Independent false accepts that the rate rests on: fewer than the pairs seen where some people resemble many."""
    why: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.far < 1:
            raise ValueError(f"far is {self.far}, expected a rate between 0 and 1, for example 0.001.")

    @property
    def promised(self) -> bool:
        return self.threshold is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """A bar of the reliability plot: pairs whose probability, told by people not among them, is in [low, high)."""

    low: float
    high: float
    told: float
    """Their mean probability."""
    found: float
    """The share of them that shows the same, at the calibration's prior."""
    share: float
    """The share of all pairs, at that prior, that they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the scores of one model mean, measured on labelled photos that it was not trained on."""

    model: str
    """Fingerprint of the bundle whose scores these are."""
    collection: str = ""
    """Fingerprint of the collection that it was measured on."""
    subject: str = "person"
    people: int = 0
    people_with_pairs: int = 0
    """Of these, those with two photos or more."""
    photos: int = 0
    same_pairs: int = 0
    different_pairs: int = 0
    prior: float = 0.5
    """The share of pairs that show the same, which `probability` takes for granted unless told otherwise."""
    curve: Curve | None = None
    """None where there are too few people to fit one."""
    rates: tuple[Rate, ...] = ()
    reliability: tuple[Bin, ...] = ()
    why: str = ""
    """Why there is no curve."""

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise ValueError(f"prior is {self.prior}, expected a share between 0 and 1, for example 0.5.")
        if self.subject not in MANY:
            raise ValueError(f"subject is '{self.subject}', expected one of: {', '.join(MANY)}.")

    def probability(self, score: float, prior: float | None = None) -> float | None:
        """That two photos with this score show the same, where `prior` of all pairs do; None if not calibrated."""
        if self.curve is None:
            return None
        before = self.prior if prior is None else prior
        if not 0 < before < 1:
            raise ValueError(f"prior is {before}, expected a share between 0 and 1, for example 0.5.")
        return _logistic(math.log(before / (1 - before)) + self.curve.evidence(score))

    def rate(self, far: float) -> Rate:
        """Raises: ValueError if this rate was not looked at."""
        for rate in self.rates:
            if math.isclose(rate.far, far, rel_tol=1e-6):
                return rate
        known = ", ".join(f"{rate.far:g}" for rate in self.rates) or "none"
        raise ValueError(f"There is no threshold at a false-accept rate of {far:g}. Choose one of: {known}.")

    def threshold(self, far: float) -> float | None:
        """The score that `far` of the pairs of different people reach; None if that is not promised."""
        return self.rate(far).threshold

    def decide(self, score: float, far: float) -> Answer:
        """same: the score is above the whole interval of the threshold. different: it is below it, and the photos are
        improbable (`DIFFERENT_BELOW`) to show the same. Else, and where nothing is promised: cannot tell.
        """
        rate, probability = self.rate(far), self.probability(score)
        if rate.threshold_interval is None or probability is None:
            return "cannot tell"
        if score >= rate.threshold_interval[1]:
            return "same"
        below = score < rate.threshold_interval[0] and probability <= DIFFERENT_BELOW
        return "different" if below else "cannot tell"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownThreshold:
    """A threshold that whoever published a network names for it: used until photos at hand say more."""

    threshold: float
    source: str = "its publisher"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What is said of two photos. `probability`, `threshold`: None where not known. `why`: a sentence."""

    answer: Answer
    probability: float | None
    threshold: float | None
    why: str
    promised: bool = False
    """Whether the threshold is one at the false-accept rate that was asked for, and not its publisher's."""


def judge(
    score: float, far: float, calibration: Calibration | None, published: KnownThreshold | None = None
) -> Judgement:
    """Same, different or cannot tell: by the calibration if it promises this rate, else by a published threshold.

    Raises: ValueError for a score that is no number, or a rate that was not looked at.
    """
    if not math.isfinite(score):
        raise ValueError(f"The score is {score}: the model gave no number for one of the photos.")
    probability = calibration.probability(score) if calibration else None
    rate = calibration.rate(far) if calibration else None
    if calibration and rate and rate.promised and probability is not None:
        answer = calibration.decide(score, far)
        why = _reason(answer, rate, calibration)
        return Judgement(answer=answer, probability=probability, threshold=rate.threshold, promised=True, why=why)
    missing = (rate.why or calibration.why) if calibration and rate else "these scores were never calibrated"
    if published is not None:
        same = score >= published.threshold
        why = f"by the threshold of {published.source}, whose false-accept rate on photos like these is not known"
        found: Answer = "same" if same else "different"
        return Judgement(answer=found, probability=probability, threshold=published.threshold, why=f"{why} ({missing})")
    return Judgement(answer="cannot tell", probability=probability, threshold=None, why=missing)


def _reason(answer: Answer, rate: Rate, calibration: Calibration) -> str:
    assert rate.threshold_interval is not None
    low, high = rate.threshold_interval
    things = MANY[calibration.subject]
    threshold = f"the threshold, {rate.threshold:.3f}, lies between {low:.3f} and {high:.3f}"
    if answer == "same":
        return f"fewer than {rate.far:g} of the pairs of two different {things} score {high:.3f} or more; {threshold}"
    if answer == "different":
        return f"photos of one {calibration.subject} seldom score so low"
    like = f"photos of two different {things} and of one {calibration.subject} score like this"
    return f"{like}; same from {high:.3f} on, as {threshold}"


def write_calibrations(folder: Folder, found: Mapping[str, Calibration]) -> None:
    """Write `calibration.json`: one calibration for each system, by its name."""
    systems = {name: plain(one) for name, one in found.items()}
    folder.write_json(CALIBRATION, {"systems": systems, "order": list(found)})


def read_calibrations(folder: Folder) -> dict[str, Calibration]:
    """The calibrations of a report, by system; empty where it has none (older reports, photos without labels).

    Raises: ValueError if the file is not one that `write_calibrations` wrote.
    """
    if not folder.exists(CALIBRATION):
        return {}
    try:
        told = folder.read_json(CALIBRATION)
        return {name: _calibration(told["systems"][name]) for name in told["order"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}/{CALIBRATION} is damaged ({error!r}). Run evaluate again.") from error


def read_calibration(folder: Folder, model: str) -> Calibration | None:
    """The calibration of the model with this fingerprint, if the report has one."""
    return next((one for one in read_calibrations(folder).values() if one.model == model), None)


def _calibration(told: Mapping[str, Any]) -> Calibration:
    return Calibration(
        **{
            **told,
            "curve": None if told["curve"] is None else Curve(**told["curve"]),
            "rates": tuple(_rate(one) for one in told["rates"]),
            "reliability": tuple(Bin(**one) for one in told["reliability"]),
        }
    )


def _rate(told: Mapping[str, Any]) -> Rate:
    values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in told.items()}
    return Rate(**values)
