"""Keeps TensorFlow's start-up chatter (device probing, CPU features) off the user's terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from leakdet_tf.core.errors import ConfigError

_SIDE_BY_SIDE = "TF_NUM_INTEROP_THREADS"


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hold back what native libraries write to stderr in the block; when the block fails, it is shown after all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def start_tensorflow(*, gpus: bool = True) -> None:
    """Import TensorFlow and let it probe its devices, quietly. Without ``gpus`` it takes none.

    oneDNN's kernels are switched on unless TF_ENABLE_ONEDNN_OPTS says otherwise: TensorFlow itself uses them only on
    CPUs with AVX-512, yet without it they train 1.4 times as fast too (U-Net, ResNet18; two cores with AVX2).

    Raises:
        ConfigError: it is to take no GPU and has done so already.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with quiet_start():
        import tensorflow as tf

        if not gpus and tf.config.get_visible_devices("GPU"):
            try:
                tf.config.set_visible_devices([], "GPU")
            except RuntimeError as error:
                raise ConfigError(
                    "TensorFlow has taken the GPUs of this process already", remedy="start a new one"
                ) from error
        tf.config.list_logical_devices()


def in_turn() -> bool:
    """Have TensorFlow compute a step's operations one after the other, each on all cores; whether it will.

    Side by side, as it does by itself, they gave a U-Net's gradients other last bits each time (TensorFlow 2.21, two
    cores; its own ``enable_op_determinism`` did not help), 8 % faster. Must be called before
    TensorFlow is imported; a number of TF_NUM_INTEROP_THREADS that the user gave stays.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(_SIDE_BY_SIDE, "1")
    return os.environ.get(_SIDE_BY_SIDE) == "1"


def same_sums() -> None:
    """Have a GPU's kernels add up in the same order each time, in this process from now on; for a CPU see above."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
