"""The network, its head and its bundle: what is saved comes back equal, and what was changed is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.history import read_history, write_history
from retrieval.artifacts.manifest import read_manifest
from retrieval.models import bundle, network, pooling
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import ModelConfig

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
    net = bundle.build(config)
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
    got = bundle.build(SMALL).normalise(pixels)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert torch.allclose(got[:, channel], (pixels[..., channel] / 255 - mean) / std, atol=1e-6)
    assert got.is_contiguous(memory_format=torch.channels_last)


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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet17"}, "Unknown backbone 'resnet17'"),
        ({"pooling": "max"}, "Unknown pooling 'max'. Choose one of: avg, gem, mac, rmac, grid"),
        ({"grid": 0}, "grid must be 1 or more, got 0"),
        ({"embedding_dim": 0}, "embedding_dim must be 1 or more, got 0"),
        ({"image_size": 16}, "image_size must be 32 or more"),
        ({"scales": ()}, "scales are \\(\\), expected one or more"),
        ({"scales": (1.0, 0.0)}, "above 0 and up to 4"),
        ({"whitening": "learned"}, "learned from a trained model's embeddings"),
        ({"whitening_dim": 8}, "with 8 dimensions"),
    ],
)
def test_impossible_settings_are_said_in_words(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**settings)  # type: ignore[arg-type]


def whitening(dim: int, length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((dim, length), (length,))]
    return drawn[0], drawn[1] / length


GEM = dataclasses.replace(SMALL, pooling="gem", head="none", keep_aspect=True, scales=(1.0, 0.7071, 0.5))


def test_whitening_is_applied_last_and_comes_back_with_the_bundle(tmp_path: Path) -> None:
    net = bundle.build(GEM)
    projection, mean = whitening(24, 128)
    white = network.with_whitening(net, projection, mean, "learned")
    assert (net.dim, white.dim, white.base_dim) == (128, 24, 128)
    assert (white.spec.config.whitening, white.spec.config.whitening_dim) == ("learned", 24)
    plain = embed(net).double()
    for row, got in zip(plain, embed(white), strict=True):
        y = projection @ (row - mean)
        assert torch.allclose(got.double(), y / y.norm(), atol=1e-5)
    bundle.save_bundle(white, tmp_path)
    other = bundle.load_bundle(tmp_path)
    assert other.spec == white.spec and other.spec.config.scales == (1.0, 0.7071, 0.5)
    assert torch.equal(embed(other), embed(white)) and other.dim == 24
    with pytest.raises(ValueError, match="learned at its own scales"):
        network.with_scales(white, [1.0])
    with pytest.raises(ValueError, match="A new network has no whitening"):
        bundle.build(white.spec.config)
    with pytest.raises(ValueError, match=r"\(24, 64\) and \(64,\) does not fit embeddings of length 128"):
        network.with_whitening(net, *whitening(24, 64), "pca")


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


@pytest.mark.parametrize(
    ("settings", "power"),
    [
        ({}, 2.5),
        ({"head": "linear", "embedding_dim": 8}, 1.0),
        ({"gem_per_channel": True}, 1.0),
        ({"pooling": "mac"}, 1.0),
        ({"head": "mlp"}, 1.0),
    ],
)
def test_scales_are_averaged_with_gem_s_power_where_the_embedding_is_gem_s_own(
    settings: dict[str, object], power: float
) -> None:
    net = bundle.build(dataclasses.replace(GEM, **settings))  # type: ignore[arg-type]
    if net.spec.config.pooling == "gem":
        with torch.no_grad():
            net.pool.p.fill_(2.5)  # type: ignore[operator, union-attr]
    assert net.power == power
    if power != 1:  # whitening comes after the mean, and does not change it
        assert network.with_whitening(net, *whitening(4, 128), "pca").power == power


def test_gem_s_powers_are_as_many_as_the_channels_and_survive_the_bundle(tmp_path: Path) -> None:
    net = bundle.build(dataclasses.replace(GEM, gem_per_channel=True))
    power = net.pool.get_parameter("p")
    assert power.shape == (128,) and net.dim == 128
    with torch.no_grad():
        power.copy_(torch.linspace(1, 5, 128))
        expected = pooling.l2n(pooling.gem(net.trunk(photos()), power[:, None, None]))
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
