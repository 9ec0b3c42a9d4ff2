"""Stands in for ``libcudart`` and ``libcuda``: C functions of their signatures, over memory of this process.

What real CUDA leaves undefined is an error here: copies past an end, freed or foreign addresses, unknown streams.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_void_p
from types import SimpleNamespace

OUT_OF_MEMORY, INVALID, TEXTS = 2, 1, {1: b"invalid argument", 2: b"out of memory", 700: b"an illegal memory access"}


class State:
    """Everything that is allotted, and how the machine is to behave."""

    def __init__(self) -> None:
        self.gpu = ("Orin", (8, 7), 8)
        self.room = 1 << 30
        self.failing: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        self.device: dict[int, ctypes.Array] = {}
        self.pinned: dict[int, ctypes.Array] = {}
        self.streams: set[int] = set()

    @property
    def left(self) -> int:
        """How many things have not been given back."""
        return len(self.device) + len(self.pinned) + len(self.streams)


state = State()


def within(table: dict[int, ctypes.Array], address: int, size: int) -> bool:
    return address in table and size <= len(table[address])


def _take(table_name: str):
    def call(place, size):
        table = getattr(state, table_name)
        if table_name == "device" and sum(map(len, table.values())) + size > state.room:
            return OUT_OF_MEMORY
        held = (ctypes.c_uint8 * size)(*([0xAB] * min(size, 64)))
        table[ctypes.addressof(held)] = held
        place[0] = ctypes.addressof(held)
        return 0

    return call


def _give(table_name: str):
    return lambda address: 0 if getattr(state, table_name).pop(address, None) is not None else INVALID


def _copy(target, source, size, direction, stream):
    tables = {1: (state.device, state.pinned), 2: (state.pinned, state.device)}.get(direction)
    if tables is None or stream not in state.streams:
        return INVALID
    if not (within(tables[0], target, size) and within(tables[1], source, size)):
        return INVALID
    ctypes.memmove(target, source, size)
    return 0


def _stream(place):
    number = 0x5000 + len(state.streams)
    state.streams.add(number)
    place[0] = number
    return 0


def _end(stream):
    state.streams.discard(stream)
    return 0


def _set(place, value):
    place[0] = value
    return 0


def _attribute(place, attribute, device):
    return _set(place, {75: state.gpu[1][0], 76: state.gpu[1][1], 16: state.gpu[2]}[attribute])


def _name(place, size, device):
    text = state.gpu[0].encode() + b"\0"
    ctypes.memmove(place, text, min(size, len(text)))
    return 0


def _function(name, call, *kinds):
    def checked(*given):
        return state.failing[name] if name in state.failing else call(*given)

    return CFUNCTYPE(c_int, *kinds)(checked)


def load():
    """The two libraries."""
    out, number = POINTER(c_void_p), POINTER(c_int)
    runtime = {
        "cudaGetDevice": (lambda place: _set(place, 0), number),
        "cudaDeviceGetAttribute": (_attribute, number, c_int, c_int),
        "cudaMalloc": (_take("device"), out, c_size_t),
        "cudaFree": (_give("device"), c_void_p),
        "cudaMallocHost": (_take("pinned"), out, c_size_t),
        "cudaFreeHost": (_give("pinned"), c_void_p),
        "cudaMemcpyAsync": (_copy, c_void_p, c_void_p, c_size_t, c_int, c_void_p),
        "cudaStreamCreate": (_stream, out),
        "cudaStreamSynchronize": (lambda stream: 0 if stream in state.streams else INVALID, c_void_p),
        "cudaStreamDestroy": (_end, c_void_p),
    }
    driver = {
        "cuInit": (lambda flags: 0, c_int),
        "cuDeviceGet": (_set, number, c_int),
        "cuDeviceGetName": (_name, c_void_p, c_int, c_int),
    }
    libraries = [
        SimpleNamespace(**{name: _function(name, *parts) for name, parts in table.items()})
        for table in (runtime, driver)
    ]
    libraries[0].cudaGetErrorString = _Text()
    return libraries[0], libraries[1]


class _Text:
    # a callback cannot return text, so this one is no C function
    argtypes: tuple = ()
    restype = c_char_p

    def __call__(self, status):
        return TEXTS.get(status, b"unknown error")
