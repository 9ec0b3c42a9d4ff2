"""Keras model to ONNX, in a process of its own: ``python -m leakdet_tf.formats.onnx MODEL CONTRACT OUT OPTIONS``.

The route is a ``tf.function`` → tf2onnx with a batch of any size, and then a simpler graph of the same values. Inputs
have the contract's names and integer types, the output is named ``output``, and all weights are inside the file.
"""

from __future__ import annotations

import tempfile
from importlib import util
from pathlib import Path
from typing import Any

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError, did_you_mean
from leakdet_tf.core.files import write_bytes
from leakdet_tf.formats import child
from leakdet_tf.formats.child import Asked, Layer
from leakdet_tf.formats.onnx_graph import name_nodes, plainly_called, simplified

FILE = "model.onnx"
"""The model's name in a bundle."""
OPSET = 17
"""tf2onnx 1.17 refuses 19 and more; 18 would swap GlobalAveragePool for ReduceMean, which runtimes do slower."""
OUTPUT = "output"
"""The name of the model's output."""
INT8 = "onnx_int8"
FORMS = ("onnx_float32", INT8)
"""The formats by name."""
_FLOAT, _RANGES = "float.onnx", "ranges.json"
PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
"""What the extra ``[onnx]`` brings."""


def require() -> None:
    """Raise ExportError, with the line to type, unless the packages of the extra are installed."""
    for name in PACKAGES:
        if util.find_spec(name) is None:
            raise ExportError(
                f"export to ONNX needs '{name}', which is not installed", remedy="pip install 'leakdet_tf[onnx]'"
            )


def convert(model: Path, contract: Path, out: Path, *, form: str = "onnx_float32", **int8: Any) -> list[Layer]:
    """Convert a ``.keras`` file to ONNX at the contract's input sizes, its graph as ``outputs`` says.

    Args:
        model: the ``.keras`` file.
        contract: the path of its JSON.
        out: written whole or not at all.
        form: ``"onnx_float32"``, or ``"onnx_int8"``: see :mod:`leakdet_tf.formats.onnx_int8`.
        int8: for int8, the rest of :class:`~leakdet_tf.formats.child.Asked`.

    Returns:
        With ``rank`` the layers that were quantized, most sensitive first; else nothing.

    Raises:
        ExportError: a package of the extra is missing, int8 has no calibration pictures, or the child process failed
            or took too long; the message ends with its last line.
    """
    require()
    if form not in FORMS:
        raise ExportError(f"no ONNX format is called '{form}'", remedy=did_you_mean(form, FORMS))
    asked = Asked(form, **int8)
    if form == INT8 and asked.calibration is None:
        raise ExportError(f"{model}: {form} needs calibration pictures", remedy="give it some of the training split")
    if form != INT8 and asked.keep:
        raise ExportError(f"{model}: every layer of {form} is in float", remedy="leave out the names to keep")
    return child.run("leakdet_tf.formats.onnx", model, contract, out, to="ONNX", asked=asked)


def _convert_here(model_path: Path, contract: Contract, out: Path, asked: Asked) -> list[Layer]:
    import onnx

    from leakdet_tf.formats import calibration_set, onnx_int8

    with tempfile.TemporaryDirectory() as scratch:
        memory = asked.memory or Path(scratch)
        if (memory / _FLOAT).is_file():
            proto = onnx.load(memory / _FLOAT, load_external_data=False)
        else:
            proto = _traced(plainly_called(child.load(model_path, contract, batched=True)), contract)
        names = [value.name for value in proto.graph.input]
        layers: list[Layer] = []
        if asked.calibration is not None and asked.form == INT8:
            write_bytes(memory / _FLOAT, proto.SerializeToString())
            frames = calibration_set.read(asked.calibration, contract)
            what = (proto, contract, frames, asked.keep)
            proto = onnx_int8.quantized(*what, ranges=memory / _RANGES)
            if asked.rank:
                layers = onnx_int8.effects(*what, ranges=memory / _RANGES)
    _check(proto, [*names, OUTPUT])
    write_bytes(out, proto.SerializeToString())
    return layers


def _traced(model: Any, contract: Contract) -> Any:
    """The float32 graph of a Keras model, simplified, its batch called ``batch``."""
    import tensorflow as tf
    import tf2onnx

    signature = [
        tf.TensorSpec((None, *contract.inputs[tensor.name].shape), tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    answer = tf.function(lambda *pixels: {OUTPUT: model(list(pixels), training=False)}, input_signature=signature)
    proto, beside = tf2onnx.convert.from_function(answer, input_signature=signature, opset=OPSET)
    if beside:
        raise ValueError("a weight would lie outside the file")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto = simplified(proto)
    name_nodes(proto, model)
    return proto


def _check(proto: Any, names: list[str]) -> None:
    import onnx

    onnx.checker.check_model(proto, full_check=True)
    found = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    if found != names:
        raise ValueError(f"the file's inputs and output came out as {', '.join(found)}")
    if any(one.data_location == onnx.TensorProto.EXTERNAL for one in proto.graph.initializer):
        raise ValueError("a weight would lie outside the file")
    sides = [value.type.tensor_type.shape.dim[0].dim_param for value in (*proto.graph.input, *proto.graph.output)]
    if set(sides) != {"batch"}:
        raise ValueError(f"the batch of inputs and output came out as {', '.join(map(repr, sides))}")


if __name__ == "__main__":
    child.main(_convert_here)
