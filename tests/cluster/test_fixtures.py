"""What tests make without a cluster is what the jobs make, to the fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs import build_index, embed, ingest
from retrieval.artifacts.index import factory_of
from retrieval.artifacts.manifest import read_manifest
from retrieval.images.settings import Crop, PrepareConfig
from retrieval.search.settings import IndexConfig
from tests.support.workspace import make_workspace


@pytest.mark.parametrize("crop", ["face", "aligned"])
def test_a_workspace_of_the_tests_is_one_of_the_jobs(ray_local: None, tmp_path: Path, crop: Crop) -> None:
    prepare = PrepareConfig(size=96, crop=crop, detector="haar" if crop == "face" else "yunet")
    made = make_workspace(tmp_path, prepare=prepare).folder
    photos = ingest.IngestConfig(
        source=str(tmp_path / "drawn"), out=str(tmp_path / "c"), prepare=prepare, part_size=8, layout="auto"
    )
    collection = read_manifest(ingest.main(photos))
    assert collection.fingerprint == read_manifest(made / "collection/test").fingerprint
    vectors = embed.main(
        embed.EmbedConfig(
            collection=str(tmp_path / "c"),
            model=(made / "model/test").uri,
            out=str(tmp_path / "e"),
            precision="fp32",
            num_workers=1,
        )
    )
    assert vectors.fingerprint == read_manifest(made / "embeddings/test").fingerprint
    index = build_index.main(
        build_index.BuildIndexConfig(
            embeddings=str(tmp_path / "e"),
            collection=str(tmp_path / "c"),
            out=str(tmp_path / "i"),
            index=IndexConfig(num_shards=2),
        )
    )
    assert index.fingerprint == read_manifest(made / "index/test").fingerprint
    assert factory_of(index) == "Flat"
