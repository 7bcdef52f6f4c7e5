"""What goes through a network together, and what is made ready while it does."""

from __future__ import annotations

import torch

from retrieval.images.batches import images_at_once


def test_a_cpu_takes_as_many_images_at_once_as_its_cache_holds_and_a_gpu_as_many_as_asked() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert images_at_once(64, 224 * 224, cpu, rounded=False) == 4
    assert images_at_once(64, 160 * 160, cpu, rounded=True) == 15
    assert images_at_once(3, 160 * 160, cpu, rounded=True) == 3
    assert images_at_once(0, 4000 * 3000, cpu, rounded=False) == images_at_once(0, 4000 * 3000, gpu, rounded=False) == 1
    assert images_at_once(64, 224 * 224, gpu, rounded=False) == 64
