"""Decoded pictures on the disk, in a file without a name: for splits that are larger than memory.

Rows are read and written at their places, not mapped into memory. So a disk that is full or fails is an error with a
line, where a mapped file would end the process by SIGBUS; and the process stays as small as it looks. What of the file
is in memory is the kernel's choice, which gives it up as soon as a program needs the room.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import DataError

_ROOM = "free some room, set runs to a folder on another disk, or use a smaller data.inputs size"
_GO_ON = "check the disk; fit --resume goes on after the last checkpoint"
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds a folder, such as ``ext4``; empty where the machine does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # Linux alone keeps it
        return ""
    place, found = folder.resolve(), (0, "")
    for _, where, kind, *_ in map(str.split, lines):
        point = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), where))  # a blank is \040
        if (place == point or point in place.parents) and len(point.parts) >= found[0]:  # later ones lie over earlier
            found = (len(point.parts), kind)
    return found[1]


class Rows(Protocol):
    """What is used of a split's array (N, ...): of a NumPy array, or of :class:`Stored` rows on the disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of each element."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __getitem__(self, key: Any, /) -> Any: ...


class Store:
    """A file of so many bytes that has no name, so that nothing is left of it whatever ends the process.

    It is gone, and its room free, with the last of its rows. Several threads may read and write. ``handle`` is the
    system's number of the file; ``failure`` what went wrong with reading, for whoever gets the error in others' words.

    Args:
        folder: on the disk that holds it; made where it is absent.
        size: bytes, all of which are reserved at once.

    Raises:
        DataError: the folder cannot be written, or there is too little room.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size, self._taken = folder, size, 0
        self._lock = Lock()
        self.failure: DataError | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder, buffering=0) as file:
                self.handle = os.dup(file.fileno())
        except OSError as error:
            raise DataError(
                f"{folder}: decoded pictures cannot be written there ({error.strerror})",
                remedy="set runs to a folder that can be written",
            ) from error
        weakref.finalize(self, os.close, self.handle).atexit = False  # threads of tf.data may still be reading then
        try:
            self._reserve()
        except OSError as error:
            free = size_text(shutil.disk_usage(folder).free)
            raise DataError(
                f"{folder}: decoded pictures take {size_text(size)} of disk, {free} are free ({error.strerror})",
                remedy=_ROOM,
            ) from error

    def _reserve(self) -> None:
        # First the question, for posix_fallocate takes what there is before it finds that there is not enough.
        usage = shutil.disk_usage(self._folder)
        if usage.total and not self._size <= usage.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
            try:
                os.posix_fallocate(self.handle, 0, self._size)
            except OSError as error:
                if error.errno not in _CANNOT_RESERVE:
                    raise
        # Where nothing can be reserved, a disk that fills up meanwhile is found out by write.

    def rows(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Stored:
        """The next part of the file, as rows (N, ...) whose content is not defined until they are written."""
        found = Stored(self, self._taken, tuple(shape), np.dtype(dtype))
        self._taken += found.row_bytes * len(found)
        if not self._taken <= self._size:
            raise ValueError(f"{self._taken} bytes of rows in a store of {self._size}")
        return found

    def write(self, data: memoryview, offset: int) -> None:
        """Put bytes at an offset.

        Raises:
            DataError: the disk is full or fails.
        """
        try:
            while data:
                if hasattr(os, "pwrite"):
                    done = os.pwrite(self.handle, data, offset)
                else:
                    with self._lock:
                        os.lseek(self.handle, offset, os.SEEK_SET)
                        done = os.write(self.handle, data)
                data, offset = data[done:], offset + done
        except OSError as error:
            raise self._failed(error) from error

    def read(self, into: memoryview, offset: int) -> None:
        """Fill a buffer with the bytes at an offset.

        Raises:
            DataError: the disk fails.
        """
        try:
            while into:
                if hasattr(os, "preadv"):
                    done = os.preadv(self.handle, [into], offset)
                else:
                    with self._lock:
                        os.lseek(self.handle, offset, os.SEEK_SET)
                        piece = os.read(self.handle, len(into))
                    done = len(piece)
                    into[:done] = piece
                if not done:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                into, offset = into[done:], offset + done
        except OSError as error:
            self.failure = self._failed(error, _GO_ON)
            raise self.failure from error

    def flush(self) -> None:
        """Wait until all is on the disk, which is when some disks first say that it is not.

        Raises:
            DataError: the disk is full or fails.
        """
        try:
            os.fsync(self.handle)
        except OSError as error:
            raise self._failed(error) from error

    def release(self) -> None:
        """Give the room back at once, for programs that go on: TensorFlow keeps what it was given longer than needed.

        Its rows cannot be read any more.
        """
        os.ftruncate(self.handle, 0)

    def _failed(self, error: OSError, remedy: str = _ROOM) -> DataError:
        return DataError(f"{self._folder}: decoded pictures on the disk: {error.strerror}", remedy=remedy)


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows (N, ...) in a :class:`Store`. They are taken as from a NumPy array, always as copies, by number, slice, list
    or integer array; and put by number.
    """

    store: Store
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self))

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        places = self._places[key]  # so that what is out of range is NumPy's own IndexError
        found = np.empty((*places.shape, *self.shape[1:]), self.dtype)
        for row, place in zip(found.reshape(-1, *self.shape[1:]), places.ravel(), strict=True):
            self.store.read(row.data.cast("B"), self.offset + int(place) * self.row_bytes)
        return found

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[place] for place in range(len(self)))

    def __setitem__(self, place: int, value: npt.ArrayLike) -> None:
        row = np.empty(self.shape[1:], self.dtype)
        row[...] = value
        self.store.write(row.data.cast("B"), self.offset + int(self._places[place]) * self.row_bytes)

    def __array__(self, *_: Any, **__: Any) -> npt.NDArray[Any]:
        # NumPy would else read row after row until memory is full.
        raise TypeError("rows on the disk do not become an array by themselves; take some, such as rows[:16]")


def size_text(size: int) -> str:
    """Bytes in words: ``60 MiB``, ``12.3 GiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
