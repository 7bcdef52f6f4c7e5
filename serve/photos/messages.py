"""What is asked of a photo and what was seen in it; each of them also as JSON and bytes, for the way between processes.

No pickle: a process that reads hostile photos is not believed when it answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from retrieval.images.settings import Box, PrepareConfig, stored_config

Points = tuple[tuple[float, float], ...]
Which = Literal["best", "all"] | int


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How to look at a photo.

    config: as the gallery's photos were prepared. network: the face detector's file, where it needs one.
    faces: the best one, all of them, or the one with this number (0 is the largest); nothing where none is looked for.
    box: the part of the photo to take, x1, y1, x2, y2 in pixels of the upright photo; for crop 'fit' alone.
    """

    config: PrepareConfig
    network: bytes | None = field(default=None, repr=False)
    faces: Which = "best"
    box: Box | None = None

    @property
    def kind(self) -> tuple[PrepareConfig, bytes | None]:
        """What a process has to learn once."""
        return self.config, self.network


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceQuality:
    """As `retrieval.images.quality.Quality`, without its libraries."""

    confidence: float | None
    size: float
    sharpness: float
    turn: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedFace:
    """A face, or a whole photo or its part, ready for the network.

    number: as the faces of a photo are counted, 0 the largest; None where only the best was looked for, or none.
    jpeg: as the gallery stores it. box, points: pixels of the upright photo.
    """

    number: int | None
    jpeg: bytes = field(repr=False)
    box: Box
    points: Points | None = None
    quality: FaceQuality | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PoorFace:
    """A face that is too poor to search with, and why."""

    number: int
    box: Box
    points: Points | None
    confidence: float | None
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What was seen. width, height: of the upright photo. faces: ordered by number; with faces 'best' or a number, one.

    best: number of the one that a portrait is of, where all were looked for; None if none is good enough.
    """

    width: int
    height: int
    faces: tuple[PreparedFace, ...]
    refused: tuple[PoorFace, ...] = ()
    best: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """A query that cannot be answered: a value, not an exception, so that no log calls it a failure of ours."""

    reason: str
    detail: str


def kind_to_json(config: PrepareConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)


def kind_from_json(told: Mapping[str, Any]) -> PrepareConfig:
    return stored_config(told)


def seen_to_parts(seen: Looked | Unusable) -> tuple[dict[str, Any], list[bytes]]:
    """The answer as JSON and the JPEGs that belong to it."""
    if isinstance(seen, Unusable):
        return {"unusable": dataclasses.asdict(seen)}, []
    head = {
        "width": seen.width,
        "height": seen.height,
        "best": seen.best,
        "faces": [{**_face_to_json(face), "bytes": len(face.jpeg)} for face in seen.faces],
        "refused": [dataclasses.asdict(face) for face in seen.refused],
    }
    return head, [face.jpeg for face in seen.faces]


def seen_from_parts(head: Mapping[str, Any], body: bytes) -> Looked | Unusable:
    """Raises: ValueError, TypeError or KeyError if this is no answer."""
    if "unusable" in head:
        return Unusable(reason=str(head["unusable"]["reason"]), detail=str(head["unusable"]["detail"]))
    faces, start = [], 0
    for told in head["faces"]:
        faces.append(_face_from_json(told, body[start : start + told["bytes"]]))
        start += told["bytes"]
    if start != len(body):
        raise ValueError(f"{len(body)} bytes of JPEGs came, {start} were announced.")
    return Looked(
        width=head["width"],
        height=head["height"],
        best=head["best"],
        faces=tuple(faces),
        refused=tuple(_poor_from_json(told) for told in head["refused"]),
    )


def _face_to_json(face: PreparedFace) -> dict[str, Any]:
    quality = None if face.quality is None else dataclasses.asdict(face.quality)
    return {"number": face.number, "box": face.box, "points": face.points, "quality": quality}


def _face_from_json(told: Mapping[str, Any], jpeg: bytes) -> PreparedFace:
    quality = None if told["quality"] is None else FaceQuality(**told["quality"])
    return PreparedFace(
        number=told["number"], jpeg=jpeg, box=_box(told["box"]), points=_points(told["points"]), quality=quality
    )


def _poor_from_json(told: Mapping[str, Any]) -> PoorFace:
    return PoorFace(**{**told, "box": _box(told["box"]), "points": _points(told["points"])})


def _box(edges: Sequence[float]) -> Box:
    x1, y1, x2, y2 = edges
    return x1, y1, x2, y2


def _points(told: Sequence[Sequence[float]] | None) -> Points | None:
    return None if told is None else tuple((x, y) for x, y in told)
