"""The demo's places: drawn buildings, photographed from many sides, in many lights, with things in the way.

Every building is a few boxes with its own windows, stones, signs and cracks, so that structure-from-motion truly
reconstructs it; buildings share a style, so that telling them apart takes looking. Distractors are buildings that were
photographed once. Everything follows from the seed.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.data.demo import renderer as draw
from retrieval.data.demo.renderer import Camera, Face
from retrieval.data.demo.settings import SceneConfig
from retrieval.images.pixels import Pixels, encode_jpeg

MANIFEST = "manifest.csv"

_WALLS = ((196, 178, 150), (168, 140, 118), (184, 184, 178), (150, 120, 100), (206, 196, 176), (172, 158, 140))

_WORDS = ("CAFE", "HOTEL", "BANK", "MUSEUM", "THEATRE", "BAKERY", "LIBRARY", "STATION", "MARKET", "OPERA", "CINEMA")


def write_scenes(folder: Path, config: SceneConfig, progress: Progress = silent) -> Path:
    """Draw all photos into `folder` and list them in manifest.csv (path, label), written last. Returns its path.

    A distractor has no label. A folder that has its manifest is left as it is.
    """
    listed = folder / MANIFEST
    if listed.exists():
        return listed
    rows, out = [], Folder.of(folder)
    num = config.num_places + config.num_distractors
    for place in counted(range(num), "places", progress):
        alone = place >= config.num_places
        faces = building(config.seed, place)
        for number in range(1 if alone else config.images_per_place):
            name = f"distractors/{place:04d}.jpg" if alone else f"place_{place:03d}/{number:03d}.jpg"
            out.write_bytes(name, encode_jpeg(photograph(faces, config, place, number), 92))
            rows.append((name, "" if alone else f"place_{place:03d}"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label"), *rows])
    out.write_bytes(MANIFEST, text.getvalue().encode())
    return listed


# -- a building ------------------------------------------------------------------------------------------------------


def building(seed: int, place: int) -> list[Face]:
    """Its boxes and the ground it stands on, about 10 units wide, its front towards -y."""
    rng = np.random.default_rng([seed, place, 1])
    wall = np.array(_WALLS[int(rng.integers(len(_WALLS)))]) + rng.integers(-18, 18, size=3)
    width, depth, height = rng.uniform(7, 11), rng.uniform(5, 8), rng.uniform(5, 9)
    faces = _ground(rng)
    faces += _block((-width / 2, 0, 0), (width / 2, depth, height), wall, rng, sign=True)
    side = 1 if rng.random() < 0.5 else -1
    tower = rng.uniform(2, 3.2)
    left = side * width / 2 - (tower if side < 0 else 0) + side * 0.4
    top = height + rng.uniform(1, 4)
    faces += _block((left, -1.2, 0), (left + tower, tower - 1.2, top), wall - 12, rng)
    porch = rng.uniform(2, 3.5)
    at = rng.uniform(-width / 4, width / 4 - porch)
    faces += _block((at, -1.6, 0), (at + porch, 0, rng.uniform(2.2, 3.2)), wall + 10, rng)
    for _ in range(int(rng.integers(1, 4))):  # chimneys and dormers stand out from the roof
        x, y = rng.uniform(-width / 2.5, width / 2.5), rng.uniform(0.5, depth - 1.5)
        faces += _block((x, y, height), (x + 0.9, y + 0.9, height + rng.uniform(0.8, 1.8)), wall - 25, rng)
    return faces


def _block(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    wall: np.ndarray,
    rng: np.random.Generator,
    sign: bool = False,
) -> list[Face]:
    wide, deep, tall = (b - a for a, b in zip(low, high, strict=True))
    textures = [_facade(side, tall, wall, rng, sign and at == 0) for at, side in enumerate((wide, deep, wide, deep))]
    textures.append(_stones(64, 64, np.array((110, 90, 84)), rng))
    return draw.box(low, high, textures)


def _facade(wide: float, tall: float, wall: np.ndarray, rng: np.random.Generator, sign: bool) -> Pixels:
    """A wall of stones with windows in rows, no two quite alike, and what years have left on it."""
    columns, rows = max(24, round(wide * 64)), max(24, round(tall * 64))
    picture = _stones(columns, rows, wall, rng)
    step_x, step_y = int(rng.integers(70, 110)), int(rng.integers(90, 130))
    frame = wall * rng.uniform(0.5, 1.25)
    for y in range(int(rng.integers(14, 40)), rows - 70, step_y):
        for x in range(int(rng.integers(10, 34)), columns - 44, step_x):
            if rng.random() < 0.9:
                _window(picture, x + int(rng.integers(-4, 5)), y + int(rng.integers(-4, 5)), frame, rng)
    for _ in range(columns * rows // 9000):
        _mark(picture, rng)
    if sign:
        words = _WORDS[int(rng.integers(len(_WORDS)))]
        x, y = int(rng.integers(10, max(11, columns - 200))), int(rng.integers(rows // 3, rows - 60))
        draw.rectangle(picture, x - 6, y - 26, x + 22 * len(words), y + 10, rng.integers(20, 110, size=3))
        draw.text(picture, words, x, y, 1.0, rng.integers(190, 255, size=3))
    return picture


def _stones(columns: int, rows: int, colour: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Courses of stones of differing lengths and shades, with grain and stains."""
    tall = int(rng.integers(9, 15))
    shade = np.zeros((rows, columns), dtype=np.float32)
    for y in range(0, rows, tall):
        edges = np.cumsum(rng.integers(14, 34, size=columns // 14 + 2))
        stone = np.searchsorted(edges, np.arange(columns), side="right")
        shade[y : y + tall] = rng.normal(0, 16, size=len(edges) + 1)[stone]
        shade[y : y + tall, edges[edges < columns]] -= 34
        shade[min(y + tall - 1, rows - 1)] -= 30
    for grid, strength in ((2, 9), (6, 9), (40, 14)):
        noise = rng.normal(0, strength, size=(rows // grid + 2, columns // grid + 2))
        shade += draw.resized(noise, columns, rows)
    return np.clip(colour + shade[:, :, None], 0, 255).astype(np.uint8)


def _window(picture: Pixels, x: int, y: int, frame: np.ndarray, rng: np.random.Generator) -> None:
    wide, tall = int(rng.integers(26, 44)), int(rng.integers(44, 68))
    glass = rng.integers(20, 110, size=3)
    draw.rectangle(picture, x - 4, y - 4, x + wide + 4, y + tall + 4, np.clip(frame + rng.integers(-30, 30), 0, 255))
    draw.rectangle(picture, x, y, x + wide, y + tall, glass)
    for _ in range(int(rng.integers(1, 4))):  # curtains, flowers, things behind the glass
        a, b = int(rng.integers(0, wide - 6)), int(rng.integers(0, tall - 8))
        c, d = int(rng.integers(4, wide - a)), int(rng.integers(5, tall - b))
        draw.rectangle(picture, x + a, y + b, x + a + c, y + b + d, rng.integers(30, 230, size=3))
    if rng.random() < 0.7:
        draw.rectangle(picture, x + wide // 2 - 1, y, x + wide // 2 + 1, y + tall, np.clip(frame, 0, 255))
    if rng.random() < 0.7:
        at = y + int(rng.integers(tall // 4, tall))
        draw.rectangle(picture, x, at - 1, x + wide, at + 1, np.clip(frame, 0, 255))
    if rng.random() < 0.5:
        draw.ellipse(picture, (x + wide // 2, y - 4), (wide // 2 + 4, int(rng.integers(6, 14))), np.clip(frame, 0, 255))


def _mark(picture: Pixels, rng: np.random.Generator) -> None:
    """A poster, a stain, an ornament."""
    rows, columns = picture.shape[:2]
    x, y = int(rng.integers(0, columns)), int(rng.integers(0, rows))
    colour, kind = rng.integers(20, 235, size=3), rng.random()
    if kind < 0.4:
        draw.rectangle(picture, x, y, x + int(rng.integers(5, 22)), y + int(rng.integers(5, 26)), colour)
        draw.ellipse(picture, (x + 7, y + 8), rng.integers(2, 6, size=2), rng.integers(20, 235, size=3))
    elif kind < 0.7:
        draw.polygon(picture, np.array([x, y]) + rng.integers(-11, 12, size=(5, 2)), colour)
    else:
        draw.ellipse(picture, (x, y), rng.integers(2, 10, size=2), colour, int(rng.integers(1, 4)))


def _ground(rng: np.random.Generator) -> list[Face]:
    """Paving around the building, in tiles, since a face that reaches behind the camera is not drawn."""
    colour = np.array((120, 118, 112)) + rng.integers(-20, 20, size=3)
    faces = []
    for x in range(-18, 18, 6):
        for y in range(-18, 12, 6):
            corners = np.array([(x, y + 6, 0), (x + 6, y + 6, 0), (x + 6, y, 0), (x, y, 0)], dtype=np.float64)
            texture = _stones(128, 128, colour, rng)
            for _ in range(6):
                _mark(texture, rng)
            faces.append(Face(corners=corners, texture=texture))
    return faces


# -- a photo ---------------------------------------------------------------------------------------------------------


def photograph(faces: list[Face], config: SceneConfig, place: int, number: int) -> Pixels:
    """One photo of a building: its own camera, weather, passers-by and trees. (h, w, 3) uint8 RGB."""
    rng = np.random.default_rng([config.seed, place, 2, number])
    short = round(config.size * float(rng.choice([0.67, 0.75, 0.8])))
    wide = rng.random() < 0.7
    width, height = (config.size, short) if wide else (short, config.size)
    # Cameras go round the front in a jittered sweep, as visitors do; each sees much of what its neighbours see.
    sweep = (number + 0.5) / max(1, config.images_per_place) - 0.5
    angle = np.radians(95 * sweep + rng.uniform(-6, 6))
    zoom = float(rng.choice([1.0, 1.0, 1.25, 1.6]))
    away = rng.uniform(14, 19)
    centre = np.array([away * np.sin(angle), 1.5 - away * np.cos(angle), rng.uniform(1.4, 4.0)])
    target = np.array([rng.uniform(-1, 1), 1.0, rng.uniform(2.6, 4.4)])
    camera = Camera(
        centre=centre, target=target, focal=0.95 * zoom * (1.0 if wide else 1.25), width=width, height=height
    )
    sun = np.array([rng.uniform(-1, 1), -rng.uniform(0.3, 1), rng.uniform(0.5, 1.2)])
    picture = draw.render(faces, camera, _sky(width, height, rng), sun / np.linalg.norm(sun), rng.uniform(0.5, 0.8))
    _foreground(picture, rng)
    return draw.tinted(picture, rng)


def _sky(width: int, height: int, rng: np.random.Generator) -> Pixels:
    top, bottom = rng.integers((90, 130, 180), (150, 180, 235)), rng.integers((170, 180, 190), (225, 230, 240))
    rise = np.linspace(0, 1, height)[:, None, None]
    clouds = draw.resized(rng.normal(0, 22, size=(6, 9)), width, height)[:, :, None]
    return np.clip(top * (1 - rise) + bottom * rise + np.maximum(clouds, 0), 0, 255).astype(np.uint8)


def _foreground(picture: Pixels, rng: np.random.Generator) -> None:
    """People, a tree, a lamp post: in the way, and different in every photo."""
    rows, columns = picture.shape[:2]
    for _ in range(int(rng.integers(0, 5))):
        x, tall = int(rng.integers(0, columns)), int(rows * rng.uniform(0.1, 0.2))
        foot = int(rows * rng.uniform(0.86, 1.0))
        cloth, skin = rng.integers(10, 220, size=3), rng.integers((120, 80, 60), (240, 200, 180))
        draw.rectangle(picture, x, foot - tall, x + tall // 3, foot, cloth)
        draw.ellipse(picture, (x + tall // 6, foot - tall - tall // 8), (tall // 9, tall // 7), skin)
    if rng.random() < 0.4:
        x = int(columns * rng.choice([0.06, 0.94]))
        draw.rectangle(picture, x - 4, rows // 3, x + 4, rows, (70, 52, 40))
        for _ in range(60):
            at = (x + int(rng.normal(0, columns * 0.06)), rows // 4 + int(rng.normal(0, rows * 0.1)))
            draw.ellipse(picture, at, rng.integers(5, 16, size=2), rng.integers((20, 60, 10), (90, 140, 70)))
    if rng.random() < 0.3:
        x = int(rng.integers(columns // 5, columns))
        draw.rectangle(picture, x, rows // 4, x + 3, rows, (40, 40, 44))
