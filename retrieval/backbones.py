"""Trunks: torchvision networks cut before their pooling, (B, 3, H, W) -> (B, C, h, w), and the weights for them.

A trunk keeps torchvision's parameter names, so that any published torchvision checkpoint loads into it by name.
To add a backbone, add its line to `BACKBONES` (and, for a new family, its cut).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torchvision.models as tv
from torch import Tensor, nn


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


@dataclass(frozen=True, slots=True)
class Backbone:
    """How to build a trunk: torchvision's builder and where to cut."""

    build: Callable[..., nn.Module]
    cut: Callable[[nn.Module], nn.Sequential]


BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": Backbone(tv.mobilenet_v2, _cut_features),
    "resnet18": Backbone(tv.resnet18, _cut_resnet),
    "resnet34": Backbone(tv.resnet34, _cut_resnet),
    "resnet50": Backbone(tv.resnet50, _cut_resnet),
    "resnet101": Backbone(tv.resnet101, _cut_resnet),
    "resnet152": Backbone(tv.resnet152, _cut_resnet),
    "vgg16": Backbone(tv.vgg16, _cut_vgg),
}


def is_convolutional(name: str) -> bool:
    """Whether the trunk's BatchNorms can be folded into its convolutions."""
    return not name.startswith("vit")


def check_backbone(name: str) -> Backbone:
    """The table's entry. Raises: ValueError for an unknown name, listing the known."""
    if name not in BACKBONES:
        raise ValueError(f"Unknown backbone '{name}'. Choose one of: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def build_trunk(name: str, weights: str = "none") -> nn.Sequential:
    """A trunk in eval mode.

    Args:
        name: a key of `BACKBONES`.
        weights: "none" (random, torch's global seed), "imagenet" (torchvision's default enum; downloads once), or a
            path to a .pth (state dict, read with weights_only) or .safetensors file in torchvision's names.

    Raises: ValueError for an unknown name or weights that do not fit, naming the keys.
    """
    entry = check_backbone(name)
    if weights == "imagenet":
        try:
            return entry.cut(entry.build(weights="DEFAULT")).eval()
        except OSError as error:
            raise ValueError(
                f"Could not download torchvision's ImageNet weights for {name} ({error}). "
                f"Give a local file instead (--weights FILE), or --weights none to start from random weights."
            ) from error
    trunk = entry.cut(entry.build(weights=None))
    if weights != "none":
        load_into(trunk, read_state(weights), where=weights)
    return trunk.eval()


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


def load_into(trunk: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Load a torchvision state dict into a trunk. The classifier's entries are left out; all else must fit exactly.

    Half-precision files are widened to float32.
    """
    own = trunk.state_dict()
    # A file without BatchNorm's batch counter is complete: nothing reads it with frozen statistics.
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(needed - set(state))
    extra = sorted(key for key in set(state) - set(own) if not key.startswith(("classifier.", "fc.")))
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


def cut_after(trunk: nn.Sequential, layer: str) -> nn.Sequential:
    """The trunk up to and including `layer`, by its torchvision name ("features.13", "layer3", "layer4.1").

    Raises: ValueError if the trunk has no such place to cut, naming the places.
    """
    head, _, rest = layer.partition(".")
    names = [name for name, _ in trunk.named_children()]
    if head not in names:
        raise ValueError(f"Cannot cut after '{layer}': no layer '{head}'. Cut after one of: {', '.join(names)}.")
    kept = OrderedDict(list(trunk.named_children())[: names.index(head) + 1])
    if rest:
        inner = kept[head]
        if not isinstance(inner, nn.Sequential):
            raise ValueError(f"Cannot cut inside '{head}', it is one block. Cut after it, or before.")
        kept[head] = cut_after(inner, rest)
    return nn.Sequential(kept)


def units(trunk: nn.Module) -> Iterator[nn.Module]:
    """The trunk as a flat chain: nested nn.Sequential opened, residual blocks whole. In turn they are the trunk."""
    for child in trunk.children():
        if type(child).forward is nn.Sequential.forward:
            yield from units(child)
        else:
            yield child


def layers_in_forward_order(trunk: nn.Module) -> list[nn.Module]:
    """Leaf modules that own parameters or are activations or pools, in the order a forward pass calls them.

    A module called several times (ResNet's shared ReLU) counts at each call: it is a layer each time.
    """
    called: list[nn.Module] = []
    leaves = [m for m in trunk.modules() if not list(m.children()) and not isinstance(m, (nn.Dropout, nn.Identity))]
    hooks = [leaf.register_forward_pre_hook(lambda module, _: called.append(module)) for leaf in leaves]
    was_training = trunk.training
    device = next(trunk.parameters()).device
    try:
        with torch.no_grad():
            trunk.eval()(torch.zeros(1, 3, 64, 64, device=device))
    finally:
        trunk.train(was_training)
        for hook in hooks:
            hook.remove()
    return called


def freeze_all_but_last(trunk: nn.Module, num_layers: int | None) -> list[str]:
    """Leave only the last `num_layers` layers (see `layers_in_forward_order`) trainable; None leaves all.

    Returns: names of the trunk's parameters that train.
    """
    if num_layers is not None and num_layers < 0:
        raise ValueError(f"The number of unfrozen layers must be 0 or more, got {num_layers}.")
    trunk.requires_grad_(num_layers is None)
    if num_layers:
        for layer in layers_in_forward_order(trunk)[-num_layers:]:
            layer.requires_grad_(True)
    return [name for name, parameter in trunk.named_parameters() if parameter.requires_grad]


def split_frozen(trunk: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """(frozen prefix, tail): the longest chain of units that owns no trainable parameter, and the rest.

    tail(prefix(x)) == trunk(x). The modules are shared with the trunk, not copied.
    """
    chain = list(units(trunk))
    first = next((i for i, unit in enumerate(chain) if any(p.requires_grad for p in unit.parameters())), len(chain))
    return nn.Sequential(*chain[:first]), nn.Sequential(*chain[first:])
