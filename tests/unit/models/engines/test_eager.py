"""A network in PyTorch: on the device that is there, the network given left as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.models import bundle
from retrieval.models.engines.eager import EagerNet, pick_device
from retrieval.models.pooling import l2n
from tests.support.networks import network


@pytest.mark.parametrize("flip", [False, True])
def test_it_is_the_network(flip: bool) -> None:
    net = network("mobilenet_v2", cut="features.4", flip=flip)
    before = bundle.digest_of(net)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    opened = EagerNet(net, torch.device("cpu"), "fp32")
    got = opened.embed(pixels)
    x = net.normalise(torch.from_numpy(pixels))
    with torch.no_grad():
        expected = l2n(net(x) + net(x.flip(3))) if flip else net(x)
    assert got.dtype == np.float32 and np.abs(got - expected.numpy()).max() < 1e-5
    assert opened.format == "float32" and bundle.digest_of(net) == before


def test_a_gpu_that_is_not_there_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # so that a machine with one says it too
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="finds no GPU here. Use --device auto or cpu"):
        pick_device("cuda")
