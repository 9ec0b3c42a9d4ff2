"""Calibration pictures as converters take them: checked, and none that would stretch every range for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError, ExportError
from leakdet_tf.edge.calibration import parsed


def read(path: Path, contract: Contract) -> dict[str, npt.NDArray[Any]]:
    """Calibration pictures by input name, (N, h, w, C), as ``path`` holds them.

    Of an input of more than 8 bits, pictures that are black or white throughout give way to another.

    Raises:
        ExportError: the file cannot be read, is not of the contract's inputs, or its pictures do not reach the lowest
            and the highest value, so that brighter ones would clip on the device.
    """
    try:
        frames = parsed(path.read_bytes(), contract, where=str(path))
    except OSError as error:
        raise ExportError(f"{path}: calibration pictures cannot be read ({error})", remedy="make them anew") from error
    except BundleError as error:
        raise ExportError(error.args[0], remedy="make them anew") from error
    for name, array in frames.items():
        top = np.iinfo(array.dtype).max
        if not (array.size and array.min() == 0 and array.max() == top):
            raise ExportError(
                f"{path}: the pictures of '{name}' do not reach from 0 to {top}, so others would clip",
                remedy="add an all-0 and an all-max frame",
            )
    return _without_flat_ends(frames)


def _without_flat_ends(frames: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Frames whose 16-bit pictures of one value, the lowest or highest, give way to another picture.

    The input stays in float and so clips nothing; but no scene is at 65535 throughout, and the ranges of all layers
    would be stretched to hold it.
    """
    found = {}
    for name, array in frames.items():
        lowest, highest = array.min(axis=(1, 2, 3)), array.max(axis=(1, 2, 3))
        flat = (lowest == highest) & ((lowest == 0) | (lowest == np.iinfo(array.dtype).max))
        if array.dtype.itemsize > 1 and not flat.all():
            array = array.copy()
            array[flat] = array[np.flatnonzero(~flat)[0]]
        found[name] = array
    return found
