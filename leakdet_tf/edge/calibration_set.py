"""The pictures that a bundle brings for int8, and how TensorRT's calibrator gets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import Pixels
from leakdet_tf.edge.backends.cuda import Buffer, Cuda
from leakdet_tf.edge.reading import read_arrays, read_file

CALIBRATION = "calibration.npz"
"""The pictures' name in a bundle: one array (N, h, w, C) by input name."""
_REMEDY = "export the bundle again"
_FLOAT16 = "it does not calibrate this graph: build it with --precision float16"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures as the model takes them, (N, h, w, C) of the contract's dtype by input name."""

    arrays: dict[str, Pixels]

    @property
    def number(self) -> int:
        """How many there are."""
        return len(next(iter(self.arrays.values())))


def read_pictures(path: Path, digest: str, contract: Contract) -> Pictures:
    """A bundle's calibration pictures; nothing parses the file before its SHA-256 is found to be ``digest``.

    Raises:
        BundleError: the file is missing, changed or malformed, or its pictures are not what the contract takes.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", remedy="copy the bundle again") from error
    if sha256_bytes(data) != digest:
        raise BundleError(f"{path}: its SHA-256 is not the one listed: changed or damaged", remedy="copy it again")
    pictures = Pictures(parse_pictures(data, contract, where=str(path)))
    if not pictures.number:
        raise BundleError(f"{path}: holds no picture", remedy=_REMEDY)
    return pictures


def parse_pictures(data: bytes, contract: Contract, *, where: str) -> dict[str, Pixels]:
    """Pictures (N, h, w, C) by input name from the bytes of an ``.npz``, N the same for all and perhaps 0.

    Raises:
        BundleError: they are malformed, or not what the contract takes.
    """
    arrays = read_arrays(data, where=f"{where}: calibration pictures", remedy=_REMEDY)
    if set(arrays) != set(contract.inputs):
        raise BundleError(
            f"{where}: holds {sorted(arrays)}, the contract says {sorted(contract.inputs)}", remedy=_REMEDY
        )
    for name, spec in contract.inputs.items():
        found = arrays[name]
        if found.ndim != 4 or found.shape[1:] != spec.shape or found.dtype != spec.dtype:
            raise BundleError(
                f"{where}: '{name}' is {found.dtype} {found.shape}, "
                f"the contract says {spec.dtype} {('N', *spec.shape)}",
                remedy=_REMEDY,
            )
    if len({len(array) for array in arrays.values()}) != 1:
        raise BundleError(f"{where}: its inputs differ in the number of pictures", remedy=_REMEDY)
    return arrays


def calibrator(trt: Any, pictures: Pictures) -> Any:
    """TensorRT's entropy calibrator (deprecated from 10.1, gone in 11) over the pictures, one at a time.

    It has ``table``, what TensorRT found, ``check(where)``, which raises unless every picture was asked for and the
    table holds ranges, and ``close()``. Exceptions do not pass through TensorRT, so they are kept and raised by
    ``check``. uint16 pictures, which TensorRT has not, are given as float32.

    Whether TensorRT reads pictures of a uint8 input as uint8 is not in its documentation and has not been tried; where
    it does not, the golden frames are answered otherwise and the engine is refused.
    """
    cuda = Cuda()

    class Feed(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.table = b""
            self.given = 0
            self.failed: BundleError | None = None
            self._stream = 0
            self._buffers: dict[str, Buffer] = {}

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            if self.given >= pictures.number or self.failed is not None:
                return None
            try:
                addresses = [self._put(name) for name in names]
                cuda.wait(self._stream)
            except BundleError as error:
                self.failed = error
                return None
            self.given += 1
            return addresses

        def _put(self, name: str) -> int:
            if name not in pictures.arrays:
                raise BundleError(f"TensorRT asks for calibration of '{name}', which is no input", remedy=_REMEDY)
            picture = pictures.arrays[name][self.given]
            if name not in self._buffers:
                self._stream = self._stream or cuda.stream()
                dtype = "float32" if picture.dtype == np.uint16 else str(picture.dtype)
                self._buffers[name] = Buffer(cuda, picture.shape, dtype)
            buffer = self._buffers[name]
            buffer.array[...] = picture
            buffer.send(self._stream)
            return buffer.address

        def read_calibration_cache(self) -> None:
            return None

        def write_calibration_cache(self, table: Any) -> None:
            self.table = bytes(table)

        def check(self, where: Path) -> None:
            if self.failed is not None:
                raise self.failed
            if self.given != pictures.number:
                raise BundleError(
                    f"{where}: TensorRT asked for {self.given} of {pictures.number} calibration pictures",
                    remedy=_FLOAT16,
                )
            if not self.table.partition(b"\n")[2].strip():  # its first line names TensorRT and the method
                raise BundleError(f"{where}: TensorRT gives a calibration table without ranges", remedy=_FLOAT16)

        def close(self) -> None:
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers = {}
            if self._stream:
                cuda.give("cudaStreamDestroy", self._stream)
                self._stream = 0

    return Feed()
