"""A vision transformer of timm through the whole of both roads: trained, embedded, indexed, measured, served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_jobs import pipeline
from ray_jobs.presets import DEMO, AnyConfig
from retrieval.artifacts.folder import Folder
from retrieval.data.demo.settings import DemoConfig, SceneConfig
from retrieval.models.settings import ModelConfig
from serve.schemas import SearchAnswer
from serve.service import Service
from tests.support.asked import Client, run
from tests.support.road import SMALL_LANDMARKS
from tests.support.workspace import Workspace

pytest.importorskip("timm", reason="timm is not installed: pip install '.[timm]'")

VIT = "timm:vit_tiny_patch16_224"
FACES = replace(
    DEMO,
    demo=DemoConfig(num_identities=14, images_per_identity=4),
    model=ModelConfig(backbone=VIT, image_size=64),
    train=replace(DEMO.train, epochs=1, views=0, unfreeze_layers=1),
)
PLACES = replace(
    SMALL_LANDMARKS,
    mining="clusters",  # reconstruction looks at photos, not at networks
    layout="auto",
    scenes=SceneConfig(num_places=12, images_per_place=3, num_distractors=2, size=160),
    prepare=replace(SMALL_LANDMARKS.prepare, size=160),
    model=ModelConfig(backbone=VIT, pooling="gem", head="none", image_size=64, keep_aspect=True),
    siamese=replace(SMALL_LANDMARKS.siamese, image_size=64, num_negatives=1, unfreeze_layers=1),
)


@pytest.mark.parametrize("cfg", [FACES, PLACES], ids=["faces", "places"])
def test_random_weights_go_the_whole_road_and_a_stored_photo_finds_itself(
    cfg: AnyConfig, tmp_path: Path, ray_local: None
) -> None:
    folders = pipeline.main(replace(cfg, workspace=str(tmp_path / "w")))
    measured = folders["report"].read_json("metrics.json")
    assert measured["order"][0] == "before" and len(measured["order"]) >= 2
    assert all(np.isfinite(measured["systems"][name]["mAP"]) for name in measured["order"])
    made = Workspace(folder=Folder.of(tmp_path / "w"), photos={}, labels={})

    async def work(service: Service, client: Client) -> None:
        assert (await client.get("/v1/info")).json()["model"]["name"] == VIT
        gallery = service.versions.current.gallery
        image_id = gallery.sealed.columns.ids[3].as_py()
        answer = await client.post("/v1/search", json={"image_id": image_id, "k": 3, "rerank": 0})
        first = SearchAnswer.model_validate(answer.json()).results[0]
        assert first.image_id == image_id and first.score == pytest.approx(1, abs=1e-3)

    run(made, work)
