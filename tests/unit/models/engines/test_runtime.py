"""A network in one file runs; one that would read other files or run other people's code is refused before it opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from retrieval.models.engines.runtime import check, open_session

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)


def network(
    *nodes: onnx.NodeProto, domain: str = "", functions: list[onnx.FunctionProto] | None = None
) -> onnx.ModelProto:
    """y = x W unless nodes are given."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, functions=functions or [], ir_version=9)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_a_network_runs_from_a_file_and_from_bytes(tmp_path: Path, threads: int | None) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(network(), path)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for model in (path, path.read_bytes()):
        session = open_session(model, threads=threads)
        assert session.get_inputs()[0].shape == ["n", 3]
        np.testing.assert_allclose(np.asarray(session.run(None, {"x": x})[0]), x @ WEIGHT, rtol=1e-6)


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a network at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_network_is_said(content: bytes) -> None:
    with pytest.raises(ValueError, match=f"is no ONNX file, or not all of one .{len(content)} bytes"):
        open_session(content)


def test_a_file_cut_short_is_refused_wherever_it_ends() -> None:
    whole = network().SerializeToString()
    for end in range(1, len(whole) - 1, 5):
        with pytest.raises(ValueError, match="is no ONNX file|does not open in onnxruntime"):
            open_session(whole[:end])


def test_a_file_that_is_not_there_is_said_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file .*gone\.onnx"):
        open_session(tmp_path / "gone.onnx")


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    with pytest.raises(ValueError, match=r"split\.onnx keeps 1 of its weights in another file \(w\)"):
        open_session(path)


def test_weights_in_another_file_are_found_in_a_branch_as_well() -> None:
    """The branch of an If is a graph in an attribute of a node: a file named there would be read all the same."""
    secret = numpy_helper.from_array(WEIGHT, "secret")
    secret.ClearField("raw_data")
    secret.data_location = TensorProto.EXTERNAL
    secret.external_data.add(key="location", value="../../secret.bin")
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    held = helper.make_graph([helper.make_node("Constant", [], ["out"], value=secret)], "held", [], [output])
    named = helper.make_graph([helper.make_node("Identity", ["secret"], ["out"])], "named", [], [output], [secret])
    flag = helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True)))
    for branch in (held, named):
        model = network(flag, helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch))
        with pytest.raises(ValueError, match=r"weights in another file \(secret\)"):
            check(model.SerializeToString())


def test_custom_operators_are_refused_by_name() -> None:
    model = network(helper.make_node("Magic", ["x"], ["y"], domain="somebody"), domain="somebody")
    with pytest.raises(ValueError, match=r"needs operators that are neither .* \(somebody\.Magic\)"):
        open_session(model.SerializeToString())


def test_a_function_that_the_file_defines_is_no_custom_operator() -> None:
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    twice = helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model = network(helper.make_node("Twice", ["x"], ["y"], domain="own"), domain="own", functions=[twice])
    x = np.ones((1, 3), np.float32)
    assert (np.asarray(open_session(model.SerializeToString()).run(None, {"x": x})[0]) == 2).all()
    twice.node[0].op_type, twice.node[0].domain = "Magic", "somebody"
    model = network(helper.make_node("Twice", ["x"], ["y"], domain="own"), domain="own", functions=[twice])
    with pytest.raises(ValueError, match=r"somebody\.Magic"):
        check(model.SerializeToString())


def test_what_onnxruntime_refuses_is_said_in_its_words() -> None:
    model = network(helper.make_node("MatMul", ["x", "nowhere"], ["y"]))
    with pytest.raises(ValueError, match=r"The ONNX network does not open in onnxruntime: .*nowhere"):
        open_session(model.SerializeToString())
