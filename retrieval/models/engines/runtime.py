"""An ONNX file in onnxruntime: checked before it is opened, on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnxruntime

# Operators of the standard, and those that onnxruntime brings itself. Anything else needs a library of somebody's.
_KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_GPU = "CUDAExecutionProvider"
_ERRORS_ONLY = 3


def open_session(
    model: bytes | Path, *, threads: int | None = None, gpu: bool = False, entries: Mapping[str, str] | None = None
) -> onnxruntime.InferenceSession:
    """A session of one network.

    Args:
        model: the file, or its bytes: whole, no other file is read with it.
        threads: of a run on the CPU; None leaves onnxruntime's choice, a thread for each core. They sleep between runs.
        gpu: run on one, where onnxruntime finds it.
        entries: further settings of onnxruntime's session, by its names.

    Raises: ValueError for what is not an ONNX file, weights in a second file, operators that need a library of
        somebody's, and what onnxruntime refuses, with its words.
    """
    import onnxruntime

    content, name = (model, "The ONNX network") if isinstance(model, bytes) else (_read(model), str(model))
    check(content, name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads:
        options.intra_op_num_threads = threads
    # Threads that wait for work by spinning take the cores of the processes beside this one.
    for key, value in {"session.intra_op.allow_spinning": "0", **(entries or {})}.items():
        options.add_session_config_entry(key, value)
    wanted = [_GPU, "CPUExecutionProvider"] if gpu else ["CPUExecutionProvider"]
    providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # its errors share no class but this
        raise ValueError(f"{name} does not open in onnxruntime: {first_line(error).rstrip('.')}.") from error


def check(content: bytes, name: str = "The ONNX network") -> None:
    """Raises: ValueError as `open_session`, for what can be told without opening the network."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        model = onnx.ModelProto()
    if not model.graph.node:
        raise ValueError(
            f"{name} is no ONNX file, or not all of one ({len(content)} bytes). Copy it again, or export it again."
        )
    outside, custom = set[str](), set[str]()
    for graph in _graphs(model):
        sparse = [part for tensor in graph.sparse_initializer for part in (tensor.values, tensor.indices)]
        held = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
        held += [tensor for node in graph.node for attribute in node.attribute for tensor in attribute.tensors]
        for tensor in [*graph.initializer, *sparse, *held]:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                outside.add(tensor.name)
    own = {function.domain for function in model.functions}
    custom = {f"{node.domain}.{node.op_type}" for node in _nodes(model) if node.domain not in _KNOWN_DOMAINS | own}
    if outside:
        raise ValueError(
            f"{name} keeps {len(outside)} of its weights in another file ({_some(outside)}). Only a network in one "
            f'file is taken: onnx.save(onnx.load("NAME.onnx"), "whole.onnx") makes one.'
        )
    if custom:
        raise ValueError(
            f"{name} needs operators that are neither ONNX's nor onnxruntime's ({_some(custom)}). Export it again "
            f"without them."
        )


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph, and every graph inside a node of it or of a function (the branches of an If, the body of a Loop)."""
    waiting = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while waiting or nodes:
        if not nodes:
            graph = waiting.pop()
            yield graph
            nodes = list(graph.node)
        for node in nodes:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs
        nodes = []


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"There is no file {path}, expected an ONNX network. Check its name.")
    return path.read_bytes()


def _some(names: set[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > len(first) else "")


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return (str(error).strip() or repr(error)).splitlines()[0][:200]
