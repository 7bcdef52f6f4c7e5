"""A network in ONNX goes the road of a trained one on a real local Ray: embed, whiten, index, evaluate."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs import build_index, embed, evaluate, freeze, ingest, whiten
from ray_jobs.build_index import BuildIndexConfig
from ray_jobs.embed import EmbedConfig
from ray_jobs.evaluate import EvaluateConfig
from ray_jobs.freeze import FreezeConfig
from ray_jobs.ingest import IngestConfig
from ray_jobs.whiten import WhitenJobConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.data.settings import SplitConfig
from retrieval.evaluation.settings import System
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from retrieval.search.settings import ExpansionConfig
from retrieval.training.settings import WhitenConfig
from tests.support.frozen import DIM, tiny, write

pytestmark = pytest.mark.usefixtures("ray_local")


def test_a_frozen_network_is_embedded_whitened_indexed_and_evaluated(tmp_path: Path) -> None:
    write(tmp_path / "net", tiny())
    draw_collection(tmp_path / "drawn", num_identities=8, images_per_identity=4, seed=1, size=(60, 72))
    where = {
        name: str(tmp_path / name) for name in ("collection", "model", "vectors", "white", "white-vectors", "index")
    }
    split = SplitConfig(test_fraction=0.5, val_fraction=0.0)
    prepare = PrepareConfig(size=32, crop="none")
    photos = where["collection"]
    ingest.main(IngestConfig(source=str(tmp_path / "drawn"), out=photos, prepare=prepare, split=split))
    config = ModelConfig(backbone=f"onnx:{tmp_path / 'net'}")
    freeze.main(FreezeConfig(collection=photos, out=where["model"], model=config))
    done = embed.main(EmbedConfig(collection=photos, model=where["model"], out=where["vectors"]))
    assert done.counts["dim"] == DIM and set(done.run["parts_by_format"]) == {"onnxruntime"}
    whiten.main(
        WhitenJobConfig(
            model=where["model"],
            collection=photos,
            embeddings=where["vectors"],
            out=where["white"],
            whiten=WhitenConfig(method="pca", dim=4),
        )
    )
    done = embed.main(EmbedConfig(collection=photos, model=where["white"], out=where["white-vectors"]))
    assert done.counts["dim"] == 4
    build_index.main(BuildIndexConfig(embeddings=where["vectors"], collection=photos, out=where["index"]))
    systems = tuple(
        System(name=name, model=Folder.of(where[model]), embeddings=Folder.of(where[vectors]))
        for name, model, vectors in (("frozen", "model", "vectors"), ("frozen + Lw", "white", "white-vectors"))
    )
    evaluate.main(
        EvaluateConfig(
            collection=photos, systems=systems, out=str(tmp_path / "report"), expansion=ExpansionConfig(num=2)
        )
    )
    figures = Folder.of(tmp_path / "report").read_json("metrics.json")["systems"]
    assert len(figures) >= 2 and all(0 <= one["mAP"] <= 1 for one in figures.values())
    assert read_manifest(Folder.of(where["index"])).counts["num"] == read_manifest(Folder.of(photos)).counts["stored"]
