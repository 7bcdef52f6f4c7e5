"""What an ONNX file says of itself, and the same graph without inputs that are none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

ANY = 0
"""A dimension that the file leaves open."""
_KEEPS_VALUES = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
_QUANTISES = {"QuantizeLinear", "DynamicQuantizeLinear"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """An input or output: its name, element type in NumPy's words, and shape (ANY where the file leaves it open)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """A network as its file tells it."""

    content: bytes
    """The file, with only true inputs in the list of inputs."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    num_parameters: int
    looked_up: Mapping[str, int]
    """Inputs that pick rows of a table (a text's tokens), and how many rows it has, where that is known."""
    weights_are_packed: bool
    """Weights are stored in few bits, and the sums are of floats all the same: unpacked once, it runs faster."""


def read_graph(content: bytes) -> Graph:
    """The graph of a file that `runtime.check` passed.

    A file may list its weights as inputs: those that a caller could replace (all ONNX files did so once), and, where a
    tool replaced the weights and left the list as it was, some that no node reads. onnxruntime takes the first for
    values that may change, and asks for the second. Neither is an input here.
    """
    import onnx

    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    held = {tensor.name for tensor in graph.initializer} | {part.values.name for part in graph.sparse_initializer}
    read = _names_read(graph) | {output.name for output in graph.output}
    true = [value for value in graph.input if value.name in read and value.name not in held]
    if len(true) < len(graph.input):
        del graph.input[:]
        graph.input.extend(true)
        content = model.SerializeToString()
    operators = {node.op_type for node in graph.node}
    return Graph(
        content=content,
        inputs=tuple(_tensor(value) for value in graph.input),
        outputs=tuple(_tensor(value) for value in graph.output),
        num_parameters=sum(_num_values(tensor) for tensor in graph.initializer),
        looked_up=_looked_up(graph),
        weights_are_packed="DequantizeLinear" in operators and not operators & _QUANTISES,
    )


def output_of(outputs: tuple[Tensor, ...], wanted: str, dim: int, called: str) -> str:
    """The name of the output that is taken: the one that is `wanted`, or, where that is empty, the only one.

    Args: dim: values a photo, or a text, that it must have. called: names the network in a refusal.

    Raises: ValueError if there is no such output, or it has another length, where the file says it.
    """
    names = [value.name for value in outputs]
    if wanted not in ("", *names) or (not wanted and len(names) != 1):
        asked = f"its manifest says output '{wanted}'" if wanted else "its manifest names none"
        raise ValueError(f"{called} has the outputs {', '.join(names)}, and {asked}. Name one of them.")
    taken = outputs[names.index(wanted)] if wanted else outputs[0]
    if taken.shape and ANY not in taken.shape[1:]:
        length = math.prod(taken.shape[1:])
        if length != dim:
            raise ValueError(f"{called} gives {shown(taken)}, and its manifest says dim {dim}.")
    return taken.name


def shown(tensor: Tensor) -> str:
    """How messages show an input or output: its name and shape."""
    return f"'{tensor.name}' ({', '.join(str(side) if side else 'any' for side in tensor.shape)})"


def _looked_up(graph: onnx.GraphProto) -> dict[str, int]:
    """Inputs of whole numbers that pick rows of a table, and how many it has, where the graph says so plainly."""
    tables = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    same = {value.name: value.name for value in graph.input}  # a name -> the input whose values it holds
    found: dict[str, int] = {}
    for node in graph.node:  # in an order in which each comes after what it reads
        if node.op_type in _KEEPS_VALUES and node.input[0] in same:
            same[node.output[0]] = same[node.input[0]]
        if node.op_type == "Gather" and node.input[0] in tables and node.input[1] in same:
            found.setdefault(same[node.input[1]], tables[node.input[0]])
    return found


def _names_read(graph: onnx.GraphProto) -> set[str]:
    """Names that a node reads, also inside the branches of an If or the body of a Loop."""
    found = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                found |= _names_read(inner) | {output.name for output in inner.output}
    return found


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    import onnx

    kind = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except KeyError:
        dtype = "unknown"
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else ANY for d in kind.shape.dim)
    return Tensor(name=value.name, dtype=dtype, shape=shape)


def _num_values(tensor: onnx.TensorProto) -> int:
    num = 1
    for side in tensor.dims:
        num *= side
    return num
