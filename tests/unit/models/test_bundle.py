"""How a bundle wants photos prepared, and who is refused for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import Manifest
from retrieval.images.settings import PrepareConfig
from retrieval.models.bundle import benchmark_preparation, check_preparation
from retrieval.models.network import ModelSpec
from retrieval.models.settings import ModelConfig

SPEC = ModelSpec(
    config=ModelConfig(image_size=96, keep_aspect=True),
    preparation=plain(PrepareConfig(crop="fit", size=320, quality=92)),
)


def test_photos_are_prepared_at_the_network_s_own_size() -> None:
    found = benchmark_preparation(SPEC, Folder("b"))
    assert (found.crop, found.size, found.quality) == ("fit", 96, 92)
    bare = replace(SPEC, preparation={})
    assert benchmark_preparation(bare, Folder("b")) == PrepareConfig(crop="fit", size=96)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, config=replace(SPEC.config, keep_aspect=False)),
        replace(SPEC, preparation=plain(PrepareConfig(crop="haar"))),
    ],
)
def test_a_bundle_for_squares_or_faces_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(ValueError, match="need whole photos in their own shape"):
        benchmark_preparation(spec, Folder("b"))


def test_distractors_must_be_prepared_alike() -> None:
    wanted = PrepareConfig(crop="fit", size=96)

    def sealed(config: dict[str, Any]) -> Manifest:
        rest: dict[str, Any] = {"inputs": {}, "counts": {}, "books": [], "files": {}, "versions": {}}
        return Manifest(kind="collection", config=config, created="", fingerprint="", **rest)

    check_preparation(sealed({"prepare": plain(replace(wanted, min_side=1))}), wanted, Folder("d"))
    for config in ({"prepare": plain(replace(wanted, size=64))}, {}):
        with pytest.raises(ValueError, match=r"otherwise than the bundle wants: .*not 96.*--size 96 --quality 95"):
            check_preparation(sealed(config), wanted, Folder("d"))
