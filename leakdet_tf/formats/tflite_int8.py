"""Full int8 for TFLite, in the child process: one calibration, the error of each layer, and layers that stay in float.

Three parts of a graph are never quantized, because eight bits are too few there:

- what an input of more than 8 bits passes up to and with its first convolution or dense layer: 65536 values of a
  thermal picture would become 256;
- the last convolution of each of a detector's raw outputs and what joins them: boxes would move by pixels;
- what decodes those outputs in the graph, and everything behind it.

Which layers suffer most is told by TensorFlow's QuantizationDebugger, which lets every layer compute from the same
quantized input in int8 and in float.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError, did_you_mean
from leakdet_tf.core.files import write_bytes, write_json
from leakdet_tf.core.images import Pixels
from leakdet_tf.core.tasks import task_of
from leakdet_tf.formats.child import Layer

LOOKED_AT = 8
"""Calibration pictures, evenly spread, on which the errors of layers are measured; all of them set the ranges."""

_WEIGHTED = ("conv_2d", "depthwise_conv_2d", "transpose_conv", "fully_connected", "batch_matmul")
_FLOAT32, _INT8 = 0, 9  # of the format's tensor types
_CALIBRATED, _NAMES = "calibrated.tflite", "calibrated.json"


@dataclass(frozen=True)
class _Node:
    """An operator of the converted graph: its own name, its operator's, and its tensors by index."""

    name: str
    operator: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Calibrated:
    """A float graph whose tensors have the ranges that pictures gave them: all that files of it are made of.

    ``names`` are those of its layers, ``always`` those of them that eight bits are too few for.
    """

    content: bytes
    names: tuple[str, ...]
    always: tuple[str, ...]

    def save(self, folder: Path) -> None:
        """Write it, for :meth:`load` in another process."""
        write_json(folder / _NAMES, {"names": self.names, "always": self.always})
        write_bytes(folder / _CALIBRATED, self.content)

    @classmethod
    def load(cls, folder: Path) -> Calibrated | None:
        """What was saved there, or None."""
        if not (folder / _CALIBRATED).is_file():
            return None
        said = json.loads((folder / _NAMES).read_bytes())
        return cls((folder / _CALIBRATED).read_bytes(), tuple(said["names"]), tuple(said["always"]))

    def kept(self, keep: Sequence[str]) -> list[str]:
        """The layers in float: those of ``keep`` and those that always are.

        Raises:
            ExportError: a name in ``keep`` is not that of a layer.
        """
        for name in keep:
            if name not in self.names:
                raise ExportError(
                    f"no layer of the converted model is called '{name}'", remedy=did_you_mean(name, self.names)
                )
        return sorted({*keep, *self.always})

    def quantized(self, keep: Sequence[str]) -> bytes:
        """The content of an int8 file with weights by channel, the layers of ``keep`` in float.

        Raises:
            ExportError: a name in ``keep`` is not that of a layer, or no layer is left to quantize.
        """
        from tensorflow.lite.python.convert import mlir_quantize
        from tensorflow.lite.tools import flatbuffer_utils

        quantized = mlir_quantize(self.content, denylisted_nodes=self.kept(keep))
        result = flatbuffer_utils.convert_bytearray_to_object(quantized)
        if not any(tensor.type == _INT8 and _is_constant(result, tensor) for tensor in result.subgraphs[0].tensors):
            raise ExportError("with these layers in float nothing is left to quantize", remedy="keep fewer of them")
        _drop_rounding(result)
        return bytes(flatbuffer_utils.convert_object_to_bytearray(result))

    def errors(self, keep: Sequence[str], contract: Contract, frames: dict[str, npt.NDArray[Any]]) -> list[Layer]:
        """The root mean square error of each layer's int8 output in its quantization steps, largest first."""
        from tensorflow.lite.python.convert import mlir_quantize
        from tensorflow.lite.tools import flatbuffer_utils

        instrumented = mlir_quantize(self.content, enable_numeric_verify=True, denylisted_nodes=self.kept(keep))
        content = flatbuffer_utils.convert_bytearray_to_object(self.content)
        names = {entry.tensorIndex: entry.name.decode() for entry in content.signatureDefs[0].inputs}
        order = [names[index] for index in content.subgraphs[0].inputs]
        number = len(frames[contract.primary])
        looked_at = sorted({int(place) for place in np.linspace(0, number - 1, LOOKED_AT)})
        return _errors(instrumented, [[one[name] for name in order] for one in _pictures(frames, looked_at)])


def calibrated(converter: Any, model: Any, contract: Contract, frames: dict[str, npt.NDArray[Any]]) -> Calibrated:
    """Let the pictures choose the ranges of a graph.

    Args:
        converter: a ``TFLiteConverter`` of ``model`` without options.
        model: the Keras model, whose layers give theirs their names.
        contract: of the model.
        frames: calibration pictures; see :func:`leakdet_tf.formats.calibration_set.read`.

    Raises:
        ExportError: the graph has branches or loops.
    """
    import tensorflow as tf
    from tensorflow.lite.tools import flatbuffer_utils

    number = len(next(iter(frames.values())))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _pictures(frames, range(number))
    converter._experimental_calibrate_only = True
    content = flatbuffer_utils.convert_bytearray_to_object(converter.convert())
    if len(content.subgraphs) != 1:
        raise ExportError(
            "the model holds branches or loops, whose layers int8 cannot tell apart",
            remedy="use another TFLite format; is a layer called with training=True?",
        )
    nodes = _name(content, _layers(model))
    return Calibrated(
        bytes(flatbuffer_utils.convert_object_to_bytearray(content)),
        tuple(node.name for node in nodes),
        tuple(sorted(_always_float(content, nodes, contract))),
    )


def _errors(instrumented: bytes, pictures: list[list[Pixels]]) -> list[Layer]:
    import tensorflow as tf

    debugger = tf.lite.experimental.QuantizationDebugger(
        quant_debug_model_content=instrumented, debug_dataset=lambda: pictures
    )
    debugger.run()
    table = io.StringIO()
    debugger.layer_statistics_dump(table)
    table.seek(0)
    layers = []
    for row in csv.DictReader(table):
        name = row["tensor_name"].rstrip("0123456789")  # what the converter adds to a name that occurs twice
        error = math.sqrt(float(row["mean_squared_error"])) / float(row["scale"])
        if error > 0:  # others only move or choose values
            layers.append(Layer(name, error))
    return sorted(layers, key=lambda layer: -layer.error)


def _pictures(frames: dict[str, npt.NDArray[Any]], places: Sequence[int]) -> Iterator[dict[str, Pixels]]:
    for place in places:
        yield {name: array[place : place + 1] for name, array in frames.items()}


def _drop_rounding(content: Any) -> None:
    """Take out of a graph what makes floats int8 only to make them floats again.

    The converter leaves such pairs behind layers in float whose range is fixed, a sigmoid or a softmax, so that their
    values would still be multiples of 1/256.
    """
    (graph,) = content.subgraphs
    rounded, same = {}, {}
    for entry, operator in zip(graph.operators, _operators(content), strict=True):
        if operator == "quantize" and graph.tensors[entry.inputs[0]].type == _FLOAT32:
            rounded[int(entry.outputs[0])] = int(entry.inputs[0])
        elif operator == "dequantize" and int(entry.inputs[0]) in rounded:
            same[int(entry.outputs[0])] = rounded[int(entry.inputs[0])]
    for entry in graph.operators:
        entry.inputs = [same.get(int(index), int(index)) for index in entry.inputs]
    graph.outputs = [same.get(int(index), int(index)) for index in graph.outputs]
    for output in content.signatureDefs[0].outputs:
        output.tensorIndex = same.get(output.tensorIndex, output.tensorIndex)
    graph.operators = [entry for entry in graph.operators if int(entry.outputs[0]) not in same]
    used = {index for entry in graph.operators for index in entry.inputs} | set(graph.outputs)
    idle = set(rounded) - used
    graph.operators = [entry for entry in graph.operators if int(entry.outputs[0]) not in idle]


def _is_constant(content: Any, tensor: Any) -> bool:
    data = content.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _operators(content: Any) -> list[str]:
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    names = {code: name.lower() for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
    codes = [content.operatorCodes[entry.opcodeIndex] for entry in content.subgraphs[0].operators]
    return [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in codes]


def _layers(model: Any) -> dict[str, bool]:
    """Every layer's name, those of inner models too, and whether it has a kernel."""
    found: dict[str, bool] = {}
    for layer in getattr(model, "layers", ()):
        found |= {layer.name: any(len(weight.shape) > 1 for weight in layer.weights), **_layers(layer)}
    return found


def _name(content: Any, layers: dict[str, bool]) -> list[_Node]:
    """Give the output of each operator the name of its Keras layer and its operator, ``encoder_conv/conv_2d``.

    Names are unique and end in no digit: the converter tells two tensors of one name apart by a digit at the end, and
    layers must be found again by their names.
    """
    (graph,) = content.subgraphs
    old = [tensor.name.decode() for tensor in graph.tensors]
    computed = {int(index) for entry in graph.operators for index in entry.outputs} | {int(i) for i in graph.inputs}
    nodes, taken = [], Counter[str]()
    for entry, operator in zip(graph.operators, _operators(content), strict=True):
        inputs = tuple(int(index) for index in entry.inputs if index >= 0)
        outputs = tuple(int(index) for index in entry.outputs)
        constants = (old[index] for index in inputs if index not in computed)
        layer = _layer_of((*(old[index] for index in outputs), *constants), layers, weighted=operator in _WEIGHTED)
        taken[f"{layer}/{operator}"] += 1
        again = taken[f"{layer}/{operator}"]
        name = f"{layer}/{operator}" if again == 1 else f"{layer}#{again}/{operator}"
        name += "_" if name[-1].isdigit() else ""
        for place, index in enumerate(outputs):
            graph.tensors[index].name = (f"{name}:{place}_" if place else name).encode()
        nodes.append(_Node(name, operator, inputs, outputs))
    return nodes


def _layer_of(names: Iterable[str], layers: dict[str, bool], *, weighted: bool) -> str:
    """The layer that a tensor's name speaks of: paths of scopes joined by ``;``, each with a number when met again."""
    found = []
    for path in (path for name in names for path in name.split(";")):
        for part in reversed(path.split("/")):
            found += [one for one in (re.sub(r"_\d+$", "", part), part) if one in layers][:1]
    found.sort(key=lambda one: weighted and not layers[one])
    return found[0] if found else "output"


def _always_float(content: Any, nodes: list[_Node], contract: Contract) -> set[str]:
    """Names of the operators that eight bits are too few for, as the head of this module lists them."""
    (graph,) = content.subgraphs
    names = {entry.tensorIndex: entry.name.decode() for entry in content.signatureDefs[0].inputs}
    fine = {int(index) for index in graph.inputs if contract.inputs[names[index]].dtype != "uint8"}
    found = _reached(nodes, fine, lambda node: (node.inputs, node.outputs))
    if task_of(contract).FLOAT_OUTPUT:
        found |= _reached(nodes[::-1], {int(i) for i in graph.outputs}, lambda node: (node.outputs, node.inputs))
    return found


def _reached(
    nodes: Iterable[_Node], tensors: set[int], ends: Callable[[_Node], tuple[tuple[int, ...], tuple[int, ...]]]
) -> set[str]:
    """Operators met from ``tensors`` on, in the order of ``nodes``, up to and with the first that have weights."""
    found = set()
    for node in nodes:
        near, far = ends(node)
        if not tensors.isdisjoint(near):
            found.add(node.name)
            tensors = tensors if node.operator in _WEIGHTED else tensors | set(far)
    return found
