"""A file is asked for its true inputs: weights in their list, read or forgotten, are none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from retrieval.models.engines.graph import ANY, read_graph
from retrieval.models.engines.runtime import open_session
from tests.support.frozen import tiny
from tests.support.words import WORDS, text_tower


def test_a_graph_says_what_it_takes_and_gives() -> None:
    told = read_graph(tiny().SerializeToString())
    assert [(value.name, value.dtype, value.shape) for value in told.inputs] == [("x", "float32", (ANY, 3, 32, 32))]
    assert [(value.name, value.shape) for value in told.outputs] == [("y", (ANY, 8))]
    assert told.num_parameters == 16 * 3 * 9 + 16 * 8
    assert not told.weights_are_packed
    told = read_graph(
        tiny("any", batch=1, layout="NHWC", dtype=TensorProto.UINT8, open_output=True).SerializeToString()
    )
    assert [(value.dtype, value.shape) for value in told.inputs] == [("uint8", (1, ANY, ANY, 3))]
    assert told.outputs[0].shape == ()


def test_a_file_without_such_inputs_stays_as_it_is() -> None:
    content = tiny().SerializeToString()
    assert read_graph(content).content is content


def test_weights_in_the_list_of_inputs_are_taken_off_it() -> None:
    model = tiny()
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    expected = np.asarray(open_session(model.SerializeToString()).run(None, {"x": x})[0])
    # Listed with their values, as old files do; and a name that no node reads, as a tool left it.
    model.graph.input.append(helper.make_tensor_value_info("conv", TensorProto.FLOAT, [16, 3, 3, 3]))
    model.graph.input.append(helper.make_tensor_value_info("forgotten", TensorProto.FLOAT, [4]))
    with pytest.raises(ValueError, match="forgotten"):
        open_session(model.SerializeToString()).run(None, {"x": x})
    told = read_graph(model.SerializeToString())
    assert [value.name for value in told.inputs] == ["x"]
    np.testing.assert_array_equal(np.asarray(open_session(told.content).run(None, {"x": x})[0]), expected)


@pytest.mark.parametrize("mask", [False, True])
def test_the_table_that_tokens_pick_from_is_told(mask: bool) -> None:
    told = read_graph(text_tower(mask=mask).SerializeToString())
    assert told.looked_up == {"input_ids": len(WORDS)}, "through what casts them, and the mask picks none"
    assert read_graph(tiny().SerializeToString()).looked_up == {}


def test_what_only_a_branch_reads_is_an_input() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])],
        "inner",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True))),
            helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner),
        ],
        "outer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert [value.name for value in read_graph(model.SerializeToString()).inputs] == ["x"]


@pytest.mark.parametrize("whole", [False, True])
def test_packed_weights_are_told_from_sums_of_whole_numbers(whole: bool) -> None:
    model = tiny()
    scale = numpy_helper.from_array(np.array(0.01, np.float32), "scale")
    packed = numpy_helper.from_array(np.ones((16, 8), np.int8), "packed")
    model.graph.initializer.extend([scale, packed])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["packed", "scale"], ["unpacked"]))
    model.graph.node[-1].input[1] = "unpacked"
    if whole:
        model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["scale", "scale"], ["rounded"]))
    assert read_graph(model.SerializeToString()).weights_are_packed is not whole


def test_an_element_type_of_tomorrow_is_unknown_and_no_fault() -> None:
    model = tiny()
    model.graph.input[0].type.tensor_type.elem_type = 99
    assert read_graph(model.SerializeToString()).inputs[0].dtype == "unknown"
    assert isinstance(model, onnx.ModelProto)
