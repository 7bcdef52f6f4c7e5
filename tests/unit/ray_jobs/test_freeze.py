"""A collection and a network in ONNX make a bundle; what does not fit together is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_jobs.freeze import FreezeConfig, main
from retrieval.artifacts.collection import DETECTOR, detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, read_manifest, seal
from retrieval.models import bundle
from retrieval.models.settings import ModelConfig
from tests.support.frozen import DIM, tiny, write

ALIGNED = {"crop": "aligned", "detector": "yunet", "margin": 0.0, "size": 112}


def collection(folder: Path, prepare: dict[str, Any], detector: bytes | None = None) -> str:
    out, work = Folder.of(folder), {"kind": "collection", "config": {"prepare": prepare}, "inputs": {}}
    begin(out, **work)
    if detector:
        out.write_bytes(DETECTOR, detector)
    seal(out, counts={}, **work)
    return out.uri


def job(root: Path, photos: str, **model: Any) -> FreezeConfig:
    config = ModelConfig(backbone=f"onnx:{root / 'net'}", **model)
    return FreezeConfig(collection=photos, out=str(root / "model"), model=config)


def test_a_bundle_is_made_and_found_again(tmp_path: Path) -> None:
    write(tmp_path / "net", tiny(112), size=112, alignment="five-points")
    photos = collection(tmp_path / "photos", ALIGNED, b"a detector")
    manifest = main(job(tmp_path, photos, flip=True))
    assert manifest.counts["embedding_dim"] == DIM
    spec = bundle.load_spec(tmp_path / "model")
    assert spec.preparation == ALIGNED and spec.config.flip
    assert detector_of(Folder.of(tmp_path / "model")) == b"a detector"
    assert main(job(tmp_path, photos, flip=True)) == manifest == read_manifest(Folder.of(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"was made with other settings .*config.config"):
        main(job(tmp_path, photos))


def test_photos_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "net", tiny(112), size=112, alignment="five-points")
    with pytest.raises(ValueError, match=r"prepared with crop 'face'. Ingest them with crop aligned and margin 0"):
        main(job(tmp_path, collection(tmp_path / "photos", {**ALIGNED, "crop": "face"}, b"a detector")))
    assert not (tmp_path / "model").exists()


def test_a_network_to_be_trained_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"backbone is 'resnet18', expected onnx:NAME.*python -m ray_jobs.train"):
        FreezeConfig(collection="c", out="o", model=ModelConfig(backbone="resnet18"))
    assert FreezeConfig(collection="c", out="o").model.backbone == "onnx:sface"
