"""TensorRT, for engines that :mod:`leakdet_tf.edge.tensorrt_build` has built on this device.

Written against the Python API that TensorRT 8.6 and 10 share: tensors by name, ``set_tensor_address``,
``execute_async_v3``. It has run against a stand-in with that interface; it has not yet run on a GPU.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError, ContractError, MissingExtraError
from leakdet_tf.core.images import Pixels
from leakdet_tf.edge.backends.cuda import Buffer, Cuda

OLDEST = (8, 6)
"""The oldest TensorRT that has the interface used here: JetPack 6.0's."""
_REMEDY = "build it again on this device: leakdet-tf engine BUNDLE --anew"


def library() -> Any:
    """The ``tensorrt`` package.

    Raises:
        MissingExtraError: it is absent, or older than :data:`OLDEST`.
    """
    try:
        found = importlib.import_module("tensorrt")
    except ImportError as error:
        raise MissingExtraError(
            f"TensorRT cannot be imported ({error})",
            remedy="it comes with JetPack: sudo apt install python3-libnvinfer, and make the environment with "
            "python3 -m venv --system-site-packages",
        ) from error
    if version(found) < OLDEST:
        raise MissingExtraError(f"TensorRT {found.__version__} is too old", remedy="8.6 or newer: JetPack 6 or newer")
    return found


def version(found: Any) -> tuple[int, int]:
    """Major and minor number of the ``tensorrt`` package."""
    match = re.match(r"(\d+)\.(\d+)", str(found.__version__))
    if not match:
        raise MissingExtraError(f"TensorRT says that its version is {found.__version__!r}", remedy="install JetPack's")
    return int(match[1]), int(match[2])


def listener(trt: Any) -> Any:
    """A TensorRT logger that prints nothing and keeps its errors in ``said``."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.said.append(" ".join(text.split()))

    return Listener()


def last(log: Any) -> str:
    """The last error that a :func:`listener` has heard."""
    return log.said[-1][:300] if log.said else "it does not say why"


class TensorRTBackend:
    """An engine of batch 1 on the GPU, with buffers of its own: frames from several threads wait for each other.

    TensorRT is given bytes and integers only, never arrays, so its bindings need not know this NumPy.

    Args:
        engine: the serialized engine. Check its hash first: TensorRT trusts it as it would a program.
        contract: inputs the engine must take; names, shapes and dtypes are compared.

    Raises:
        BundleError: TensorRT refuses the engine (another version or GPU), or its inputs are not the contract's, or the
            GPU has not enough memory.
        MissingExtraError: TensorRT or CUDA is not on this machine.
    """

    def __init__(self, engine: bytes, contract: Contract) -> None:
        self._context: Any = None
        self._lock = threading.Lock()
        self._stream = 0
        self._buffers: dict[str, Buffer] = {}
        self._specs = dict(contract.inputs)
        self._outputs: list[str] = []
        trt = library()
        self._cuda = Cuda()
        try:
            self._open(trt, engine, contract)
        except BundleError:
            self.close()
            raise

    def _open(self, trt: Any, engine: bytes, contract: Contract) -> None:
        self._log = listener(trt)
        try:
            self._runtime = trt.Runtime(self._log)
        except (TypeError, RuntimeError) as error:  # pybind11's word for a constructor that gave nothing
            raise BundleError(f"TensorRT cannot start here ({last(self._log)})", remedy="is the GPU free?") from error
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BundleError(f"TensorRT {trt.__version__} refuses the engine ({last(self._log)})", remedy=_REMEDY)
        names = [self._engine.get_tensor_name(place) for place in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in inputs]
        if set(inputs) != set(contract.inputs) or not self._outputs:
            raise BundleError(
                f"the engine takes {sorted(inputs)}, the contract {sorted(contract.inputs)}", remedy=_REMEDY
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BundleError(f"the GPU has no room for the engine ({last(self._log)})", remedy="end other programs")
        self._stream = self._cuda.stream()
        dtypes = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16", trt.DataType.UINT8: "uint8"}
        for name, spec in self._specs.items():
            dtype = dtypes.get(self._engine.get_tensor_dtype(name), "another dtype")
            shape = tuple(self._engine.get_tensor_shape(name))
            if shape[1:] != spec.shape or shape[0] not in (-1, 1) or dtype not in spec.carriers:
                raise BundleError(
                    f"the engine's input '{name}' is {dtype} {shape}, the contract says {spec.dtype} "
                    f"{('batch', *spec.shape)}",
                    remedy=_REMEDY,
                )
            if not self._context.set_input_shape(name, (1, *spec.shape)):
                raise BundleError(f"the engine takes no batch of 1 ({last(self._log)})", remedy=_REMEDY)
            self._allot(name, (1, *spec.shape), dtype)
        for name in self._outputs:
            dtype = dtypes.get(self._engine.get_tensor_dtype(name), "another dtype")
            shape = tuple(self._context.get_tensor_shape(name))
            if dtype not in ("float32", "float16") or not shape or shape[0] != 1 or min(shape) < 1:
                raise BundleError(f"the engine's output '{name}' is {dtype} {shape}", remedy=_REMEDY)
            self._allot(name, shape, dtype)

    def _allot(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self._buffers[name] = Buffer(self._cuda, shape, dtype)
        if not self._context.set_tensor_address(name, self._buffers[name].address):
            raise BundleError(f"the engine refuses the memory for '{name}' ({last(self._log)})", remedy=_REMEDY)

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """One picture: (h, w, C) raw pixels by input name → float32 outputs by name, without a batch axis.

        Raises:
            ContractError: the pixels are not of the contract's shape and dtype.
            BundleError: the GPU cannot compute the engine, or it has been closed.
        """
        for name, spec in self._specs.items():
            shape, dtype = inputs[name].shape, inputs[name].dtype
            if shape != spec.shape or dtype != spec.dtype:
                raise ContractError(f"the engine's input '{name}' is {spec.dtype} {spec.shape}, got {dtype} {shape}")
        with self._lock:
            if self._context is None:
                raise BundleError("the engine has been closed", remedy="open the bundle again")
            for name in self._specs:
                self._buffers[name].array[0] = inputs[name]
                self._buffers[name].send(self._stream)
            if not self._context.execute_async_v3(self._stream):
                raise BundleError(f"TensorRT cannot compute the engine ({last(self._log)})", remedy=_REMEDY)
            for name in self._outputs:
                self._buffers[name].fetch(self._stream)
            self._cuda.wait(self._stream)
            # copies: the next frame overwrites the pinned arrays
            return {name: self._buffers[name].array[0].astype(np.float32) for name in self._outputs}

    def close(self) -> None:
        """Give the GPU's memory back. What has been answered stays; :meth:`run` no longer works."""
        with self._lock:
            self._context = self._engine = self._runtime = None
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers = {}
            if self._stream:
                self._cuda.give("cudaStreamDestroy", self._stream)
                self._stream = 0

    def __del__(self) -> None:
        if getattr(self, "_cuda", None) is not None:  # where TensorRT is missing there is nothing to free
            self.close()
