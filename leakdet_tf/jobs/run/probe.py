"""What one installed runtime can do, found out in a process of its own: ``python -m leakdet_tf.jobs.run.probe litert``.

Loading a runtime that was built for another processor or driver can kill the process; then the one that asked lives.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from leakdet_tf.core.children import ask

LIMIT_S = 120
"""Seconds after which a probe is given up."""
# y = x + x of float32 (1, 4), in 296 and 71 bytes.
_TFLITE = (
    "CAAAAFRGTDPK////FAAAABwAAAAgAAAAAAEAAAMAAAABAAAABAAAAAj///8AAAAAAAAAAAEAAAAUAAAAAAAOABgAFAAQAAwACAAEAA4AAAAUAAAA"
    "GAAAAFgAAABcAAAAYAAAAAAAAAAAAAAAAQAAABQAAAAAAA4AFAAAABAADAALAAQADgAAABAAAAAAAAALDAAAABAAAAB4////AQAAAAEAAAACAAAA"
    "AAAAAAAAAAABAAAAAQAAAAEAAAAAAAAAAgAAADQAAAAEAAAA4P///wgAAAAMAAAAAQAAAHkAAAACAAAAAQAAAAQAAAAMAAwACAAAAAAABAAMAAAA"
    "CAAAAAwAAAABAAAAeAAAAAIAAAABAAAABAAAAAEAAAAIAAAABAAEAAQAAAA="
)
_ONNX = "CAg6PQoOCgF4CgF4EgF5IgNBZGQSAWdaEwoBeBIOCgwIARIICgIIAQoCCARiEwoBeRIOCgwIARIICgIIAQoCCARCBAoAEBE="
Found = dict[str, Any]


def probe(name: str, *, limit_s: float = LIMIT_S) -> Found:
    """Run a probe of :data:`PROBES` in a child process.

    Returns:
        ``ok``, and if so the probe's own findings, else ``fault``: one line.
    """
    return ask(__name__, name, limit_s=limit_s)


def _litert() -> Found:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_content=base64.b64decode(_TFLITE))
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], _given())
    model.invoke()
    _check(model.get_tensor(model.get_output_details()[0]["index"]))
    return {"devices": ["CPU"]}


def _onnxruntime() -> Found:
    import onnxruntime

    session = onnxruntime.InferenceSession(base64.b64decode(_ONNX), providers=["CPUExecutionProvider"])
    _check(session.run(None, {"x": _given()})[0])
    offered = onnxruntime.get_available_providers()
    return {"devices": [name.removesuffix("ExecutionProvider") for name in offered]}


def _keras() -> Found:
    """Trains one step on the backend that Keras is set to."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    model.fit(_given(), np.ones((1, 1), np.float32), batch_size=1, verbose=0)
    if not np.isfinite(model.get_weights()[0]).all():
        raise ArithmeticError("a step of training gave weights that are not finite")
    return {"backend": keras.backend.backend()}


def _tensorflow() -> Found:
    import tensorflow as tf

    names = []
    for device in tf.config.list_physical_devices():
        told = tf.config.experimental.get_device_details(device) if device.device_type == "GPU" else {}
        names.append(" ".join([device.device_type, str(told.get("device_name", ""))]).strip())
    _check((tf.constant(_given()) * 2).numpy())
    return {"devices": names, "built_for_cuda": bool(tf.test.is_built_with_cuda())}


def _jax() -> Found:
    import jax

    _check(np.asarray(jax.numpy.asarray(_given()) * 2))
    return {"devices": [f"{one.platform.upper()} {one.device_kind}" for one in jax.devices()]}


def _torch() -> Found:
    import torch

    _check((torch.from_numpy(_given()) * 2).numpy())
    gpus = [f"GPU {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return {"devices": ["CPU", *gpus], "built_for_cuda": torch.version.cuda is not None}


PROBES: dict[str, Callable[[], Found]] = {
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
    "keras": _keras,
}


def _given() -> Any:
    return np.arange(4, dtype=np.float32)[None]


def _check(answer: Any) -> None:
    if not np.array_equal(answer, 2 * _given()):
        raise ArithmeticError(f"0 1 2 3 doubled gave {np.asarray(answer).ravel().tolist()}")


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(PROBES[sys.argv[1]]()) + "\n")
