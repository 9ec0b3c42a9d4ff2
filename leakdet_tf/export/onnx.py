"""Keras model to ONNX, in a process of its own: ``python -m leakdet_tf.export.onnx MODEL CONTRACT OUT``.

The route is a ``tf.function`` → tf2onnx with a batch of any size. Inputs have the contract's names and integer types,
the output is named ``output``, and all weights are inside the file.
"""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError
from leakdet_tf.core.files import write_bytes
from leakdet_tf.export import child

FILE = "model.onnx"
"""The model's name in a bundle."""
OPSET = 17
"""tf2onnx 1.17 refuses 19 and more; 18 would swap GlobalAveragePool for ReduceMean, which runtimes do slower."""
OUTPUT = "output"
"""The name of the model's output."""
PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
"""What the extra ``[onnx]`` brings."""


def require() -> None:
    """Raise ExportError, with the line to type, unless the packages of the extra are installed."""
    for name in PACKAGES:
        if util.find_spec(name) is None:
            raise ExportError(
                f"export to ONNX needs '{name}', which is not installed", remedy="pip install 'leakdet_tf[onnx]'"
            )


def convert(model: Path, contract: Path, out: Path) -> None:
    """Convert a ``.keras`` file to float32 ONNX at the contract's input sizes, its graph as ``outputs`` says.

    ``contract`` is the path of its JSON; ``out`` is written whole or not at all.

    Raises:
        ExportError: a package of the extra is missing, or the child process failed or took too long; the message ends
            with its last line.
    """
    require()
    child.run("leakdet_tf.export.onnx", model, contract, out, to="ONNX")


def _convert_here(model_path: Path, contract: Contract, out: Path) -> None:
    import keras
    import onnx
    import tensorflow as tf
    import tf2onnx

    from leakdet_tf.export.boxes import as_outputs

    keras.config.disable_traceback_filtering()
    model = keras.saving.load_model(model_path, compile=False, safe_mode=True)
    model = as_outputs(model, contract, batched=True)
    signature = [
        tf.TensorSpec((None, *contract.inputs[tensor.name].shape), tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    answer = tf.function(lambda *pixels: {OUTPUT: model(list(pixels), training=False)}, input_signature=signature)
    proto, beside = tf2onnx.convert.from_function(answer, input_signature=signature, opset=OPSET)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(proto, full_check=True)
    found = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    if found != [*(tensor.name for tensor in model.inputs), OUTPUT]:
        raise ValueError(f"the file's inputs and output came out as {', '.join(found)}")
    outside = [one.name for one in proto.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    if beside or outside:
        raise ValueError("a weight would lie outside the file")
    write_bytes(out, proto.SerializeToString())


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Contract.load(Path(sys.argv[2])), Path(sys.argv[3]))
