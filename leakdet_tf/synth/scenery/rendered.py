"""What every renderer returns: a picture, its exact truth, and everything that was drawn to make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError

BACKGROUND, GAS, MACHINE = 0, 1, 2
CLASSES = ("background", "gas", "machine")
"""Class names by id, as the masks of ``gas`` use them; the default of a generator that names none."""

Parameter: TypeAlias = float | int | str | list[float] | list[int] | list[str]
"""What a drawn parameter may be. All of it is JSON; a truth value is stored as ``bool``, which is an ``int``."""


Box: TypeAlias = tuple[str, int, int, int, int]
"""A class name and a rectangle in pixels: x0, y0, x1, y1, half-open, so x1 - x0 is its width."""

_JOINT = ";"  # separates labels in labels.csv


@dataclass(frozen=True)
class Rendered:
    """One rendered picture.

    Attributes:
        image: uint8 (H, W, 1), grey (in the infrared brighter is warmer), or uint8 (H, W, 3), red, green and blue.
        mask: uint8 (H, W), the class id of every pixel: a place in ``classes``.
        parameters: everything that was drawn at random, by name, fit for JSON.
        classes: names of the mask's ids; the same for every picture of a generator.
        labels: what the picture as a whole is said to show; None where the generator does not say.
        boxes: a tight box around each thing that is to be detected; None where the generator does not say.
        ignored: boxes of what need not be found and is no mistake either, such as specks; only beside ``boxes``.

    Raises:
        DataError: an array has another dtype or shape, the mask holds an id that is no class, a label is empty or holds
            a semicolon, a box is empty, leaves the picture or has a class that there is not, or boxes are ignored where
            none are to be found.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    parameters: dict[str, Parameter]
    classes: tuple[str, ...] = CLASSES
    labels: tuple[str, ...] | None = None
    boxes: tuple[Box, ...] | None = None
    ignored: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        image, mask = self.image, self.mask
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise DataError(f"Rendered.image: expected uint8 (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}")
        if mask.dtype != np.uint8 or mask.shape != image.shape[:2]:
            raise DataError(f"Rendered.mask: expected uint8 {image.shape[:2]}, got {mask.dtype} {mask.shape}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(f"Rendered.classes: expected names that differ, got {self.classes}")
        if mask.size and int(mask.max()) >= len(self.classes):
            raise DataError(f"Rendered.mask: expected ids 0..{len(self.classes) - 1}, got {int(mask.max())}")
        for label in self.labels or ():
            if not label.strip() or _JOINT in label:
                raise DataError(f"Rendered.labels: '{label}' is empty or holds '{_JOINT}'")
        height, width = mask.shape
        if self.ignored and self.boxes is None:
            raise DataError("Rendered.ignored: boxes to be ignored without boxes to be found")
        for field, boxes in (("boxes", self.boxes or ()), ("ignored", self.ignored)):
            for name, x0, y0, x1, y1 in boxes:
                if name not in self.classes or not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                    box = (name, x0, y0, x1, y1)
                    raise DataError(f"Rendered.{field}: {box} is no box of {height} x {width} pixels")
