"""Trunks as lists of layers: cut after one, freeze all but the last, find the blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import nn
from torchvision.ops import StochasticDepth


def cut_after(trunk: nn.Sequential, layer: str) -> nn.Sequential:
    """The trunk up to and including `layer`, by its torchvision name ("features.13", "layer3", "layer4.1").

    Raises: ValueError if the trunk has no such place to cut, naming the places.
    """
    if not _is_chain(trunk):
        raise ValueError(f"Cannot cut after '{layer}': this network is one block here. Leave the cut empty.")
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


def _is_chain(module: nn.Module) -> bool:
    """Whether calling it is calling its children in turn."""
    return type(module).forward is nn.Sequential.forward


def units(trunk: nn.Module) -> Iterator[nn.Module]:
    """The trunk as a flat chain: nested nn.Sequential opened, other blocks whole. In turn they are the trunk."""
    if not _is_chain(trunk):
        yield trunk
        return
    for child in trunk.children():
        yield from units(child)


def blocks(trunk: nn.Module) -> Iterator[nn.Sequential]:
    """The trunk as a flat chain of blocks that each begin with a convolution, so that no BatchNorm is cut from its own.

    In turn they are the trunk; modules are shared with it.
    """
    chain = list(units(trunk))
    starts = [at for at, unit in enumerate(chain) if any(isinstance(part, nn.Conv2d) for part in unit.modules())]
    for start, end in zip([0, *starts[1:]], [*starts[1:], len(chain)], strict=True):
        yield nn.Sequential(*chain[start:end])


def layers_in_forward_order(trunk: nn.Module) -> list[nn.Module]:
    """Leaf modules that own parameters or are activations or pools, in the order a forward pass calls them.

    A module called several times (ResNet's shared ReLU) counts at each call: it is a layer each time. Attention
    with its projections is one layer.
    """
    called: list[nn.Module] = []
    skipped = (nn.Dropout, nn.Identity, StochasticDepth)
    leaves = [
        module
        for module in trunk.modules()
        if isinstance(module, nn.MultiheadAttention) or not (list(module.children()) or isinstance(module, skipped))
    ]
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
