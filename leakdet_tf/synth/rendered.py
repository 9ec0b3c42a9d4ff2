"""What every renderer returns: a picture, its exact mask, and everything that was drawn to make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError

BACKGROUND, GAS, MACHINE = 0, 1, 2
CLASSES = ("background", "gas", "machine")
"""Class names by id, as the masks use them."""

Parameter: TypeAlias = float | int | str | list[float] | list[int] | list[str]
"""What a drawn parameter may be. All of it is JSON; a truth value is stored as ``bool``, which is an ``int``."""


@dataclass(frozen=True)
class Rendered:
    """One rendered picture.

    Attributes:
        image: uint8 (H, W, 1), grey (in the infrared brighter is warmer), or uint8 (H, W, 3), red, green and blue.
        mask: uint8 (H, W), the class id of every pixel: 0 background, 1 gas, 2 machine.
        parameters: everything that was drawn at random, by name, fit for JSON.

    Raises:
        DataError: an array has another dtype or shape, or the mask holds an id that is no class.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    parameters: dict[str, Parameter]

    def __post_init__(self) -> None:
        image, mask = self.image, self.mask
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise DataError(f"Rendered.image: expected uint8 (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}")
        if mask.dtype != np.uint8 or mask.shape != image.shape[:2]:
            raise DataError(f"Rendered.mask: expected uint8 {image.shape[:2]}, got {mask.dtype} {mask.shape}")
        if mask.size and int(mask.max()) >= len(CLASSES):
            raise DataError(f"Rendered.mask: expected ids 0..{len(CLASSES) - 1}, got {int(mask.max())}")
