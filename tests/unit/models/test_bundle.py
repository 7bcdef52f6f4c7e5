"""What is saved comes back equal, what was changed is refused; how a bundle wants photos prepared."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.history import read_history, write_history
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.images.settings import PrepareConfig
from retrieval.models import bundle, network, pooling
from retrieval.models.bundle import benchmark_preparation, check_preparation
from retrieval.models.network import ModelSpec
from retrieval.models.settings import ModelConfig
from tests.support.networks import GEM, SMALL, embed, photos, whitening


def test_a_seed_decides_a_fresh_network_and_leaves_the_global_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = bundle.digest_of(bundle.build(SMALL, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert first == bundle.digest_of(bundle.build(SMALL, seed=1)) != bundle.digest_of(bundle.build(SMALL, seed=2))


def test_bundle_comes_back_equal(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, pooling="gem", flip=True)
    net = bundle.build(config, preparation={"crop": "none", "size": 64})
    with torch.no_grad():
        net.pool.p.fill_(2.5)  # type: ignore[operator, union-attr]
    manifest = bundle.save_bundle(net, tmp_path / "bundle", inputs={"collection": "abc"}, counts={"epochs": 3})
    assert net.fingerprint == manifest.fingerprint
    other = bundle.load_bundle(tmp_path / "bundle")
    assert torch.equal(embed(other), embed(net))
    assert (other.spec, other.fingerprint, other.training) == (net.spec, net.fingerprint, False)
    assert bundle.load_spec(tmp_path / "bundle") == net.spec
    assert manifest.counts == {"epochs": 3, "parameters": sum(p.numel() for p in net.parameters()), "embedding_dim": 16}
    assert manifest.inputs == {"collection": "abc"}


def test_files_of_the_run_are_sealed_with_the_bundle(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "bundle")
    folder.write_json("history.json", [1])
    folder.write_bytes("curves.png", b"drawn")
    folder.write_bytes("tuples.jpg", b"drawn")
    sealed = bundle.save_bundle(bundle.build(SMALL), folder, run={"seconds": 1.5})
    assert sealed == read_manifest(folder, "model")
    assert set(sealed.files) == {"history.json", "model.json", "model.safetensors"}
    assert (set(sealed.aside), sealed.run) == ({"curves.png", "tuples.jpg"}, {"seconds": 1.5})


def test_what_a_bundle_tells_of_its_training_goes_on_to_those_made_of_it(tmp_path: Path) -> None:
    rows = [{"epoch": 0, "val/mAP": 0.5}, {"epoch": 1, "train/loss": 0.5, "seconds/train": 2.0}]
    sealed = []
    for name, seconds in (("trained", 2.0), ("again", 3.0)):
        folder, made_of = Folder.of(tmp_path / name), Folder.of(tmp_path / f"{name}-scaled")
        folder.write_bytes(bundle.CURVES, name.encode())
        folder.write_bytes(bundle.TUPLES_SHEET, name.encode())
        run = write_history(folder, [rows[0], rows[1] | {"seconds/train": seconds}])
        sealed.append(bundle.save_bundle(bundle.build(SMALL), folder, run=run, counts={"best_epoch": 1, "images": 5}))
        kept = bundle.kept_counts(sealed[-1])
        sealed.append(
            bundle.save_bundle(bundle.build(SMALL), made_of, run=bundle.keep_history(folder, made_of), counts=kept)
        )
        assert read_history(made_of) == [rows[0], rows[1] | {"seconds/train": seconds}]
        assert made_of.read_bytes(bundle.TUPLES_SHEET) == name.encode() and set(sealed[-1].aside) == {"tuples.jpg"}
    assert sealed[0].fingerprint == sealed[2].fingerprint and sealed[1].fingerprint == sealed[3].fingerprint
    assert sealed[1].counts["best_epoch"] == 1 and "images" not in sealed[1].counts
    untrained = Folder.of(tmp_path / "untrained")
    bundle.save_bundle(bundle.build(SMALL), untrained)
    assert bundle.keep_history(untrained, Folder.of(tmp_path / "of-untrained")) == {}
    assert Folder.of(tmp_path / "of-untrained").list() == {}


def test_tampered_weights_are_refused(tmp_path: Path) -> None:
    bundle.save_bundle(bundle.build(SMALL), tmp_path)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that was sealed.*Copy the bundle again"):
        bundle.load_bundle(tmp_path)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    bundle.save_bundle(bundle.build(SMALL), tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    spec["config"]["attention"] = True
    (tmp_path / "model.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match=r"settings this version does not know: \['attention'\]"):
        bundle.load_bundle(tmp_path)


def test_an_unsealed_or_other_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No sealed model at .* does not exist"):
        bundle.load_bundle(tmp_path / "absent")
    net = bundle.build(SMALL)
    bundle.save_bundle(net, tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="No sealed model"):
        bundle.load_bundle(tmp_path)


def test_weights_may_be_another_bundle_whose_trunk_pool_and_head_are_taken(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, pooling="gem")
    net = bundle.build(config, seed=1)
    bundle.save_bundle(net, tmp_path)
    again = bundle.build(config, weights=str(tmp_path), seed=2)
    assert bundle.digest_of(again) == bundle.digest_of(net)
    wider = bundle.build(dataclasses.replace(config, embedding_dim=8), weights=str(tmp_path), seed=2)
    assert bundle.digest_of(wider.trunk) == bundle.digest_of(net.trunk)
    assert wider.dim == 8
    with pytest.raises(ValueError, match=r"has trunk resnet18 cut 'layer2'.*asks for resnet18 cut 'layer3'"):
        bundle.build(dataclasses.replace(SMALL, cut="layer3"), weights=str(tmp_path))


def test_weights_of_the_trunk_come_from_a_file(tmp_path: Path) -> None:
    whole = bundle.build(dataclasses.replace(SMALL, cut=""), seed=3)
    torch.save(whole.trunk.state_dict(), tmp_path / "net.pth")
    net = bundle.build(SMALL, weights=str(tmp_path / "net.pth"))
    for name, value in net.trunk.state_dict().items():
        assert torch.equal(value, whole.trunk.state_dict()[name])
    (tmp_path / "net.txt").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable weights file"):
        bundle.build(SMALL, weights=str(tmp_path / "net.txt"))


def test_a_linear_head_starts_from_the_whitening_of_a_bundle(tmp_path: Path) -> None:
    """W = P, b = -P m: the first embedding is the whitened one."""
    single = dataclasses.replace(GEM, scales=(1.0,))
    white = network.with_whitening(bundle.build(single, seed=1), *whitening(16, 128), "pca")
    bundle.save_bundle(white, tmp_path)
    net = bundle.build(dataclasses.replace(single, head="linear", embedding_dim=16), weights=str(tmp_path), seed=2)
    assert isinstance(net.head, nn.Linear) and net.dim == 16 and net.head.weight.requires_grad
    assert torch.allclose(embed(net), embed(white), atol=1e-5)
    fresh = bundle.build(dataclasses.replace(single, head="linear", embedding_dim=8), weights=str(tmp_path), seed=2)
    assert embed(fresh).shape == (3, 8)


def test_gem_s_powers_are_as_many_as_the_channels_and_survive_the_bundle(tmp_path: Path) -> None:
    net = bundle.build(dataclasses.replace(GEM, gem_per_channel=True))
    power = net.pool.get_parameter("p")
    assert power.shape == (128,) and net.dim == 128
    with torch.no_grad():
        power.copy_(torch.linspace(1, 5, 128))
        expected = pooling.l2n(pooling.gem(net.trunk(photos(3)), power[:, None, None]))
    bundle.save_bundle(net, tmp_path)
    assert torch.equal(bundle.load_bundle(tmp_path).pool.get_parameter("p"), power)
    single = network.with_scales(net, [1.0])
    assert torch.allclose(embed(single), expected, atol=1e-6)
    shared = bundle.build(GEM, weights=str(tmp_path))  # another kind of pooling: its own p, the trunk taken
    assert shared.pool.get_parameter("p").shape == ()
    assert bundle.digest_of(shared.trunk) == bundle.digest_of(net.trunk)


def test_a_bundle_from_before_these_settings_loads(tmp_path: Path) -> None:
    net = bundle.build(SMALL)
    bundle.save_bundle(net, tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    for name in ("keep_aspect", "scales", "gem_per_channel", "whitening", "whitening_dim"):
        del spec["config"][name]
    (tmp_path / "model.json").write_text(json.dumps(spec))
    assert torch.equal(embed(bundle.load_bundle(tmp_path)), embed(net))


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
