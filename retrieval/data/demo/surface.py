"""Coordinates on a drawn face's surface, and laying colours over it.

Everything drawn is a function of face coordinates (u, v), evaluated at each pixel and antialiased by its distance to
the outline, so pose is a change of coordinates and landmarks are its inverse. Arrays are (H, W) float32; colours
(3, H, W) in 0..1; lengths in units of a nominal half head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.data.demo.people import Colour, Person, Shot


@dataclass(frozen=True, slots=True)
class Face:
    """The pixels around the head, in three coordinate systems."""

    x: np.ndarray  # head plane, upright: -1..1 across the head
    y: np.ndarray
    u: np.ndarray  # on the face's surface: x after undoing yaw
    v: np.ndarray  # y after undoing pitch
    au: np.ndarray  # |u|, since faces are symmetric
    unit: float  # pixels in one unit
    centre: tuple[float, float]  # pixel between the eyes, in this window

    def part(self, left: float, top: float, right: float, bottom: float) -> tuple[tuple[slice, slice], Face]:
        """A smaller window, given in units from between the eyes: where it lies, and its coordinates."""
        rows, columns = (
            slice(int(np.clip(middle + low * self.unit, 0, size - 1)), int(np.clip(middle + high * self.unit, 1, size)))
            for middle, low, high, size in zip(self.centre[::-1], (top, left), (bottom, right), self.x.shape)
        )
        at = (rows, columns)
        centre = (self.centre[0] - columns.start, self.centre[1] - rows.start)
        return at, Face(self.x[at], self.y[at], self.u[at], self.v[at], self.au[at], self.unit, centre)


def coordinates(
    person: Person, shot: Shot, window: tuple[int, int, int, int], centre: tuple[float, float], unit: float
) -> Face:
    left, top, right, bottom = window
    across = ((np.arange(left, right, dtype=np.float32) - centre[0]) / unit)[None, :].astype(np.float32)
    down = ((np.arange(top, bottom, dtype=np.float32) - centre[1]) / unit)[:, None].astype(np.float32)
    cos, sin = np.float32(np.cos(shot.roll)), np.float32(np.sin(shot.roll))
    x, y = cos * across + sin * down, cos * down - sin * across
    # An upright cylinder as wide as the head, turned by yaw: x = w sin(a + yaw), and the face's own u = w sin(a).
    turn = np.clip(x / np.float32(person.width), -0.999, 0.999)
    facing = np.sqrt(1 - turn * turn)
    u = np.float32(person.width) * (turn * np.float32(np.cos(shot.yaw)) - facing * np.float32(np.sin(shot.yaw)))
    v = y - np.float32(shot.pitch) * facing
    return Face(x, y, u, v, np.abs(u), unit, (centre[0] - left, centre[1] - top))


def bump(x: np.ndarray, y: np.ndarray, across: float, down: float) -> np.ndarray:
    """exp(-(x/across)^2 - (y/down)^2)."""
    a, b = x * np.float32(1 / across), y * np.float32(1 / down)
    return np.exp(-(a * a + b * b))


def cover(inside: np.ndarray, unit: float, soft: float = 1.0) -> np.ndarray:
    """Coverage 0..1 of pixels whose signed distance inside an outline is given, in units."""
    return np.clip(inside * np.float32(unit / soft) + np.float32(0.5), 0, 1)


def paint(canvas: np.ndarray, mask: np.ndarray, colour: Colour | np.ndarray, strength: float = 1.0) -> None:
    """Lay a colour over the canvas in place. canvas: (3, H, W); mask: (H, W) in 0..1."""
    alpha = mask if strength == 1.0 else mask * np.float32(strength)
    for channel in range(3):
        canvas[channel] += alpha * (np.float32(colour[channel]) - canvas[channel])


def paint_over(canvas: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> None:
    """As paint, with a colour for each pixel. colours: (3, H, W)."""
    canvas += mask * (colours - canvas)


def shaded(colour: Colour, shade: np.ndarray) -> np.ndarray:
    return np.array(colour, np.float32)[:, None, None] * shade
