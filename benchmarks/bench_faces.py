"""Finding faces, measured: YuNet beside Haar on portraits, group photos put together from portraits, photos of things.

    python benchmarks/bench_faces.py                                        # drawn portraits
    python benchmarks/bench_faces.py --photos PORTRAITS --things OTHERS     # one face each; none, as far as one knows

1. One process, one thread, the whole kernel from bytes to the stored crop: photos a second and the share in which a
   face is found, for Haar, for YuNet, and for YuNet with aligned faces; photos in memory, each round in another order.
2. Group photos of 1,600 x 1,200 pixels: 2 to 12 portraits, cut close, at several sizes, on a drawn background, searched
   as --faces all does. Recall: portraits in which a face is found. False: boxes elsewhere, or a second one
   in a portrait.
3. Photos of things: in how many YuNet sees faces at all, by confidence.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.portrait import background, render
from retrieval.data.source import is_photo
from retrieval.images.detectors.face import FaceDetector
from retrieval.images.faces import best_first, make_detector
from retrieval.images.pixels import BadImage, decode, encode_jpeg, limit_threads, resize
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from retrieval.models.known_weights import find

_PLACES = {2: (2, 1), 4: (2, 2), 6: (3, 2), 9: (3, 3), 12: (4, 3)}  # number of portraits -> columns, rows


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig:
    """Measure how faces are found."""

    photos: str = ""
    """Folder of portraits, searched at any depth, one person each; empty: drawn ones."""
    things: str = ""
    """Folder of photos of things; empty: that part is left out."""
    num_photos: int = 300
    """Portraits of the first measurement, spread over the folder."""
    rounds: int = 3
    """Times each kernel is timed, in turn; the median is given."""
    groups: int = 10
    """Group photos of each number of portraits and each size."""
    sides: tuple[int, ...] = (48, 64, 100, 160, 240)
    """Widths of the cut portraits in a group photo, pixels; a face takes about 0.7 of it."""
    min_confidence: float = PrepareConfig().min_confidence
    """As the setting of that name."""
    all_side: int = PrepareConfig().all_side
    """As the setting of that name."""


def run(cfg: BenchConfig) -> None:
    """All that was asked for, as a table."""
    limit_threads(1)
    place = find("yunet")
    if place is None:
        raise ValueError("YuNet's file is not here. `python -m ray_jobs.weights` says how to get it.")
    network = place.read_bytes()
    portraits = _portraits(cfg)
    print(f"bench_faces: {len(portraits)} portraits, {'drawn' if not cfg.photos else cfg.photos}")
    _kernels(cfg, portraits, network)
    _groups(cfg, portraits, network)
    if cfg.things:
        _things(Path(cfg.things), network)


def _portraits(cfg: BenchConfig) -> list[bytes]:
    if not cfg.photos:
        people = [sample_person(0, number) for number in range(cfg.num_photos)]
        shots = (render(person, sample_shot(0, n, 0, person), (178, 218)) for n, person in enumerate(people))
        return [encode_jpeg(shot) for shot in shots]
    paths = sorted(path for path in Path(cfg.photos).rglob("*") if is_photo(path.name))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // cfg.num_photos)][: cfg.num_photos]]


def _kernels(cfg: BenchConfig, portraits: Sequence[bytes], network: bytes) -> None:
    kinds = {
        "haar, face": PrepareConfig(detector="haar"),
        "yunet, face": PrepareConfig(detector="yunet", min_confidence=cfg.min_confidence),
        "yunet, aligned": PrepareConfig(
            detector="yunet", crop="aligned", size=112, margin=0.0, min_confidence=cfg.min_confidence
        ),
    }
    detectors = {name: make_detector(config, network) for name, config in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    found = dict.fromkeys(kinds, 0)
    for turn in range(cfg.rounds):
        order = np.random.default_rng(turn).permutation(len(portraits))
        for name, config in kinds.items():
            begun, found[name] = time.perf_counter(), 0
            for row in order:
                found[name] += _is_found(portraits[row], config, detectors[name])
            seconds[name].append(time.perf_counter() - begun)
    for name in kinds:
        rate = len(portraits) / float(np.median(seconds[name]))
        print(f"  {name:16} {rate:7.1f} photos/s   face found in {100 * found[name] / len(portraits):.2f} %")


def _is_found(data: bytes, config: PrepareConfig, detector: FaceDetector | None) -> bool:
    try:
        prepare(data, config, detector)
    except BadImage:
        return False
    return True


def _groups(cfg: BenchConfig, portraits: Sequence[bytes], network: bytes) -> None:
    config = PrepareConfig(detector="yunet", faces="all", min_confidence=cfg.min_confidence, all_side=cfg.all_side)
    detector = make_detector(config, network)
    assert detector is not None
    cuts = [cut for data in portraits if (cut := _close(decode(data)[0], detector)) is not None]
    rng, total = np.random.default_rng(0), np.zeros(3, int)
    for side in cfg.sides:
        sums, begun, photos = np.zeros(3, int), 0.0, 0
        for count, (columns, rows) in _PLACES.items():
            if columns * side * 1.3 > 1600 or rows * side * 1.6 > 1200:
                continue
            for _ in range(cfg.groups):
                scene, places = _scene(rng, [cuts[n] for n in rng.choice(len(cuts), count, False)], side, columns, rows)
                scene = decode(encode_jpeg(scene, 92))[0]
                started = time.perf_counter()
                faces = detector.detect(scene, every=True)
                begun, photos = begun + time.perf_counter() - started, photos + 1
                sums += _matched([face.box for face in faces], places)
        total += sums
        print(
            f"  groups, portraits {side:3} px wide: recall {sums[0] / sums[1]:.4f} of {sums[1]}, false {sums[2]}, "
            f"{1000 * begun / max(1, photos):.0f} ms a photo"
        )
    print(f"  groups, all: recall {total[0] / total[1]:.4f} (aim >= 0.97), false {total[2]} (aim 0)")


def _close(portrait: np.ndarray, detector: FaceDetector) -> np.ndarray | None:
    """The portrait cut close around its face, so that nobody else is in it; None where no face is seen."""
    height, width = portrait.shape[:2]
    if not (faces := detector.detect(portrait)):
        return None
    x1, y1, x2, y2 = best_first(faces, width, height)[0].box
    side, down = 0.2 * (x2 - x1), 0.2 * (y2 - y1)
    inside = portrait[max(0, round(y1 - down)) : round(y2 + down), max(0, round(x1 - side)) : round(x2 + side)]
    return np.ascontiguousarray(inside)


def _scene(
    rng: np.random.Generator, cuts: Sequence[np.ndarray], side: int, columns: int, rows: int
) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """A group photo and the place of each portrait; sizes differ by a fifth either way."""
    scene = (255 * np.clip(background(rng, (1600, 1200)), 0, 1)).astype(np.uint8).transpose(1, 2, 0).copy()
    places = []
    for number, cut in enumerate(cuts):
        width = max(8, round(side * rng.uniform(0.8, 1.2)))
        height = round(width * cut.shape[0] / cut.shape[1])
        left, top = (number % columns) * 1600 // columns, (number // columns) * 1200 // rows
        x = left + int(rng.integers(0, max(1, 1600 // columns - width)))
        y = top + int(rng.integers(0, max(1, 1200 // rows - height)))
        small = resize(cut, width, height)
        part = scene[y : y + height, x : x + width]
        part[:] = small[: part.shape[0], : part.shape[1]]
        places.append((x, y, x + width, y + height))
    return scene, places


def _matched(boxes: Sequence[tuple[float, ...]], places: Sequence[tuple[float, ...]]) -> np.ndarray:
    """(3,) int: portraits with a face, portraits, and boxes that are in none or the second in one."""
    hit: set[int] = set()
    false = 0
    for x1, y1, x2, y2 in boxes:
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        inside = [n for n, (a, b, c, d) in enumerate(places) if a <= x <= c and b <= y <= d]
        false += not inside or inside[0] in hit
        hit |= set(inside[:1])
    return np.array([len(hit), len(places), false])


def _things(folder: Path, network: bytes) -> None:
    # From 0.4 on a face is a candidate, whatever the setting: the search is that of use.
    config = PrepareConfig(detector="yunet", faces="all", min_confidence=0.4)
    detector = make_detector(config, network)
    assert detector is not None
    paths = sorted(path for path in folder.rglob("*") if is_photo(path.name))
    surest = []
    for path in paths:
        faces = detector.detect(decode(path.read_bytes())[0], every=True)
        surest.append([face.confidence or 0.0 for face in faces])
    for least in (0.5, 0.6, 0.7, 0.8, 0.85, 0.87, 0.9):
        kept = [[one for one in each if one >= least] for each in surest]
        num = sum(map(bool, kept))
        print(f"  things, confidence >= {least:.2f}: {sum(map(len, kept))} faces in {num} of {len(paths)}")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    run(tyro.cli(BenchConfig))
