"""Runtimes for exported models, one file each, imported when a bundle needs it."""

from __future__ import annotations

from pathlib import Path

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge.backends.protocol import Backend

RUNTIMES = {"model.tflite": "ai-edge-litert", "model.onnx": "onnxruntime"}
"""By a bundle's model file, the package that runs it."""


def open_backend(
    model_file: str, model: bytes, contract: Contract, *, threads: int | None = None, folder: Path | None = None
) -> Backend:
    """The runtime for a bundle's model file, loaded from bytes that have been checked.

    Args:
        model_file: the file's name in the bundle, which chooses the runtime.
        model: the file's content.
        contract: what inputs the model must take.
        threads: CPU threads, None for the runtime's own choice.
        folder: where the file lies, for messages.
    """
    name = str(folder / model_file) if folder else model_file
    if model_file == "model.tflite":
        from leakdet_tf.edge.backends.litert import LiteRTBackend

        return LiteRTBackend(model, contract, threads=threads, name=name)
    if model_file == "model.onnx":
        from leakdet_tf.edge.backends.onnx import OnnxBackend

        return OnnxBackend(model, contract, threads=threads, name=name)
    raise BundleError(f"no runtime for {model_file}", remedy="update leakdet_tf")
