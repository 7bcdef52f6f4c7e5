"""Trunks: torchvision networks cut before their pooling, (B, 3, H, W) -> (B, C, h, w), and the weights for them.

A trunk keeps torchvision's parameter names, so that any published torchvision checkpoint loads into it by name.
To add a backbone of a known family, add its line to `settings.BACKBONES`; a new family needs its cut here as well.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
import torchvision.models as tv
from torch import Tensor, nn

from retrieval.models.known_weights import DOWNLOADS, downloads_allowed, sha256_of, weights_folder
from retrieval.models.settings import BACKBONES, TIMM, check_backbone


def _cut_resnet(net: nn.Module) -> nn.Sequential:
    """Everything before avgpool; ends in ReLU."""
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(OrderedDict((name, net.get_submodule(name)) for name in names))


def _cut_features(net: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(features=net.get_submodule("features")))


def _cut_vgg(net: nn.Module) -> nn.Sequential:
    """`features` without its last max-pool; ends in ReLU."""
    assert isinstance(net.features, nn.Sequential)
    return nn.Sequential(OrderedDict(features=net.features[:-1]))


def _cut_densenet(net: nn.Module) -> nn.Sequential:
    """`features`, which end in BatchNorm, and the ReLU that torchvision calls after them."""
    return nn.Sequential(OrderedDict(features=net.get_submodule("features"), relu=nn.ReLU()))


class TransformerTrunk(nn.Sequential):
    """A vision transformer's patch tokens as a map: (B, 3, H, W) -> (B, C, H // P, W // P), P the patch's side.

    The class token takes part in attention and is dropped from the output. Position embeddings are resized (bicubic)
    to the grid of patches, so that any input of at least one patch is taken; torchvision's network takes one size.
    It is one block: it cannot be cut, and is frozen only as a whole (Dosovitskiy et al., arXiv:2010.11929).
    """

    conv_proj: nn.Conv2d
    encoder: nn.Module

    def __init__(self, net: tv.VisionTransformer) -> None:
        super().__init__(OrderedDict(conv_proj=net.conv_proj, encoder=net.encoder))
        self.class_token = net.class_token

    def forward(self, input: Tensor) -> Tensor:
        maps = self.conv_proj(input)
        grid = (maps.shape[2], maps.shape[3])
        tokens = torch.cat([self.class_token.expand(maps.shape[0], -1, -1), maps.flatten(2).transpose(1, 2)], dim=1)
        tokens = self.encoder.get_submodule("dropout")(tokens + self._positions(grid))
        tokens = self.encoder.get_submodule("ln")(self.encoder.get_submodule("layers")(tokens))
        return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """(1, 1 + h*w, C) embeddings of the class token and of a grid of h x w patches."""
        table = self.encoder.get_parameter("pos_embedding")
        side = round((table.shape[1] - 1) ** 0.5)
        if grid == (side, side):
            return table
        square = table[:, 1:].transpose(1, 2).unflatten(2, (side, side)).float()
        resized = nn.functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def _cut_transformer(net: nn.Module) -> nn.Sequential:
    assert isinstance(net, tv.VisionTransformer)
    return TransformerTrunk(net)


CUTS: dict[str, Callable[[nn.Module], nn.Sequential]] = {
    "features": _cut_features,
    "resnet": _cut_resnet,
    "vgg": _cut_vgg,
    "densenet": _cut_densenet,
    "transformer": _cut_transformer,
}

_CLASSIFIERS = ("classifier.", "fc.", "heads.")

# The files of DenseNet that torchvision publishes are older than its names: norm.1 for norm1, conv.2 for conv2.
_OLD_DENSENET = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")


def is_convolutional(name: str) -> bool:
    """Whether the trunk's BatchNorms can be folded into its convolutions."""
    return not name.startswith(("vit", TIMM))


def build_trunk(name: str, weights: str = "none") -> nn.Sequential:
    """A trunk in eval mode.

    Args:
        name: a key of `settings.BACKBONES`, or one of timm's, see `families.timm_trunks`.
        weights: "none" (random, torch's global seed), "imagenet" (torchvision's default enum: its file in
            $RETRIEVAL_WEIGHTS, else in torchvision's cache, else downloaded once), or a path to a .pth (state dict,
            read with weights_only) or .safetensors file in torchvision's names.

    Raises: ValueError for an unknown name or weights that do not fit, naming the keys.
    """
    if check_backbone(name).startswith(TIMM):
        from retrieval.models.families.timm_trunks import build_timm_trunk

        return build_timm_trunk(name, weights)
    cut, build = CUTS[BACKBONES[name]], getattr(tv, name)
    if weights == "imagenet":
        weights = str(_published_file(name) or weights)
    if weights == "imagenet":
        try:
            return cut(build(weights="DEFAULT")).eval()
        except OSError as error:
            raise ValueError(
                f"Could not download torchvision's ImageNet weights for {name} ({error}). "
                f"Give a local file instead (--weights FILE), or --weights none to start from random weights."
            ) from error
    trunk = cut(build(weights=None))
    if weights != "none":
        load_into(trunk, read_state(weights), where=weights)
    return trunk.eval()


def _published_file(name: str) -> Path | None:
    """torchvision's file of ImageNet weights in the folder of known weights; None leaves it to torchvision to get it.

    Raises: ValueError if the file is damaged, by the sha256 whose first digits stand in its name; or if torchvision
        would have to download it and downloads are off.
    """
    url = str(tv.get_model_weights(name).DEFAULT.url)  # type: ignore[attr-defined]
    file = url.rpartition("/")[2]
    place, cached = weights_folder() / file, Path(torch.hub.get_dir()) / "checkpoints" / file
    if place.is_file():
        if not sha256_of(place).startswith(Path(file).stem.rpartition("-")[2]):
            raise ValueError(f"{place} is not torchvision's file: its sha256 is another. Remove it, and copy it again.")
        return place
    if not cached.is_file() and not downloads_allowed():
        raise ValueError(
            f"torchvision's ImageNet weights for {name} are not here, and downloads are off (${DOWNLOADS}). Copy "
            f"{file} (from {url}) into {weights_folder()}, give another file (--weights FILE), or --weights none."
        )
    return None


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a state dict that torch saved; never unpickles code.

    Raises: ValueError if the file is missing, is not a weights file, or holds anything but tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"No weights file at '{path}'. Give a .pth or .safetensors file, 'imagenet' or 'none'.")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds; all mean the same to the user
        raise ValueError(
            f"'{path}' is not a readable weights file ({type(error).__name__}: {str(error)[:200]}). "
            f"Expected a state dict saved by torch.save, or safetensors."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"'{path}' does not hold a state dict (name -> tensor). Save one with torch.save(net.state_dict())."
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_into(
    trunk: nn.Module, state: dict[str, Tensor], *, where: str, unused: tuple[str, ...] = _CLASSIFIERS
) -> None:
    """Load a torchvision state dict into a trunk. The classifier's entries are left out; all else must fit exactly.

    Half-precision files are widened to float32; DenseNet's published names are understood.

    Args: unused: beginnings of names that the trunk has no place for.
    """
    state = {_OLD_DENSENET.sub(r"\1", key): value for key, value in state.items()}
    own = trunk.state_dict()
    # A file without BatchNorm's batch counter is complete: nothing reads it with frozen statistics.
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(needed - set(state))
    extra = sorted(key for key in set(state) - set(own) if not key.startswith(unused))
    wrong = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in sorted(needed & set(state))
        if state[key].shape != own[key].shape
    ]
    if missing or extra or wrong:
        raise ValueError(
            f"The weights in '{where}' do not fit this backbone: missing {missing[:4]} ({len(missing)}), "
            f"unexpected {extra[:4]} ({len(extra)}), other shape {wrong[:4]} ({len(wrong)}). Check --backbone."
        )
    trunk.load_state_dict({key: state[key].to(own[key].dtype) if key in state else own[key] for key in own})
