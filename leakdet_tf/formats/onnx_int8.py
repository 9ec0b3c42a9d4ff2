"""int8 for ONNX, in the child process: QuantizeLinear and DequantizeLinear around the layers, ranges from pictures.

Weights are int8, a scale each channel; activations are uint8: the pair that onnxruntime computes fastest. On x86
processors without VNNI its kernels add two such products in 16 bits, and large weights beside each other overflow
without a word: a trained YOLOv8 changed three times as many decisions. So weights use 7 of their 8 bits, with which no
sum can overflow; those of depthwise convolutions, whose kernels do not overflow and which suffer most, use all 8.

Some parts are never quantized, because eight bits are too few there:

- pixels on their way to the first convolution, with what scales them; after an input of more than 8 bits that
  convolution as well, because 65536 values of a thermal picture would become 256;
- the last convolutions or dense layers, and everything behind them: scores, boxes, their suppression;
- products and sums with a constant of several values (a batch norm by itself): one scale does not fit its channels.

Ranges are the lowest and highest value that a tensor takes on any picture; with percentiles a trained YOLOv8's boxes
moved further.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError, did_you_mean
from leakdet_tf.core.images import Pixels
from leakdet_tf.formats.child import Layer
from leakdet_tf.formats.onnx_graph import shortened

LOOKED_AT = 8
"""Calibration pictures, evenly spread, on which the effects of layers are measured; all of them set the ranges."""

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Tanh", "Elu", "Mul")
_MOVERS = (
    "Relu", "Clip", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "Flatten",
    "Pad", "Resize", "Tile", "Identity",
)  # fmt: skip
"""Operators whose result has the values of what they are given: by themselves they change nothing."""
_BOUNDS = ("Relu", "Clip")
"""Of the activations, those that int8 ranges alone can express."""


class Graph:
    """A graph with the neighbours of its nodes at hand; nodes, in their order, and tensors go by their names."""

    def __init__(self, graph: Any) -> None:
        self.nodes: dict[str, Any] = {node.name: node for node in graph.node}
        self.constants = {one.name: one for one in graph.initializer}
        self.maker = {tensor: node for node in graph.node for tensor in node.output}
        self.takers: dict[str, list[str]] = {}
        for node in graph.node:
            for tensor in node.input:
                self.takers.setdefault(tensor, []).append(node.name)
        self.weighted = {
            name
            for name, node in self.nodes.items()
            if node.op_type in _WEIGHTED and any(tensor in self.constants for tensor in node.input[1:2])
        }

    def after(self, name: str) -> set[str]:
        """The nodes that take a node's results."""
        return {taker for tensor in self.nodes[name].output for taker in self.takers.get(tensor, ())}

    def reached(self, tensors: Iterable[str], *, through_weights: bool) -> set[str]:
        """The nodes that depend on ``tensors``: all, or those up to and with the first that has weights."""
        seen, found = set(tensors), set()
        for name, node in self.nodes.items():
            if seen.intersection(node.input):
                found.add(name)
                if through_weights or name not in self.weighted:
                    seen.update(node.output)
        return found

    def depthwise(self, name: str) -> bool:
        """Whether it is a convolution of each channel by itself."""
        node = self.nodes[name]
        groups = next((int(item.i) for item in node.attribute if item.name == "group"), 1)
        return node.op_type == "Conv" and groups > 1 and int(self.constants[node.input[1]].dims[1]) == 1

    def scales_channels(self, node: Any) -> bool:
        """Whether it adds to or multiplies by a constant of several values."""
        return node.op_type in ("Mul", "Add", "Sub", "Div") and any(
            math.prod(self.constants[tensor].dims) > 1 for tensor in node.input if tensor in self.constants
        )


def quantized(
    proto: Any, contract: Contract, frames: dict[str, npt.NDArray[Any]], keep: Sequence[str], *, ranges: Path
) -> Any:
    """An int8 ``onnx.ModelProto`` of a float32 one.

    Args:
        proto: simplified, every node with a name of its own.
        contract: of the model.
        frames: calibration pictures by input name, (N, h, w, C).
        keep: names of nodes that stay in float, with the activation behind them, besides those that always do.
        ranges: a file for the ranges of the graph's tensors on these pictures; read where it is there.

    Raises:
        ExportError: a name in ``keep`` is not that of a node, or no layer is left to quantize.
    """
    graph = Graph(proto.graph)
    return _quantized(proto, graph, in_float(graph, contract, keep), frames, ranges)


def _quantized(proto: Any, graph: Graph, kept: set[str], frames: dict[str, npt.NDArray[Any]], ranges: Path) -> Any:
    from onnx import ModelProto, load
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    all_bits = [{"quant_type": QuantType.QInt8, "axis": 0, "symmetric": True, "reduce_range": False}]
    whole = {graph.nodes[name].input[1]: all_bits for name in graph.weighted - kept if graph.depthwise(name)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            ModelProto.FromString(proto.SerializeToString()),  # it changes what it is given
            path,
            Pictures(frames),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(kept),
            calibrate_method=CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
            calibration_cache_path=ranges,
            extra_options={"TensorQuantOverrides": whole} if whole else {},
        )
        answer = load(path, load_external_data=False)
    standard = [entry for entry in answer.opset_import if not entry.domain]
    del answer.opset_import[:]
    answer.opset_import.extend(standard)
    return shortened(answer)


def in_float(graph: Graph, contract: Contract, keep: Sequence[str]) -> set[str]:
    """Names of all nodes that are not quantized when those of ``keep`` are not.

    Raises:
        ExportError: a name in ``keep`` is not that of a node, or no layer is left to quantize.
    """
    for name in keep:
        if name not in graph.nodes:
            raise ExportError(
                f"no layer of the converted model is called '{name}'", remedy=did_you_mean(name, graph.nodes)
            )
    kept = always_float(graph, contract).union(*(_group(graph, name) for name in keep))
    if graph.weighted <= kept:
        raise ExportError("with these layers in float nothing is left to quantize", remedy="keep fewer of them")
    return kept


def always_float(graph: Graph, contract: Contract) -> set[str]:
    """Names of the nodes that are never quantized; see the module's text."""
    names, weighted = set(graph.nodes), graph.weighted
    behind = graph.reached((t for name in weighted for t in graph.nodes[name].output), through_weights=True)
    wide = [name for name, spec in contract.inputs.items() if np.dtype(spec.dtype).itemsize > 1]
    kept = (names - behind - weighted) | graph.reached(wide, through_weights=False)
    kept |= {name for name, node in graph.nodes.items() if graph.scales_channels(node)}
    leads: set[str] = set()  # to a layer with weights
    for name in reversed(graph.nodes):
        after = graph.after(name)
        if after & (leads | weighted):
            leads.add(name)
            # what only float layers take need not be quantized, but a layer and its own bound are one operator in int8
            bound = graph.nodes[name].op_type in _BOUNDS and graph.maker[graph.nodes[name].input[0]].name in weighted
            if after <= kept and name not in weighted and not bound:
                kept.add(name)
        else:
            kept.add(name)
    return kept


def _group(graph: Graph, name: str) -> set[str]:
    """A node with the activations that depend on it alone."""
    found, tensors = {name}, set(graph.nodes[name].output)
    for other, node in graph.nodes.items():
        given = {tensor for tensor in node.input if tensor and tensor not in graph.constants}
        if node.op_type in _ACTIVATIONS and given and given <= tensors:
            found.add(other)
            tensors.update(node.output)
    return found


def effects(
    proto: Any, contract: Contract, frames: dict[str, npt.NDArray[Any]], keep: Sequence[str], *, ranges: Path
) -> list[Layer]:
    """What quantization of each layer alone does to the model's answer, largest first; those without any are left out.

    The error is the root mean square difference of the answer as a share of the answer's own. A layer's error in its
    own output is known sooner, but tells little: of a MobileNetV2 whose int8 file lost 13 points the layer that did the
    most harm, the first depthwise convolution, came thirtieth by it.

    Args:
        proto: as for :func:`quantized`, like the others.
        contract: of the model.
        frames: calibration pictures by input name, (N, h, w, C).
        keep: names of nodes that stay in float anyway.
        ranges: a file for the ranges of the graph's tensors on these pictures; read where it is there.
    """
    graph = Graph(proto.graph)
    everyone, kept = set(graph.nodes), in_float(graph, contract, keep)
    names = [name for name, node in graph.nodes.items() if not (name in kept or node.op_type in _MOVERS)]
    pictures = list(Pictures(frames, LOOKED_AT))
    exact = _answers(proto, pictures)
    scale = max(float(np.sqrt(np.mean(exact**2))), float(np.finfo(np.float32).tiny))
    layers, seen = [], set[str]()
    for name in (*(name for name in names if name in graph.weighted), *names):
        if name in seen:
            continue
        group = _group(graph, name)
        seen |= group
        alone = _quantized(proto, graph, everyone - group, frames, ranges)
        error = float(np.sqrt(np.mean((_answers(alone, pictures) - exact) ** 2))) / scale
        if not math.isfinite(error):
            raise ValueError("the model gives NaN or infinity on a calibration picture")
        if error > 0:
            layers.append(Layer(name, error))
    return sorted(layers, key=lambda layer: -layer.error)


def _answers(proto: Any, pictures: Iterable[dict[str, Pixels]]) -> npt.NDArray[np.float64]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, picture)[0] for picture in pictures]).astype(np.float64)


class Pictures:
    """Calibration pictures one at a time, as ``onnxruntime.quantization`` asks for them; ``number`` evenly spread."""

    def __init__(self, frames: dict[str, npt.NDArray[Any]], number: int | None = None) -> None:
        count = len(next(iter(frames.values())))
        self._frames = frames
        self._places = np.unique(np.linspace(0, count - 1, number or count).astype(int))
        self._next = 0

    def get_next(self) -> dict[str, Pixels] | None:
        """The next picture as (1, h, w, C) by input name, or None after the last."""
        number, self._next = self._next, self._next + 1
        if number >= len(self._places):
            return None
        return {name: array[[self._places[number]]] for name, array in self._frames.items()}

    def __iter__(self) -> Iterator[dict[str, Pixels]]:
        return iter(self.get_next, None)

    def __len__(self) -> int:
        return len(self._places)
