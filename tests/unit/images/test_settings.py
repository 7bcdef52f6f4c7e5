"""Settings are refused in words, before anything is loaded, and survive a model bundle."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from retrieval.artifacts.hashing import plain
from retrieval.images.settings import (
    CASCADE_FILES,
    MAX_PIXELS_LIMIT,
    AugmentConfig,
    DetectorConfig,
    PrepareConfig,
    stored_config,
)


@pytest.mark.parametrize("name", ["erase", "drop_regions", "flip"])
def test_what_is_no_probability_is_refused(name: str) -> None:
    for value in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=rf"augment.{name} is a probability, 0 to 1, got {value}"):
            AugmentConfig(**{name: value})
    assert all(getattr(AugmentConfig(**{name: value}), name) == value for value in (0.0, 1.0))


@pytest.mark.parametrize("name", ["shift", "light"])
def test_a_spread_below_nothing_is_refused(name: str) -> None:
    for value in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match=rf"augment.{name} is {value}, expected 0 to 1"):
            AugmentConfig(**{name: value})
    assert getattr(AugmentConfig(**{name: 0.0}), name) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cascade": "alt9"}, "Choose one of: alt2, alt, default"),
        ({"detector": "mtcnn"}, "Unknown detector 'mtcnn'. Choose one of: auto, yunet, haar"),
        ({"min_confidence": 1.1}, "min_confidence is 1.1, expected 0 to 1"),
        ({"min_confidence": math.nan}, "min_confidence is nan"),
        ({"all_side": 159}, r"all_side is 159, expected detect_side \(160\) to 8192"),
        ({"all_side": 8193}, "all_side is 8193"),
        ({"scale_factor": 1.0}, "expected more than 1"),
        ({"scale_factor": math.nan}, "expected more than 1"),
        ({"min_neighbors": -1}, "min_neighbors is -1, expected 0 or more"),
        ({"min_face": 19}, "20 <= min_face"),
        ({"detect_side": 31}, "detect_side 31"),
        ({"max_detect_side": 159}, "max_detect_side 159"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(settings: dict[str, Any], message: str) -> None:
    for config in (DetectorConfig, PrepareConfig):
        with pytest.raises(ValueError, match=message):
            config(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "round"}, "Unknown crop 'round'. Choose one of: face, aligned, box, none, fit"),
        ({"crop": "haar"}, "Unknown crop 'haar'"),
        ({"crop": "aligned", "detector": "haar"}, "needs five points of a face, and haar finds none"),
        ({"faces": "some"}, "Unknown faces 'some'. Choose one of: best, all"),
        ({"faces": "all", "crop": "fit"}, "faces 'all' needs crop face or aligned"),
        ({"min_face_size": -1}, "min_face_size is -1, expected 0 or more"),
        ({"min_sharpness": math.nan}, "min_sharpness is nan"),
        ({"max_turn": math.inf}, "max_turn is inf"),
        ({"margin": -0.41}, "-0.4 to 2"),
        ({"margin": 2.1}, "-0.4 to 2"),
        ({"margin": math.nan}, "-0.4 to 2"),
        ({"size": 15}, "16 to 2048"),
        ({"size": 2049}, "16 to 2048"),
        ({"quality": 0}, "1 to 100"),
        ({"quality": 101}, "1 to 100"),
        ({"max_pixels": 0}, "max_pixels is 0, expected 1 to 170000000"),
        ({"max_pixels": 170_000_001}, "max_pixels is 170000001"),
        ({"min_side": 0}, "min_side is 0, expected 1 or more"),
    ],
)
def test_a_preparation_that_cannot_be_made_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrepareConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_face": 20, "detect_side": 20, "max_detect_side": 20, "min_neighbors": 0, "scale_factor": 1.01},
        {"margin": -0.4, "size": 16, "quality": 1, "max_pixels": 1, "min_side": 1},
        {"margin": 2, "size": 2048, "quality": 100, "max_pixels": MAX_PIXELS_LIMIT},
        *({"crop": crop} for crop in ("face", "aligned", "box", "none", "fit")),
        *({"cascade": cascade} for cascade in CASCADE_FILES),
    ],
)
def test_the_last_values_that_work_are_taken_and_survive_a_model_bundle(settings: dict[str, Any]) -> None:
    config = PrepareConfig(**settings)
    assert PrepareConfig(**plain(config)) == config
    assert all(getattr(config, name) == value for name, value in settings.items())


def test_defaults_are_those_that_collections_and_models_were_made_with() -> None:
    """Photos prepared under other defaults than the gallery's would be compared with what looks different."""
    assert dataclasses.asdict(PrepareConfig()) == {
        "cascade": "alt2",
        "scale_factor": 1.1,
        "min_neighbors": 3,
        "min_face": 32,
        "detect_side": 160,
        "max_detect_side": 640,
        "detector": "auto",
        "all_side": 1920,
        "min_confidence": 0.85,
        "crop": "face",
        "faces": "best",
        "min_face_size": 16,
        "min_sharpness": 0.0,
        "max_turn": 2.0,
        "margin": 0.15,
        "size": 218,
        "quality": 95,
        "max_pixels": 50_000_000,
        "min_side": 16,
    }
    assert dataclasses.asdict(AugmentConfig()) == {
        "erase": 0.5,
        "drop_regions": 0.3,
        "flip": 0.5,
        "shift": 0.03,
        "light": 0.2,
    }


def test_pillow_reads_as_many_pixels_as_the_limit_promises() -> None:
    from PIL import Image

    assert Image.MAX_IMAGE_PIXELS is not None and MAX_PIXELS_LIMIT < 2 * Image.MAX_IMAGE_PIXELS


def test_auto_becomes_the_detector_whose_file_is_there() -> None:
    assert [PrepareConfig().resolved(has).detector for has in (False, True)] == ["haar", "yunet"]
    assert PrepareConfig(crop="box").resolved(True).detector == "yunet"  # for its queries, which bring no box
    for given in ("haar", "yunet"):
        assert PrepareConfig(detector=given).resolved(True).detector == given
    for crop in ("none", "fit"):  # nothing is looked for: the same collection on every machine
        assert {PrepareConfig(crop=crop).resolved(has).detector for has in (False, True)} == {"haar"}
    for config in (PrepareConfig(detector="yunet"), PrepareConfig(crop="aligned")):
        with pytest.raises(ValueError, match="needs the file of YuNet, and it was not found"):
            config.resolved(False)


def test_what_was_sealed_before_there_was_a_choice_of_detectors_still_loads() -> None:
    old = plain(PrepareConfig(size=96))
    for name in ("detector", "faces", "all_side", "min_confidence", "min_face_size", "min_sharpness", "max_turn"):
        del old[name]
    assert stored_config(old | {"crop": "haar"}) == PrepareConfig(size=96, crop="face", detector="haar")
    assert stored_config(old | {"crop": "fit"}) == PrepareConfig(size=96, crop="fit", detector="haar")
    new = PrepareConfig(crop="aligned", detector="yunet", faces="all")
    assert stored_config(plain(new)) == new
