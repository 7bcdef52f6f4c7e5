"""What is exported gives the embeddings of the network itself, for each shape and number; what cannot be is said."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from retrieval.models.backbones import TransformerTrunk
from retrieval.models.engines import export as exporter
from retrieval.models.engines.export import LEAST_COSINE, _means, export, least_cosine
from retrieval.models.engines.exported import Exported, ExportedNet
from retrieval.models.network import EmbeddingNet, with_whitening
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import ModelSpec
from tests.support.networks import network, small_transformer, whitening

SQUARES = {"cut": "features.4", "image_size": 50, "pooling": "grid", "flip": True}


@pytest.fixture(scope="module")
def squares() -> tuple[EmbeddingNet, Exported]:
    net = network("mobilenet_v2", **SQUARES)
    return net, export(net, threads=1)


def test_squares_and_their_mirrors(squares: tuple[EmbeddingNet, Exported]) -> None:
    net, exported = squares
    assert exported.projection is None
    opened = ExportedNet(exported, net.spec.config, threads=1)
    assert least_cosine(net, opened) > 0.9999999
    pixels = np.random.default_rng(0).integers(0, 256, (7, 50, 50, 3), dtype=np.uint8)
    together = opened.embed(pixels)
    assert together.shape == (7, 16) and together.dtype == np.float32
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5
    assert np.abs(together - np.concatenate([opened.embed(pixels[i : i + 1]) for i in range(7)])).max() < 1e-6


def test_several_scales_of_photos_in_their_own_shape_whitened() -> None:
    settings = {"pooling": "gem", "head": "none", "keep_aspect": True, "scales": (1.0, 0.7071, 0.5), "image_size": 200}
    net = network("resnet18", cut="layer1", **settings)
    net = with_whitening(net, *whitening(8, net.dim), method="learned")
    exported = export(net, threads=1)
    assert exported.projection is not None and exported.projection.shape == (8, 64)
    assert exported.power == pytest.approx(3.0)
    assert least_cosine(net, ExportedNet(exported, net.spec.config)) > 0.9999999


def test_a_transformer() -> None:
    config = ModelConfig(backbone="vit_b_16", image_size=64, embedding_dim=8, pooling="rmac")
    net = EmbeddingNet(ModelSpec(config=config), TransformerTrunk(small_transformer()))
    assert least_cosine(net, ExportedNet(export(net, threads=1), config)) > 0.999999


def test_nothing_of_this_machine_is_in_the_file(squares: tuple[EmbeddingNet, Exported]) -> None:
    graph = squares[1].graph
    onnx.checker.check_model(onnx.load_from_string(graph))
    assert b"/retrieval/" not in graph and b"site-packages" not in graph


@pytest.mark.parametrize("pooling", ["grid", "rmac"])
def test_pooling_whose_regions_follow_the_shape_is_refused(pooling: str) -> None:
    with pytest.raises(ValueError, match=f"PyTorch does not export it: {pooling} pooling of photos in their own shape"):
        export(network("mobilenet_v2", **(SQUARES | {"pooling": pooling, "keep_aspect": True})))


@pytest.mark.parametrize(("weight", "cosine"), [(0.3, r"-?0\.\d+"), (float("nan"), "nan")])
def test_other_embeddings_are_refused(
    squares: tuple[EmbeddingNet, Exported], monkeypatch: pytest.MonkeyPatch, weight: float, cosine: str
) -> None:
    """A converter that gets one layer wrong gives a file that runs. Weights that are no numbers are refused too."""
    net, exported = network("mobilenet_v2", **SQUARES), squares[1]
    with torch.no_grad():
        next(net.head.parameters())[0].fill_(weight)
    monkeypatch.setattr(exporter, "_export_graph", lambda net: exported.graph)
    with pytest.raises(ValueError, match=rf"other embeddings than PyTorch: cosine {cosine}, {LEAST_COSINE} needed"):
        export(net, threads=1)


def test_a_graph_that_does_not_run_is_refused(
    squares: tuple[EmbeddingNet, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_export_graph", lambda net: squares[1].graph)
    with pytest.raises(ValueError, match="onnxruntime does not run it: .*INVALID_ARGUMENT"):
        export(network("mobilenet_v2", **(SQUARES | {"image_size": 64})), threads=1)


@pytest.mark.parametrize(("side", "cells"), [(10, 3), (7, 3), (9, 3), (3, 3), (2, 3), (1, 2)])
def test_means_over_cells_are_those_of_the_pooling(side: int, cells: int) -> None:
    x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.adaptive_avg_pool2d(x, cells)
    assert torch.allclose(_means(side, cells) @ x @ _means(side, cells).T, expected, atol=1e-6)
