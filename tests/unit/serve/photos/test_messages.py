"""What is seen in a photo comes through JSON and bytes as it was."""

from __future__ import annotations

import json

import pytest

from retrieval.images.settings import PrepareConfig
from serve.photos.messages import (
    FaceQuality,
    Look,
    Looked,
    PoorFace,
    PreparedFace,
    Unusable,
    kind_from_json,
    kind_to_json,
    seen_from_parts,
    seen_to_parts,
)

POINTS = ((1.25, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.5))
SEEN = Looked(
    width=640,
    height=480,
    faces=(
        PreparedFace(number=0, jpeg=b"first", box=(1.0, 2.0, 3.5, 4.0), points=POINTS),
        PreparedFace(
            number=2,
            jpeg=b"",
            box=(0.0, 0.0, 9.0, 9.0),
            quality=FaceQuality(confidence=0.9, size=20.0, sharpness=0.4, turn=None),
        ),
    ),
    refused=(
        PoorFace(
            number=1,
            box=(1.0, 1.0, 2.0, 2.0),
            points=POINTS,
            confidence=0.9,
            reason="face-too-small",
            detail="1 pixel",
        ),
    ),
    best=2,
)


def through(seen: Looked | Unusable) -> Looked | Unusable:
    head, bodies = seen_to_parts(seen)
    return seen_from_parts(json.loads(json.dumps(head)), b"".join(bodies))


def test_what_was_seen_comes_through() -> None:
    assert through(SEEN) == SEEN
    assert through(Unusable(reason="no-face", detail="of 9")) == Unusable(reason="no-face", detail="of 9")


def test_bytes_that_were_not_announced_are_no_answer() -> None:
    head, bodies = seen_to_parts(SEEN)
    with pytest.raises(ValueError, match="6 bytes of JPEGs came, 5 were announced"):
        seen_from_parts(head, b"".join(bodies) + b"x")


@pytest.mark.parametrize("config", [PrepareConfig(), PrepareConfig(crop="fit", size=512, max_pixels=9, margin=0.3)])
def test_a_way_of_looking_comes_through(config: PrepareConfig) -> None:
    assert kind_from_json(json.loads(json.dumps(kind_to_json(config)))) == config


def test_a_way_of_looking_is_known_by_its_settings_and_its_network() -> None:
    config = PrepareConfig()
    assert Look(config=config, faces="all").kind == Look(config=PrepareConfig(), box=(0, 0, 1, 1)).kind
    assert Look(config=config, network=b"n").kind != Look(config=config).kind
    assert "secret" not in repr(Look(config=config, network=b"secret"))
