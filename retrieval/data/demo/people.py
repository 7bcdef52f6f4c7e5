"""The people of the drawn demo set: who they are, and how each photo of them differs.

Lengths are in units of a nominal half head width, with the origin midway between the eyes and v pointing down.
Colours are RGB in 0..1. Nothing here draws; `portrait` does, from these numbers alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


# Reflectances from light to dark; a person's own tone lies between two neighbours.
_SKIN = np.array([(0.96, 0.83, 0.76), (0.90, 0.72, 0.60), (0.80, 0.60, 0.46), (0.66, 0.46, 0.33), (0.50, 0.33, 0.23)])

_HAIR: dict[str, Colour] = {
    "Black_Hair": (0.09, 0.08, 0.08),
    "Brown_Hair": (0.33, 0.20, 0.12),
    "Blond_Hair": (0.80, 0.64, 0.36),
    "Gray_Hair": (0.62, 0.62, 0.62),
    "": (0.55, 0.22, 0.09),  # red: CelebA has no attribute for it
}

_IRIS: tuple[Colour, ...] = (
    (0.26, 0.15, 0.08),
    (0.25, 0.42, 0.62),
    (0.28, 0.45, 0.25),
    (0.45, 0.44, 0.42),
    (0.5, 0.3, 0.1),
)

_FRAMES: tuple[Colour, ...] = ((0.07, 0.06, 0.07), (0.32, 0.18, 0.09), (0.5, 0.47, 0.42))

# Women's mean, men's mean, spread.
_TRAITS = {
    "width": (0.94, 0.99, 0.055),
    "chin": (1.34, 1.42, 0.085),
    "jaw": (2.3, 2.9, 0.4),
    "cheek": (0.5, 0.5, 0.3),
    "eye_gap": (0.42, 0.42, 0.035),
    "eye_width": (0.205, 0.205, 0.02),
    "eye_open": (0.096, 0.09, 0.02),
    "eye_slant": (0.03, 0.03, 0.1),
    "brow_height": (0.29, 0.25, 0.04),
    "brow_arch": (0.06, 0.035, 0.03),
    "brow_thick": (0.04, 0.056, 0.014),
    "brow_slant": (0.02, 0.02, 0.09),
    "nose_width": (0.175, 0.20, 0.032),
    "nose_length": (0.56, 0.56, 0.06),
    "nose_bridge": (0.13, 0.13, 0.025),
    "mouth_drop": (0.35, 0.35, 0.04),
    "mouth_width": (0.33, 0.33, 0.045),
    "lip_upper": (0.055, 0.055, 0.02),
    "lip_lower": (0.08, 0.08, 0.024),
    "hairline": (0.72, 0.72, 0.06),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """What stays the same in every photo of one identity."""

    male: bool
    young: bool
    skin: Colour
    pale: bool
    hair_name: str
    hair: Colour
    iris: Colour
    width: float
    chin: float
    jaw: float
    cheek: float
    chubby: float
    eye_gap: float
    eye_width: float
    eye_open: float
    eye_slant: float
    brow_height: float
    brow_arch: float
    brow_thick: float
    brow_slant: float
    nose_width: float
    nose_length: float
    nose_bridge: float
    mouth_drop: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    bags: float
    hair_length: float
    hair_volume: float
    hairline: float
    receding: float
    wave: float
    parting: float
    beard: str
    sideburns: bool
    bald: bool
    marks: tuple[tuple[float, float, float], ...]
    glasses_shape: float
    glasses_size: float
    glasses_colour: Colour
    habits: dict[str, float]
    """How likely a photo of them has glasses, a hat, bangs, lipstick, makeup, earrings, a necklace, a necktie."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """What differs from photo to photo of one identity."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    shift: tuple[float, float]
    light: tuple[float, float, float]
    ambient: float
    tint: Colour
    gain: float
    gamma: float
    smile: float
    mouth_open: float
    gaze: float
    lids: float
    brow_raise: float
    wears: frozenset[str]
    cloth: Colour
    lipstick: Colour
    hat: Colour
    stubble: float
    hair_shift: float
    blur: float
    noise: float
    quality: int
    scene_seed: int


def sample_person(seed: int, identity: int) -> Person:
    """The person numbered `identity` (any int >= 0) of the world `seed`."""
    rng = np.random.default_rng([seed, 1, identity])
    male, young = bool(rng.random() < 0.45), bool(rng.random() < 0.72)
    tone = rng.uniform(0, len(_SKIN) - 1.001)
    at = int(tone)
    skin = _SKIN[at] + (tone - at) * (_SKIN[at + 1] - _SKIN[at]) + rng.normal(0, 0.012, 3)
    hair_name = _hair_name(rng, dark=tone > 2.2, young=young)
    bald = bool(male and rng.random() < 0.12)
    return Person(
        male=male,
        young=young,
        skin=_colour(skin),
        pale=tone < 0.45,
        hair_name="" if bald else hair_name,
        hair=_colour(np.array(_HAIR[hair_name]) * rng.uniform(0.8, 1.15)),
        iris=_IRIS[0] if tone > 2.6 else _IRIS[int(rng.integers(len(_IRIS)))],
        bald=bald,
        receding=float(rng.uniform(0.5, 1.0)) if male and not bald and rng.random() < 0.22 else 0.0,
        sideburns=bool(male and not bald and rng.random() < 0.2),
        beard=str(rng.choice(["none", "goatee", "mustache", "full"], p=[0.6, 0.1, 0.12, 0.18])) if male else "none",
        marks=_marks(rng),
        glasses_colour=_FRAMES[int(rng.integers(len(_FRAMES)))],
        habits=_habits(rng, male),
        **_shape(rng, male=male, young=young, tone=tone),
    )


def sample_shot(seed: int, identity: int, shot: int, person: Person) -> Shot:
    """Photo number `shot` of the person: pose, light, expression, what they wear."""
    rng = np.random.default_rng([seed, 2, identity, shot])
    wears = frozenset(name for name, odds in person.habits.items() if rng.random() < odds)
    side, height = rng.normal(0, 0.6), rng.normal(-0.35, 0.35)
    light = np.array([side, height, 1.0]) / np.sqrt(side**2 + height**2 + 1)
    smile = float(rng.choice([rng.uniform(-0.25, 0.15), rng.uniform(0.45, 1.0)]))
    unshaven = person.male and person.beard != "full" and rng.random() < 0.25
    return Shot(
        shift=(float(rng.normal(0, 0.06)), float(rng.normal(0, 0.05))),
        light=(float(light[0]), float(light[1]), float(light[2])),
        tint=_colour(np.array([1.0, 0.97, 0.94]) + rng.normal(0, 0.07) * np.array([1.0, 0.1, -1.3]), high=1.3),
        smile=smile,
        mouth_open=float(rng.uniform(0.35, 1.0)) if rng.random() < (0.65 if smile > 0.4 else 0.15) else 0.0,
        wears=wears - {"bangs"} if person.bald else wears,
        cloth=_colour(rng.uniform(0.05, 0.85) + rng.normal(0, 0.16, 3)),
        lipstick=_colour(np.array([0.68, 0.13, 0.2]) + rng.normal(0, 0.07, 3)),
        hat=_colour(rng.uniform(0.08, 0.75, 3)),
        stubble=float(rng.uniform(0.45, 0.8)) if unshaven else 0.0,
        blur=float(rng.uniform(1.6, 2.1) if rng.random() < 0.06 else np.clip(rng.normal(0.2, 0.4), 0, 1.4)),
        quality=int(rng.integers(78, 96)),
        scene_seed=int(rng.integers(2**31)),
        **_pose_and_exposure(rng),
    )


def _hair_name(rng: np.random.Generator, *, dark: bool, young: bool) -> str:
    if not young and rng.random() < 0.55:
        return "Gray_Hair"
    if dark:
        return str(rng.choice(["Black_Hair", "Brown_Hair"], p=[0.75, 0.25]))
    return str(rng.choice(["Black_Hair", "Brown_Hair", "Blond_Hair", ""], p=[0.28, 0.34, 0.28, 0.1]))


def _marks(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Moles and freckles: (u, v, radius) each."""
    if rng.random() < 0.15:
        spots = np.column_stack([rng.normal(0, 0.38, 26), rng.normal(0.36, 0.14, 26), rng.uniform(0.012, 0.02, 26)])
    else:
        num = int(rng.integers(0, 3))
        spots = np.column_stack(
            [rng.uniform(-0.65, 0.65, num), rng.uniform(0.3, 1.1, num), rng.uniform(0.022, 0.035, num)]
        )
    return tuple((float(u), float(v), float(radius)) for u, v, radius in spots)


def _habits(rng: np.random.Generator, male: bool) -> dict[str, float]:
    return {
        "glasses": float(rng.choice([0.03, 0.85], p=[0.8, 0.2])),
        "hat": float(rng.choice([0.04, 0.35], p=[0.88, 0.12])),
        "bangs": 0.04 if male else float(rng.choice([0.05, 0.85], p=[0.7, 0.3])),
        "lipstick": 0.0 if male else float(rng.choice([0.1, 0.8])),
        "makeup": 0.0 if male else float(rng.choice([0.05, 0.7])),
        "earrings": 0.02 if male else float(rng.choice([0.1, 0.7])),
        "necklace": 0.02 if male else float(rng.choice([0.1, 0.5])),
        "necktie": float(rng.choice([0.05, 0.6])) if male else 0.0,
    }


def _colour(values: np.ndarray, high: float = 1.0) -> Colour:
    red, green, blue = np.clip(values, 0.02, high)
    return float(red), float(green), float(blue)


def _shape(rng: np.random.Generator, *, male: bool, young: bool, tone: float) -> dict[str, float]:
    """Measures of the face and the hair."""
    shape = {name: (man if male else woman) + spread * _spread(rng) for name, (woman, man, spread) in _TRAITS.items()}
    shape["chubby"] = float(max(0.0, rng.normal(0.1, 0.45)))
    shape["width"] += 0.05 * shape["chubby"]
    shape["jaw"] += 0.4 * shape["chubby"]
    shape["lip_upper"] += 0.003 * tone
    shape["lip_lower"] += 0.0045 * tone
    shape["bags"] = max(0.0, (0.1 if young else 0.6) + 0.35 * _spread(rng))
    lengths, odds = ([0.15, 0.35], [0.5, 0.5]) if male else ([0.5, 1.0, 1.6, 1.9], [0.2, 0.2, 0.3, 0.3])
    shape["hair_length"] = float(rng.choice(lengths, p=odds))
    shape["hair_volume"] = float(rng.uniform(0.06, 0.16) if male else rng.uniform(0.08, 0.26))
    shape["wave"] = float(rng.uniform(0.5, 1.0)) if rng.random() < 0.4 else 0.0
    shape["parting"] = float(rng.uniform(-0.6, 0.6))
    shape["glasses_shape"] = float(rng.uniform(2.0, 5.0))
    shape["glasses_size"] = float(rng.uniform(0.9, 1.1))
    return shape


def _pose_and_exposure(rng: np.random.Generator) -> dict[str, float]:
    return {
        "yaw": 0.17 * _spread(rng),
        "pitch": 0.06 * _spread(rng),
        "roll": 0.06 * _spread(rng),
        "scale": float(rng.uniform(0.87, 1.13)),
        "ambient": float(rng.uniform(0.3, 0.6)),
        "gain": float(rng.uniform(0.78, 1.25)),
        "gamma": float(rng.uniform(0.8, 1.2)),
        "gaze": float(rng.normal(0, 0.2)),
        "lids": float(rng.uniform(0.82, 1.1)),
        "brow_raise": float(rng.normal(0, 0.015)),
        "hair_shift": float(rng.normal(0, 0.05)),
        "noise": float(rng.uniform(0.0, 0.025)),
    }


def _spread(rng: np.random.Generator) -> float:
    """A standard normal draw without its far tails: no face falls apart."""
    return float(np.clip(rng.normal(), -2, 2))
