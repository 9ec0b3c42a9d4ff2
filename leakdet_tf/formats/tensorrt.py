"""The ONNX file that a Jetson builds its TensorRT engine from: float32, of operators that TensorRT has.

TensorRT has no uint16. Such an input is float32 in the file, which holds every uint16 exactly; the contract, pictures
and golden frames keep uint16, and a runtime turns pixels into floats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import ExportError
from leakdet_tf.core.files import write_bytes
from leakdet_tf.formats import onnx
from leakdet_tf.formats.child import Layer
from leakdet_tf.formats.onnx_graph import widened


def convert(model: Path, contract: Path, out: Path, **_: Any) -> list[Layer]:
    """Convert a ``.keras`` file to float32 ONNX and hold its graph against TensorRT's documented operators.

    No option of a quantized format changes the file: ranges and precisions are chosen on the device.

    Raises:
        ExportError: as :func:`leakdet_tf.formats.onnx.convert`, or TensorRT does not take the graph.
    """
    from onnx import load

    from leakdet_tf.formats.onnx_lint import TENSORRT, summary, unsupported

    layers = onnx.convert(model, contract, out)
    proto = widened(load(out, load_external_data=False))
    if found := unsupported(proto):
        out.unlink()
        raise ExportError(
            f"{model}: TensorRT {TENSORRT} does not take the graph: {summary(found)}",
            remedy="use other layers or raw outputs, let 16-bit inputs be cast to float32 before all else, or take "
            'format "onnx_float32"',
        )
    write_bytes(out, proto.SerializeToString())
    return layers


def limits(content: bytes) -> list[str]:
    """What TensorRT takes of a converted file under a condition only, a line each."""
    from onnx import load_from_string

    from leakdet_tf.formats.onnx_lint import findings

    return [str(one) for one in findings(load_from_string(content)) if one.kind == "limited"]
