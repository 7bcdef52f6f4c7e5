"""Drawing a textured building from any camera: planes, a depth buffer, light. For the demo's places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retrieval.images.pixels import Pixels, as_pixels

_SUPERSAMPLE = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Face:
    """A textured rectangle in space, seen from the side where its corners run clockwise.

    corners: (4, 3) float64, of the texture's top left, top right, bottom right, bottom left. texture: (h, w, 3) uint8.
    """

    corners: np.ndarray
    texture: Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """A pinhole camera, z up. centre, target: (3,) float64. focal: in widths of the picture."""

    centre: np.ndarray
    target: np.ndarray
    focal: float
    width: int
    height: int

    def axes(self) -> np.ndarray:
        """(3, 3) rows: right, down, forward."""
        forward = self.target - self.centre
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward])

    def matrix(self, scale: float) -> np.ndarray:
        """(3, 3) K, for a picture `scale` times as large."""
        focal = self.focal * self.width * scale
        return np.array([[focal, 0, self.width * scale / 2], [0, focal, self.height * scale / 2], [0, 0, 1.0]])


def render(faces: Sequence[Face], camera: Camera, sky: Pixels, sun: np.ndarray, ambient: float) -> Pixels:
    """The picture of the faces in front of the sky, nearer ones covering farther ones.

    Args:
        sky: (height, width, 3) uint8, drawn where no face is.
        sun: (3,) unit vector towards the light. ambient: brightness of a face turned away from it, 0 to 1.
    """
    width, height = round(camera.width * _SUPERSAMPLE), round(camera.height * _SUPERSAMPLE)
    picture = as_pixels(cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR))
    nearness = np.zeros((height, width), dtype=np.float32)
    axes, matrix = camera.axes(), camera.matrix(_SUPERSAMPLE)
    rays = _rays(matrix, width, height)
    for face in faces:
        _draw(face, camera, axes, matrix, rays, picture, nearness, _brightness(face, sun, ambient))
    return as_pixels(cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA))


def _rays(matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32 K^-1 (u, v, 1)."""
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    focal, cx, cy = matrix[0, 0], matrix[0, 2], matrix[1, 2]
    return np.stack([(u - cx) / focal, (v - cy) / focal, np.ones_like(u)], axis=-1).astype(np.float32)


def _normal(corners: np.ndarray) -> np.ndarray:
    normal = np.cross(corners[3] - corners[0], corners[1] - corners[0])
    return normal / np.linalg.norm(normal)


def _brightness(face: Face, sun: np.ndarray, ambient: float) -> float:
    return ambient + (1 - ambient) * max(0.0, float(_normal(face.corners) @ sun))


def _draw(
    face: Face,
    camera: Camera,
    axes: np.ndarray,
    matrix: np.ndarray,
    rays: np.ndarray,
    picture: Pixels,
    nearness: np.ndarray,
    brightness: float,
) -> None:
    """Paint one face where it is nearest. On a plane n.X = d the nearness 1/z is n.(K^-1 p) / d."""
    inside = (face.corners - camera.centre) @ axes.T
    normal = axes @ _normal(face.corners)
    distance = float(normal @ inside[0])
    if distance > -1e-6 or (inside[:, 2] < 0.05).any():
        return  # seen from behind, or reaching behind the camera
    projected = inside @ matrix.T
    target = (projected[:, :2] / projected[:, 2:]).astype(np.float32)
    low = np.maximum(np.floor(target.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(target.max(axis=0)).astype(int) + 1, [picture.shape[1], picture.shape[0]])
    if (high <= low).any():
        return
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    texture = _at_seen_size(face.texture, target)
    painted = cv2.warpPerspective(texture, _homography(texture, target - low), size, flags=cv2.INTER_LINEAR)
    solid = np.full(texture.shape[:2], 255, np.uint8)
    covered = cv2.warpPerspective(solid, _homography(solid, target - low), size, flags=cv2.INTER_NEAREST)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    near = rays[window] @ (normal / distance).astype(np.float32)
    shown = (covered > 0) & (near > nearness[window])
    nearness[window][shown] = near[shown]
    picture[window][shown] = np.clip(painted[shown].astype(np.float32) * brightness, 0, 255).astype(np.uint8)


def _homography(texture: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Texture to picture."""
    rows, columns = texture.shape[:2]
    source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    return cv2.getPerspectiveTransform(source, target.astype(np.float32))


def _at_seen_size(texture: Pixels, target: np.ndarray) -> Pixels:
    """The texture at about the size it is seen, so that far walls do not flicker."""
    seen = max(np.linalg.norm(target[1] - target[0]), np.linalg.norm(target[2] - target[3]), 1.0)
    factor = 2 ** max(0, math.floor(math.log2(max(texture.shape[1] / seen, 1.0))))
    if factor == 1:
        return texture
    size = (max(1, texture.shape[1] // factor), max(1, texture.shape[0] // factor))
    return as_pixels(cv2.resize(texture, size, interpolation=cv2.INTER_AREA))


def box(low: Sequence[float], high: Sequence[float], textures: Sequence[Pixels]) -> list[Face]:
    """An upright box. textures: front (-y), right (+x), back (+y), left (-x), top."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    sides = (
        ((x0, y0, z1), (x1, y0, z1), (x1, y0, z0), (x0, y0, z0)),
        ((x1, y0, z1), (x1, y1, z1), (x1, y1, z0), (x1, y0, z0)),
        ((x1, y1, z1), (x0, y1, z1), (x0, y1, z0), (x1, y1, z0)),
        ((x0, y1, z1), (x0, y0, z1), (x0, y0, z0), (x0, y1, z0)),
        ((x0, y1, z1), (x1, y1, z1), (x1, y0, z1), (x0, y0, z1)),
    )
    return [
        Face(corners=np.array(corners, dtype=np.float64), texture=texture)
        for corners, texture in zip(sides, textures, strict=True)
    ]


def tinted(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Another light, lens and sensor: exposure, white balance, contrast, vignette, noise, a little blur."""
    x = picture.astype(np.float32) / 255
    x = x ** float(rng.uniform(0.7, 1.5)) * rng.uniform(0.92, 1.08, size=3).astype(np.float32)
    x = (x - 0.5) * float(rng.uniform(0.85, 1.15)) + 0.5
    rows, columns = x.shape[:2]
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    x *= (1 - float(rng.uniform(0, 0.25)) * (u**2 + v**2)[:, :, None] / 2).astype(np.float32)
    x += rng.normal(0, float(rng.uniform(0.004, 0.02)), size=x.shape).astype(np.float32)
    done = np.clip(x * 255, 0, 255).astype(np.uint8)
    return as_pixels(cv2.GaussianBlur(done, (3, 3), 0.6)) if rng.random() < 0.25 else done


def resized(noise: np.ndarray, width: int, height: int) -> np.ndarray:
    """Noise drawn on a coarse grid, made smooth: (h, w) or (h, w, c) float32."""
    return np.asarray(cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC))


def rectangle(
    picture: Pixels, x0: int, y0: int, x1: int, y1: int, colour: Sequence[int] | np.ndarray, line: int = -1
) -> None:
    cv2.rectangle(picture, (x0, y0), (x1, y1), [int(c) for c in colour], line, lineType=cv2.LINE_AA)


def ellipse(
    picture: Pixels,
    centre: Sequence[int],
    axes: Sequence[int] | np.ndarray,
    colour: Sequence[int] | np.ndarray,
    line: int = -1,
) -> None:
    cv2.ellipse(
        picture,
        (int(centre[0]), int(centre[1])),
        (max(1, int(axes[0])), max(1, int(axes[1]))),
        0,
        0,
        360,
        [int(c) for c in colour],
        line,
        lineType=cv2.LINE_AA,
    )


def polygon(picture: Pixels, points: np.ndarray, colour: Sequence[int] | np.ndarray) -> None:
    cv2.fillPoly(picture, [np.asarray(points, np.int32)], [int(c) for c in colour], lineType=cv2.LINE_AA)


def text(picture: Pixels, words: str, x: int, y: int, size: float, colour: Sequence[int] | np.ndarray) -> None:
    cv2.putText(picture, words, (x, y), cv2.FONT_HERSHEY_DUPLEX, size, [int(c) for c in colour], 1, cv2.LINE_AA)
