"""Draws one photo of a demo person: background, body, hair, the face, what is worn, and the camera."""

from __future__ import annotations

import cv2
import numpy as np

from retrieval.data.demo.features import EYES, HEAD, SKULL, light, mouth_shape, outline, skin_of
from retrieval.data.demo.people import Person, Shot
from retrieval.data.demo.surface import Face, bump, coordinates, cover, paint, paint_over, shaded

_EYE_HEIGHT = 111 / 218  # where CelebA's alignment puts the eyes

_PIXELS = 46 / 178  # pixels in one unit (half a head's width), over the image's width


def render(person: Person, shot: Shot, size: tuple[int, int]) -> np.ndarray:
    """The photo. size: (width, height) in pixels. Returns: (height, width, 3) uint8 RGB."""
    rng = np.random.default_rng(shot.scene_seed)
    width, height = size
    canvas = background(rng, size)
    unit, centre = _unit(shot, size), _centre(shot, size)
    left, top = int(max(0, centre[0] - 1.7 * unit)), int(max(0, centre[1] - 1.8 * unit))
    right, bottom = int(min(width, centre[0] + 1.7 * unit)), int(min(height, centre[1] + 2.3 * unit))
    face = coordinates(person, shot, (left, top, right, bottom), centre, unit)
    around = canvas[:, top:bottom, left:right]
    shade, shine = light(face, person, shot)
    strands = _strands(face, person, rng)
    hair = shaded(person.hair, strands * (0.35 + 0.65 * shade)) + np.float32(0.12) * shine * strands
    if not person.bald:
        paint_over(around, _hair_behind(face, person), hair * np.float32(0.7))
    _body(canvas, person, shot, centre, unit)
    _ears(around, face, person, shot)
    (rows, columns), head = face.part(*HEAD)
    skin = skin_of(head, person, shot, rng) * shade[rows, columns] + np.float32(0.16) * shine[rows, columns]
    paint_over(around[:, rows, columns], cover(outline(head, person) * 0.95, unit), skin)
    if "glasses" in shot.wears:
        (rows, columns), upper = face.part(*EYES)
        _glasses(around[:, rows, columns], upper, person)
    if not person.bald:
        paint_over(around, _hair_in_front(face, person, shot), hair)
    if "hat" in shot.wears:
        _hat(around, face, person, shot, shade)
    return _camera(canvas, shot, rng)


def landmarks(person: Person, shot: Shot, size: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Pixel (x, y) of the left eye, right eye (as seen), nose tip, left and right mouth corner: CelebA's five."""
    mouth = person.nose_length + person.mouth_drop
    wide, lift = mouth_shape(person, shot)
    points = [
        (-person.eye_gap, 0.0),
        (person.eye_gap, 0.0),
        (0.0, person.nose_length),
        (-wide, mouth - lift),
        (wide, mouth - lift),
    ]
    unit, centre = _unit(shot, size), _centre(shot, size)
    cos, sin = np.cos(shot.roll), np.sin(shot.roll)
    found = []
    for number, (u, v) in enumerate(points):
        x = person.width * np.sin(np.arcsin(u / person.width) + shot.yaw) + (
            0.16 * np.sin(shot.yaw) if number == 2 else 0.0
        )
        y = v + shot.pitch * np.sqrt(max(0.0, 1 - (x / person.width) ** 2))
        found.append((float(centre[0] + unit * (cos * x - sin * y)), float(centre[1] + unit * (sin * x + cos * y))))
    return tuple(found)


def background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A graded backdrop with soft clutter. Returns: (3, height, width) float32 in 0..1."""
    width, height = size
    small = np.empty((height // 2, width // 2, 3), np.float32)
    corners = rng.uniform(0.1, 0.9) + rng.normal(0, 0.1, 3) + rng.normal(0, 0.1, (2, 2, 3))
    small[:] = cv2.resize(corners.astype(np.float32), (width // 2, height // 2), interpolation=cv2.INTER_LINEAR)
    for _ in range(int(rng.integers(2, 9))):
        colour = [float(part) for part in rng.uniform(0.05, 0.95) + rng.normal(0, 0.12, 3)]
        x, y, a, b = (int(part) for part in rng.uniform(0, 1, 4) * (width / 2, height / 2, width / 5, height / 4))
        match int(rng.integers(3)):
            case 0:
                cv2.rectangle(small, (x - a, y - b), (x + a, y + b), colour, -1)
            case 1:
                cv2.circle(small, (x, y), a // 2 + 2, colour, -1)
            case _:
                cv2.line(small, (x, 0), (x + a - b, height // 2), colour, 2 + a // 4)
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.8, 3.5)) * width / 178)
    full = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.ascontiguousarray(full.transpose(2, 0, 1)), 0.02, 0.98)


def _unit(shot: Shot, size: tuple[int, int]) -> float:
    return shot.scale * _PIXELS * min(size[0], size[1] * 178 / 218)


def _centre(shot: Shot, size: tuple[int, int]) -> tuple[float, float]:
    """Pixel between the eyes."""
    unit = _unit(shot, size)
    return size[0] / 2 + shot.shift[0] * unit, size[1] * _EYE_HEIGHT + shot.shift[1] * unit


def _body(canvas: np.ndarray, person: Person, shot: Shot, centre: tuple[float, float], unit: float) -> None:
    """Neck, shoulders and what is worn there."""
    height, width = canvas.shape[1:]
    top = int(np.clip(centre[1] + 0.55 * unit, 0, height - 1))
    below = canvas[:, top:]
    x = ((np.arange(width, dtype=np.float32) - np.float32(centre[0])) / np.float32(unit))[None, :]
    y = ((np.arange(top, height, dtype=np.float32) - np.float32(centre[1])) / np.float32(unit))[:, None]
    x = x + np.float32(np.sin(shot.roll) * 0.6) * y
    lit = np.float32(shot.ambient + 0.45) + np.float32(0.3 * shot.light[0]) * x
    thick = (0.66 if person.male else 0.54) + 0.06 * person.chubby
    neck = np.float32(thick) + np.float32(0.5) * np.maximum(y - 1.6, 0) ** 2 - np.abs(x)
    # The chin's shadow falls on the neck.
    shade = lit * (0.55 + 0.35 * np.clip((y - 1.35) * 1.6, 0, 1)) * (1 - 0.25 * np.clip(np.abs(x) / thick, 0, 1) ** 2)
    paint_over(below, cover(neck, unit), shaded(person.skin, shade))
    collar = np.float32(1.68) + np.float32(0.22) * np.abs(x) ** 1.6
    v_neck = np.maximum(0.55 - np.abs(x) * 1.1, 0)
    cloth = np.minimum(y - collar - v_neck.astype(np.float32), 2.0)
    paint_over(below, cover(cloth, unit), shaded(shot.cloth, lit * (0.85 + 0.15 * np.cos(x * 5))))
    if "necklace" in shot.wears:
        paint(
            below,
            cover(0.03 - np.abs(y - 1.72 - 0.35 * (1 - (x / 0.6) ** 2)), unit) * (np.abs(x) < 0.6),
            (0.85, 0.72, 0.35),
        )
    if "necktie" in shot.wears:
        paint(
            below,
            cover(np.minimum(0.09 + 0.1 * (y - 2.0) - np.abs(x), y - 1.9), unit),
            (1 - shot.cloth[0], 0.15, 0.25),
        )


def _ears(canvas: np.ndarray, face: Face, person: Person, shot: Shot) -> None:
    skin = person.skin
    for side in (-1, 1):
        x = face.x - np.float32(side * (person.width + 0.02 - 0.12 * side * shot.yaw))
        radius = np.sqrt((x * np.float32(1 / 0.15)) ** 2 + ((face.y - 0.2) * np.float32(1 / 0.3)) ** 2)
        lit = shot.ambient + 0.32 * (1 + side * shot.light[0])
        paint(
            canvas, cover((1 - radius) * 0.15, face.unit), (skin[0] * lit, skin[1] * 0.88 * lit, skin[2] * 0.86 * lit)
        )
        if "earrings" in shot.wears:
            drop = np.hypot(x * 1.4, face.y - 0.58)
            paint(canvas, cover(0.085 - drop, face.unit), (0.9, 0.78, 0.42))


def _strands(face: Face, person: Person, rng: np.random.Generator) -> np.ndarray:
    """Brightness of hair, streaked along its fall from the parting. Returns (H, W) around 1."""
    table = rng.uniform(0.55, 1.3, (6, 64)).astype(np.float32)
    down = face.y + np.float32(1.45)
    fall = (face.x - np.float32(person.parting * 0.5)) / np.sqrt(down * down * 0.25 + 0.35)
    if person.wave:
        fall = fall + np.float32(0.09 * person.wave) * np.sin(down * 9)
    across = (np.clip(fall, -3, 3) + 3) * np.float32(62 / 6)
    return cv2.remap(table, across, np.clip(down * 1.2, 0, 4.9), cv2.INTER_LINEAR)


def _hair_behind(face: Face, person: Person) -> np.ndarray:
    volume, (middle, rise) = person.hair_volume, SKULL
    x = np.abs(face.x)
    wobble = np.float32(0.05 * person.wave) * np.sin(face.y * 8) if person.wave else np.float32(0)
    dome = 1 - np.sqrt(
        (x / np.float32(person.width + volume)) ** 2 + ((face.y - middle) / np.float32(rise + volume)) ** 2
    )
    if person.hair_length < 0.5:
        return cover(np.minimum(dome, person.hair_length - face.y), face.unit, 2)
    falling = np.minimum(np.float32(person.width + volume) + wobble - x, person.hair_length - 0.25 * x**3 - face.y)
    sides = np.minimum(falling, face.y - middle + 0.05)
    return cover(np.maximum(np.minimum(dome, middle + 0.1 - face.y), sides), face.unit, 2)


def _hair_in_front(face: Face, person: Person, shot: Shot) -> np.ndarray:
    volume, (middle, rise) = person.hair_volume, SKULL
    au, v = face.au, face.v
    top = np.float32(person.hairline)
    jag = np.float32(0.012) * np.sin(face.u * 23 + shot.hair_shift * 90)
    if "bangs" in shot.wears:
        line = -np.float32(person.brow_height + 0.1) - 0.06 * np.cos(face.u * 2.2) + 2 * jag
    else:
        line = -top - 0.1 * (face.u - person.parting * 0.6 + shot.hair_shift) ** 2 + jag
        line -= np.float32(0.34 * person.receding) * bump(au - 0.42, au, 0.24, 99.0)
    # The hairline comes down in front of the ears.
    temple = au * np.float32(1 / (0.93 * person.width))
    line += np.minimum(temple * temple, 1.5) ** 4 * np.float32(0.9)
    side = 0.12 if person.hair_length < 0.5 else person.hair_length
    dome = 1 - np.sqrt(
        (face.x / np.float32(person.width + volume)) ** 2 + ((face.y - middle) / np.float32(rise + volume)) ** 2
    )
    hair = np.minimum(line - v, np.minimum(dome, side - face.y))
    if person.hair_length >= 0.5:
        hair = np.maximum(hair, _locks(face, person))
    return cover(hair, face.unit, 2)


def _locks(face: Face, person: Person) -> np.ndarray:
    """Long hair in front of the sides of the face."""
    outer = np.float32(person.width + person.hair_volume)
    inner = np.float32(0.9 * person.width)
    x = np.abs(face.x)
    inner = inner - 0.12 * np.clip(face.y - 0.8, 0, 0.6) + np.float32(0.03) * np.sin(face.y * 5 + person.parting * 9)
    end = np.float32(person.hair_length) - 1.2 * (x - 0.5 * (inner + outer)) ** 2 - face.y
    return np.minimum(np.minimum(x - inner, outer - x), np.minimum(face.y + 0.25, end))


def _glasses(canvas: np.ndarray, face: Face, person: Person) -> None:
    off, down = face.au - np.float32(person.eye_gap + 0.015), face.v - 0.03
    across, tall = 0.33 * person.glasses_size, 0.235 * person.glasses_size
    power = person.glasses_shape
    radius = (np.abs(off / across) ** power + np.abs(down / tall) ** power) ** (1 / power)
    inside = (1 - radius) * tall
    paint(canvas, cover(inside, face.unit), (0.85, 0.9, 0.92), 0.08)
    frame = cover(0.024 - np.abs(inside), face.unit)
    bridge = cover(np.minimum(0.022 - np.abs(face.v + 0.02), person.eye_gap - across - face.au + 0.03), face.unit)
    temple = cover(np.minimum(0.024 - np.abs(face.v + 0.05), face.au - person.eye_gap - across), face.unit)
    # Beyond the head's silhouette u stays at its edge, so a frame there would go on to the window's border.
    on_head = cover(person.width + 0.02 - np.abs(face.x), face.unit)
    paint(canvas, on_head * np.maximum(np.maximum(frame, bridge), temple), person.glasses_colour, 0.95)


def _hat(canvas: np.ndarray, face: Face, person: Person, shot: Shot, shade: np.ndarray) -> None:
    middle, rise = SKULL
    loose = 0.1 if person.bald else 0.05 + person.hair_volume
    dome = 1 - np.sqrt(
        (face.x / np.float32(person.width + loose)) ** 2 + ((face.y - middle) / np.float32(rise + loose)) ** 2
    )
    edge = np.float32(-0.5) + 0.1 * face.u * face.u - face.v
    knit = shade * (0.9 + 0.1 * np.sin(face.u * 26))
    paint_over(canvas, cover(np.minimum(dome, edge), face.unit), shaded(shot.hat, knit))
    band = np.minimum(np.minimum(edge, 0.2 - edge), dome + 0.03)
    paint_over(canvas, cover(band, face.unit), shaded(shot.hat, knit * 0.7))


def _camera(canvas: np.ndarray, shot: Shot, rng: np.random.Generator) -> np.ndarray:
    """Exposure, colour cast, blur and noise. canvas: (3, H, W). Returns: (H, W, 3) uint8 RGB."""
    image = cv2.merge([canvas[channel] * np.float32(shot.tint[channel] * shot.gain) for channel in range(3)])
    if shot.blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), shot.blur * image.shape[1] / 178)
    image += np.float32(shot.noise) * rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    # Through a table: a power of every value would cost as much as drawing the face.
    table = np.round(255 * (np.arange(256) / 255) ** shot.gamma).astype(np.uint8)
    return cv2.LUT(cv2.convertScaleAbs(np.maximum(image, 0), alpha=255), table)
