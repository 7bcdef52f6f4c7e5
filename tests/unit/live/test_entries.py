"""Of which photo an image is; a live image as a hit."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

from retrieval.live.entries import Entry, Hit, photo_of


def test_the_photo_of_a_face_stands_before_its_number() -> None:
    assert photo_of("a/b#1.jpg", None) == "a/b#1.jpg"
    assert photo_of("a/b#1.jpg#2", 2) == "a/b#1.jpg"
    assert photo_of("a.jpg", 0) == "a.jpg"  # the only face of a photo that is one row


def test_a_hit_says_of_a_live_image_what_its_entry_says() -> None:
    about = {"label": "ada", "split": "gallery", "person": 3, "added": datetime(2026, 3, 1, tzinfo=UTC)}
    about |= {"where": "live", "photo": "g.jpg", "face": 1}
    entry = Entry(image_id="g.jpg#1", attributes=None, width=1, height=1, **about)  # type: ignore[arg-type]
    hit = Hit.of(entry, 0.5)
    assert (hit.image_id, hit.score, hit.row) == ("g.jpg#1", 0.5, None)
    assert {one.name: getattr(hit, one.name) for one in fields(hit) if one.name in about} == about
