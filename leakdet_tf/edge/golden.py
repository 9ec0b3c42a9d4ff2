"""How far two answers to one picture lie apart: for golden frames at load, and for an exported file before it is kept.

An array is compared value by value. Boxes after suppression have no places of their own, since two nearly equal scores
may change places on another CPU: they are compared in pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.boxes import overlaps
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Geometry
from leakdet_tf.core.records import Boxes
from leakdet_tf.core.tasks import detect

SAME_IOU = 0.99
"""Boxes that overlap by more are one box."""
SAME_PX = 0.01
"""So are boxes whose edges lie nowhere further apart, however small they are."""
SAME_SCORE = 1e-3
"""The most by which the scores of one box may differ."""


def gap(kept: npt.NDArray[Any], answered: npt.NDArray[Any], contract: Contract, geometry: Geometry) -> float:
    """The largest difference of two outputs for one picture; infinity where one is no answer or of another shape.

    Values are told relative to the largest kept one, or 1; ``decoded`` boxes by their edges and their scores apart.
    Of ``final`` boxes it is the best score of one that has no partner: boxes that the threshold or ``max_boxes`` may
    have cut off by a rounding are not asked for one, and any that suppression would take for the same may be it.
    """
    if kept.shape != answered.shape or not (np.isfinite(kept).all() and np.isfinite(answered).all()):
        return float("inf")
    if contract.outputs == "final":
        first, second = (detect.decode(array, contract, geometry) for array in (kept, answered))
        return max(_alone(first, second, contract), _alone(second, first, contract))
    parts = (slice(None, 4), slice(4, None)) if contract.outputs == "decoded" else (slice(None),)
    return float(np.max([_relative(kept[..., part], answered[..., part]) for part in parts]))


def pairs(first: Boxes, second: Boxes, iou: float = SAME_IOU) -> npt.NDArray[np.int64]:
    """For each box of the first the place of its partner in the second, or -1: int64 (N,).

    Partners are of one class, their scores differ by no more than :data:`SAME_SCORE`, and they overlap by more than
    ``iou``. Each box has one at most; the most certain choose first.
    """
    likeness = _likeness(first, second, iou)
    found = np.full(len(first), -1, np.int64)
    for place in range(len(first) if len(second) else 0):
        best = int(likeness[place].argmax())
        if likeness[place, best] > 0:
            found[place] = best
            likeness[:, best] = 0
    return found


def same(first: Boxes, second: Boxes, iou: float) -> npt.NDArray[np.bool_]:
    """Which boxes of the first the second has too, whether or not others are the same: bool (N,)."""
    return np.asarray((_likeness(first, second, iou) > 0).any(axis=1))


def _likeness(first: Boxes, second: Boxes, iou: float) -> npt.NDArray[np.float64]:
    # above 0 where two boxes may be one, and the more the likelier
    together = overlaps(first.boxes, second.boxes).astype(np.float64)
    apart = np.abs(first.boxes[:, None] - second.boxes[None]).max(axis=-1)
    score = np.abs(first.scores[:, None].astype(np.float64) - second.scores[None])
    may = (first.labels[:, None] == second.labels[None]) & (score <= SAME_SCORE)
    return np.where(may & ((together > iou) | (apart <= SAME_PX)), together + 1 - score, 0)


def _alone(first: Boxes, second: Boxes, contract: Contract) -> float:
    # the best score of a box that the second should have, too
    full = len(second) >= contract.max_boxes
    least = max(contract.threshold, float(second.scores[-1]) if full else 0.0)
    odd = first.scores[~same(first, second, min(SAME_IOU, contract.nms_iou))]
    return float(odd[odd > least + SAME_SCORE].max(initial=0))


def _relative(kept: npt.NDArray[Any], answered: npt.NDArray[Any]) -> float:
    scale = max(1.0, float(np.abs(kept).max(initial=0)))
    return float(np.abs(answered - kept).max(initial=0)) / scale
