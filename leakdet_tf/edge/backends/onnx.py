"""ONNX Runtime on the CPU, for ``model.onnx``."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError, MissingExtraError
from leakdet_tf.core.images import Pixels

_REMEDY = "export the model again"
_FATAL = 4  # of the runtime's severities: what goes wrong comes as an exception, so nothing else is printed
_TYPES = {"uint8": "tensor(uint8)", "uint16": "tensor(uint16)", "float32": "tensor(float)"}
_ERRORS = (
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoModel",
    "NoSuchFile",
    "NotFound",
    "NotImplemented",
    "RuntimeException",
)


class OnnxBackend:
    """An ONNX model, which takes batches of any size, answering one picture at a time on the CPU.

    Args:
        model: content of the ``.onnx`` file. Check its hash first: the parser trusts it.
        contract: inputs the model must take; names, shapes and dtypes are compared. uint16 pixels may be float32 ones
            in the file.
        threads: CPU threads; None takes the runtime's default (one a core).
        name: what messages call the file.

    Raises:
        BundleError: the file is not an ONNX model, or its inputs are not the contract's.
        MissingExtraError: the ``onnxruntime`` package is absent.
    """

    def __init__(
        self, model: bytes, contract: Contract, *, threads: int | None = None, name: str = "model.onnx"
    ) -> None:
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError as error:
            raise MissingExtraError(
                f"ONNX Runtime cannot be imported ({error})", remedy="pip install onnxruntime"
            ) from error
        if threads is not None and threads < 1:
            raise BundleError(f"threads must be at least 1, not {threads}")
        self._name = name
        # its errors share no class but Exception
        known = (getattr(state, name, RuntimeError) for name in _ERRORS)
        self._errors: tuple[type[Exception], ...] = (*known, RuntimeError, ValueError)
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads or 0
        # weights outside the file would not be hashed: they are sought where nothing can be
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise BundleError(f"{name}: the runtime refuses it ({error})", remedy=_REMEDY) from error
        given = {tensor.name: tensor for tensor in self._session.get_inputs()}
        if set(given) != set(contract.inputs):
            raise BundleError(
                f"model.onnx takes {sorted(given)}, the contract {sorted(contract.inputs)}", remedy=_REMEDY
            )
        for name, spec in contract.inputs.items():
            shape, kind = tuple(given[name].shape), given[name].type
            if shape[1:] != spec.shape or kind not in [_TYPES[dtype] for dtype in spec.carriers]:
                raise BundleError(
                    f"model.onnx: input '{name}' is {kind} {shape}, "
                    f"the contract says {spec.dtype} {('batch', *spec.shape)}",
                    remedy=_REMEDY,
                )
        dtypes = {kind: dtype for dtype, kind in _TYPES.items()}
        self._dtypes = {name: dtypes[given[name].type] for name in contract.inputs}
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """One picture: (h, w, C) raw pixels by input name → float32 outputs by name, without a batch axis.

        Raises:
            BundleError: the runtime cannot compute the graph.
        """
        batch = {name: pixels[None].astype(self._dtypes[name], copy=False) for name, pixels in inputs.items()}
        try:
            arrays = self._session.run(self._outputs, batch)
        except self._errors as error:
            raise BundleError(f"{self._name}: the runtime cannot compute it ({error})", remedy=_REMEDY) from error
        return {name: array[0] for name, array in zip(self._outputs, arrays, strict=True)}
