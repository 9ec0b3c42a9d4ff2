"""Plain ONNX graphs: what a converter writes needlessly long is written short, and every node has a name to be told by.

- Keras's nearest upsampling and its Reshape, which trace to ten nodes, are traced as the one operator that they are.
- A new shape that is computed from the batch's size becomes a constant of which one side is left open.
- onnxruntime's hardware-independent rewriting folds constants, joins additions to convolutions and cancels
  transpositions; its result is standard ONNX.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


def plainly_called(model: Any) -> Any:
    """The Keras model itself, whose nearest upsampling and reshaping now trace to one operator each of the same values.

    For a child process that converts and ends: the layers are changed in place.
    """
    import keras

    for layer in _layers(model):
        if (
            isinstance(layer, keras.layers.UpSampling2D)
            and layer.interpolation == "nearest"
            and layer.data_format == "channels_last"
        ):
            layer.call = partial(_repeated, factors=layer.size)
        elif isinstance(layer, keras.layers.Reshape):
            layer.call = partial(_reshaped, layer)
    return model


def simplified(proto: Any) -> Any:
    """An ``onnx.ModelProto`` that computes the same with fewer nodes, of standard operators only.

    Raises:
        ValueError: operators that are not ONNX's own remain.
    """
    import onnx

    plain = onnx.shape_inference.infer_shapes(_rewritten(proto), data_prop=True)
    if _fix_shapes(plain.graph):
        plain = _rewritten(plain)
    foreign = sorted({node.domain for node in plain.graph.node if node.domain})
    if foreign:
        raise ValueError(f"the graph holds operators of {', '.join(foreign)}")
    standard = [entry for entry in plain.opset_import if not entry.domain]
    del plain.opset_import[:]
    plain.opset_import.extend(standard)
    plain.producer_name, plain.producer_version = proto.producer_name, proto.producer_version
    return plain


def _rewritten(proto: Any) -> Any:
    """The graph after those of onnxruntime's rewritings that suit every machine."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path, load_external_data=False)


def name_nodes(proto: Any, model: Any) -> None:
    """Call every node by its Keras layer and operator, ``encoder_stem/Conv``; later ones of one name count, ``…#2``."""
    layers = {layer.name for layer in _layers(model)} - {model.name}
    constant = {one.name for one in proto.graph.initializer}
    taken = Counter[str]()
    for node in proto.graph.node:
        texts = [node.name, *(name for name in node.input if name in constant), *node.output]
        layer = next((found for text in texts if (found := _layer_of(text, layers))), None)
        name = f"{layer}/{node.op_type}" if layer else node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}#{taken[name]}"


def widened(proto: Any) -> Any:
    """The same graph with its uint16 inputs in float32, which holds each of their values: TensorRT has no uint16.

    An input of which the graph does anything but cast it to float32 stays as it is.
    """
    from onnx import ModelProto, TensorProto, checker

    proto = ModelProto.FromString(proto.SerializeToString())
    graph = proto.graph
    fixed = {value.name for value in graph.output}.union(*(_inside(node) for node in graph.node))
    for value in graph.input:
        takers = [node for node in graph.node if value.name in node.input]
        given = {value.name}.union(*(node.output for node in takers))
        if value.type.tensor_type.elem_type != TensorProto.UINT16 or fixed & given:
            continue
        if not all(_casts_to(node, TensorProto.FLOAT) for node in takers):
            continue
        for node in takers:
            graph.node.remove(node)
        for node in graph.node:
            node.input[:] = [value.name if name in given else name for name in node.input]
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    checker.check_model(proto, full_check=True)
    return proto


def _casts_to(node: Any, kind: int) -> bool:
    return node.op_type == "Cast" and any(item.name == "to" and item.i == kind for item in node.attribute)


def _inside(node: Any) -> set[str]:
    """The tensors that graphs inside a node take."""
    graphs = [graph for item in node.attribute for graph in (*item.graphs, item.g)]
    nodes = [inner for graph in graphs for inner in graph.node]
    return {name for inner in nodes for name in inner.input}.union(*map(_inside, nodes))


def shortened(proto: Any) -> Any:
    """The same graph with tensors inside it called by numbers, equal constants stored once, and no notes on shapes.

    Node names stay. Of an int8 file with many small layers, long names and zero points are a tenth.
    """
    from onnx import ModelProto

    proto = ModelProto.FromString(proto.SerializeToString())
    graph = proto.graph
    del graph.value_info[:]
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    stored: dict[bytes, str] = {}
    constants = list(graph.initializer)
    del graph.initializer[:]
    for one in constants:
        old, one.name = one.name, ""
        new = stored.setdefault(one.SerializeToString(), f"{len(names)}")
        if new == f"{len(names)}":
            one.name = new
            graph.initializer.append(one)
        names[old] = new
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.setdefault(name, f"{len(names)}") if name else "" for name in tensors]
    return proto


def _layer_of(name: str, layers: set[str]) -> str | None:
    """The innermost Keras layer in a converted name; tracing appends _1 to one that has been called before."""
    parts = reversed(name.split("/"))
    return next((found for part in parts for found in (re.sub(r"_\d+$", "", part), part) if found in layers), None)


def _layers(model: Any) -> Iterator[Any]:
    yield model
    for layer in getattr(model, "layers", ()):
        yield from _layers(layer)


def _repeated(x: Any, factors: tuple[int, int]) -> Any:
    """(B, H, W, C) → (B, H·f, W·g, C): pixel (y, x) of the result is that at (y // f, x // g)."""
    import tensorflow as tf

    height, width = x.shape[1:3]
    size = tf.shape(x)[1:3] * factors if None in (height, width) else (height * factors[0], width * factors[1])
    return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size)


def _reshaped(layer: Any, x: Any) -> Any:
    """(B, …) → (B, …) as ``layer`` does, with the batch for the one open side."""
    import tensorflow as tf

    sides = layer.compute_output_shape((None, *x.shape[1:]))[1:]
    return type(layer).call(layer, x) if None in sides else tf.reshape(x, (-1, *sides))


def _fix_shapes(graph: Any) -> bool:
    """Give every Reshape whose result is known but for one side a constant shape; True if any changed."""
    from onnx import numpy_helper

    changed = False
    values = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.output)}
    constant = {one.name for one in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] in constant or node.output[0] not in values:
            continue
        sides = [side.dim_value for side in values[node.output[0]]]  # 0 where it is not known
        if sides.count(0) <= 1:
            name = f"{node.output[0]}/shape"
            shape = np.array([side or -1 for side in sides], np.int64)
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name
            changed = True
    return changed
