"""Truth that follows from a mask: the boxes of its regions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.rendered import Box


def boxes_of(mask: NDArray[np.uint8], classes: Sequence[str], *, gap: int = 0) -> tuple[Box, ...]:
    """Tight boxes of a mask's regions, class by class from id 1 on; pixels that touch at a corner are connected.

    Regions of a class share a box where at most ``gap`` pixels lie between them, across, down or both ways.
    """
    found: list[Box] = []
    for index, name in enumerate(classes[1:], start=1):
        region = (mask == index).astype(np.uint8)
        if not region.any():
            continue
        # squares that grow to the right and down alone meet within the picture, whatever the gap
        grown = cv2.dilate(region, np.ones((gap + 1, gap + 1), np.uint8), anchor=(gap, gap)) if gap else region
        number, parts = cv2.connectedComponents(grown, connectivity=8)
        for part in range(1, number):
            x, y, w, h = cv2.boundingRect(region * (parts == part))
            found.append((name, x, y, x + w, y + h))
    return tuple(found)


def divide(boxes: Sequence[Box], least: float) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """The boxes whose shorter side is ``least`` pixels or more, and the others."""
    large = tuple(box for box in boxes if min(box[3] - box[1], box[4] - box[2]) >= least)
    return large, tuple(box for box in boxes if box not in large)
