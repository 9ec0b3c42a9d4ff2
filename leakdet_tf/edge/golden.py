"""How far two answers to one picture lie apart: for golden frames at load, and for an exported file before it is kept.

An array is compared value by value. Boxes after suppression have no places of their own, since two nearly equal scores
may change places on another CPU: they are compared in pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.boxes import SAME_IOU, SAME_SCORE, same
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Geometry
from leakdet_tf.core.records import Boxes
from leakdet_tf.core.tasks import detect


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


def _alone(first: Boxes, second: Boxes, contract: Contract) -> float:
    # the best score of a box that the second should have, too
    full = len(second) >= contract.max_boxes
    least = max(contract.threshold, float(second.scores[-1]) if full else 0.0)
    odd = first.scores[~same(first, second, min(SAME_IOU, contract.nms_iou))]
    return float(odd[odd > least + SAME_SCORE].max(initial=0))


def _relative(kept: npt.NDArray[Any], answered: npt.NDArray[Any]) -> float:
    scale = max(1.0, float(np.abs(kept).max(initial=0)))
    return float(np.abs(answered - kept).max(initial=0)) / scale
