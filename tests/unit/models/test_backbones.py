"""Trunks equal torchvision's networks; bad names and files are refused."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision.models as tv
from torch import Tensor, nn

from retrieval.models import backbones, known_weights
from retrieval.models.backbones import CUTS, TransformerTrunk, build_trunk, read_state
from retrieval.models.settings import BACKBONES
from tests.support.networks import on_meta, photos, small_transformer

CHANNELS = {"mobilenet_v2": 1280, "resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}
CHANNELS |= {"resnet152": 2048, "vgg11": 512, "vgg13": 512, "vgg16": 512, "vgg19": 512}
CHANNELS |= {"densenet121": 1024, "densenet161": 2208, "densenet169": 1664, "densenet201": 1920}
CHANNELS |= {"efficientnet_b0": 1280, "efficientnet_b1": 1280, "efficientnet_b2": 1408, "efficientnet_b3": 1536}
CHANNELS |= {"efficientnet_v2_s": 1280, "vit_b_16": 768, "vit_b_32": 768}


@pytest.fixture(scope="module")
def resnet18() -> tv.ResNet:
    """With running statistics away from 0 and 1, so that BatchNorm does something."""
    torch.manual_seed(0)
    net = tv.resnet18().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return net


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_table_gives_the_published_channels_and_torchvision_s_names(name: str) -> None:
    trunk = on_meta(name)
    step = 16 if name.startswith("vgg") or name == "vit_b_16" else 32
    got = trunk(torch.zeros(1, 3, 64, 64, device="meta"))
    assert tuple(got.shape) == (1, CHANNELS[name], 64 // step, 64 // step)
    with torch.device("meta"):
        whole = getattr(tv, name)(weights=None)
    expected = {key for key in whole.state_dict() if not key.startswith(("fc.", "classifier.", "heads."))}
    assert set(trunk.state_dict()) == expected


def test_trunks_end_in_an_activation() -> None:
    vgg, mobile = on_meta("vgg16"), on_meta("mobilenet_v2")
    assert isinstance(list(vgg.modules())[-1], nn.ReLU)  # without its last max-pool
    assert isinstance(list(mobile.modules())[-1], nn.ReLU6)
    assert isinstance(list(on_meta("densenet121").modules())[-1], nn.ReLU)


def test_resnet_trunk_is_what_torchvision_pools(resnet18: tv.ResNet, tmp_path: Path) -> None:
    torch.save(resnet18.state_dict(), tmp_path / "net.pth")
    seen: list[Tensor] = []
    handle = resnet18.avgpool.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with torch.no_grad():
        resnet18(photos())
        got = build_trunk("resnet18", str(tmp_path / "net.pth"))(photos())
    handle.remove()
    assert torch.equal(got, seen[0])


@pytest.mark.parametrize("form", ["safetensors", "half", "wrapped", "no counters"])
def test_published_forms_of_a_weights_file_all_load(resnet18: tv.ResNet, tmp_path: Path, form: str) -> None:
    state = {key: value.clone() for key, value in resnet18.state_dict().items()}
    file = tmp_path / ("net.safetensors" if form == "safetensors" else "net.pth")
    if form == "half":
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    if form == "no counters":
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    if form == "safetensors":
        safetensors.torch.save_file(state, file)
    elif form == "wrapped":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    else:
        torch.save(state, file)
    trunk = build_trunk("resnet18", str(file))
    assert trunk.state_dict()["layer4.1.conv2.weight"].dtype == torch.float32
    for key, value in trunk.state_dict().items():
        if key in state:
            assert torch.equal(value, state[key].to(value.dtype)), key


def test_imagenet_is_torchvision_s_own_weights_and_no_network_is_said_in_words(
    resnet18: tv.ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def build(*, weights: object) -> tv.ResNet:
        asked.append(weights)
        if len(asked) == 2:
            raise OSError("Temporary failure in name resolution")
        return resnet18

    monkeypatch.setattr(tv, "resnet18", build)
    trunk = build_trunk("resnet18", "imagenet")
    assert asked == ["DEFAULT"] and not trunk.training
    assert torch.equal(trunk.get_submodule("conv1").get_parameter("weight"), resnet18.conv1.weight)
    with pytest.raises(ValueError, match=r"Could not download .*\(Temporary failure .*--weights FILE"):
        build_trunk("resnet18", "imagenet")


def test_imagenet_s_file_is_found_in_the_folder_of_known_weights(
    resnet18: tv.ResNet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(known_weights.FOLDER, str(tmp_path))
    monkeypatch.setenv(known_weights.DOWNLOADS, "off")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (url,) = [str(tv.get_model_weights("resnet18").DEFAULT.url)]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=rf"downloads are off .*Copy {url.rpartition('/')[2]} .*into {tmp_path}, give"):
        build_trunk("resnet18", "imagenet")
    place = tmp_path / url.rpartition("/")[2]
    torch.save(resnet18.state_dict(), place)
    with pytest.raises(ValueError, match="is not torchvision's file: its sha256 is another"):
        build_trunk("resnet18", "imagenet")
    monkeypatch.setattr("retrieval.models.backbones.sha256_of", lambda _: place.stem.rpartition("-")[2] + "0" * 56)
    trunk = build_trunk("resnet18", "imagenet")
    assert torch.equal(trunk.get_submodule("conv1").get_parameter("weight"), resnet18.conv1.weight)


def test_every_backbone_s_published_file_carries_its_sha256() -> None:
    for name in BACKBONES:
        stem = Path(str(tv.get_model_weights(name).DEFAULT.url)).stem  # type: ignore[attr-defined]
        assert len(stem.rpartition("-")[2]) >= 8 and int(stem.rpartition("-")[2], 16) > 0, name


def test_a_trunk_is_in_eval_mode_and_drawn_by_torch_s_seed() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        trunk = build_trunk("resnet18")
        assert not any(module.training for module in trunk.modules())
        drawn.append(trunk.get_submodule("conv1").get_parameter("weight"))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_unknown_backbone_lists_the_known() -> None:
    with pytest.raises(ValueError, match="Unknown backbone 'resnet17'.*mobilenet_v2.*vgg16"):
        build_trunk("resnet17")


def test_missing_file_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No weights file at.*Give a .pth or .safetensors"):
        build_trunk("resnet18", str(tmp_path / "absent.pth"))


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors", "empty.pth", "zip.pth", "other.pth"])
def test_what_is_no_weights_file_is_said_in_words(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "zip.pth":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif name == "other.pth":
        torch.save([1, 2, 3], file)
    else:
        file.write_text("" if name.startswith("empty") else "these are no weights\n")
    with pytest.raises(ValueError, match="is not a readable weights file|does not hold a state dict"):
        read_state(file)


class _Runs:
    """Pickles into a call that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    file, touched = tmp_path / "net.pth", tmp_path / "touched"
    if how == "torch":
        torch.save({"a": _Runs(touched)}, file)
    else:
        file.write_bytes(pickle.dumps(_Runs(touched)))
    with pytest.raises(ValueError, match="is not a readable weights file"):
        read_state(file)
    assert not touched.exists()


def test_weights_of_another_network_are_refused_with_their_names(resnet18: tv.ResNet, tmp_path: Path) -> None:
    state = resnet18.state_dict()
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"do not fit this backbone: missing .*features.0.0.weight.*Check --backbone"):
        build_trunk("mobilenet_v2", str(tmp_path / "net.pth"))
    torch.save({**state, "layer5.conv.weight": torch.zeros(1)}, tmp_path / "larger.pth")
    with pytest.raises(ValueError, match=r"missing \[\] \(0\), unexpected \['layer5.conv.weight'\] \(1\)"):
        build_trunk("resnet18", str(tmp_path / "larger.pth"))
    torch.save({**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "shape.pth")
    with pytest.raises(ValueError, match=r"other shape \['conv1.weight \(64, 3, 3, 3\) for \(64, 3, 7, 7\)'\]"):
        build_trunk("resnet18", str(tmp_path / "shape.pth"))


@torch.no_grad()
def test_patch_tokens_are_what_torchvision_s_encoder_gives() -> None:
    net, seen = small_transformer(), []
    net.encoder.register_forward_hook(lambda _module, _args, out: seen.append(out))
    net(photos())
    got = TransformerTrunk(net)(photos())
    assert got.shape == (2, 32, 4, 4)
    for row in range(4):
        for column in range(4):
            assert torch.allclose(got[:, :, row, column], seen[0][:, 1 + 4 * row + column], atol=1e-5)


@torch.no_grad()
def test_positions_follow_the_grid_of_patches() -> None:
    """0, 1, 2, 3 along x, twice as fine: a quarter from the second to the third lies 1.2969, by the cubic's weights."""
    net = small_transformer()
    ramp = torch.arange(4.0).repeat(4)[None, :, None].expand(1, 16, 32)
    net.encoder.pos_embedding.copy_(torch.cat([torch.full((1, 1, 32), 9.0), ramp], dim=1))
    trunk = TransformerTrunk(net)
    assert torch.equal(trunk._positions((4, 4)), net.encoder.pos_embedding)
    wide = trunk._positions((2, 8))
    assert wide.shape == (1, 17, 32) and torch.all(wide[:, 0] == 9)
    grid = wide[0, 1:, 0].reshape(2, 8)
    assert torch.equal(grid[0], grid[1])
    weights = torch.tensor([-0.10546875, 0.87890625, 0.26171875, -0.03515625])  # a = -0.75, t = 1/4
    assert grid[0, 3].item() == pytest.approx(float((weights * torch.arange(4.0)).sum()), abs=1e-6)
    assert torch.allclose(grid[0] + grid[0].flip(0), torch.full((8,), 3.0), atol=1e-6)
    assert trunk(torch.randn(1, 3, 33, 130)).shape == (1, 32, 2, 8)


def test_densenet_s_published_names_load(tmp_path: Path) -> None:
    """conv.1 and norm.2 in the file are conv1 and norm2 of the network; the classifier's are left out."""
    torch.manual_seed(0)
    net = tv.DenseNet(growth_rate=4, block_config=(2, 2, 1, 1), num_init_features=8, bn_size=2, num_classes=3)
    state = net.state_dict()
    old = {re.sub(r"(denselayer\d+\.(norm|conv))([12])", r"\1.\3", key): value for key, value in state.items()}
    assert "features.denseblock1.denselayer2.norm.1.weight" in old and len(old) == len(state)
    trunk = CUTS["densenet"](tv.DenseNet(4, (2, 2, 1, 1), 8, 2, num_classes=3))
    backbones.load_into(trunk, old, where="file")
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, state[key]), key
    net.eval()
    with torch.no_grad():
        expected = nn.functional.relu(net.features(photos()))
        assert torch.equal(trunk.eval()(photos()), expected)
