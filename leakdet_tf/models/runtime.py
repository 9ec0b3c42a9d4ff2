"""A Keras model behind the interface that exported files have, and the identity of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.images import Pixels


class KerasBackend:
    """A Keras model that answers one picture at a time; inputs are matched by name."""

    def __init__(self, model: Any, contract: Contract) -> None:
        if sorted(tensor.name for tensor in model.inputs) != sorted(contract.inputs):
            taken = sorted(tensor.name for tensor in model.inputs)
            raise ModelError(
                f"the model takes {taken}, the experiment gives {sorted(contract.inputs)}", remedy="rename one"
            )
        # Keras takes arrays as the model's inputs were declared: bare, as a list or by name. Here always as a list.
        self.model = keras.Model(model.inputs, model.outputs, name=model.name)
        self._names = [tensor.name for tensor in model.inputs]

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """One picture: (h, w, C) raw pixels by input name → float32 outputs by name, without a batch axis."""
        batch = [inputs[name][None] for name in self._names]
        answer = self.model.predict_on_batch(batch)
        arrays = answer if isinstance(answer, list | tuple) else [answer]
        return {f"output_{i}": np.asarray(array[0], np.float32) for i, array in enumerate(arrays)}


def load_model(path: str | Path, contract: Contract | None = None) -> Any:
    """Read a ``.keras`` file without executing code from it, and compare its weights with the contract's, if given.

    Args:
        path: a run's ``model.keras``, or any file that Keras saved.
        contract: the one that ``fit`` wrote beside it; None: weights are not compared.

    Returns:
        The ``keras.Model``, not compiled.

    Raises:
        ModelError: missing, damaged, of another version, or its weights are not those that the contract names.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such file", remedy="check the path")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a file of the right form with odd content fails in any of Python's ways
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: cannot be loaded ({reason})", remedy="it is damaged or needs code that is not installed"
        ) from error
    if contract is not None and contract.weights_sha256 and weights_sha256(model) != contract.weights_sha256:
        raise ModelError(f"{path}: its weights are not those of its contract", remedy="restore both from the same run")
    return model


def weights_sha256(model: Any) -> str:
    """SHA-256 over shape and float32 bytes of every weight in order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight), dtype=np.float32)
        digest.update(f"{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
