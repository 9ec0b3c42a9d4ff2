"""Boxes in NumPy: areas, overlaps, clipping, suppression, and which of two sets are the same boxes.

Edges are x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.records import Boxes

Floats = npt.NDArray[np.floating]
SAME_IOU = 0.99
"""Boxes that overlap by more are one box."""
SAME_PX = 0.01
"""So are boxes whose edges lie nowhere further apart, however small they are."""
SAME_SCORE = 1e-3
"""The most by which the scores of one box may differ."""
_BLOCK = 64  # boxes that suppression looks at together


def areas(boxes: Floats) -> Floats:
    """Boxes (..., 4) → areas (...), 0 where an edge lies beyond its opposite."""
    found: Floats = np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return found


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union: (N, 4) and (M, 4) → (N, M) in 0..1; 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.maximum(high - low, 0).prod(axis=-1)
    whole = areas(boxes)[:, None] + areas(others)[None, :] - both
    found: Floats = np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)
    return found


def clip(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Boxes (N, 4) cut at the edges of a picture of (height, width)."""
    limit = np.array([size[1], size[0], size[1], size[0]], boxes.dtype)
    cut: Floats = np.clip(boxes, 0, limit)
    return cut


def suppress(
    boxes: Floats, scores: Floats, labels: npt.NDArray[np.integer], *, iou: float, most: int
) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression within each class: the places that are kept, best score first.

    A box goes when it overlaps a kept one of its class by more than ``iou``; among equal scores the first is better.

    Args:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,) class indices.
        iou: 0..1.
        most: how many are kept at most, over all classes.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, kinds = boxes[order], labels[order]
    single = len(kinds) == 0 or bool((kinds == kinds[0]).all())
    kept: list[int] = []
    left = np.arange(len(order))
    # Block by block: NumPy's calls cost more than their arithmetic, and one call serves a whole block.
    while len(left) and len(kept) < most:
        head, left = left[:_BLOCK], left[_BLOCK:]
        table = _collide(ranked[head], ranked[head], iou)
        if not single:
            table &= kinds[head, None] == kinds[head]
        alive, chosen = np.ones(len(head), np.bool_), []
        for place in range(len(head)):
            if alive[place]:
                chosen.append(place)
                alive &= ~table[place]
        first = head[chosen]
        kept += first.tolist()
        if len(left) and len(kept) < most:
            table = _collide(ranked[first], ranked[left], iou)
            if not single:
                table &= kinds[first, None] == kinds[left]
            left = left[~table.any(axis=0)]
    return order[kept[:most]].astype(np.int64)


def _collide(boxes: Floats, others: Floats, iou: float) -> npt.NDArray[np.bool_]:
    """Whether boxes (N, 4) and (M, 4) overlap by more than ``iou``: bool (N, M), also where that cannot be told."""
    x1, y1, x2, y2 = boxes.T[..., None]
    a1, b1, a2, b2 = np.ascontiguousarray(others.T)
    both = np.minimum(x2, a2)
    both -= np.maximum(x1, a1)
    np.maximum(both, 0, out=both)
    high = np.minimum(y2, b2)
    high -= np.maximum(y1, b1)
    np.maximum(high, 0, out=high)
    both *= high
    limit = areas(boxes)[:, None] + areas(others)
    limit -= both
    limit *= iou
    beyond: npt.NDArray[np.bool_] = ~(both <= limit)
    return beyond


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


def apart(first: Boxes, second: Boxes, iou: float, px: float) -> npt.NDArray[np.bool_]:
    """Which boxes of the first have none of their class at their place in the second, bool (N,): none that they overlap
    by ``iou`` or more, or whose edges lie within ``px``."""
    gaps = np.abs(first.boxes[:, None] - second.boxes[None]).max(axis=-1)
    there = (overlaps(first.boxes, second.boxes) >= iou) | (gaps <= px)
    return np.asarray(~(there & (first.labels[:, None] == second.labels[None])).any(axis=1))
