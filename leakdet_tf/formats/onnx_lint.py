"""What TensorRT does not take of an ONNX graph, or only within limits, known before anybody carries it to a Jetson.

Source of the facts: the operator table of NVIDIA's ONNX parser (github.com/onnx/onnx-tensorrt, docs/operators.md) for
TensorRT 10.15, and docs/Changelog.md there for what came after 10.0. It is what NVIDIA writes down: nothing here has
been run by TensorRT. A graph with a batch of any size also needs a shape profile, which is the builder's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

TENSORRT = "10.15"
"""The TensorRT version of the table."""
OPSETS = (9, 24)
"""The oldest and newest ONNX opset that it reads; 10.0 read up to 20."""

_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16")
_HALVES = ("FLOAT", "FLOAT16")
_NUMBERS = (*_FLOATS, "INT32", "INT64")
_ANY = (*_NUMBERS, "BOOL")
_TYPES: dict[tuple[str, ...], str] = {
    _FLOATS: """
        Acos Acosh Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos
        Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        GroupNormalization HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization IsInf LRN LSTM
        LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization
        PRelu ParametricSoftplus QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform
        RandomUniformLike Reciprocal Resize RotaryEmbedding Round ScaledTanh Scan Selu Sigmoid Sin Sinh Softmax Softplus
        Softsign Sqrt Tan Tanh ThresholdedRelu Upsample""",
    _HALVES: """
        BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero RoiAlign""",
    ("FLOAT",): "STFT",
    _NUMBERS: """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean Min Mod
        Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
        ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TensorScatter
        TopK""",
    _ANY: """
        Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot
        Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where""",
    (*_ANY, "UINT8"): "Cast CastLike",
    ("BOOL",): "And Not Or Xor",
    ("INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"): "DequantizeLinear",
}
TYPES = {operator: types for types, operators in _TYPES.items() for operator in operators.split()}
"""By supported operator the element types that it may be given; every other operator is unsupported."""
SINCE = {
    "DeformConv": "10.1",
    "BlackmanWindow": "10.4",
    "HammingWindow": "10.4",
    "HannWindow": "10.4",
    "STFT": "10.5",
    "Attention": "10.14",
    "RMSNormalization": "10.15",
    "RotaryEmbedding": "10.15",
    "TensorScatter": "10.15",
}
"""The first version with an operator that came after 10.0. JetPack 6.2 brings 10.3."""
INPUTS = (*_ANY, "UINT8")
"""Element types of a network's inputs and outputs."""

_LIMITS = {
    "Attention": "query, key, value and mask of four dimensions only, no past keys",
    "DeformConv": "equal padding on both ends of a side only",
    "GRU": "both directions need the same activations",
    "GridSample": "four dimensions only",
    "If": "both branches must give tensors of the same rank, by different names",
    "LSTM": "both directions need the same activations; no input_forget, layout 0",
    "Loop": "no shape may change from one turn to the next",
    "NonMaxSuppression": "how many boxes it gives is known only at run time; float32 and float16 only",
    "NonZero": "how many places it gives is known only at run time; float32 and float16 only",
    "RNN": "both directions need the same activations",
    "RandomNormal": "the seed is ignored",
    "RandomNormalLike": "the seed is ignored",
    "RandomUniform": "the seed is ignored",
    "RandomUniformLike": "the seed is ignored",
    "STFT": "real input only, with a constant window and step",
    "TensorScatter": "four dimensions only, along axis -2",
}
"""What the table demands that cannot be told from the graph alone."""
_CONSTANT = {"CumSum": 1, "OneHot": 1, "Squeeze": 1, "Unsqueeze": 1, "Dropout": 2} | dict.fromkeys(
    (name for name in TYPES if name.startswith("Reduce")), 1
)
"""By operator, the input that must be known when the engine is built."""
_ATTRIBUTES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Resize": {
        "mode": ("nearest", "linear"),
        "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
        "coordinate_transformation_mode": (
            "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
        ),
        "keep_aspect_ratio_policy": ("stretch",),
        "antialias": (0,),
    },
    "ScatterND": {"reduction": ("none",)},
    "TopK": {"sorted": (1,)},
}  # fmt: skip
"""By operator, the values that an attribute may have where it is given."""
_DATA = {"Where": 1, "OneHot": 2}  # the input whose type counts; else the first
_FREE = ("Constant", "ConstantOfShape", "If", "Loop", "Scan", "Shape", "Size")  # take no data of a type, or any


@dataclass(frozen=True)
class Finding:
    """Something that TensorRT refuses (``unsupported``), or takes under a condition (``limited``).

    ``node`` is a node's name, or that of an input or output of the graph, of which ``operator`` is empty.
    """

    kind: Literal["unsupported", "limited"]
    node: str
    operator: str
    why: str

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.why}" if self.operator else f"{self.node}: {self.why}"


def findings(proto: Any) -> list[Finding]:
    """Everything in an ``onnx.ModelProto`` that TensorRT refuses or limits, those that it refuses first."""
    import onnx

    named = onnx.shape_inference.infer_shapes(proto)
    found = [*_opset(proto), *_ends(named.graph), *_of_graph(named.graph, {}, {}, {})]
    return sorted(found, key=lambda one: one.kind, reverse=True)


def unsupported(proto: Any) -> list[Finding]:
    """Only what TensorRT refuses of an ``onnx.ModelProto``; empty when its documentation promises to take all of it."""
    return [one for one in findings(proto) if one.kind == "unsupported"]


def _opset(proto: Any) -> Iterator[Finding]:
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and not OPSETS[0] <= entry.version <= OPSETS[1]:
            why = f"opset {entry.version}; TensorRT {TENSORRT} reads {OPSETS[0]} to {OPSETS[1]}"
            yield Finding("unsupported", proto.graph.name, "", why)
        elif entry.domain in ("", "ai.onnx") and entry.version > 20:
            yield Finding("limited", proto.graph.name, "", f"opset {entry.version}; TensorRT 10.0 reads up to 20")


def _ends(graph: Any) -> Iterator[Finding]:
    for value in (*graph.input, *graph.output):
        found = _type_name(value.type.tensor_type.elem_type)
        if found == "DOUBLE":
            yield Finding("limited", value.name, "", "float64 is computed as float32")
        elif found not in INPUTS:
            yield Finding("unsupported", value.name, "", f"{found.lower()} is no type of a network's input or output")


def _of_graph(
    graph: Any, types: dict[str, str], ranks: dict[str, int], constants: dict[str, npt.NDArray[Any] | None]
) -> Iterator[Finding]:
    """Findings of one graph and those inside it, which see the tensors outside."""
    from onnx import AttributeProto, numpy_helper

    values = [value for value in (*graph.input, *graph.output, *graph.value_info) if value.type.HasField("tensor_type")]
    types = types | {value.name: _type_name(value.type.tensor_type.elem_type) for value in values}
    types |= {one.name: _type_name(one.data_type) for one in graph.initializer}
    shaped = [value for value in values if value.type.tensor_type.HasField("shape")]
    ranks = ranks | {value.name: len(value.type.tensor_type.shape.dim) for value in shaped}
    constants = constants | {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            stored = [numpy_helper.to_array(item.t) for item in node.attribute if item.type == AttributeProto.TENSOR]
            constants[node.output[0]] = stored[0] if stored else None
    for node in graph.node:
        for kind, why in _of_node(node, types, ranks, constants):
            yield Finding(kind, node.name or node.output[0], node.op_type, why)
        for item in node.attribute:
            inner = [item.g] if item.type == AttributeProto.GRAPH else item.graphs
            for deeper in inner:
                yield from _of_graph(deeper, types, ranks, constants)


def _of_node(
    node: Any, types: dict[str, str], ranks: dict[str, int], constants: dict[str, npt.NDArray[Any] | None]
) -> Iterator[tuple[Literal["unsupported", "limited"], str]]:
    import onnx

    if node.domain not in ("", "ai.onnx"):
        yield "unsupported", f"an operator of {node.domain} needs a plugin"
        return
    if node.op_type not in TYPES:
        yield "unsupported", f"TensorRT {TENSORRT} has no such operator"
        return
    yield from _of_types(node, types)
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    given = {name: value.decode() if isinstance(value, bytes) else value for name, value in given.items()}
    for name, allowed in _ATTRIBUTES.get(node.op_type, {}).items():
        if name in given and given[name] not in allowed:
            yield "unsupported", f"{name} {given[name]}, which must be {' or '.join(map(str, allowed))}"
    place = _CONSTANT.get(node.op_type)
    if place is not None and node.input[place : place + 1] not in ([], [""]) and node.input[place] not in constants:
        yield "unsupported", f"'{node.input[place]}' is computed, and must be constant"
    for why in _of_values(node, given, ranks, constants):
        yield "unsupported", why
    if node.op_type in _LIMITS:
        yield "limited", _LIMITS[node.op_type]
    if node.op_type in SINCE:
        yield "limited", f"needs TensorRT {SINCE[node.op_type]} or newer"


def _of_types(node: Any, types: dict[str, str]) -> Iterator[tuple[Literal["unsupported", "limited"], str]]:
    place = _DATA.get(node.op_type, 0)
    tensors = [] if node.op_type in _FREE else list(node.input[place : place + 1])
    if node.op_type in ("Cast", "CastLike"):
        tensors += node.output
    for found in dict.fromkeys(types[tensor] for tensor in tensors if tensor in types):
        if found == "DOUBLE":
            yield "limited", "float64 is computed as float32"
        elif found not in TYPES[node.op_type]:
            yield "unsupported", f"does not take {found.lower()}"


def _of_values(
    node: Any, given: dict[str, Any], ranks: dict[str, int], constants: dict[str, npt.NDArray[Any] | None]
) -> Iterator[str]:
    """What is wrong with the sizes and constants of a node."""
    operator = node.op_type
    if operator in ("AveragePool", "MaxPool", "LpPool") and any(side != 1 for side in given.get("dilations", ())):
        yield "dilations other than 1"
    if operator in ("AveragePool", "MaxPool") and ranks.get(node.input[0], 4) not in (4, 5):
        yield "pools over pictures and volumes only"
    if operator == "MaxPool" and len(node.output) > 1 and node.output[1]:
        yield "gives no places of the largest values"
    if operator == "LayerNormalization" and any(node.output[1:]):
        yield "gives the normalized values alone"
    if operator in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2 and node.input[2]:
        zero = constants.get(node.input[2])
        if zero is None or np.any(zero):
            yield "the zero point must be 0"
        elif zero.dtype == np.uint8:
            yield "quantizes to uint8, and must to int8"
    if operator == "TopK" and len(node.input) > 1:
        number = constants.get(node.input[1])
        if number is not None and not np.all(number < 3840):
            yield f"{int(np.max(number))} values, which must be fewer than 3840"
    if operator == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
        training = constants[node.input[2]]
        if training is None or np.any(training):
            yield "is that of training"


def _type_name(number: int) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(number))


def summary(found: Iterable[Finding], limit: int = 3) -> str:
    """One line for a message: the first few findings and how many more there are; empty when there are none."""
    told = [str(one) for one in found]
    more = f" and {len(told) - limit} more" if len(told) > limit else ""
    return "; ".join(told[:limit]) + more
