"""Pixels in and out: the only place where photographs are decoded, resized and encoded.

Photographs from outside go through `decode`, which distrusts them; JPEGs that this project wrote itself go through
`decode_stored`, which is about three times faster.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retrieval.images.native import BadImage, one_photo, strike

Pixels = NDArray[np.uint8]


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

CONTAINERS = ("HEIF", "AVIF")
"""As Pillow calls what phones write as .heic and .avif; see `_containers`."""

_ORIENTATION_TAG = 0x0112


def decode(
    data: bytes, *, max_pixels: int = 50_000_000, min_side: int = 16, reduce_to: int | None = None
) -> tuple[Pixels, int]:
    """Decode one photograph of unknown origin to upright RGB.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys are scaled to 8, CMYK is converted, and
    of an animation the first frame is taken. Size limits are checked on the header, before any pixel is decoded.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, HEIC or AVIF.
        max_pixels: larger images are refused (decompression bombs); at most MAX_PIXELS_LIMIT.
        min_side: smaller images are refused, in pixels.
        reduce_to: a JPEG may be decoded at 1/2, 1/4 or 1/8 size, several times faster, as long as its short side
            stays at least this many pixels. None: full size.

    Returns: (H, W, 3) uint8 RGB, and the reduction used: 1, 2, 4 or 8 source pixels along a side of each returned one.

    Raises: BadImage with reason empty, not-an-image, too-large, too-small, truncated or unreadable.
    """
    image = _open(data)
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage("too-large", f"{width} x {height} pixels, the limit is {max_pixels} pixels")
    if min(width, height) < min_side:
        raise BadImage("too-small", f"{width} x {height} pixels, the short side must be at least {min_side}")
    reduction = 1
    with one_photo():
        strike(data)
        try:
            if reduce_to is not None and image.draft(None, (reduce_to, reduce_to)):  # JPEG only; above the size asked
                reduction = next(scale for scale in (1, 2, 4, 8) if -(-width // scale) == image.width)
            image.load()
            pixels = _upright(_to_rgb(image), _orientation(image))
        except MemoryError:  # the machine's, not the photo's, whose size was checked
            raise
        except Exception as error:  # Pillow's plugins raise many types on hostile bytes; each means the same to us
            reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
            raise BadImage(reason, f"{type(error).__name__}: {error}") from error
    return pixels, reduction


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the header alone, before EXIF orientation. Raises: BadImage."""
    return _open(data).size


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) as seen, EXIF orientation applied, without decoding a pixel. Raises: BadImage."""
    image = _open(data)
    return (image.height, image.width) if _orientation(image) >= 5 else image.size


def encode_jpeg(image: Pixels, quality: int = 95) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes; quality 1 to 100, 4:2:0 chroma as cameras do."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV could not encode a JPEG"
    return data.tobytes()


def decode_whole(jpeg: bytes) -> Pixels:
    """Decode a JPEG of our own collection at its stored size: (H, W, 3) uint8 RGB.

    Raises: ValueError if the bytes are no JPEG, which means that the collection is damaged.
    """
    with one_photo():
        strike(jpeg)
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if jpeg else None
    if pixels is None:
        raise ValueError(f"A stored image of {len(jpeg)} bytes is no JPEG: the collection is damaged, ingest it again.")
    return as_pixels(pixels)


def stored_size(jpeg: bytes) -> tuple[int, int]:
    """(width, height) of what `decode_whole` gives, from the header alone. Raises: ValueError as `decode_whole`."""
    try:
        return upright_size(jpeg)
    except BadImage as error:
        raise ValueError(
            f"A stored image cannot be read ({error}): the collection is damaged, ingest it again."
        ) from error


def decode_fit(jpeg: bytes, long_side: int) -> Pixels:
    """Decode a JPEG of our own collection, whole, its long side at most `long_side` pixels, its aspect kept.

    Returns: (h, w, 3) uint8 RGB; never upscaled, antialiased where it shrinks.
    Raises: as `decode_whole`.
    """
    return fit(decode_whole(jpeg), long_side)


def fit(image: Pixels, long_side: int) -> Pixels:
    """Shrink so that the long side is at most `long_side` pixels, the aspect kept; smaller images stay as they are."""
    height, width = image.shape[:2]
    width, height = fitted(width, height, long_side)
    return resize(image, width, height)


def fitted(width: int, height: int, long_side: float) -> tuple[int, int]:
    """The size that `fit` gives: (width, height), each at least 1."""
    factor = min(1.0, long_side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def decode_stored(jpeg: bytes, size: int) -> Pixels:
    """Decode a JPEG of our own collection, fast, with no checks on its origin.

    Args: size: side wanted, pixels; another stored size is resized.
    Returns: (size, size, 3) uint8 RGB.
    Raises: ValueError if the bytes are no JPEG, which means that the collection is damaged.
    """
    return resize(decode_whole(jpeg), size, size)


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Resize to width x height: area averaging (antialiased) where it shrinks, bicubic where it grows."""
    if image.shape[1] == width and image.shape[0] == height:
        return image
    shrinks = width <= image.shape[1] and height <= image.shape[0]
    return as_pixels(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))


def resize_linear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, 3) -> (height, width, 3) float32, bilinear, not antialiased: as networks resize."""
    return cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def grey(image: Pixels) -> Pixels:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 luma."""
    return as_pixels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def limit_threads(num_threads: int) -> None:
    """Set OpenCV's thread count for this process. Workers use 1: there is one process a core already."""
    cv2.setNumThreads(num_threads)


def as_pixels(array: Any) -> Pixels:
    """OpenCV's stubs promise only 'some array'; what it gives back here is always uint8."""
    return np.asarray(array, np.uint8)


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadImage("empty", "the file has no bytes")
    try:
        return Image.open(io.BytesIO(data), formats=_containers() if data[4:8] == b"ftyp" else FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("too-large", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadImage("not-an-image", f"{len(data)} bytes beginning with {data[:8]!r}") from error
    except MemoryError:
        raise
    except Exception as error:  # as above: the bytes have a known beginning and a broken header
        raise BadImage("unreadable", f"{type(error).__name__}: {error}") from error


@functools.cache
def _containers() -> tuple[str, ...]:
    """CONTAINERS, once Pillow reads them: asked for by the first such photo, as libheif takes 0.2 s to load.

    Both give the size from the container before any pixel is decoded, and refuse pixels that the container did not
    announce. Thumbnails, depths and masks beside the photo are left alone. One thread decodes a photo.
    """
    import pi_heif
    from PIL import AvifImagePlugin

    pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return CONTAINERS


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255 instead of scaling
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of type {image.mode} (32 bits) have no fixed white level")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, over).convert("RGB"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or it cannot be read, which is no reason to lose a photo."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - a broken EXIF block raises many types
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation: mirrored for 2, 4, 5, 7; turned for 3 to 8 (EXIF 2.32, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
