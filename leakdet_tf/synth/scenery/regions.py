"""Truth that follows from a mask: the boxes of its regions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.rendered import Box


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


def divide(boxes: Sequence[Box], least: float, size: tuple[int, int]) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """The boxes whose extent, the root of width times height, is ``least`` pixels or more; and those to be ignored.

    The latter are the others, each side grown about its middle to ``least`` pixels and cut at the edges of a picture of
    ``size`` (height, width): who finds a speck draws a box of what can be seen, which lies in what is ignored so.
    """
    large: list[Box] = []
    ignored: dict[Box, None] = {}  # specks so near each other that they grow to one box are written once
    for name, x0, y0, x1, y1 in boxes:
        if math.sqrt((x1 - x0) * (y1 - y0)) >= least:
            large.append((name, x0, y0, x1, y1))
            continue
        (left, right), (top, bottom) = _grown(x0, x1, least, size[1]), _grown(y0, y1, least, size[0])
        ignored[name, left, top, right, bottom] = None
    return tuple(large), tuple(box for box in ignored if box not in large)


def _grown(low: int, high: int, least: float, side: int) -> tuple[int, int]:
    more = max(0, math.ceil((least - (high - low)) / 2))
    return max(0, low - more), min(side, high + more)
