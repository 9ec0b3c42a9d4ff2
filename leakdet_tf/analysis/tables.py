"""Tables as text and Markdown, and arrays by name read from a file that a report left."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import whole_file

REMEDY = "run evaluate again"
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, TypeError, AttributeError),
    *(MemoryError, NotImplementedError, RuntimeError, SyntaxError),  # sizes, methods, passwords, array headers
)


def write_arrays(path: Path, texts: Mapping[str, Sequence[str]], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write lists of names and arrays to an ``.npz`` file, whole or not at all, without pickles."""
    names = {key: np.array(value, dtype=np.str_) for key, value in texts.items()}
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **names, **arrays)  # type: ignore[arg-type]  # its stub takes arrays for flags


def read_arrays(path: Path, names: Sequence[str], *, texts: Sequence[str], what: str) -> dict[str, npt.NDArray[Any]]:
    """Arrays by name from an ``.npz`` file, without pickles; ``texts`` are those that must be lists of names.

    Raises:
        DataError: the file is missing, damaged, or is not ``what`` it should hold.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing", remedy=REMEDY) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", remedy=REMEDY) from error
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = {name: np.asarray(archive[name]) for name in names}
    except _DAMAGED as error:
        raise DataError(f"{path}: damaged, or no {what} ({error})", remedy=REMEDY) from error
    for name in texts:
        if found[name].dtype.kind != "U" or found[name].ndim != 1:
            raise DataError(f"{path}: '{name}' are not names", remedy=REMEDY)
    return found


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text: columns as wide as their widest cell; a cell may have several lines."""
    cells = [[cell.split("\n") for cell in row] for row in (head, *rows)]
    widths = [max(len(line) for row in cells for line in row[place]) for place in range(len(head))]
    lines = []
    for row in cells:
        for number in range(max(len(cell) for cell in row)):
            parts = [cell[number] if number < len(cell) else "" for cell in row]
            lines.append("  ".join(f"{part:{width}}" for part, width in zip(parts, widths, strict=True)).rstrip())
    return lines


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The same as Markdown; bars in cells are escaped, line ends become spaces."""
    plain = [[" ".join(cell.split("\n")).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in plain]
    return [lines[0], f"|{'---|' * len(head)}", *lines[1:]]
