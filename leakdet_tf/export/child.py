"""Conversions run in a process of their own, which keeps a converter's memory, threads and log lines out of the caller.

A module that converts is called as ``python -m MODULE MODEL CONTRACT OUT``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from leakdet_tf.core.errors import ExportError

_LIMIT_S = 1800


def run(module: str, model: Path, contract: Path, out: Path, *, to: str) -> None:
    """Convert a ``.keras`` file at the contract's input sizes, under TensorFlow and without a GPU.

    Args:
        module: the module that converts, by its full name.
        model: the ``.keras`` file.
        contract: the path of its JSON.
        out: written whole or not at all.
        to: the format's name for the user.

    Raises:
        ExportError: the child process failed or took too long; the message ends with its last line.
    """
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    command = [sys.executable, "-m", module, str(model), str(contract), str(out)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{model}: conversion to {to} took over {_LIMIT_S} s", remedy="use a smaller input"
        ) from error
    if done.returncode != 0 or not out.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "no message"
        raise ExportError(
            f"{model}: conversion to {to} failed ({last})", remedy=f"does the model use operators {to} lacks?"
        )
