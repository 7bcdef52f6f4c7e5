"""A learned extractor of local features without its weights: a network that learned nothing."""

from __future__ import annotations

import functools

import safetensors.torch
import torch

from retrieval.geometry.extractors.aliked_network import AlikedN16


@functools.lru_cache(maxsize=2)
def random_aliked(seed: int = 0) -> bytes:
    """Weights of ALIKED-n16, drawn, as `extractors.aliked.packed` gives them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return safetensors.torch.save(AlikedN16().state_dict())
