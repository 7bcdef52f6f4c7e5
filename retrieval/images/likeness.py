"""Whether two stored images are one picture: resized, recompressed, cropped a little, darkened; not another shot.

One is laid over the other by the affine map that fits best (Evangelidis and Psarakis, "Parametric Image Alignment Using
Enhanced Correlation Coefficient Maximization", TPAMI 2008), then the fine detail of both is correlated. Two shots of a
face have the same large shapes, and not the same hair, creases and highlights: detail tells them apart where the grey
values do not. Figures: docs/decisions/groups-by-average-linkage.md.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from retrieval.images.pixels import Pixels, decode_whole, grey, resize

SIDE = 48
"""Pixels along a side of a thumbnail."""
_LEAST = 0.9  # correlation of grey values below which two pictures are two: fine detail cannot agree then
_EDGE = 4  # pixels along each edge that are not compared: the other image may not reach them


def thumbnail(jpeg: bytes) -> Pixels:
    """What a stored JPEG is compared by: (SIDE, SIDE) uint8 grey values, the aspect not kept.

    Raises: ValueError if the bytes are no JPEG, which means that the collection is damaged.
    """
    return resize(grey(decode_whole(jpeg)), SIDE, SIDE)


def likeness(one: Pixels, other: Pixels) -> float:
    """How alike the fine detail of two thumbnails is; 1: equal, 0: not, or they cannot be laid over each other.

    Example:
        >>> noise = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE)), (0, 0), 2)
        >>> darker, turned = (0.6 * noise + 20).astype(np.uint8), noise[::-1].astype(np.uint8)
        >>> likeness(noise.astype(np.uint8), darker) > 0.95, likeness(noise.astype(np.uint8), turned)
        (True, 0.0)
    """
    first, second = one.astype(np.float32), other.astype(np.float32)
    reached, affine = _LEAST, np.eye(2, 3, dtype=np.float32)
    for rounds in (15, 30):  # most pairs are told apart by the first few
        found = _aligned(first, second, affine, rounds)
        if found is None or found[0] < reached:
            if rounds == 15:
                return 0.0
            break  # it left the place that it had found: more rounds may do that to fine noise
        reached, affine = found
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(second, affine, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return max(0.0, _correlation(_detail(first), _detail(laid)))


def _aligned(one: np.ndarray, other: np.ndarray, start: np.ndarray, rounds: int) -> tuple[float, np.ndarray] | None:
    """The correlation that the best affine map reaches, and the map; None where there is none."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, rounds, 1e-4)
    try:
        reached, found = cv2.findTransformECC(one, other, start.copy(), cv2.MOTION_AFFINE, stop, None, 5)  # type: ignore[call-overload]
    except cv2.error:  # no contrast, or it does not converge
        return None
    return float(reached), np.asarray(found, np.float32)


def _detail(image: Any) -> np.ndarray:
    """What is left of an image without its large shapes, and without the noise of single pixels."""
    smooth = cv2.GaussianBlur(image, (0, 0), 0.75)
    return (smooth - cv2.GaussianBlur(smooth, (0, 0), 2.25))[_EDGE:-_EDGE, _EDGE:-_EDGE].astype(np.float64)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    norm = np.sqrt((one * one).sum() * (other * other).sum())
    return float((one * other).sum() / norm) if norm > 0 else 0.0
