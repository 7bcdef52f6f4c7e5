"""Networks of the timm library as trunks: `timm:NAME`, (B, 3, H, W) -> (B, C, h, w), with timm's own weights.

timm (Ross Wightman, Apache-2.0) is an optional extra; without it a name that begins with `timm:` ends in advice. A name
may say which of its weights are meant ("timm:resnet50.a1_in1k"); without that it is timm's first choice.
"""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from typing import Any, cast

import torch
from torch import Tensor, nn

from retrieval.models.known_weights import DOWNLOADS, downloads_allowed
from retrieval.models.settings import TIMM

logger = logging.getLogger(__name__)

Norms = tuple[tuple[float, float, float], tuple[float, float, float]]


class TimmTrunk(nn.Sequential):
    """The last map of a network: (B, 3, H, W) -> (B, C, h, w).

    A transformer's patch tokens are that map; its class and register tokens take part in attention and are dropped.
    Position embeddings are resized to the grid of patches, and an image that is no whole number of patches is padded
    with zeros right and below, both by timm. It is one block: it cannot be cut, and is cached only as a whole.
    """

    net: nn.Module

    def __init__(self, net: nn.Module) -> None:
        super().__init__(OrderedDict(net=net))
        self._channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        self._prefix = int(getattr(net, "num_prefix_tokens", 0))

    def forward(self, input: Tensor) -> Tensor:
        found = cast(Any, self.net).forward_features(input)
        if found.ndim == 3:
            grid = cast(Any, self.net).patch_embed.dynamic_feat_size((input.shape[2], input.shape[3]))
            return found[:, self._prefix :].transpose(1, 2).unflatten(2, grid)
        return found.permute(0, 3, 1, 2) if self._channels_last else found


def build_timm_trunk(name: str, weights: str = "none") -> TimmTrunk:
    """A trunk in eval mode.

    Args:
        name: "timm:" and a name that timm knows.
        weights: "none" (random, torch's global seed), "imagenet" (those that timm names for it, whatever they were
            trained on, from its hub or the hub's cache), or a .safetensors or .pth file in timm's names.

    Raises: ValueError if timm is not installed or does not know the network, it has no map of its own, there are no
        such weights or they do not fit.
    """
    from retrieval.models import backbones

    net: Any = _create(name)
    if weights == "imagenet":
        weights = _from_hub(name, net)
        logger.info("%s: weights %s, licence %s", name, net.pretrained_cfg["hf_hub_id"], licence(name) or "not told")
    if weights != "none":
        backbones.load_into(net, _as_ours(net, backbones.read_state(weights)), where=weights, unused=_unused(net))
    trunk = TimmTrunk(net).eval()
    _must_be_a_map(name, trunk)
    return trunk


def normalisation(name: str) -> Norms:
    """Mean and standard deviation of the pixels (RGB, 0 to 1) that the network was trained on."""
    config = _config(name)
    return tuple(config.mean), tuple(config.std)  # type: ignore[return-value]


def licence(name: str) -> str:
    """What timm says of the licence of the network's weights; empty where it says nothing."""
    return str(_config(name).license or "")


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            "Backbones of timm need the package timm, which is not installed. Install it: pip install 'timm>=1.0.20', "
            "or this project with its extra: pip install '.[timm]'."
        ) from error
    return timm


def _config(name: str) -> Any:
    """timm's PretrainedCfg of it. Raises: ValueError for a name that it does not know."""
    timm, wanted = _timm(), name.removeprefix(TIMM)
    try:
        found = timm.models.get_pretrained_cfg(wanted) if timm.is_model(wanted) else None
    except RuntimeError:  # weights of no such name
        found = None
    if found is None:
        import difflib

        known = timm.list_models() + timm.list_pretrained()
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        raise ValueError(
            f"timm {timm.__version__} knows no network '{wanted}'"
            + (f". Did you mean {', '.join(TIMM + one for one in near)}?" if near else ".")
            + " Its list: python -c 'import timm; print(*timm.list_models(), sep=\"\\n\")'."
        )
    return found


def _create(name: str) -> nn.Module:
    _config(name)
    timm, wanted = _timm(), name.removeprefix(TIMM)
    for any_size in ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"strict_img_size": False}, {}):
        try:
            return timm.create_model(wanted, pretrained=False, num_classes=0, global_pool="", **any_size)
        except (TypeError, AssertionError) as error:  # a family that has no such setting, and may need none
            if not any_size or "unexpected keyword" not in str(error):
                raise ValueError(f"{name} cannot be made without its pooling: {error}. Choose another.") from error
    raise AssertionError


@torch.no_grad()
def _must_be_a_map(name: str, trunk: TimmTrunk) -> None:
    """Raises: ValueError if it takes photos of one size only, or ends in no map."""
    try:
        maps = trunk(torch.zeros(1, 3, 97, 65))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} takes no photos of any size ({error}). Choose another network.") from error
    if maps.ndim != 4 or maps.shape[2] < maps.shape[3]:
        raise ValueError(f"{name} ends in {tuple(maps.shape)}, expected a map (B, C, h, w). Choose another network.")


def _from_hub(name: str, net: nn.Module) -> str:
    """The path of timm's own weights, in the hub's cache."""
    config = cast(Any, net).pretrained_cfg
    place = config.get("hf_hub_id") or ""
    if not place:
        raise ValueError(f"timm names no weights for {name}. Give a file (--weights FILE), or --weights none.")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    file = config.get("hf_hub_filename") or "model.safetensors"
    cached = try_to_load_from_cache(place, file)
    if isinstance(cached, str):
        return cached
    if not downloads_allowed():
        raise ValueError(
            f"timm's weights of {name} are not here, and downloads are off (${DOWNLOADS}). Give a file "
            f"(--weights FILE: {file} of {place}), or --weights none."
        )
    try:
        return hf_hub_download(place, file)
    except Exception as error:  # the hub has a dozen kinds: not there, no login, not accepted, no network
        raise ValueError(
            f"Could not get timm's weights of {name} ({place}): {type(error).__name__}: {str(error)[:300]} "
            f"Where their owner asks for a login, accept the terms there and run `hf auth login`; or give a file "
            f"(--weights FILE), or --weights none."
        ) from error


def _as_ours(net: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes as the network has them: published files are often older than the code."""
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if convert is None or set(net.state_dict()) <= set(state):
        return state
    return dict(convert(state, net))


def _unused(net: nn.Module) -> tuple[str, ...]:
    """Beginnings of names of what comes after the map: classifiers, poolings and the norms before them."""
    told = cast(Any, net).pretrained_cfg.get("classifier") or ()
    return *((told,) if isinstance(told, str) else tuple(told)), "head", "fc_norm", "attn_pool", "norm_head"
