"""Presets: what each is, and which systems and how many steps come of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ray_jobs.presets import (
    DEMO,
    DEMO_LANDMARKS,
    DEMO_PEOPLE,
    FACES,
    FACES_PUBLISHED,
    FACES_TRAIN,
    LANDMARKS,
    LANDMARKS_PUBLISHED,
    PRESETS,
    FacesConfig,
    FacesTrainConfig,
    LandmarksConfig,
    TrainedConfig,
    num_steps,
    variants,
)


def test_the_presets_keep_their_names_and_kinds() -> None:
    assert {name: type(preset) for name, (_, preset) in PRESETS.items()} == {
        "faces": FacesConfig,
        "faces-train": FacesTrainConfig,
        "faces-published": FacesTrainConfig,
        "landmarks": LandmarksConfig,
        "landmarks-published": LandmarksConfig,
        "demo-landmarks": LandmarksConfig,
        "demo-people": FacesConfig,
        "demo": FacesTrainConfig,
    }
    assert all(said.endswith(".") for said, _ in PRESETS.values())
    assert PRESETS["demo"][1] is DEMO and PRESETS["faces"][1] is FACES


def test_no_setting_of_one_road_is_a_setting_of_the_other() -> None:
    common = {field.name for field in dataclasses.fields(TrainedConfig)}
    kinds = (FacesConfig, FacesTrainConfig, LandmarksConfig)
    own = [{field.name for field in dataclasses.fields(kind)} - common for kind in kinds]
    assert own[0] == {"grouping", "demo"}
    assert own[1] == {"train", "demo"}
    assert own[2] == {
        *("mining", "reconstruct", "siamese", "whiten", "whitened", "scales", "expansion", "rerank", "rerank_by"),
        *("ablate", "scenes"),
    }
    assert not {"weights", "num_workers"} & {field.name for field in dataclasses.fields(FacesConfig)}


def test_a_road_without_training_takes_a_network_that_is_ready() -> None:
    assert FACES.model.backbone == "onnx:sface"
    assert FACES.split.test_fraction == 1 and FACES.split.keep_singles, "who is alone on a photo is searched, too"
    with pytest.raises(ValueError, match="faces-train"):
        dataclasses.replace(FACES, model=FACES_TRAIN.model)


def test_demos_download_nothing_and_the_others_start_from_trained_weights() -> None:
    trained = {name: preset for name, (_, preset) in PRESETS.items() if isinstance(preset, TrainedConfig)}
    assert {name: preset.weights for name, preset in trained.items()} == {
        "faces-train": "imagenet",
        "faces-published": "imagenet",
        "landmarks": "imagenet",
        "landmarks-published": "imagenet",
        "demo-landmarks": "none",
        "demo": "none",
    }


def test_places_are_not_expanded_but_by_the_published_recipe() -> None:
    assert (LANDMARKS.expansion.num, LANDMARKS_PUBLISHED.expansion.num) == (0, 10)
    same = dataclasses.replace(LANDMARKS, expansion=LANDMARKS_PUBLISHED.expansion, rerank=LANDMARKS_PUBLISHED.rerank)
    assert same == LANDMARKS_PUBLISHED


def test_the_demo_of_people_is_faces_on_the_photos_that_the_demo_of_training_draws() -> None:
    assert dataclasses.replace(DEMO_PEOPLE, workspace="", demo=FACES.demo, model_name="") == dataclasses.replace(
        FACES, workspace="", model_name=""
    )
    assert DEMO_PEOPLE.demo == DEMO.demo


def test_presets_do_not_share_a_workspace_or_a_name_in_the_registry_by_accident() -> None:
    assert len({DEMO.workspace, DEMO_LANDMARKS.workspace, DEMO_PEOPLE.workspace, FACES_TRAIN.workspace}) == 4
    assert (
        len({preset.model_name for preset in (DEMO, DEMO_LANDMARKS, DEMO_PEOPLE, FACES, FACES_TRAIN, LANDMARKS)}) == 6
    )


def test_whole_photos_are_prepared_no_smaller_than_the_network_takes_them() -> None:
    for cfg in (LANDMARKS, DEMO_LANDMARKS):
        assert cfg.prepare.crop == "fit" and cfg.model.keep_aspect
        assert cfg.prepare.size >= max(cfg.model.image_size, cfg.siamese.image_size)
        assert cfg.split.keep_singles, "nobody labels places, so all would be dropped"
    for cfg in (FACES_PUBLISHED, DEMO):
        assert (cfg.prepare.crop, cfg.prepare.detector) == ("face", "haar") and not cfg.model.keep_aspect
    for cfg in (FACES, FACES_TRAIN):
        assert (cfg.prepare.crop, cfg.prepare.detector, cfg.prepare.margin) == ("aligned", "yunet", 0.0)


def landmarks(**settings: Any) -> LandmarksConfig:
    head = settings.pop("head", "none")
    return dataclasses.replace(LANDMARKS, model=dataclasses.replace(LANDMARKS.model, head=head), **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ablate": False}, "before, after, after + ms, after + ms + Lw"),
        ({"ablate": False, "scales": (1.0,)}, "before, after, after + Lw"),
        ({"ablate": False, "whitened": False}, "before, after, after + ms"),
        ({"ablate": False, "whitened": False, "scales": (1.0,)}, "before, after"),
        ({"ablate": False, "head": "linear"}, "before, after, after + ms"),
        (
            {},
            "before, before + Lw, before + ms, before + ms + Lw, after, after + Lw, after + ms, after + ms + Lw",
        ),
        ({"scales": (1.0,)}, "before, before + Lw, after, after + Lw"),
        ({"whitened": False, "scales": (1.0,)}, "before, before + Lw, after + Lw, after"),
        (
            {"whitened": False},
            "before, before + Lw, before + ms, before + ms + Lw, after, after + Lw, after + ms + Lw, after + ms",
        ),
    ],
)
def test_what_is_compared_and_what_is_served_last(settings: dict[str, Any], expected: str) -> None:
    found = variants(landmarks(**settings))
    assert ", ".join(" + ".join(parts) for parts in found) == expected
    assert all(parts[:-1] in found for parts in found if len(parts) > 1), "each is made from one that is shorter"


def test_steps_of_a_road() -> None:
    assert num_steps(FACES) == 6  # start, ingest, embed, index, evaluate, group
    assert num_steps(FACES_TRAIN) == 9  # start, ingest, train, embed and index twice, index what is served, evaluate
    assert num_steps(dataclasses.replace(FACES_TRAIN, served_splits=("gallery",))) == 8
    assert num_steps(landmarks(ablate=False, scales=(1.0,), whitened=False)) == 8
    assert num_steps(landmarks(ablate=False)) == 6 + 1 + 1 + 2 + 2
    assert num_steps(DEMO_LANDMARKS) == 6 + 1 + 1 + 1 + 2
    assert num_steps(landmarks(rerank_by="aliked", rerank=9)) == num_steps(landmarks()) + 1
    assert num_steps(landmarks(rerank_by="aliked", rerank=0)) == num_steps(landmarks())


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"rerank": -1}, "rerank is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"served_splits": ()}, "served_splits is empty"),
        ({"scales": ()}, "scales are"),
        ({"scales": (1.0, 0.0)}, "scales are"),
    ],
)
def test_what_a_late_step_would_refuse_is_refused_at_the_start(settings: dict[str, Any], refused: str) -> None:
    with pytest.raises(ValueError, match=refused):
        dataclasses.replace(LANDMARKS, **settings)
