"""Calibration pictures as converters take them: checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError, ExportError
from leakdet_tf.edge.calibration_set import parse_pictures


def read(path: Path, contract: Contract) -> dict[str, npt.NDArray[Any]]:
    """Calibration pictures by input name, (N, h, w, C), as ``path`` holds them.

    Raises:
        ExportError: the file cannot be read, is not of the contract's inputs, or its 8-bit pictures do not reach the
            lowest and the highest value, so that brighter ones would clip on the device.
    """
    try:
        frames = parse_pictures(path.read_bytes(), contract, where=str(path))
    except OSError as error:
        raise ExportError(f"{path}: calibration pictures cannot be read ({error})", remedy="make them again") from error
    except BundleError as error:
        raise ExportError(error.args[0], remedy="make them again") from error
    for name, array in frames.items():
        if array.dtype == np.uint8 and not (array.size and array.min() == 0 and array.max() == 255):
            raise ExportError(
                f"{path}: the pictures of '{name}' do not reach from 0 to 255, so others would clip",
                remedy="add an all-0 and an all-max frame",
            )
        if not array.size:
            raise ExportError(f"{path}: holds no pictures of '{name}'", remedy="make them again")
    return frames
