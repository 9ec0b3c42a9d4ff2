"""What TensorRT refuses or limits is found by name, and the models' own graphs hold nothing of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.formats import onnx as format_onnx
from leakdet_tf.formats.child import Asked
from leakdet_tf.formats.onnx_lint import SINCE, TYPES, Finding, findings, summary, unsupported
from leakdet_tf.models import mobilenet_classifier, resnet_classifier, unet, yolov8

F, I64, U8, U16 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16


@dataclass(frozen=True)
class Value:
    """A graph's input or output."""

    name: str
    kind: int = F
    shape: tuple[Any, ...] = ("batch", 4, 8, 8)


def graph(
    nodes: list[Any],
    given: tuple[Value, ...] = (Value("x"),),
    made: tuple[Value, ...] = (Value("y", shape=()),),
    constants: dict[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    inputs = [helper.make_tensor_value_info(one.name, one.kind, one.shape) for one in given]
    outputs = [helper.make_tensor_value_info(one.name, one.kind, one.shape or None) for one in made]
    built = helper.make_graph(nodes, "graph", inputs, outputs, stored)
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(built, opset_imports=sets, ir_version=8)


def node(operator: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> Any:
    name = attributes.pop("name", f"layer/{operator}")
    return helper.make_node(operator, inputs.split(","), outputs.split(","), name=name, **attributes)


def refused(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(one.node, one.operator) for one in unsupported(proto)]


SMALL: dict[str, tuple[Callable[[], Any], str]] = {
    "unet": (lambda: unet((32, 32, 3), 3, seed=0, decoder_filters=(8,) * 5, encoder_options={"width": 8}), "segment"),
    "resnet": (
        lambda: resnet_classifier((32, 32, 3), 3, "resnet18_v1", seed=0, encoder_options={"width": 8}),
        "classify",
    ),
    "mobilenet": (lambda: mobilenet_classifier((32, 32, 3), 3, seed=0, encoder_options={"alpha": 0.35}), "classify"),
    "yolov8": (
        lambda: yolov8((32, 32, 3), 3, implementation="native", seed=0, channels=(8, 8, 16, 16), depths=(1, 1, 1, 1)),
        "detect",
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_models_own_graphs_hold_nothing_that_tensorrt_refuses(name: str, tmp_path: Path) -> None:
    make, task = SMALL[name]
    activation = "linear" if task == "detect" else "softmax"
    contract = Contract(task, {"image": ImageSpec(32, 32)}, classes_of(["a", "b", "c"]), activation)
    make().save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own
        format_onnx._convert_here(tmp_path / "model.keras", contract, tmp_path / "x.onnx", Asked("onnx_float32"))
    proto = onnx.load(tmp_path / "x.onnx")
    assert len(proto.graph.node) > 30
    assert findings(proto) == []
    assert {one.op_type for one in proto.graph.node} <= set(TYPES)


def test_an_operator_that_is_not_in_the_table_is_named() -> None:
    proto = graph([node("Relu", "x", "m"), node("BitShift", "m,m", direction="LEFT")])
    (found,) = unsupported(proto)
    assert found == Finding("unsupported", "layer/BitShift", "BitShift", "TensorRT 10.15 has no such operator")
    assert str(found) == "layer/BitShift (BitShift): TensorRT 10.15 has no such operator"
    assert refused(graph([node("Gelu", domain="com.example")])) == [("layer/Gelu", "Gelu")]
    assert unsupported(graph([node("Relu")])) == []
    assert refused(graph([node("Relu")], opset=8)) == [("graph", "")]


def test_16_bit_pixels_are_refused_and_8_bit_ones_must_be_cast() -> None:
    def taken(kind: int) -> onnx.ModelProto:
        return graph([node("Cast", "pixels", to=F)], (Value("pixels", kind),))

    assert unsupported(taken(U8)) == []
    found = unsupported(taken(U16))
    assert [(one.node, one.why) for one in found] == [
        ("pixels", "uint16 is no type of a network's input or output"),
        ("layer/Cast", "does not take uint16"),
    ]
    moved = [node("Transpose", "pixels", "m", perm=[0, 3, 1, 2]), node("Cast", "m", to=F)]
    assert refused(graph(moved, (Value("pixels", U8),))) == [("layer/Transpose", "Transpose")]
    (wide,) = findings(graph([node("Relu")], (Value("x", TensorProto.DOUBLE),), (Value("y", F, ()),)))[:1]
    assert (wide.kind, wide.why) == ("limited", "float64 is computed as float32")


@pytest.mark.parametrize("word", ["mode", "coordinate_transformation_mode", "nearest_mode"])
def test_kinds_of_resizing(word: str) -> None:
    def resized(**attributes: Any) -> onnx.ModelProto:
        scales = {"scales": np.float32([1, 1, 2, 2])}
        return graph([node("Resize", "x,,scales", **attributes)], constants=scales)

    assert unsupported(resized(mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")) == []
    wrong = {"mode": "cubic", "coordinate_transformation_mode": "tf_crop_and_resize", "nearest_mode": "other"}[word]
    (found,) = unsupported(resized(**{word: wrong}))
    assert found.why.startswith(f"{word} {wrong}, which must be ")


@pytest.mark.parametrize(
    ("zero", "why"),
    [
        (np.int8(0), []),
        (np.int8(3), ["the zero point must be 0"]),
        (np.uint8(0), ["quantizes to uint8, and must to int8"]),
    ],
)
def test_quantization_is_symmetric_int8(zero: Any, why: list[str]) -> None:
    kind = numpy_helper.from_array(np.asarray(zero)).data_type
    constants = {"scale": np.float32(0.1), "zero": zero}
    proto = graph([node("QuantizeLinear", "x,scale,zero")], (Value("x"),), (Value("y", kind, ()),), constants)
    assert [one.why for one in unsupported(proto) if one.operator] == why


def test_sizes_and_constants() -> None:
    pool = {"kernel_shape": [2, 2]}
    assert unsupported(graph([node("MaxPool", **pool)])) == []
    assert refused(graph([node("MaxPool", dilations=[2, 2], **pool)])) == [("layer/MaxPool", "MaxPool")]
    assert refused(graph([node("MaxPool", "x", "y,places", **pool)])) == [("layer/MaxPool", "MaxPool")]
    line = (Value("x", F, ("batch", 4, 8)),)
    assert refused(graph([node("MaxPool", kernel_shape=[2])], line)) == [("layer/MaxPool", "MaxPool")]
    best = [node("TopK", "x,number", "y,places")]
    assert unsupported(graph(best, constants={"number": np.int64([300])})) == []
    assert refused(graph(best, constants={"number": np.int64([4000])})) == [("layer/TopK", "TopK")]
    summed = [node("ReduceSum", "x,axes")]
    assert unsupported(graph(summed, constants={"axes": np.int64([1])})) == []
    assert refused(graph(summed, (Value("x"), Value("axes", I64, (1,))))) == [("layer/ReduceSum", "ReduceSum")]
    made = helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.int64([1])))
    assert unsupported(graph([made, *summed])) == []


def test_what_is_taken_within_limits_is_a_finding_of_another_kind() -> None:
    suppression = node("NonMaxSuppression", "boxes,scores", "y", name="final/NonMaxSuppression")
    boxes = (Value("boxes", F, (1, 9, 4)), Value("scores", F, (1, 2, 9)))
    proto = graph([suppression], boxes, (Value("y", I64, ("n", 3)),))
    assert unsupported(proto) == []
    (found,) = findings(proto)
    assert (found.kind, found.node) == ("limited", "final/NonMaxSuppression")
    assert "known only at run time" in found.why
    windowed = graph([node("HannWindow", "n")], (Value("n", I64, ()),), constants=None)
    assert [one.why for one in findings(windowed) if one.kind == "limited"] == ["needs TensorRT 10.4 or newer"]
    assert set(SINCE) <= set(TYPES)


def test_graphs_inside_graphs_are_read() -> None:
    def branch(operator: str) -> Any:
        out = helper.make_tensor_value_info(f"{operator}_out", F, None)
        inner = [node(operator, "x", f"{operator}_out", name=f"inner/{operator}")]
        return helper.make_graph(inner, operator, [], [out])

    proto = graph(
        [node("If", "which", "y", then_branch=branch("Relu"), else_branch=branch("Det"))],
        (Value("x"), Value("which", TensorProto.BOOL, ())),
    )
    assert refused(proto) == [("inner/Det", "Det")]
    assert [one.operator for one in findings(proto)] == ["Det", "If"], "what is refused comes first"


def test_a_summary_is_one_line() -> None:
    found = [Finding("unsupported", f"n{number}", "Det", "no") for number in range(5)]
    assert summary(found) == "n0 (Det): no; n1 (Det): no; n2 (Det): no and 2 more"
    assert summary(found[:2]) == "n0 (Det): no; n1 (Det): no"
    assert summary([]) == ""
