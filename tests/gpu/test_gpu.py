"""The same code on a GPU gives the CPU's numbers, to the tolerance of float32 without TF32. Needs only retrieval/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.images.pixels import encode_jpeg
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.eager import pick_device
from retrieval.models.settings import ModelConfig
from retrieval.training.label_recipe import LabelRecipe
from retrieval.training.settings import TrainConfig
from retrieval.training.trainer import Trainer
from tests.support.patterns import local_patterns, pattern

CONFIG = ModelConfig(backbone="resnet18", image_size=64, embedding_dim=16)


@pytest.fixture(autouse=True)
def _plain_float32() -> Iterator[None]:
    """TF32 rounds products to ten bits, which is its own tolerance and not ours."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("pooling", ["avg", "gem", "grid"])
def test_forward_equals_the_cpu_s(backbone: str, pooling: str) -> None:
    config = ModelConfig(backbone=backbone, pooling=pooling, image_size=64, embedding_dim=16)  # type: ignore[arg-type]
    net, x = bundle.build(config), torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(x)
        got = net.cuda()(x.cuda()).cpu()
    assert (got - expected).abs().max() < 1e-4


@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 1 - 1e-5), ("bf16", 0.99)])
def test_embedder_equals_the_cpu_s(precision: str, cosine: float) -> None:
    net = bundle.build(CONFIG)
    jpegs = [encode_jpeg(pattern(identity, shot)) for identity in range(10) for shot in range(3)]
    expected = Embedder(net, device="cpu", precision="fp32").embed_jpegs(jpegs)
    got = Embedder(net, device="cuda", precision=precision, batch_size=8).embed_jpegs(jpegs)  # type: ignore[arg-type]
    assert got.dtype == np.float32
    assert (got * expected).sum(axis=1).min() >= cosine


def test_auto_is_the_gpu() -> None:
    assert pick_device("auto").type == "cuda"


def test_an_epoch_of_training_equals_the_cpu_s(tmp_path: Path) -> None:
    local = local_patterns(tmp_path)
    config = TrainConfig(epochs=1, groups_per_batch=3, companions=2, images_per_identity=2, views=1, precision="fp32")
    mined, runs = None, []
    for device in ("cpu", "cuda"):
        recipe = LabelRecipe(local, config, scratch=tmp_path / device)
        run = Trainer(bundle.build(CONFIG), recipe, device=torch.device(device))
        mined = mined or recipe.mine(1, run)  # the same images meet, whatever float32's last bit says
        report = run.train_on(mined)
        runs.append((torch.cat([value.flatten().float().cpu() for value in run.net.state_dict().values()]), report))
    (ours, on_cpu), (theirs, on_gpu) = runs
    assert on_gpu["train/loss"] == pytest.approx(on_cpu["train/loss"], rel=1e-2)
    assert (ours - theirs).abs().max() < 2e-3
