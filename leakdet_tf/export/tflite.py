"""Keras model to TFLite, in a process of its own: ``python -m leakdet_tf.export.tflite MODEL CONTRACT OUT``.

The route is SavedModel → TFLiteConverter with batch 1 and builtin operators; others were seen to succeed and
compute something else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.files import write_bytes
from leakdet_tf.export import child

FILE = "model.tflite"
"""The model's name in a bundle."""


def convert(model: Path, contract: Path, out: Path) -> None:
    """Convert a ``.keras`` file to float32 TFLite at the contract's input sizes, its graph as ``outputs`` says.

    ``contract`` is the path of its JSON; ``out`` is written whole or not at all.

    Raises:
        ExportError: the child process failed or took too long; the message ends with its last line.
    """
    child.run("leakdet_tf.export.tflite", model, contract, out, to="TFLite")


def _convert_here(model_path: Path, contract: Contract, out: Path) -> None:
    import keras
    import tensorflow as tf

    from leakdet_tf.export.boxes import as_outputs

    keras.config.disable_traceback_filtering()
    model = keras.saving.load_model(model_path, compile=False, safe_mode=True)
    model = as_outputs(model, contract, batched=False)
    signature = [
        keras.InputSpec(shape=(1, *contract.inputs[tensor.name].shape), dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    with tempfile.TemporaryDirectory() as folder:
        given = signature if len(signature) == 1 else [signature]  # several inputs are one argument
        model.export(folder, format="tf_saved_model", input_signature=given, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        content = converter.convert()
    write_bytes(out, content)


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Contract.load(Path(sys.argv[2])), Path(sys.argv[3]))
