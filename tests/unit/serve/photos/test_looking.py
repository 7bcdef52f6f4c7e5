"""Decode, find, cut: as the gallery was made, and every way in which a photo cannot be used is a value."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from retrieval.images import pixels
from retrieval.images.faces import make_detector
from retrieval.images.pixels import BadImage
from retrieval.images.preparation import prepare, prepare_all
from retrieval.images.settings import Box, PrepareConfig
from serve.photos.limits import Caps
from serve.photos.looking import Looker, checked_box
from serve.photos.messages import Look, Looked, Unusable
from tests.support.hostile import scan_bomb, written
from tests.support.photos import png_header, portrait

FACES = PrepareConfig(size=96, detector="haar")


@pytest.fixture(scope="module")
def photo() -> bytes:
    return pixels.encode_jpeg(portrait(3))


def look(data: bytes, caps: Caps | None = None, **how: object) -> Looked | Unusable:
    asked = {"config": FACES, **how}
    return Looker(caps or Caps())(data, Look(**asked))  # type: ignore[arg-type]


def test_the_best_face_is_cut_as_the_gallery_is(photo: bytes) -> None:
    seen, want = look(photo), prepare(photo, FACES, make_detector(FACES))
    assert isinstance(seen, Looked)
    (face,) = seen.faces
    assert (face.number, face.jpeg, face.box) == (None, want.jpeg, want.box)
    assert (seen.width, seen.height) == pixels.upright_size(photo)
    assert face.quality is not None and want.quality is not None and face.quality.size == want.quality.size


def test_all_faces_are_numbered_and_one_can_be_chosen(photo: bytes) -> None:
    seen, want = look(photo, faces="all"), prepare_all(photo, FACES, make_detector(FACES))
    assert isinstance(seen, Looked)
    assert {face.number: face.jpeg for face in seen.faces} == {n: ready.jpeg for n, ready in want.kept.items()}
    assert seen.best == want.best
    first = look(photo, faces=0)
    assert isinstance(first, Looked) and [face.number for face in first.faces] == [0]
    none = look(photo, faces=99)
    assert isinstance(none, Unusable) and none.reason == "no-face" and "no face 99" in none.detail


def test_a_face_that_is_too_poor_is_told_with_its_place(photo: bytes) -> None:
    strict = PrepareConfig(size=96, detector="haar", min_face_size=10_000)
    seen = look(photo, faces="all", config=strict)
    assert isinstance(seen, Looked) and seen.faces == () and seen.best is None
    assert [(face.number, face.reason) for face in seen.refused] == [(0, "face-too-small")]
    assert seen.refused[0].box[0] < seen.refused[0].box[2] <= seen.width
    chosen = look(photo, faces=0, config=strict)
    assert isinstance(chosen, Unusable) and chosen.reason == "face-too-small"


@pytest.mark.parametrize(
    ("data", "caps", "reason"),
    [
        (b"", Caps(), "empty"),
        (b"no photo", Caps(), "not-an-image"),
        (written("GIF"), Caps(), "not-an-image"),
        (written("JPEG")[:-100], Caps(), "truncated"),
        (written("JPEG"), Caps(), "no-face"),
        (written("JPEG", side=8), Caps(), "too-small"),
        (png_header(60_000, 60_000), Caps(), "too-large"),
        (scan_bomb(200), Caps(), "too-many-scans"),
        (written("PNG", frames=3), Caps(frames=2), "too-many-frames"),
    ],
)
def test_a_photo_that_cannot_be_used_is_a_value_with_its_reason(data: bytes, caps: Caps, reason: str) -> None:
    seen = look(data, caps)
    assert isinstance(seen, Unusable) and seen.reason == reason


def test_a_part_of_a_whole_photo_is_cut_to_its_box() -> None:
    out = io.BytesIO()
    Image.effect_noise((200, 100), 90).convert("RGB").save(out, "PNG")
    seen = look(out.getvalue(), config=PrepareConfig(crop="fit", size=100), box=(10.4, 20.0, 110.0, 70.0))
    assert isinstance(seen, Looked)
    assert seen.faces[0].box == (10, 20, 110, 70) and pixels.stored_size(seen.faces[0].jpeg) == (50, 25)
    outside = look(out.getvalue(), config=PrepareConfig(crop="fit"), box=(0, 0, 201, 50))
    assert isinstance(outside, Unusable) and outside.reason == "bad-box"


@pytest.mark.parametrize(
    ("box", "want"),
    [
        ((0, 0, 100, 50), (0, 0, 100, 50)),
        ((0.4, 0.6, 99.6, 49.5), (0, 1, 100, 50)),
        ((-0.4, 0, 100.4, 50), (0, 0, 100, 50)),
        ((10, 10, 26, 26), (10, 10, 26, 26)),
    ],
)
def test_a_box_in_the_photo_is_rounded_to_pixels(box: Box, want: Box) -> None:
    assert checked_box(box, 100, 50, 16) == want


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((-1, 0, 50, 50), "the upright photo 100 x 50 pixels"),
        ((0, -1, 50, 50), "with 0 <= x1"),
        ((0, 0, 101, 50), "x2 <= 100"),
        ((0, 0, 50, 51), "y2 <= 50"),
        ((50, 0, 50, 50), "the box is 50,0,50,50"),
        ((0, 40, 50, 30), "the box is"),
        ((10, 10, 25, 40), "15 x 30 pixels; expected 16 or more"),
    ],
)
def test_a_box_that_is_not_in_the_photo(box: Box, says: str) -> None:
    with pytest.raises(BadImage, match="bad-box") as refused:
        checked_box(box, 100, 50, 16)
    assert says in refused.value.detail


def test_the_same_bytes_are_seen_the_same_way_twice(photo: bytes) -> None:
    looker = Looker(Caps())
    how = Look(config=FACES)
    assert looker(photo, how) == looker(photo, how)
