"""Keras model to TFLite, in a process of its own: ``python -m leakdet_tf.export.tflite MODEL CONTRACT OUT``.

The route is SavedModel → TFLiteConverter with batch 1 and builtin operators; others were seen to succeed and
compute something else. A child process keeps the converter's memory, threads and log lines out of the caller.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError
from leakdet_tf.core.files import write_bytes

_LIMIT_S = 1800


def convert(model: Path, contract: Path, out: Path) -> None:
    """Convert a ``.keras`` file to float32 TFLite at the contract's input sizes.

    ``contract`` is the path of its JSON; ``out`` is written whole or not at all.

    Raises:
        ExportError: the child process failed or took too long; the message ends with its last line.
    """
    command = [sys.executable, "-m", "leakdet_tf.export.tflite", str(model), str(contract), str(out)]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{model}: conversion to TFLite took over {_LIMIT_S} s", remedy="use a smaller input"
        ) from error
    if done.returncode != 0 or not out.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "no message"
        raise ExportError(
            f"{model}: conversion to TFLite failed ({last})", remedy="does the model use operators TFLite lacks?"
        )


def _convert_here(model_path: Path, contract: Contract, out: Path) -> None:
    import keras
    import tensorflow as tf

    keras.config.disable_traceback_filtering()
    model = keras.saving.load_model(model_path, compile=False, safe_mode=True)
    signature = [
        keras.InputSpec(shape=(1, *contract.inputs[tensor.name].shape), dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, format="tf_saved_model", input_signature=signature, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        content = converter.convert()
    write_bytes(out, content)


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Contract.load(Path(sys.argv[2])), Path(sys.argv[3]))
