"""The ONNX file that a Jetson builds its TensorRT engine from: float32, of operators that TensorRT has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import ExportError
from leakdet_tf.export import onnx
from leakdet_tf.export.child import Layer


def convert(model: Path, contract: Path, out: Path, **_: Any) -> list[Layer]:
    """Convert a ``.keras`` file to float32 ONNX and hold its graph against TensorRT's documented operators.

    No option of a quantized format changes the file: ranges and precisions are chosen on the device.

    Raises:
        ExportError: as :func:`leakdet_tf.export.onnx.convert`, or TensorRT does not take the graph.
    """
    from onnx import load

    from leakdet_tf.export.onnx_lint import TENSORRT, summary, unsupported

    layers = onnx.convert(model, contract, out)
    if found := unsupported(load(out, load_external_data=False)):
        out.unlink()
        raise ExportError(
            f"{model}: TensorRT {TENSORRT} does not take the graph: {summary(found)}",
            remedy='use other layers, raw outputs, 8-bit inputs, or format "onnx_float32"',
        )
    return layers
