"""Truth that follows from a mask: the boxes of its regions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.rendered import Box


def boxes_of(mask: NDArray[np.uint8], classes: Sequence[str]) -> tuple[Box, ...]:
    """Tight boxes of a mask's regions, class by class from id 1 on; pixels that touch at a corner are connected."""
    found: list[Box] = []
    for index, name in enumerate(classes[1:], start=1):
        region = (mask == index).astype(np.uint8)
        if region.any():
            _, _, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8)
            found += [(name, int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in stats[1:]]
    return tuple(found)
