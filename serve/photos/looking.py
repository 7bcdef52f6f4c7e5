"""Decode, find, cut: what one process does with one photo. The kernel is the one that made the gallery."""

from __future__ import annotations

from retrieval.images import pixels
from retrieval.images.detectors.face import Face, FaceDetector
from retrieval.images.faces import make_detector
from retrieval.images.pixels import BadImage
from retrieval.images.preparation import Faces, Prepared, prepare, prepare_all
from retrieval.images.settings import Box, PrepareConfig
from serve.photos.limits import Caps, not_taken, too_much
from serve.photos.messages import FaceQuality, Look, Looked, PoorFace, PreparedFace, Unusable, Which


class Looker:
    """Looks at photos, one after another. Keeps a detector for each way of looking that it was told of."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._detectors: dict[tuple[PrepareConfig, bytes | None], FaceDetector | None] = {}

    def learn(self, config: PrepareConfig, network: bytes | None) -> None:
        """Makes a detector before a photo waits for it.

        Raises: ValueError if it needs a network and there is none, or it is no network.
        """
        if (config, network) not in self._detectors:
            self._detectors[config, network] = make_detector(config, network)

    def __call__(self, photo: bytes, how: Look) -> Looked | Unusable:
        """What is seen in the photo, or why it cannot be used."""
        self.learn(how.config, how.network)
        try:
            return self._look(photo, how, self._detectors[how.kind])
        except BadImage as error:
            return Unusable(reason=error.reason, detail=error.detail)

    def _look(self, photo: bytes, how: Look, detector: FaceDetector | None) -> Looked:
        width, height = self._checked(photo)
        part = None if how.box is None else checked_box(how.box, width, height, how.config.min_side)
        if how.faces == "best" or not how.config.looks:
            ready = prepare(photo, how.config, detector, part)
            return Looked(width=width, height=height, faces=(_prepared(None, ready),))
        try:
            found = prepare_all(photo, how.config, detector)
        except BadImage as error:
            if error.reason != "no-face" or how.faces != "all":
                raise
            return Looked(width=width, height=height, faces=())  # all of them are none
        return _chosen(found, how.faces, width, height)

    def _checked(self, photo: bytes) -> tuple[int, int]:
        """The upright size of a photo that is worth decoding. Raises: BadImage."""
        if photo and (why := not_taken(photo, self._caps.formats)) is not None:
            raise BadImage("not-an-image", why)
        size = pixels.upright_size(photo)
        if size[0] * size[1] <= self._caps.pixels and (found := too_much(photo, size, self._caps)) is not None:
            raise BadImage(*found)
        return size


def _chosen(found: Faces, which: Which, width: int, height: int) -> Looked:
    """All faces, or the one that was asked for.

    Raises: BadImage if there is no such face, or it is too poor.
    """
    kept = {number: _prepared(number, ready) for number, ready in found.kept.items()}
    if which == "all":
        refused = tuple(_poor(number, found.seen[number], why) for number, why in found.refused.items())
        return Looked(width=width, height=height, faces=tuple(kept.values()), refused=refused, best=found.best)
    assert isinstance(which, int), "which is 'all' or a number here"
    if which in found.refused:
        raise found.refused[which]
    if which not in kept:
        raise BadImage("no-face", f"there is no face {which}: the photo has {len(found.seen)}, counted from 0")
    return Looked(width=width, height=height, faces=(kept[which],), best=found.best)


def _prepared(number: int | None, ready: Prepared) -> PreparedFace:
    quality = ready.quality and FaceQuality(
        confidence=ready.quality.confidence,
        size=ready.quality.size,
        sharpness=ready.quality.sharpness,
        turn=ready.quality.turn,
    )
    return PreparedFace(number=number, jpeg=ready.jpeg, box=ready.box, points=ready.points, quality=quality)


def _poor(number: int, face: Face, why: BadImage) -> PoorFace:
    return PoorFace(
        number=number,
        box=face.box,
        points=face.points,
        confidence=face.confidence,
        reason=why.reason,
        detail=why.detail,
    )


def checked_box(box: Box, width: int, height: int, min_side: int) -> Box:
    """The box in whole pixels.

    Raises: BadImage if it is not in the photo of width x height pixels.
    """
    x1, y1, x2, y2 = (float(round(edge)) for edge in box)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise BadImage(
            "bad-box",
            f"the box is {','.join(f'{edge:g}' for edge in box)} and the upright photo {width} x {height} pixels; "
            f"expected x1,y1,x2,y2 with 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}",
        )
    if min(x2 - x1, y2 - y1) < min_side:
        raise BadImage("bad-box", f"the box is {x2 - x1:g} x {y2 - y1:g} pixels; expected {min_side} or more a side")
    return x1, y1, x2, y2
