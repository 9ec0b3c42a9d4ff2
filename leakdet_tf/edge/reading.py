"""Files of a bundle or a cache as bytes, and the arrays in them: nothing there is taken for a regular file or a whole
archive before it is found to be one.
"""

from __future__ import annotations

import io
import os
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from leakdet_tf.core.errors import BundleError

TEXT_BYTES = 1_000_000
"""The most that ``SHA256SUMS`` or a certificate may have."""
FILE_BYTES = 2_000_000_000
"""The most that any other file may have; LiteRT and ONNX take no model of more than 2 GiB."""
BUNDLE_BYTES = 2 * FILE_BYTES
"""The most that a bundle's files may have together: they are held in memory until all have been checked."""
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# RuntimeError is the archive reader's word for an encrypted member; TokenError comes from a malformed header,
# MemoryError from one that tells of too many values
_MALFORMED = (
    ValueError,
    OSError,
    LookupError,
    EOFError,
    TypeError,
    MemoryError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_file(
    path: Path, most: int = FILE_BYTES, *, check: Callable[[Path, os.stat_result], object] | None = None
) -> bytes:
    """A regular file's bytes. What is no file, such as a pipe or a device, is neither waited for nor read.

    ``check`` may raise for what the opened file's status says.

    Raises:
        BundleError: it is no regular file, or larger than ``most`` bytes.
        OSError: it is not there, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: not a regular file", remedy="copy or build it again")
        if status.st_size > most:
            raise BundleError(
                f"{path}: has {status.st_size} bytes, the limit is {most}", remedy="is this the right file?"
            )
        if check is not None:
            check(path, status)
        if os.name != "nt":
            os.set_blocking(file.fileno(), True)
        return file.read(status.st_size)


def read_arrays(data: bytes, *, where: str, remedy: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an ``.npz`` by their keys; nothing is unpickled.

    Raises:
        BundleError: it is none, or malformed.
    """
    try:
        archive = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(archive, NpzFile) or archive.zip is None:
            raise ValueError("not an archive of arrays")
        with archive:
            members = archive.zip.infolist()
            if any(member.compress_type not in _PLAIN for member in members):
                raise ValueError("compressed otherwise than NumPy does")
            if sum(member.file_size for member in members) > FILE_BYTES:
                raise ValueError(f"over {FILE_BYTES} bytes")
            arrays = {key: archive[key] for key in archive.files}
    except _MALFORMED as error:
        raise BundleError(f"{where} cannot be read ({error})", remedy=remedy) from error
    if odd := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise BundleError(f"{where} cannot be read ('{odd[0]}' is no array)", remedy=remedy)
    return arrays
