"""Small networks in ONNX, as somebody else would bring one: a file and a manifest of a few lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM = 8


def tiny(
    size: int | str = 32,
    *,
    dim: int = DIM,
    batch: int | str = "n",
    layout: str = "NCHW",
    dtype: int = TensorProto.FLOAT,
    seed: int = 0,
    open_output: bool = False,
) -> onnx.ModelProto:
    """conv 3x3, ReLU, mean over space, a matrix: (n, 3, size, size) -> (n, dim)."""
    rng = np.random.default_rng(seed)
    weights = {
        "conv": rng.normal(size=(16, 3, 3, 3)) / 255,
        "matrix": rng.normal(size=(16, dim)),
    }
    nodes, x = [], "x"
    if dtype != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [x], ["float"], to=TensorProto.FLOAT))
        x = "float"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [x], ["planes"], perm=[0, 3, 1, 2]))
        x = "planes"
    nodes += [
        helper.make_node("Conv", [x, "conv"], ["maps"], strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["y"]),
    ]
    sides = [size, size] if isinstance(size, int) else ["rows", "columns"]
    shape = [batch, 3, *sides] if layout == "NCHW" else [batch, *sides, 3]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None if open_output else [batch, dim])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write(folder: Path, model: onnx.ModelProto, **manifest: object) -> Path:
    """The file and its manifest, of a network that takes 32 x 32 unless `manifest` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tiny.onnx"
    file.write_bytes(model.SerializeToString())
    told = {"name": "tiny", "dim": DIM, "size": 32, "licence": "MIT", **manifest}
    (folder / "network.toml").write_text(
        "".join(f"{name} = {_toml(value)}\n" for name, value in told.items() if value is not None)
    )
    return file


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value)
