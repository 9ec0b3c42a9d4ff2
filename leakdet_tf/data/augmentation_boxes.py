"""Random changes to pictures whose truth is boxes: :mod:`.augment`'s, with the boxes moved as the pixels are.

What lies beyond a picture's edge is grey, not mirrored, for what is mirrored would have no box. A turned box becomes
the box around what of its turned rectangle lies in the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.data import Augment
from leakdet_tf.core.boxes import areas, clip
from leakdet_tf.core.images import Pixels, Size
from leakdet_tf.data.augmentation import Matrix, Move, at, change, drawn, only

Boxes = npt.NDArray[np.float32]
LEAST_SHARE = 0.1
"""A box of whose area less than this share is left within the frame goes."""
LEAST_PX = 2.0
"""So does one of which an edge of less is left, in pixels of the model's input, unless it was as small before.

A region that is to be ignored stays while anything of it is left: its pixels would count as background else."""
_CORNERS = np.array([[0, 1], [2, 1], [2, 3], [0, 3]])  # columns of x and y of a box's corners, in turn


def augment_boxes(
    inputs: Mapping[str, Pixels], boxes: Boxes, settings: Augment, *, size: Size, key: Sequence[int]
) -> tuple[dict[str, Pixels], Boxes]:
    """Change one sample.

    Args:
        inputs: uint8 or uint16 (h, w, C) by name; sizes may differ from ``size``.
        boxes: float32 (N, 6) of BOX_COLUMNS, in pixels of a picture of ``size``; none is void.
        settings: strengths; ``mosaic`` and ``mixup`` are :mod:`.mosaic`'s.
        size: (height, width).
        key: whole numbers that name this draw.

    Returns:
        Inputs of the same shapes and dtypes, and the boxes that are left, float32 (K, 6), in their order.
    """
    changed, move = change(inputs, size, settings, key, drawn, grey=True)
    return changed, moved_boxes(boxes, move, size)


def augment_boxes_alone(
    inputs: Mapping[str, Pixels], boxes: Boxes, settings: Augment, name: str, *, size: Size, point: float
) -> tuple[dict[str, Pixels], Boxes]:
    """One change alone, as :func:`~leakdet_tf.data.augmentation.augment_alone`."""
    changed, move = change(inputs, size, only(settings, name), (0,), at(point), grey=True)
    return changed, moved_boxes(boxes, move, size)


def moved_boxes(boxes: Boxes, move: Move, size: Size) -> Boxes:
    """Boxes float32 (N, 6) in a frame of (height, width) → those that are left of them after the movement, (K, 6)."""
    if move.warp is None:
        turned = boxes.copy()
        if move.flips[1]:
            turned[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
        if move.flips[0]:
            turned[:, [1, 3]] = size[0] - boxes[:, [3, 1]]
        return turned
    if not len(boxes):
        return boxes
    matrix = _forward(move.warp)
    corners = boxes[:, _CORNERS].astype(np.float64) @ matrix[:2, :2].T + matrix[:2, 2]
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    if matrix[0, 1] or matrix[1, 0]:
        return left_of(boxes, whole, visible(corners, size), _area(corners))
    return left_of(boxes, whole, np.asarray(clip(whole, size), np.float64))


def left_of(
    boxes: Boxes,
    whole: npt.NDArray[np.float64],
    seen: npt.NDArray[np.float64],
    full: npt.NDArray[np.float64] | None = None,
) -> Boxes:
    """Boxes with the edges of what is seen of them, less those of which too little is; ignored ones, less those unseen.

    Args:
        boxes: float32 (N, 6) before they moved, for their labels.
        whole: (N, 4), where they have moved.
        seen: (N, 4), what of it lies in the frame; no area where nothing does.
        full: (N,), the area of each that was moved; that of ``whole`` when left out.
    """
    size = np.maximum(seen[:, 2:] - seen[:, :2], 0)
    small = np.minimum(whole[:, 2:] - whole[:, :2], LEAST_PX)  # was it as small before it was cut
    kept = (areas(seen) >= LEAST_SHARE * (areas(whole) if full is None else full)) & (size >= small - 1e-6).all(axis=1)
    kept |= boxes[:, 5] > 0
    edges = seen.astype(np.float32)
    kept &= (edges[:, 2:] > edges[:, :2]).all(axis=1)
    return np.concatenate([edges[kept], boxes[kept, 4:]], axis=1)


def visible(corners: npt.NDArray[np.float64], size: Size) -> npt.NDArray[np.float64]:
    """The boxes (N, 4) around what of rectangles, corners (N, 4, 2) in turn, lies in a frame of (height, width).

    What is seen of a rectangle is a polygon; its corners are the rectangle's that lie in the frame, the frame's that
    lie in the rectangle, and where a side of one crosses the other: ends of the sides cut as by Liang and Barsky (ACM
    Transactions on Graphics 3(1), 1984). Where nothing is seen the box is 0, 0, 0, 0.
    """
    limit = np.array([size[1], size[0]], np.float64)
    run = np.roll(corners, -1, axis=1) - corners
    flat = run == 0
    step = np.where(flat, 1.0, run)
    first, second = -corners / step, (limit - corners) / step
    outside = (flat & ((corners < 0) | (corners > limit))).any(axis=2)
    enter = np.where(flat, 0.0, np.minimum(first, second)).max(axis=2).clip(min=0)
    leave = np.where(flat, 1.0, np.maximum(first, second)).min(axis=2).clip(max=1)
    crossing = (enter <= leave) & ~outside
    ends = np.concatenate([corners + enter[..., None] * run, corners + leave[..., None] * run], axis=1)
    frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * limit
    away = frame[None, :, None] - corners[:, None]
    side = run[:, None, :, 0] * away[..., 1] - run[:, None, :, 1] * away[..., 0]
    within = (side >= 0).all(axis=2) | (side <= 0).all(axis=2)
    points = np.concatenate([ends, np.broadcast_to(frame, (len(corners), 4, 2))], axis=1)
    there = np.concatenate([crossing, crossing, within], axis=1)[..., None]
    low = np.where(there, points, np.inf).min(axis=1)
    high = np.where(there, points, -np.inf).max(axis=1)
    found = np.asarray(clip(np.concatenate([low, high], axis=1), size), np.float64)  # rounding may reach beyond
    found[~there.any(axis=(1, 2))] = 0
    return found


def _forward(warp: Matrix) -> Matrix:
    # From edges, whose pixels begin half a pixel before their middles, to edges.
    half = np.eye(3)
    half[:2, 2] = 0.5
    back = np.eye(3)
    back[:2, 2] = -0.5
    return np.asarray(half @ np.linalg.inv(warp) @ back, np.float64)


def _area(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    return np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
