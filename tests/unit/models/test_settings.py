"""Settings of the network: what is impossible is said, and names are those that the network knows."""

from __future__ import annotations

from typing import get_args

import pytest
import torchvision.models as tv

from retrieval.models.backbones import CUTS
from retrieval.models.pooling import POOLINGS
from retrieval.models.settings import BACKBONES, ModelConfig, Pooling, check_backbone, usable_scales


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet17"}, "Unknown backbone 'resnet17'"),
        ({"pooling": "max"}, "Unknown pooling 'max'. Choose one of: avg, gem, mac, rmac, grid"),
        ({"grid": 0}, "grid must be 1 or more, got 0"),
        ({"embedding_dim": 0}, "embedding_dim must be 1 or more, got 0"),
        ({"image_size": 16}, "image_size must be 32 or more"),
        ({"scales": ()}, "scales are \\(\\), expected one or more"),
        ({"scales": (1.0, 0.0)}, "above 0 and up to 4"),
        ({"scales": (1.0, 4.1)}, "above 0 and up to 4"),
        ({"image_size": 31}, "image_size must be 32 or more .*got 31"),
    ],
)
def test_impossible_settings_are_said_in_words(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"grid": 1}, {"embedding_dim": 1}, {"image_size": 32}, {"scales": (4.0,)}, {"scales": (0.01, 4.0)}]
)
def test_the_least_and_the_most_that_is_allowed_is_taken(settings: dict[str, object]) -> None:
    made = ModelConfig(**settings)  # type: ignore[arg-type]
    assert {name: getattr(made, name) for name in settings} == settings


def test_scales_may_come_as_a_list_which_is_all_that_json_has() -> None:
    assert ModelConfig(scales=[1.0, 0.5]).scales == (1.0, 0.5)  # type: ignore[arg-type]
    assert hash(ModelConfig(scales=[1.0])) == hash(ModelConfig())  # type: ignore[arg-type]


def test_names_are_those_that_the_network_knows() -> None:
    assert set(BACKBONES.values()) == set(CUTS)
    assert [name for name in BACKBONES if not callable(getattr(tv, name, None))] == []
    assert set(get_args(Pooling)) == set(POOLINGS)
    assert check_backbone("vgg16") == "vgg16"
    with pytest.raises(ValueError, match="Unknown backbone 'vgg17'. Choose one of: mobilenet_v2, .*vit_b_32"):
        check_backbone("vgg17")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cut": "layer3"}, "cut is 'layer3', and onnx:net takes none: its file ends where its author ended it. Leave"),
        ({"pooling": "gem"}, "pooling is 'gem', and onnx:net takes none: what it pools is inside its file"),
        ({"grid": 2}, "grid is 2, and onnx:net takes none"),
        ({"gem_per_channel": True}, "gem_per_channel is True, and onnx:net takes none"),
        ({"scales": (1.0, 0.5)}, "scales is .1.0, 0.5., and onnx:net takes none: its embeddings at other sizes"),
        ({"head": "linear"}, "head is 'linear', and onnx:net takes none: a head is trained"),
        ({"image_size": 7}, "image_size must be 8 or more, got 7"),
        ({"backbone": "onnx:"}, "names no network. Write onnx:sface, onnx:FILE or onnx:FOLDER"),
    ],
)
def test_a_frozen_network_takes_no_setting_of_a_trained_one(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**{"backbone": "onnx:net", **settings})  # type: ignore[arg-type]


def test_a_frozen_network_is_told_by_its_name() -> None:
    assert ModelConfig(backbone="onnx:sface", flip=True, image_size=8).is_frozen
    assert not ModelConfig(backbone="resnet18").is_frozen


@pytest.mark.parametrize(
    ("side", "used"), [(100, [1.0, 0.7, 0.4]), (79, [1.0, 0.7]), (40, [1.0]), (3, [1.0]), (80, [1.0, 0.7, 0.4])]
)
def test_scales_that_leave_nothing_to_see_are_left_out(side: int, used: list[float]) -> None:
    assert usable_scales(side, 500, (1.0, 0.7, 0.4)) == usable_scales(500, side, (1.0, 0.7, 0.4)) == used
