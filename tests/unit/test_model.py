"""The network, its head and its bundle: what is saved comes back equal, and what was changed is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from retrieval import model, pooling
from retrieval.artifacts import Folder, read_manifest
from retrieval.model import EmbeddingNet, ModelConfig

SMALL = ModelConfig(backbone="resnet18", cut="layer2", image_size=64, embedding_dim=16)


def photos(num: int = 3) -> Tensor:
    return torch.randn(num, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def embed(net: EmbeddingNet) -> Tensor:
    return net(photos())


@pytest.mark.parametrize("pool", ["avg", "gem", "grid"])
@pytest.mark.parametrize("head", ["mlp", "none"])
def test_forward_is_trunk_pool_l2_head_l2(pool: str, head: str) -> None:
    config = dataclasses.replace(SMALL, pooling=pool, head=head, grid=2)  # type: ignore[arg-type]
    net = model.build(config)
    with torch.no_grad():
        maps = net.trunk(photos())
        pooled = {
            "avg": maps.mean(dim=(2, 3)),
            "gem": pooling.gem(maps, 3.0),
            "grid": nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1),
        }[pool]
        x = pooling.l2n(pooled)
        if head == "mlp":
            first, second = net.get_submodule("head.0"), net.get_submodule("head.2")
            assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
            x = (x @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
        expected = pooling.l2n(x)
    got = embed(net)
    assert torch.allclose(got, expected, atol=1e-6)
    assert got.shape == (3, net.dim) and net.num_features == pooled.shape[1]
    assert torch.allclose(got.norm(dim=1), torch.ones(3), atol=1e-4)


def test_normalise_is_imagenet_s() -> None:
    pixels = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    got = model.build(SMALL).normalise(pixels)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert torch.allclose(got[:, channel], (pixels[..., channel] / 255 - mean) / std, atol=1e-6)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_a_seed_decides_a_fresh_network_and_leaves_the_global_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = model.digest_of(model.build(SMALL, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert first == model.digest_of(model.build(SMALL, seed=1)) != model.digest_of(model.build(SMALL, seed=2))


def test_bundle_comes_back_equal(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, pooling="gem", flip=True)
    net = model.build(config, preparation={"crop": "none", "size": 64})
    with torch.no_grad():
        net.pool.p.fill_(2.5)  # type: ignore[operator, union-attr]
    manifest = model.save_bundle(net, tmp_path / "bundle", inputs={"collection": "abc"}, counts={"epochs": 3})
    assert net.fingerprint == manifest.fingerprint
    other = model.load_bundle(tmp_path / "bundle")
    assert torch.equal(embed(other), embed(net))
    assert (other.spec, other.fingerprint, other.training) == (net.spec, net.fingerprint, False)
    assert model.load_spec(tmp_path / "bundle") == net.spec
    assert manifest.counts == {"epochs": 3, "parameters": sum(p.numel() for p in net.parameters()), "embedding_dim": 16}
    assert manifest.inputs == {"collection": "abc"}


def test_files_of_the_run_are_sealed_with_the_bundle(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "bundle")
    folder.write_json("history.json", [1])
    model.save_bundle(model.build(SMALL), folder)
    assert set(read_manifest(folder, "model").files) == {"history.json", "model.json", "model.safetensors"}


def test_tampered_weights_are_refused(tmp_path: Path) -> None:
    model.save_bundle(model.build(SMALL), tmp_path)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that was sealed.*Copy the bundle again"):
        model.load_bundle(tmp_path)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    model.save_bundle(model.build(SMALL), tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    spec["config"]["attention"] = True
    (tmp_path / "model.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match=r"settings this version does not know: \['attention'\]"):
        model.load_bundle(tmp_path)


def test_an_unsealed_or_other_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No sealed model at .* does not exist"):
        model.load_bundle(tmp_path / "absent")
    net = model.build(SMALL)
    model.save_bundle(net, tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="No sealed model"):
        model.load_bundle(tmp_path)


def test_weights_may_be_another_bundle_whose_trunk_pool_and_head_are_taken(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, pooling="gem")
    net = model.build(config, seed=1)
    model.save_bundle(net, tmp_path)
    again = model.build(config, weights=str(tmp_path), seed=2)
    assert model.digest_of(again) == model.digest_of(net)
    wider = model.build(dataclasses.replace(config, embedding_dim=8), weights=str(tmp_path), seed=2)
    assert model.digest_of(wider.trunk) == model.digest_of(net.trunk)
    assert wider.dim == 8
    with pytest.raises(ValueError, match=r"has trunk resnet18 cut 'layer2'.*asks for resnet18 cut 'layer3'"):
        model.build(dataclasses.replace(SMALL, cut="layer3"), weights=str(tmp_path))


def test_weights_of_the_trunk_come_from_a_file(tmp_path: Path) -> None:
    whole = model.build(dataclasses.replace(SMALL, cut=""), seed=3)
    torch.save(whole.trunk.state_dict(), tmp_path / "net.pth")
    net = model.build(SMALL, weights=str(tmp_path / "net.pth"))
    for name, value in net.trunk.state_dict().items():
        assert torch.equal(value, whole.trunk.state_dict()[name])
    (tmp_path / "net.txt").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable weights file"):
        model.build(SMALL, weights=str(tmp_path / "net.txt"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet17"}, "Unknown backbone 'resnet17'"),
        ({"pooling": "max"}, "Unknown pooling 'max'. Choose one of: avg, gem, mac, rmac, grid"),
        ({"grid": 0}, "grid must be 1 or more, got 0"),
        ({"embedding_dim": 0}, "embedding_dim must be 1 or more, got 0"),
        ({"image_size": 16}, "image_size must be 32 or more"),
    ],
)
def test_impossible_settings_are_said_in_words(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**settings)  # type: ignore[arg-type]
