"""Boxes in NumPy: areas, overlaps, clipping, and non-maximum suppression. Edges are x1, y1, x2, y2 in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


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
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[order].T)
    kinds, whole = labels[order], (np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0))
    kept: list[int] = []
    left = np.arange(len(order))
    while len(left) and len(kept) < most:
        first, left = left[0], left[1:]
        kept.append(int(first))
        wide = np.minimum(x2[left], x2[first]) - np.maximum(x1[left], x1[first])
        high = np.minimum(y2[left], y2[first]) - np.maximum(y1[left], y1[first])
        both = np.maximum(wide, 0) * np.maximum(high, 0)
        left = left[(both <= iou * (whole[left] + whole[first] - both)) | (kinds[left] != kinds[first])]
    return order[kept].astype(np.int64)
