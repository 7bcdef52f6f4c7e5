"""A frozen network that is not what its manifest says is refused in a sentence; so are settings that are its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from retrieval.artifacts.folder import Folder
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.frozen import from_file
from retrieval.models.network import with_scales
from retrieval.models.settings import ModelConfig
from tests.support.frozen import DIM, tiny, write
from tests.support.frozen_net import ALIGNED, MEAN, STD, frozen


@pytest.mark.parametrize(
    ("model", "manifest", "said"),
    [
        (lambda: tiny(64), {}, r"takes 64 x 64 pixels, and its manifest says size 32. Correct it"),
        (lambda: tiny(64), {"size": "any"}, "takes 64 x 64 pixels, and its manifest says size any"),
        (lambda: tiny(), {"dim": 9}, r"gives 'y' \(any, 8\), and its manifest says dim 9"),
        (lambda: tiny(open_output=True), {"dim": 9}, "gives 8 values a photo, and its manifest says dim 9"),
        (lambda: tiny(), {"layout": "NHWC"}, r"takes 'x' \(any, 3, 32, 32\), and its manifest says NHWC: .*at place 4"),
        (lambda: tiny(), {"output": "z"}, "has the outputs y, and its manifest says output 'z'. Name one"),
        (lambda: tiny(dtype=TensorProto.DOUBLE), {}, "takes float64, expected float32 or uint8"),
        (lambda: tiny(dtype=TensorProto.UINT8), {"mean": MEAN, "std": STD}, "whole values of 0 to 255, and its manif"),
        (lambda: broken("nan"), {}, "gives values that are no numbers"),
        (lambda: broken("same"), {}, "gives the same for three drawn images"),
        (lambda: broken("zero"), {}, "gives the same for three drawn images"),
        (lambda: broken("batch"), {}, "gives a photo another embedding alone than beside others"),
        (lambda: broken("two inputs"), {}, r"has 2 inputs \(x, mask\), expected one: the photo"),
        (lambda: broken("two outputs"), {}, "has the outputs y, flat, and its manifest names none. Name one"),
        (lambda: broken("custom"), {}, "needs operators that are neither ONNX's nor onnxruntime's"),
        (lambda: broken("external"), {}, "keeps 1 of its weights in another file"),
        (lambda: broken("fails"), {}, r"failed on input \(3, 3, 32, 32\)"),
    ],
)
def test_a_network_that_is_not_what_it_should_be_is_refused(
    tmp_path: Path, model: Callable[[], onnx.ModelProto], manifest: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        frozen(tmp_path, model(), **manifest)


def broken(how: str) -> onnx.ModelProto:
    model = tiny()
    nodes, graph = model.graph.node, model.graph
    last = nodes[-1]
    if how in ("nan", "same", "zero"):
        factor = {"nan": np.nan, "same": 0.0, "zero": 0.0}[how]
        graph.initializer.append(numpy_helper.from_array(np.full(DIM, factor, np.float32), "factor"))
        graph.initializer.append(numpy_helper.from_array(np.full(DIM, how == "same", np.float32), "offset"))
        last.output[0] = "raw"
        nodes.append(helper.make_node("Mul", ["raw", "factor"], ["scaled"]))
        nodes.append(helper.make_node("Add", ["scaled", "offset"], ["y"]))
    if how == "batch":  # BatchNorm left in training: the mean of the batch is taken off
        last.output[0] = "raw"
        nodes.append(helper.make_node("ReduceMean", ["raw"], ["centre"], axes=[0], keepdims=1))
        nodes.append(helper.make_node("Sub", ["raw", "centre"], ["apart"]))
        graph.initializer.append(numpy_helper.from_array(np.ones(DIM, np.float32), "one"))
        nodes.append(helper.make_node("Add", ["apart", "one"], ["y"]))
    if how == "two inputs":
        graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [DIM]))
        last.output[0] = "raw"
        nodes.append(helper.make_node("Mul", ["raw", "mask"], ["y"]))
    if how == "two outputs":
        graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 16]))
    if how == "custom":
        last.domain = "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))
    if how == "external":
        graph.initializer[0].ClearField("raw_data")
        graph.initializer[0].data_location = TensorProto.EXTERNAL
        graph.initializer[0].external_data.add(key="location", value="weights.bin")
    if how == "fails":
        last.output[0] = "raw"
        graph.initializer.append(numpy_helper.from_array(np.array([5, DIM], np.int64), "shape"))
        nodes.append(helper.make_node("Reshape", ["raw", "shape"], ["y"]))
    return model


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, tiny())
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(
        ValueError, match="is no ONNX file, or not all of one|does not open in onnxruntime|has 0 inputs"
    ):
        from_file(ModelConfig(backbone=f"onnx:{tmp_path}"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_size": 160}, "image_size is 160, and tiny has 32. Leave image_size out"),
        ({"embedding_dim": 64}, "embedding_dim is 64, and tiny has 8"),
        ({"keep_aspect": True}, "keep_aspect was asked for, and tiny takes squares of 32 pixels"),
    ],
)
def test_settings_that_are_the_networks_own_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    write(tmp_path, tiny())
    config = ModelConfig(backbone=f"onnx:{tmp_path}")
    assert from_file(dataclasses.replace(config, image_size=32, embedding_dim=8)).dim == 8
    with pytest.raises(ValueError, match=said):
        from_file(dataclasses.replace(config, **settings))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop": "face"}, "takes faces aligned by five points, and these photos are prepared with crop 'face'"),
        ({"margin": 0.15}, "no room around them, and these have margin 0.15. Ingest them with margin 0"),
        ({}, "finds faces by yunet, and was given no file of it"),
    ],
)
def test_photos_prepared_otherwise_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write(tmp_path, tiny(112), size=112, alignment="five-points")
    with pytest.raises(ValueError, match=said):
        from_file(ModelConfig(backbone=f"onnx:{tmp_path}"), preparation={**ALIGNED, **change})


def test_photos_in_their_own_shape_are_refused_where_squares_are_taken(tmp_path: Path) -> None:
    write(tmp_path, tiny())
    with pytest.raises(
        ValueError, match="tiny takes squares of 32 pixels, and these photos are prepared with crop 'fit'"
    ):
        from_file(ModelConfig(backbone=f"onnx:{tmp_path}"), preparation={"crop": "fit"})


def test_training_scales_and_bf16_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "net", tiny())
    config = ModelConfig(backbone=f"onnx:{tmp_path / 'net'}")
    with pytest.raises(ValueError, match="is taken as it is, nothing of it is trained"):
        bundle.build(config)
    with pytest.raises(ValueError, match="brings its own weights, and --weights is 'net.pth'"):
        bundle.start(config, weights="net.pth")
    net, out = bundle.start(config, weights="imagenet"), Folder.of(tmp_path / "bundle")
    bundle.save_start(net, out)
    with pytest.raises(ValueError, match="holds the frozen network onnx:tiny: no layers to train"):
        bundle.load_bundle(out)
    with pytest.raises(ValueError, match="holds the frozen network onnx:tiny: no layers to train"):
        bundle.build(ModelConfig(cut="layer1", backbone="resnet18"), weights=str(out))
    with pytest.raises(ValueError, match="scales is .*takes none"):
        with_scales(net, (1.0, 0.5))  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="precision bf16 was asked for, and tiny runs in the number format of its file"
    ):
        Embedder(out, device="cpu", precision="bf16")
