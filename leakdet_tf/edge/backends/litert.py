"""LiteRT, the TensorFlow Lite runtime, for ``model.tflite``."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError, MissingExtraError
from leakdet_tf.core.images import Pixels

_REMEDY = "export the model again"


class LiteRTBackend:
    """A TFLite model of batch 1 on the CPU (XNNPACK). Callers from several threads wait for each other.

    Args:
        model: content of the ``.tflite`` file. Check its hash first: the parser trusts it.
        contract: inputs the model must take; names, shapes and dtypes are compared.
        threads: CPU threads; None takes the runtime's default (one).
        name: what messages call the file.

    Raises:
        BundleError: the file is not a TFLite model, or its inputs are not the contract's.
        MissingExtraError: the ``ai-edge-litert`` package is absent (it has no build for this Python).
    """

    def __init__(
        self, model: bytes, contract: Contract, *, threads: int | None = None, name: str = "model.tflite"
    ) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError(
                f"the LiteRT runtime cannot be imported ({error})",
                remedy="pip install ai-edge-litert (Python 3.11 to 3.13)",
            ) from error
        if threads is not None and threads < 1:
            raise BundleError(f"threads must be at least 1, not {threads}")
        try:
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
            runner = self._interpreter.get_signature_runner()
            details, answers = runner.get_input_details(), runner.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{name}: the runtime refuses it ({error})", remedy=_REMEDY) from error
        self._lock = Lock()  # the interpreter holds one picture
        self._name = name
        self._inputs: dict[str, int] = {}
        if set(details) != set(contract.inputs):
            raise BundleError(
                f"model.tflite takes {sorted(details)}, the contract {sorted(contract.inputs)}", remedy=_REMEDY
            )
        for name, spec in contract.inputs.items():
            shape, dtype = tuple(int(n) for n in details[name]["shape"]), np.dtype(details[name]["dtype"])
            if shape != (1, *spec.shape) or dtype != spec.dtype:
                raise BundleError(
                    f"model.tflite: input '{name}' is {dtype} {shape}, "
                    f"the contract says {spec.dtype} {(1, *spec.shape)}",
                    remedy=_REMEDY,
                )
            self._inputs[name] = details[name]["index"]
        self._outputs = {name: detail["index"] for name, detail in answers.items()}

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """One picture: (h, w, C) raw pixels by input name → float32 outputs by name, without a batch axis.

        Raises:
            BundleError: the runtime cannot compute the model.
        """
        with self._lock:
            try:
                for name, index in self._inputs.items():
                    self._interpreter.set_tensor(index, inputs[name][None])
                self._interpreter.invoke()
                return {name: self._interpreter.get_tensor(index)[0] for name, index in self._outputs.items()}
            except (ValueError, RuntimeError, IndexError) as error:  # IndexError: an output without a batch axis
                raise BundleError(f"{self._name}: the runtime cannot compute it ({error})", remedy=_REMEDY) from error
