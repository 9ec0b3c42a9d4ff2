"""The few calls of the CUDA runtime that running an engine takes, through ctypes.

``libcudart`` and ``libcuda`` are the libraries that TensorRT itself calls, so a Jetson that has TensorRT has them:
nothing is to be installed, and no wheel built for another machine's driver comes between. Signatures are those of
NVIDIA's CUDA Runtime API and Driver API, the same in CUDA 11, 12 and 13.

What is here has run against a stand-in with these signatures, and against no GPU.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import BundleError, MissingExtraError

RUNTIMES = (
    "libcudart.so.13",
    "libcudart.so.12",
    "libcudart.so.11.0",
    "libcudart.so",
    "/usr/local/cuda/lib64/libcudart.so",
)
DRIVERS = ("libcuda.so.1", "libcuda.so")
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # cudaDevAttr…
_RUNTIME_CALLS: dict[str, tuple[Any, ...]] = {
    "cudaGetDevice": (POINTER(c_int),),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMallocHost": (POINTER(c_void_p), c_size_t),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreate": (POINTER(c_void_p),),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
}
_DRIVER_CALLS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_int,),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
}


_REMEDY = "is the GPU free, and the driver that of this JetPack?"


@dataclass(frozen=True)
class Gpu:
    """Which GPU this is. All Jetson Orin modules are named ``Orin``: the number of multiprocessors tells them apart."""

    name: str
    capability: str
    multiprocessors: int

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability}, {self.multiprocessors} multiprocessors)"


def load() -> tuple[Any, Any]:
    """``libcudart`` and ``libcuda``.

    Raises:
        MissingExtraError: one of them is not on this machine.
    """
    return _library(RUNTIMES, "the CUDA runtime"), _library(DRIVERS, "the NVIDIA driver")


def _library(names: tuple[str, ...], what: str) -> Any:
    said = ""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            said = said or str(error)
    raise MissingExtraError(
        f"{what} cannot be loaded ({said})",
        remedy="TensorRT runs on NVIDIA GPUs: on a Jetson, sudo apt install nvidia-jetpack",
    )


class Cuda:
    """Memory, copies and streams of the current GPU. Addresses are plain integers, as TensorRT takes them.

    Raises:
        MissingExtraError: the libraries are not here.
        BundleError: a call fails; the message names it and is CUDA's own.
    """

    def __init__(self) -> None:
        self._runtime, self._driver = load()
        for library, calls in ((self._runtime, _RUNTIME_CALLS), (self._driver, _DRIVER_CALLS)):
            for name, kinds in calls.items():
                function = getattr(library, name)
                function.argtypes, function.restype = kinds, c_int
        self._runtime.cudaGetErrorString.argtypes = (c_int,)
        self._runtime.cudaGetErrorString.restype = c_char_p

    def gpu(self) -> Gpu:
        """The current GPU."""
        device, handle, found = c_int(), c_int(), []
        self._call("cudaGetDevice", byref(device))
        for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS):
            value = c_int()
            self._call("cudaDeviceGetAttribute", byref(value), attribute, device)
            found.append(value.value)
        name = ctypes.create_string_buffer(256)
        for call in (
            self._driver.cuInit(0),
            self._driver.cuDeviceGet(byref(handle), device),
            self._driver.cuDeviceGetName(name, len(name), handle),
        ):
            if call:
                raise BundleError(f"the NVIDIA driver does not tell the GPU's name (CUresult {call})", remedy=_REMEDY)
        major, minor, multiprocessors = found
        return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", multiprocessors)

    def stream(self) -> int:
        """A new stream."""
        handle = c_void_p()
        self._call("cudaStreamCreate", byref(handle))
        return int(handle.value or 0)

    def copy(self, target: int, source: int, size: int, direction: int, stream: int) -> None:
        """Queue a copy between pinned memory and the GPU."""
        self._call("cudaMemcpyAsync", target, source, size, direction, stream)

    def wait(self, stream: int) -> None:
        """Return when the stream has done all that was queued; what failed on the way is told here."""
        self._call("cudaStreamSynchronize", stream)

    def take(self, name: str, size: int) -> int:
        """The address of ``size`` new bytes by ``cudaMalloc`` or ``cudaMallocHost``."""
        found = c_void_p()
        self._call(name, byref(found), size)
        return int(found.value or 0)

    def give(self, name: str, handle: int) -> None:
        """Give something back by the call of that name.

        Its status is not looked at: after a failure every call returns that one again, and the thing is gone anyway.
        """
        getattr(self._runtime, name)(handle)

    def _call(self, name: str, *given: Any) -> None:
        status = getattr(self._runtime, name)(*given)
        if status:
            said = self._runtime.cudaGetErrorString(status) or b"unknown error"
            raise BundleError(f"CUDA: {name}: {said.decode(errors='replace')} (status {status})", remedy=_REMEDY)


class Buffer:
    """An array in memory of the host that is not swapped out, and its place on the GPU.

    ``array`` has the given shape and dtype; ``address`` is the GPU's.

    Raises:
        BundleError: there is no room.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: str) -> None:
        self._cuda = cuda
        self._size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._pinned = cuda.take("cudaMallocHost", self._size)
        try:
            self.address = cuda.take("cudaMalloc", self._size)
        except BundleError:
            cuda.give("cudaFreeHost", self._pinned)
            raise
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * self._size).from_address(self._pinned))
        self.array: npt.NDArray[Any] = raw.view(dtype).reshape(shape)

    def send(self, stream: int) -> None:
        """Queue a copy of the array to the GPU."""
        self._cuda.copy(self.address, self._pinned, self._size, _TO_DEVICE, stream)

    def fetch(self, stream: int) -> None:
        """Queue a copy from the GPU into the array."""
        self._cuda.copy(self._pinned, self.address, self._size, _TO_HOST, stream)

    def free(self) -> None:
        """Give both back. ``array`` must not be looked at any more."""
        self._cuda.give("cudaFree", self.address)
        self._cuda.give("cudaFreeHost", self._pinned)
