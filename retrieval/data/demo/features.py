"""The drawn face itself: its outline, its relief and shading, and its features, on the coordinates of `surface`."""

from __future__ import annotations

import cv2
import numpy as np

from retrieval.data.demo.people import Colour, Person, Shot
from retrieval.data.demo.surface import Face, bump, cover, paint

# Windows that hold a part of the face however it is turned, in units from between the eyes.
HEAD = (-1.4, -1.6, 1.4, 1.85)

EYES = (-1.2, -0.65, 1.2, 0.45)

_MOUTH = (-1.05, -0.3, 1.05, 1.6)

SKULL = (0.05, 1.32)  # v of the widest line of the head, and how far the skull rises above it


def outline(face: Face, person: Person) -> np.ndarray:
    """Signed distance (about) inside the head's outline: a half ellipse above, a jaw below."""
    middle, rise = SKULL
    across = np.abs(face.x) * np.float32(1 / person.width)
    above = np.maximum(middle - face.y, 0) * np.float32(1 / rise)
    below = np.maximum(face.y - middle, 0) * np.float32(1 / (person.chin - middle))
    power = person.jaw
    radius = np.where(below > 0, (across**2.3 + below**power) ** (1 / 2.3), np.sqrt(across**2 + above**2))
    return 1 - radius


def light(face: Face, person: Person, shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    """Lambert shading and highlights of an ellipsoid whose normals are bent by the face's relief."""
    at, head = face.part(*HEAD)
    relief = np.zeros_like(face.x)
    relief[at] = _relief(head, person, shot) * np.float32(face.unit)
    cos, sin = np.float32(np.cos(shot.roll)), np.float32(np.sin(shot.roll))
    across, down = cv2.Sobel(relief, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(relief, cv2.CV_32F, 0, 1, scale=0.125)
    nx = np.clip(face.x * np.float32(0.9 / person.width), -0.92, 0.92)
    ny = np.clip((face.y - 0.15) * np.float32(0.55), -0.8, 0.8)
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.08))
    nx, ny = nx - (cos * across + sin * down), ny - (cos * down - sin * across)
    length = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
    lx, ly, lz = (np.float32(part) for part in shot.light)
    facing = (nx * lx + ny * ly + nz * lz) * length
    # Wrapped, as skin scatters light past the terminator.
    diffuse = np.clip((facing + 0.25) * np.float32(1 / 1.25), 0, 1)
    shade = np.float32(shot.ambient) * (0.75 + 0.25 * nz * length) + np.float32(1.12 - shot.ambient) * diffuse
    shine = np.clip(facing, 0, 1) ** 12
    return shade, shine


def _relief(face: Face, person: Person, shot: Shot) -> np.ndarray:
    """Height of the face over an ellipsoid, in units."""
    u, v, au = face.u, face.v, face.au
    tip, wide = person.nose_length, person.nose_width
    mouth = tip + person.mouth_drop
    ridge = np.clip((v + 0.12) * np.float32(1 / (tip + 0.12)), 0, 1) * cover(tip + 0.06 - v, 9)
    height = 0.17 * ridge * np.exp(-((u * np.float32(1 / person.nose_bridge)) ** 2))
    height += 0.10 * bump(u, v - tip, wide * 0.62, 0.1) + 0.055 * bump(
        au - wide * 0.72, v - tip - 0.03, wide * 0.36, 0.07
    )
    height -= 0.10 * bump(au - person.eye_gap, v + 0.02, 0.25, 0.15)
    height += 0.035 * bump(au - person.eye_gap, v, 0.15, 0.08)
    height += 0.05 * bump(au - 0.36, v + person.brow_height, 0.3, 0.1)
    cheek = 0.05 + 0.06 * person.cheek + 0.05 * max(shot.smile, 0) + 0.05 * person.chubby
    height += cheek * bump(au - 0.55, v - 0.42 + 0.06 * shot.smile, 0.25, 0.2)
    height += 0.05 * bump(u, v - mouth, person.mouth_width * 0.9, 0.13)
    height += 0.06 * bump(u, v - person.chin + 0.2, 0.22, 0.13) - 0.04 * bump(u, v - mouth - 0.19, 0.22, 0.06)
    fold = au - (wide + 0.03) - (0.28 + 0.05 * shot.smile) * (v - tip)
    depth = 0.012 + 0.022 * max(shot.smile, 0) + (0.0 if person.young else 0.018)
    return height - depth * bump(fold, v - (tip + mouth) / 2, 0.045, 0.2)


def mouth_shape(person: Person, shot: Shot) -> tuple[float, float]:
    """Half width, and how far the corners lie above the middle."""
    return person.mouth_width * (1 + 0.2 * shot.smile), 0.105 * shot.smile


def skin_of(face: Face, person: Person, shot: Shot, rng: np.random.Generator) -> np.ndarray:
    """Reflectance of the face, features included. Returns (3, H, W)."""
    u, v, au = face.u, face.v, face.au
    skin = np.empty((3, *u.shape), np.float32)
    mottle = cv2.resize(rng.normal(1, 0.035, (9, 7)).astype(np.float32), u.shape[::-1], interpolation=cv2.INTER_CUBIC)
    for channel in range(3):
        skin[channel] = np.float32(person.skin[channel]) * mottle
    red = (person.skin[0] * 0.95, person.skin[1] * 0.62, person.skin[2] * 0.6)
    made_up = "makeup" in shot.wears
    paint(skin, bump(au - 0.56, v - 0.45, 0.22, 0.17), red, 0.6 if made_up else 0.22)
    paint(skin, bump(u, v - person.nose_length, person.nose_width, 0.12), red, 0.25)
    dark = (person.skin[0] * 0.45, person.skin[1] * 0.36, person.skin[2] * 0.36)
    paint(skin, bump(au - person.eye_gap, v + 0.05, 0.24, 0.125), dark, 0.42)
    paint(
        skin,
        bump(au - person.eye_gap, v - 0.15 - 0.3 * (au - person.eye_gap) ** 2, 0.15, 0.035),
        dark,
        0.75 * min(person.bags, 0.9),
    )
    if made_up:
        paint(skin, bump(au - person.eye_gap, v + 0.08, 0.19, 0.07), (0.35, 0.25, 0.38), 0.55)
    if not person.young:
        wrinkles = 0.5 + 0.5 * np.cos((v + 0.5 + 0.1 * np.cos(u * 3)) * 55)
        paint(skin, wrinkles**4 * bump(u, v + 0.52, 0.42, 0.12), dark, 0.4)
    if person.chubby > 0.8:
        line = v - person.chin + 0.14 - 0.35 * u * u
        paint(skin, bump(line, u, 0.025, 0.4), dark, 0.6)
    _beard(skin, face, person, shot, rng)
    (rows, columns), lower = face.part(*_MOUTH)
    for at_u, at_v, radius in person.marks:
        spot = np.hypot(lower.u - np.float32(at_u), lower.v - np.float32(at_v))
        paint(skin[:, rows, columns], cover(radius - spot, face.unit), dark, 0.75)
    _nose(skin[:, rows, columns], lower, person, dark)
    _mouth(skin[:, rows, columns], lower, person, shot)
    (rows, columns), upper = face.part(*EYES)
    _eyes(skin[:, rows, columns], upper, person, shot)
    _brows(skin[:, rows, columns], upper, person, shot)
    return skin


def _nose(skin: np.ndarray, face: Face, person: Person, dark: Colour) -> None:
    au, v, wide, tip = face.au, face.v, person.nose_width, person.nose_length
    paint(skin, bump(face.u, v - tip - 0.1, wide * 0.85, 0.045), dark, 0.5)
    paint(skin, bump(au - wide * 0.48, v - tip - 0.065, wide * 0.3, 0.034), (0.1, 0.05, 0.04), 0.9)
    paint(skin, bump(au - wide * 1.05, v - tip - 0.02, 0.025, 0.07), dark, 0.55)
    paint(skin, bump(au - person.nose_bridge * 1.1, v - 0.15, 0.045, 0.3), dark, 0.22)


def _mouth(skin: np.ndarray, face: Face, person: Person, shot: Shot) -> None:
    wide, lift = mouth_shape(person, shot)
    across = face.au * np.float32(1 / wide)
    curve = np.maximum(1 - across * across, 0)
    line = face.v - np.float32(person.nose_length + person.mouth_drop) + np.float32(lift) * across * across
    gap = np.float32(0.16 * shot.mouth_open) * curve
    bow = np.float32(person.lip_upper) * curve**0.7 * (1 - 0.35 * bump(across, across, 0.2, 99.0)) + 0.01
    bottom = line - gap
    lips = cover(np.minimum(line + bow, np.float32(person.lip_lower) * np.sqrt(curve) - bottom), face.unit) * (
        across < 1
    )
    if {"lipstick", "makeup"} & shot.wears:
        colour = shot.lipstick
    else:
        colour = (person.skin[0] * 0.8, person.skin[1] * 0.5, person.skin[2] * 0.52)
    paint(skin, lips, colour)
    paint(skin, bump(line + bow * 0.5, across, 0.02, 0.8) * lips, (0.15, 0.05, 0.05), 0.25)
    inside = cover(np.minimum(line, -bottom), face.unit) * (across < 1)
    if shot.mouth_open:
        paint(skin, inside, (0.16, 0.05, 0.05))
        paint(skin, inside * cover(gap * 0.62 - line, face.unit) * (across < 0.86), (0.92, 0.9, 0.86))
    paint(skin, cover(0.018 - np.abs(line), face.unit) * (across < 1.04), (0.22, 0.08, 0.07), 0.85)
    paint(skin, bump(bottom - person.lip_lower - 0.045, face.u, 0.03, wide * 0.7), (0.2, 0.1, 0.08), 0.25)


def _eyes(skin: np.ndarray, face: Face, person: Person, shot: Shot) -> None:
    unit, off = face.unit, face.au - np.float32(person.eye_gap)
    across = off * np.float32(1 / person.eye_width)
    down = face.v + np.float32(person.eye_slant) * off
    bulge = np.maximum(1 - across * across, 0)
    opening = person.eye_open * shot.lids * (1 - 0.22 * max(shot.smile, 0))
    upper, lower = -np.float32(opening) * bulge**0.75, np.float32(0.72 * opening) * bulge
    white = cover(np.minimum(down - upper, lower - down), unit) * (np.abs(across) < 1)
    paint(skin, white, (0.86, 0.84, 0.82))
    gaze = np.sign(face.u) * np.float32(0.1 * shot.gaze + 0.35 * shot.yaw * 0.2)
    away = np.hypot(off - gaze, down + np.float32(0.2 * opening))
    paint(skin, white * cover(0.098 - away, unit), person.iris)
    paint(skin, white * cover(0.045 - away, unit), (0.02, 0.02, 0.02))
    paint(skin, white * bump(down - upper, across, 0.035, 9.0), (0.1, 0.08, 0.08), 0.6)
    glint = np.hypot(
        off - gaze - np.float32(0.04) * np.sign(face.u) * np.float32(np.sign(shot.light[0])), down + np.float32(0.055)
    )
    paint(skin, white * cover(0.024 - glint, unit), (1.0, 1.0, 1.0), 0.9)
    lash = 0.022 + (0.0 if person.male else 0.007) + (0.012 if "makeup" in shot.wears else 0.0)
    paint(skin, cover(lash - np.abs(down - upper + 0.008), unit) * (np.abs(across) < 1.06), (0.07, 0.05, 0.05), 0.92)
    paint(skin, cover(0.012 - np.abs(down - lower), unit) * (np.abs(across) < 0.95), (0.25, 0.15, 0.13), 0.6)
    crease = down - upper * 1.25 + 0.055
    paint(skin, bump(crease, across, 0.018, 0.95), (0.2, 0.1, 0.08), 0.45)


def _brows(skin: np.ndarray, face: Face, person: Person, shot: Shot) -> None:
    across = (face.au - np.float32(person.eye_gap + 0.03)) * np.float32(1 / 0.27)
    line = face.v + np.float32(person.brow_height + shot.brow_raise) - np.float32(person.brow_slant * 0.6) * across
    line += np.float32(person.brow_arch) * (1.2 - (across - 0.25) ** 2)
    thick = np.float32(person.brow_thick) * np.clip(1.05 - 0.55 * np.maximum(across, 0) ** 1.5, 0.2, 1)
    mask = cover(np.minimum(thick - np.abs(line), (1 - np.abs(across)) * 0.27), face.unit, 1.8)
    dark = _colour_of_brows(person)
    paint(skin, mask, dark, 0.9)


def _colour_of_brows(person: Person) -> Colour:
    red, green, blue = person.hair
    return red * 0.55, green * 0.52, blue * 0.5


def _beard(skin: np.ndarray, face: Face, person: Person, shot: Shot, rng: np.random.Generator) -> None:
    if not person.male:
        return
    au, v, tip = face.au, face.v, person.nose_length
    mouth = tip + person.mouth_drop
    grain = cv2.resize(
        rng.uniform(0.72, 1.0, (48, 40)).astype(np.float32), v.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    wide = person.mouth_width
    lip = np.minimum(v - tip - 0.14 - 0.25 * au * au, mouth + 0.05 + 0.25 * au - v)
    moustache = cover(np.minimum(lip, wide * 1.15 - au), face.unit, 3)
    # From the ears along the jaw, under the lower lip.
    jaw = v - np.maximum(mouth + 0.17 - 0.9 * np.maximum(au - wide * 0.8, 0), 0.15)
    cheeks = cover(np.minimum(jaw, v - 0.62 + 1.1 * np.maximum(au - 0.66, 0)), face.unit, 5)
    chin = cover(np.minimum(v - mouth - 0.19, 0.3 - au), face.unit, 4)
    side = cover(np.minimum(au - 0.8 * person.width, np.minimum(v + 0.5, 0.55 - v)), face.unit, 3)
    colour = _colour_of_brows(person)
    if shot.stubble:
        paint(
            skin,
            np.maximum(cheeks, moustache) * grain,
            (person.skin[0] * 0.4, person.skin[1] * 0.42, person.skin[2] * 0.46),
            shot.stubble,
        )
    match person.beard:
        case "full":
            mask = np.maximum(np.maximum(cheeks, moustache), side)
        case "goatee":
            mask = chin
        case "mustache":
            mask = moustache
        case _:
            mask = None
    if person.sideburns:
        mask = side if mask is None else np.maximum(mask, side)
    if mask is not None:
        paint(skin, mask * grain, colour, 0.93)
