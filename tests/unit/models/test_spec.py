"""What a bundle says of itself, and how it wants photos prepared; read without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import Manifest
from retrieval.images.settings import PrepareConfig
from retrieval.models import bundle
from retrieval.models.engines.manifest import NetworkManifest
from retrieval.models.network import with_whitening
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import (
    ModelSpec,
    benchmark_preparation,
    check_preparation,
    check_prepared,
    load_spec,
    preparation_of,
)
from tests.support.networks import GEM, SMALL, whitening

OLD = Path(__file__).parents[2] / "data/bundles"


def test_it_is_read_without_pytorch() -> None:
    code = f"import sys; from retrieval.models.spec import load_spec; load_spec({str(OLD / 'squares')!r}); "
    code += "assert not {'torch', 'onnxruntime', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    bundle.save_bundle(bundle.build(SMALL), tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    for place in (spec["config"], spec):
        place["attention"] = True
        (tmp_path / "model.json").write_text(json.dumps(spec))
        with pytest.raises(ValueError, match=r"settings this version does not know: \['attention'\]"):
            bundle.load_bundle(tmp_path)
        del place["attention"]


def test_whitening_is_told_beside_the_model_s_settings(tmp_path: Path) -> None:
    """Two networks of equal settings, with whitening and without, are no longer two settings."""
    net = bundle.build(GEM)
    bundle.save_bundle(with_whitening(net, *whitening(24, 128), "pca"), tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    assert (spec["whitening"], spec["whitening_dim"]) == ("pca", 24)
    assert spec["config"] == plain(net.spec.config) and "whitening" not in spec["config"]
    old = load_spec(OLD / "whitened")
    assert (old.whitening, old.whitening_dim, old.config.scales) == ("learned", 6, (1.0, 0.7071, 0.5))
    assert (load_spec(OLD / "squares").whitening, load_spec(OLD / "squares").whitening_dim) == ("none", 0)


SPEC = ModelSpec(
    config=ModelConfig(image_size=96, keep_aspect=True),
    preparation=plain(PrepareConfig(crop="fit", size=320, quality=92)),
)


def test_photos_are_prepared_at_the_network_s_own_size() -> None:
    found = benchmark_preparation(SPEC, Folder("b"))
    assert (found.crop, found.size, found.quality) == ("fit", 96, 92)
    bare = replace(SPEC, preparation={})
    assert benchmark_preparation(bare, Folder("b")) == PrepareConfig(crop="fit", size=96, detector="haar")


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, config=replace(SPEC.config, keep_aspect=False)),
        replace(SPEC, preparation=plain(PrepareConfig(crop="face"))),
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


def test_a_network_for_upright_faces_is_given_no_others() -> None:
    upright = NetworkManifest(name="upright", dim=8, licence="none", alignment="five-points", size=112)
    check_prepared(upright, {"crop": "aligned", "margin": 0.0})
    check_prepared(upright, {"crop": "none", "margin": 0.15})  # aligned already, as its owner says
    with pytest.raises(ValueError, match="prepared with crop 'face'. Ingest them with crop aligned and margin 0"):
        check_prepared(upright, {"crop": "face", "margin": 0.0})
    with pytest.raises(ValueError, match=r"these have margin 0.15"):
        check_prepared(upright, {"crop": "aligned", "margin": 0.15})
    takes_any = replace(upright, alignment="none")
    check_prepared(takes_any, {"crop": "face", "margin": 0.15})
    with pytest.raises(ValueError, match="takes squares of 112 pixels"):
        check_prepared(takes_any, {"crop": "fit"})


def test_a_bundle_that_does_not_say_how_photos_are_prepared_is_refused(tmp_path: Path) -> None:
    bundle.save_bundle(bundle.build(SMALL), tmp_path)
    with pytest.raises(ValueError, match="does not say how photos are prepared for it. Train or embed it again"):
        preparation_of(Folder.of(tmp_path))
