"""Conversions run in a process of their own, which keeps a converter's memory, threads and log lines out of the caller.

A module that converts is called as ``python -m MODULE MODEL CONTRACT OUT OPTIONS``, the last being JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leakdet_tf.core.children import environment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError, LeakdetError
from leakdet_tf.core.files import write_json

_LIMIT_S = 1800
_REFUSED = 3  # the child's exit code when its last line says all that the user needs


@dataclass(frozen=True)
class Layer:
    """A quantized layer: its name in the converted graph, and how much its quantization changes its own output.

    ``error`` is the root mean square error of its quantized output, in quantization steps or as a share of the output:
    the layers of one graph can be put in order by it, those of two formats cannot.
    """

    name: str
    error: float


@dataclass(frozen=True)
class Asked:
    """What is to be made of a model.

    Attributes:
        form: the format's name.
        calibration: for int8, an ``.npz`` of one array (N, h, w, C) by input name in the contract's dtype: pictures as
            the model takes them, of 8-bit inputs frames of the lowest and of the highest value among them.
        keep: for int8, layers that stay in float, by their names in an earlier result.
        memory: for int8, a folder of one model and its calibration pictures. A first call leaves there what it has
            computed (the float32 or calibrated graph, the ranges of its tensors); later ones begin from it.
        rank: for int8, whether to measure what each layer's quantization does, which can take a second or more a layer.
    """

    form: str
    calibration: Path | None = None
    keep: Sequence[str] = ()
    memory: Path | None = None
    rank: bool = False


def run(module: str, model: Path, contract: Path, out: Path, *, to: str, asked: Asked) -> list[Layer]:
    """Convert a ``.keras`` file at the contract's input sizes, under TensorFlow and without a GPU.

    Args:
        module: the module that converts, by its full name.
        model: the ``.keras`` file.
        contract: the path of its JSON.
        out: written whole or not at all.
        to: the format's name for the user.
        asked: what else the module is told.

    Returns:
        With ``asked.rank`` the layers that were quantized, most sensitive first; else nothing.

    Raises:
        ExportError: the child process failed or took too long; the message ends with its last line.
    """
    there = environment(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="-1")
    command = [
        sys.executable,
        "-m",
        module,
        str(model),
        str(contract),
        str(out),
        json.dumps(asdict(asked), default=str),
    ]
    try:
        done = subprocess.run(
            command, env=there, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{model}: conversion to {to} took over {_LIMIT_S} s", remedy="use a smaller input"
        ) from error
    if done.returncode != 0 or not out.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "no message"
        if done.returncode == _REFUSED:
            raise ExportError(f"{model}: not converted to {to}: {last}")
        raise ExportError(
            f"{model}: conversion to {to} failed ({last})", remedy=f"does the model use operators {to} lacks?"
        )
    report = _report(out)
    layers = [Layer(**layer) for layer in json.loads(report.read_bytes())]
    report.unlink()
    return layers


def main(convert: Callable[[Path, Contract, Path, Asked], list[Layer]]) -> None:
    """In the child: ``convert`` with the command line's arguments."""
    model, contract, out = (Path(text) for text in sys.argv[1:4])
    told = json.loads(sys.argv[4])
    paths = {name: Path(told[name]) for name in ("calibration", "memory") if told[name]}
    try:
        said = convert(model, Contract.load(contract), out, Asked(**told | paths))
    except LeakdetError as error:
        print(error, file=sys.stderr)  # noqa: T201  the caller's last line
        sys.exit(_REFUSED)
    write_json(_report(out), [asdict(layer) for layer in said])


def load(model: Path, contract: Contract, *, batched: bool) -> Any:
    """In the child: the Keras model in float32 with the contract's outputs; see :func:`boxes.as_outputs`."""
    import keras

    from leakdet_tf.formats.boxes import as_outputs
    from leakdet_tf.formats.precision import in_float32

    keras.config.disable_traceback_filtering()
    loaded = keras.saving.load_model(model, compile=False, safe_mode=True)
    return as_outputs(in_float32(loaded), contract, batched=batched)


def _report(out: Path) -> Path:
    return out.with_name(out.name + ".json")
