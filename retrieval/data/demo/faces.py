"""The built-in demo source: draws a set of faces in CelebA's published file formats, so that nothing is downloaded.

    out/img_align_celeba/000001.jpg ...   178 x 218 photos of drawn people
    out/identity_CelebA.txt  list_attr_celeba.txt  list_eval_partition.txt  list_landmarks_align_celeba.txt

Photo i depends only on the seed, i and `images_per_identity`, never on how many others are drawn, so ranges can be
drawn by several processes and a larger set begins with the smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.data.demo.attributes import attributes_of
from retrieval.data.demo.people import Person, Shot, sample_person, sample_shot
from retrieval.data.demo.portrait import background, landmarks, render
from retrieval.data.demo.settings import DemoConfig
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.images.pixels import encode_jpeg

IMAGE_FOLDER = "img_align_celeba"

_LANDMARKS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")

# With flaws, these photos of every 200 are not what the lists say: 2.5 %, all five kinds within the first 40.
_FLAW_PERIOD = 200

_FLAWS = {7: "truncated", 15: "no-face", 22: "duplicate", 30: "missing", 38: "stranger"}

_STRANGER = 1_000_000


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is drawn under one file name, and what the lists say of it."""

    name: str
    label: int
    person: Person
    shot: Shot
    flaw: str


def draw_collection(
    out: Path,
    *,
    num_identities: int = 60,
    images_per_identity: int = 12,
    seed: int = 0,
    size: tuple[int, int] = (178, 218),
    flaws: bool = False,
) -> None:
    """Draw the whole set into the folder `out`, made if need be. The lists come last, so their presence means done.

    Args:    as the fields of `DemoConfig`.
    Raises:  ValueError for an impossible size or count, OSError if `out` cannot be written.
    """
    config = DemoConfig(
        num_identities=num_identities, images_per_identity=images_per_identity, seed=seed, size=size, flaws=flaws
    )
    draw_images(out, 0, config.num_images, config)
    write_lists(out, config)


def draw_images(out: Path, start: int, stop: int, config: DemoConfig, progress: Progress = silent) -> None:
    """Draw photos start..stop-1, counted from 0 (file names count from 1). Ranges may come in any order, or again."""
    if not 0 <= start <= stop <= config.num_images:
        raise ValueError(
            f"Cannot draw photos {start}..{stop} of {config.num_images}. Use 0 <= start <= stop <= {config.num_images}."
        )
    folder = Folder.of(out / IMAGE_FOLDER)
    for number in counted(range(start, stop), "photos", progress):
        plan = _plan(number, config)
        if plan.flaw != "missing":
            folder.write_bytes(plan.name, _jpeg(plan, config))


def write_lists(out: Path, config: DemoConfig) -> None:
    """Write CelebA's four text files, in its own spacing, line ends and order of columns."""
    plans = [_plan(number, config) for number in range(config.num_images)]
    header = [str(len(plans)), " ".join(ATTRIBUTES) + " "]
    points = [str(len(plans)), " ".join(f"{name}_{axis}" for name in _LANDMARKS for axis in "xy") + " "]
    files = {
        "list_landmarks_align_celeba.txt": points + [_landmark_line(plan, config.size) for plan in plans],
        "list_eval_partition.txt": [f"{plan.name} {_partition(plan.label)}" for plan in plans],
        "list_attr_celeba.txt": header + [_attribute_line(plan) for plan in plans],
        "identity_CelebA.txt": [f"{plan.name} {plan.label}" for plan in plans],
    }
    for name, lines in files.items():
        Folder.of(out).write_bytes(name, "".join(line + "\r\n" for line in lines).encode())


def _plan(number: int, config: DemoConfig) -> _Plan:
    identity, shot = divmod(number, config.images_per_identity)
    flaw = _FLAWS.get(number % _FLAW_PERIOD, "") if config.flaws else ""
    label = identity + 1
    if flaw == "stranger":
        identity, shot = _STRANGER + number, 0
        label = identity
    elif flaw == "duplicate":
        # Of the photo before it, or of the next where that is another person's: neither is flawed itself.
        shot = shot - 1 if shot else min(1, config.images_per_identity - 1)
    person = sample_person(config.seed, identity)
    return _Plan(f"{number + 1:06d}.jpg", label, person, sample_shot(config.seed, identity, shot, person), flaw)


def _jpeg(plan: _Plan, config: DemoConfig) -> bytes:
    if plan.flaw == "no-face":
        image = background(np.random.default_rng(plan.shot.scene_seed), config.size)
        return encode_jpeg((255 * image.transpose(1, 2, 0)).astype(np.uint8), plan.shot.quality)
    jpeg = encode_jpeg(render(plan.person, plan.shot, config.size), plan.shot.quality)
    return jpeg[: len(jpeg) * 2 // 5] if plan.flaw == "truncated" else jpeg


def _attribute_line(plan: _Plan) -> str:
    """`000001.jpg -1  1 ...`: each value two characters wide."""
    shown = {} if plan.flaw == "no-face" else attributes_of(plan.person, plan.shot)
    return f"{plan.name} " + " ".join(" 1" if shown.get(name) else "-1" for name in ATTRIBUTES)


def _landmark_line(plan: _Plan, size: tuple[int, int]) -> str:
    """`000001.jpg  69  109  106  113 ...`: whole pixels, x and y in turn."""
    pixels = (value for point in landmarks(plan.person, plan.shot, size) for value in point)
    return f"{plan.name} " + " ".join(f"{round(value):4d}" for value in pixels)


def _partition(label: int) -> int:
    """CelebA's own split, by person: 0 training, 1 validation, 2 test, here 8 : 1 : 1."""
    return {8: 1, 9: 2}.get(label % 10, 0)
