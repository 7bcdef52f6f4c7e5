"""Local features of no photo; a learned extractor without its weights, which is a network that learned nothing."""

from __future__ import annotations

import functools

import numpy as np
import safetensors.torch
import torch

from retrieval.geometry.extractors.aliked_network import AlikedN16
from retrieval.geometry.features import Features


@functools.lru_cache(maxsize=2)
def random_aliked(seed: int = 0) -> bytes:
    """Weights of ALIKED-n16, drawn, as `extractors.aliked.packed` gives them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return safetensors.torch.save(AlikedN16().state_dict())


def blank_features(num: int) -> Features:
    """So many, all at one corner."""
    return Features(
        keypoints=np.zeros((num, 4), np.float32),
        descriptors=np.zeros((num, 128), np.uint8),
        colours=np.zeros((num, 3), np.uint8),
        width=9,
        height=9,
    )


def described(descriptors: np.ndarray) -> Features:
    """Features that lie anywhere."""
    rng = np.random.default_rng(5)
    keypoints = rng.uniform(0, 300, (len(descriptors), 4)).astype(np.float32)
    colours = np.zeros((len(descriptors), 3), np.uint8)
    return Features(keypoints=keypoints, descriptors=descriptors, colours=colours, width=300, height=300)
