"""Which of Keras's backends a process works under: chosen once, before Keras is imported for the first time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from leakdet_tf.core.errors import ConfigError, MissingExtraError, did_you_mean
from leakdet_tf.edge import machine
from leakdet_tf.jobs.run.quiet import in_turn, quiet_start, same_sums, start_tensorflow

if TYPE_CHECKING:
    from leakdet_tf.config.schema import Experiment
    from leakdet_tf.config.train import Train

BACKENDS = {"tensorflow": "train", "jax": "jax", "torch": "torch"}
"""Keras's backends by name, with the extra of ours that brings each."""
_INSTRUCTIONS = {"mixed_bfloat16": ("avx512_bf16", "amx_bf16", "bf16")}
VARIABLE = "KERAS_BACKEND"
USUAL = "tensorflow"
AUTO = "auto"
"""What an experiment says for the one that measures fastest."""


def start(backend: str, *, deterministic: bool = False, xla: bool = False) -> bool:
    """Import Keras under a backend, quietly, and TensorFlow beside it, whose tf.data feeds them all.

    TensorFlow leaves GPUs to another backend: it would take all of their memory.

    Args:
        backend: its name.
        deterministic: two trainings of the same are to end in the same weights; asked of TensorFlow alone.
        xla: steps will be compiled as a whole, by which their operations have one order already.

    Returns:
        False where that was asked for and TensorFlow was at work otherwise in this process before.

    Raises:
        ConfigError: there is no such backend, or Keras or TensorFlow is at work otherwise in this process.
        MissingExtraError: it is not installed.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend '{backend}': is unknown", remedy=did_you_mean(backend, BACKENDS))
    if (running := at_work()) not in (None, backend):
        raise ConfigError(
            f"backend '{backend}': Keras is at work under {running} in this process already",
            remedy=f'start a new one, or set train.backend = "{running}"',
        )
    if find_spec(backend) is None:
        raise MissingExtraError(
            f"backend '{backend}': is not installed", remedy=f"pip install 'leakdet_tf[{BACKENDS[backend]}]'"
        )
    os.environ[VARIABLE] = backend
    asked = deterministic and backend == "tensorflow"
    in_order = in_turn() if asked and not xla else True
    start_tensorflow(gpus=backend == "tensorflow")
    if asked:
        same_sums()
    with quiet_start():
        import_module(backend)
        import_module("keras")
    return in_order


def drop_useless_xla(settings: Train, log: Callable[[str], None]) -> Train:
    """The settings without ``xla`` where Keras, which is at work, would not heed it: with TensorFlow's deterministic
    kernels on a GPU. The log is told."""
    import tensorflow as tf

    by_determinism = settings.xla and settings.deterministic and settings.backend == "tensorflow"
    if not by_determinism or not tf.config.list_physical_devices("GPU"):
        return settings
    log("train.xla does nothing on a GPU beside train.deterministic = true; set that to false to have XLA")
    return settings.model_copy(update={"xla": False})


def slow(precision: str) -> str:
    """A line for the log where a mixed precision slows training down on this machine, else nothing.

    Keras must be at work. A CPU computes in bfloat16 well if it has instructions for it, and in float16 never.
    """
    import keras

    wanted = _INSTRUCTIONS.get(precision, ())
    known = machine.features()
    if precision == "float32" or keras.distribution.list_devices("gpu") or known is None or set(known) & set(wanted):
        return ""
    lacks = f" without {' or '.join(wanted)}" if wanted else ""
    return f"train.precision = {precision} is slower than float32 on a CPU{lacks}"


def at_work() -> str | None:
    """The backend that Keras was imported under, None where it was not yet."""
    keras = sys.modules.get("keras")
    return None if keras is None else str(keras.config.backend())


def under(backend: str, experiment: Experiment) -> Experiment:
    """The experiment with this backend."""
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"backend": backend})})


def to_open(experiment: Path) -> str:
    """The backend to open a run under: what KERAS_BACKEND says, else the one that it was trained under.

    A run's weights answer alike under all, so that a machine without the run's own can answer all the same.

    Args:
        experiment: the run's resolved file.
    """
    import tomllib  # not in Python 3.10, on which bundles are answered

    if asked := os.environ.get(VARIABLE):
        return asked
    found = tomllib.loads(experiment.read_text(encoding="utf-8")).get("train", {}).get("backend", USUAL)
    return str(found)
