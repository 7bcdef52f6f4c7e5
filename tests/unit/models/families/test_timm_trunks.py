"""timm's networks as trunks: the same numbers as torchvision's, any size, and clear errors for what does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import torchvision.models as tv

from retrieval.artifacts.folder import Folder
from retrieval.models import bundle, trunks
from retrieval.models.backbones import build_trunk
from retrieval.models.engines import export
from retrieval.models.engines.exported import ExportedNet
from retrieval.models.families import timm_trunks
from retrieval.models.families.timm_trunks import TimmTrunk
from retrieval.models.settings import ModelConfig

VIT, CNN = "timm:vit_tiny_patch16_224", "timm:resnet18"


@pytest.fixture(scope="module")
def vit() -> TimmTrunk:
    torch.manual_seed(0)
    trunk = build_trunk(VIT)
    assert isinstance(trunk, TimmTrunk)
    return trunk


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RETRIEVAL_DOWNLOADS", "off")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_same_network_with_the_same_weights_gives_the_numbers_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = tv.resnet18(weights=None).state_dict()
    safetensors.torch.save_file(state, tmp_path / "r.safetensors")
    theirs, ours = (build_trunk(name, str(tmp_path / "r.safetensors")) for name in ("resnet18", CNN))
    x = torch.randn(2, 3, 75, 50)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_a_transformer_s_map_is_its_patch_tokens_in_their_places(vit: TimmTrunk) -> None:
    x = torch.randn(2, 3, 48, 80)
    with torch.no_grad():
        maps, tokens = vit(x), vit.net.forward_features(x)  # type: ignore[operator]
    assert maps.shape == (2, 192, 3, 5) and tokens.shape == (2, 1 + 15, 192)
    for row in range(3):
        for column in range(5):
            assert torch.equal(maps[:, :, row, column], tokens[:, 1 + row * 5 + column])


@pytest.mark.parametrize("size", [(32, 32), (97, 65), (224, 224), (33, 130)])
def test_photos_of_any_size_are_taken(vit: TimmTrunk, size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = vit(torch.randn(1, 3, *size))
    assert maps.shape[2:] == tuple(-(-side // 16) for side in size) and bool(maps.isfinite().all())


def test_it_is_frozen_but_for_its_last_layers_and_not_cut(vit: TimmTrunk) -> None:
    assert trunks.freeze_all_but_last(vit, 0) == []
    prefix, tail = trunks.split_frozen(vit)
    assert len(list(tail)) == 0 and list(prefix) == [vit]
    names = trunks.freeze_all_but_last(vit, 3)
    assert names and all(name.startswith(("net.norm", "net.blocks.11.mlp")) for name in names)
    with pytest.raises(ValueError, match="this network is one block here"):
        trunks.cut_after(vit, "net.blocks")


def test_a_bundle_is_built_again_without_the_hub_and_says_its_normalisation(tmp_path: Path, offline: None) -> None:
    config = ModelConfig(backbone=VIT, pooling="gem", head="linear", embedding_dim=16, image_size=64)
    net = bundle.build(config, seed=3)
    assert net.spec.mean == net.spec.std == (0.5, 0.5, 0.5), "as timm says of this one"
    bundle.save_bundle(net, Folder.of(tmp_path / "b"), inputs={})
    again = bundle.load_network(tmp_path / "b")
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(again.normalise(pixels)), net(net.normalise(pixels)))
    assert again.spec == net.spec
    started = bundle.build(config, weights=str(tmp_path / "b"), seed=4)
    assert bundle.digest_of(started) == bundle.digest_of(net)


@pytest.mark.parametrize("backbone", [VIT, CNN])
def test_it_runs_as_onnx_with_the_same_embeddings(backbone: str) -> None:
    net = bundle.build(ModelConfig(backbone=backbone, head="none", pooling="gem", image_size=64), seed=1)
    exported = export.export(net)  # and refuses one that differs
    assert export.least_cosine(net, ExportedNet(exported, net.spec.config)) > export.LEAST_COSINE


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm:resnet81", r"knows no network 'resnet81'. Did you mean .*timm:resnet"),
        ("timm:zzzzzzzzzzzz", r"knows no network 'zzzzzzzzzzzz'\. Its list"),
        ("timm:resnet18.no_such", "knows no network 'resnet18.no_such'"),
        ("timm:beit_base_patch16_224", "takes no photos of any size"),
        ("timm:efficientvit_b0", "cannot be made without its pooling: Cannot disable pooling"),
    ],
)
def test_what_is_no_trunk_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build_trunk(name)


@pytest.mark.parametrize("name", ["timm:", "timm:../x", "timm:hf-hub:a/b", "timm:Resnet18", "resnet81"])
def test_what_is_no_name_is_refused_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(ValueError, match="Unknown backbone .*timm:NAME"):
        ModelConfig(backbone=name)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(tv.resnet34(weights=None).state_dict(), tmp_path / "r34.safetensors")
    for name in (CNN, VIT):
        with pytest.raises(ValueError, match="do not fit this backbone: missing"):
            build_trunk(name, str(tmp_path / "r34.safetensors"))


def test_weights_that_cannot_be_had_are_told_with_what_to_do(offline: None) -> None:
    with pytest.raises(ValueError, match=r"downloads are off .*--weights FILE: model.safetensors of timm/resnet18"):
        build_trunk(CNN, "imagenet")
    with pytest.raises(ValueError, match="timm names no weights for timm:vit_base_patch16_gap_224"):
        build_trunk("timm:vit_base_patch16_gap_224", "imagenet")


def test_a_login_that_is_wanted_is_told_with_what_to_do(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import GatedRepoError

    def refused(*_: object, **__: object) -> str:
        raise GatedRepoError("Access to this model is restricted", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]

    monkeypatch.setenv("RETRIEVAL_DOWNLOADS", "on")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(ValueError, match="GatedRepoError: Access .* accept the terms there and run `hf auth login`"):
        build_trunk(CNN, "imagenet")


def test_weights_in_the_hub_s_cache_need_no_network(
    offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tv.resnet18(weights=None).state_dict()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    assert torch.equal(build_trunk(CNN, "imagenet").state_dict()["net.conv1.weight"], state["conv1.weight"])


def test_without_timm_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"need the package timm.*pip install"):
        build_trunk(CNN)


def test_the_licence_of_weights_is_told() -> None:
    assert timm_trunks.licence("timm:vit_small_patch16_dinov3") == "dinov3-license"
    assert timm_trunks.licence(CNN) == "apache-2.0"
