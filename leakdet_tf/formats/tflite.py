"""Keras model to TFLite, in a process of its own: ``python -m leakdet_tf.formats.tflite MODEL CONTRACT OUT OPTIONS``.

The route is SavedModel → TFLiteConverter with batch 1 and builtin operators; others were seen to succeed and
compute something else. All four formats take the contract's integer pixels and answer in float32, so that no reader
needs to know how a file was quantized.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError
from leakdet_tf.core.files import write_bytes
from leakdet_tf.formats import child
from leakdet_tf.formats.child import Asked, Layer

FILE = "model.tflite"
"""The model's name in a bundle."""
FORMS = ("tflite_float32", "tflite_float16", "tflite_dynamic", "tflite_int8")
"""Float32; weights in float16; weights in int8 and activations in float32; weights and activations in int8."""

_ABSENT = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)


def convert(model: Path, contract: Path, out: Path, *, form: str = "tflite_float32", **int8: Any) -> list[Layer]:
    """Convert a ``.keras`` file to TFLite at the contract's input sizes, its graph as ``outputs`` says.

    Args:
        model: the ``.keras`` file; one of mixed precision is converted in float32.
        contract: the path of its JSON.
        out: written whole or not at all.
        form: one of :data:`FORMS`.
        int8: for ``tflite_int8``, the rest of :class:`~leakdet_tf.formats.child.Asked`.

    Returns:
        With ``rank`` the layers that were quantized, most sensitive first; else nothing.

    Raises:
        ExportError: calibration or a kept layer is missing, unknown, or given to a format that has none; the model
            needs operators that TFLite lacks; or the child process failed or took too long.
    """
    if form not in FORMS:
        raise ExportError(f"'{form}' is not a TFLite format", remedy=f"choose from: {', '.join(FORMS)}")
    asked = Asked(form, **int8)
    if (form == "tflite_int8") != (asked.calibration is not None):
        told = "needs calibration pictures" if asked.calibration is None else "takes no calibration pictures"
        raise ExportError(f"{form} {told}", remedy="give them to tflite_int8 and to no other TFLite format")
    if asked.keep and form != "tflite_int8":
        raise ExportError(f"{form} quantizes no layer, so none can be kept in float", remedy="leave 'keep' empty")
    return child.run("leakdet_tf.formats.tflite", model, contract, out, to=f"TFLite ({form})", asked=asked)


def _convert_here(model_path: Path, contract: Contract, out: Path, asked: Asked) -> list[Layer]:
    import keras
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    from leakdet_tf.formats import calibration_set, tflite_int8

    layers: list[Layer] = []
    if asked.calibration is not None:
        frames = calibration_set.read(asked.calibration, contract)
    before = tflite_int8.Calibrated.load(asked.memory) if asked.memory else None
    if before is not None:
        write_bytes(out, before.quantized(asked.keep))
        return before.errors(asked.keep, contract, frames) if asked.rank else []
    model = child.load(model_path, contract, batched=False)
    signature = [
        keras.InputSpec(shape=(1, *contract.inputs[tensor.name].shape), dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    with tempfile.TemporaryDirectory() as folder:
        given = signature if len(signature) == 1 else [signature]  # several inputs are one argument
        model.export(folder, format="tf_saved_model", input_signature=given, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if asked.form != "tflite_float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if asked.form == "tflite_float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            if asked.form == "tflite_int8":
                graph = tflite_int8.calibrated(converter, model, contract, frames)
                content = graph.quantized(asked.keep)
                layers = graph.errors(asked.keep, contract, frames) if asked.rank else []
                if asked.memory:
                    graph.save(asked.memory)
            else:
                content = converter.convert()
        except ConverterError as error:
            absent = ", ".join(_ABSENT.findall(str(error)))
            if not absent:
                raise
            raise ExportError(f"TFLite has no builtin operators for: {absent}", remedy="use other layers") from error
    write_bytes(out, content)
    return layers


if __name__ == "__main__":
    child.main(_convert_here)
