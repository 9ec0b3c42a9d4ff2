"""The losses of a detector, on its raw outputs: where boxes are, what is in them, and how each edge's bins are.

Targets are float32 (B, M, 6) as :mod:`leakdet_tf.core.tasks.detect` says, outputs float32 (B, A, 64 + C) of its
``raw`` layout. The objective is one number of the whole batch: every part is divided by the sum of the scores that its
anchors are to have (or by 1, when they are less), so that a picture without objects weighs as much as its false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from leakdet_tf.core.images import Size
from leakdet_tf.core.tasks.detect import BINS, grid
from leakdet_tf.training.box_assign import assign, iou
from leakdet_tf.training.losses import one_of

Tensor = Any
FACTORS = (7.5, 0.5, 1.5)
"""Factors of the box, class and edge losses when an experiment gives none: those of YOLOv8."""
_TINY = 1e-7
_LAST = BINS - 1 - 0.01  # the farthest an edge can be told, in cells: it needs a bin on either side


class Parts(NamedTuple):
    """Each loss by picture, float32 (B,), not yet divided; ``scores``: the sum of what the anchors are to score."""

    box: Tensor
    classes: Tensor
    edges: Tensor
    scores: Tensor


def box_losses(targets: Tensor, outputs: Tensor, size: Size) -> Parts:
    """The three losses of each picture.

    An anchor that has a box gives complete IoU and edge losses, weighted by the score that it is to have. Every anchor
    gives a class loss, but those without a box whose middle lies in an ignored region.

    Args:
        targets: float32 (B, M, 6).
        outputs: float32 (B, A, 64 + C).
        size: (height, width) of the model's input.
    """
    middles, strides = map(ops.convert_to_tensor, grid(size))
    logits, class_logits = outputs[..., : 4 * BINS], outputs[..., 4 * BINS :]
    bins = ops.reshape(logits, (*ops.shape(logits)[:2], 4, BINS))
    cells = ops.sum(ops.multiply(ops.softmax(bins, axis=-1), np.arange(BINS, dtype=np.float32)), axis=-1)
    spread = cells * strides[:, None]
    boxes = ops.concatenate([middles - spread[..., :2], middles + spread[..., 2:]], axis=-1)

    given = assign(targets, boxes, class_logits, middles)
    batch, most, columns = ops.shape(targets)
    place = ops.arange(batch, dtype="int32")[:, None] * most + given.row
    truth = ops.take(ops.reshape(targets, (-1, columns)), place, axis=0)
    label = ops.cast(truth[..., 4], "int32")
    wanted = one_of(label, class_logits.shape[-1]) * given.score[..., None]
    classes = binary_cross_entropy(wanted, class_logits) * (1.0 - given.ignored)[..., None]

    has = given.positive > 0
    # Where there is no box, one that is safe to compare with: not a number times 0 would not be 0.
    edges = ops.where(has[..., None], truth[..., :4], ops.stop_gradient(boxes))
    near = ops.concatenate([middles - edges[..., :2], edges[..., 2:] - middles], axis=-1) / strides[:, None]
    apart = ops.sum(ops.where(has, 1.0 - complete_iou(edges, boxes), 0.0) * given.score, axis=1)
    return Parts(
        # Edges that are NaN are given no box; the loss must tell all the same.
        box=ops.where(ops.isfinite(ops.sum(cells, axis=(1, 2))), apart, np.nan),
        classes=ops.sum(classes, axis=(1, 2)),
        edges=ops.sum(ops.where(has, distribution_focal(near, bins), 0.0) * given.score, axis=1),
        scores=ops.sum(given.score, axis=1),
    )


def binary_cross_entropy(wanted: Tensor, logits: Tensor) -> Tensor:
    """Of probabilities that are wanted, 0..1, and logits, both (...): float32 (...)."""
    return ops.softplus(logits) - wanted * logits


def complete_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU less what keeps boxes apart that do not touch: distance of middles and difference of aspect (Zheng et al.
    2020, arXiv 2005.03572). True boxes (..., 4) and predicted ones (..., 4), float32 → (...), at most 1."""
    low = ops.minimum(boxes[..., :2], others[..., :2])
    high = ops.maximum(boxes[..., 2:], others[..., 2:])
    diagonal = ops.sum(ops.square(high - low), axis=-1)
    moved = ops.sum(ops.square(boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]), axis=-1) / 4
    overlap = iou(boxes, others)
    aspect = ops.square(_angle(others) - _angle(boxes)) * (4 / math.pi**2)
    # The weight of the aspect is a constant of the gradient, as in the paper.
    weight = ops.stop_gradient(aspect / ops.maximum(1.0 - overlap + aspect, _TINY))
    return overlap - moved / ops.maximum(diagonal, _TINY) - weight * aspect


def _angle(boxes: Tensor) -> Tensor:
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
    return ops.arctan(width / ops.maximum(height, 1e-3))


def distribution_focal(cells: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy of the two bins on either side of each edge's distance (Li et al. 2020, arXiv 2006.04388).

    Args:
        cells: float32 (..., 4), true distances; beyond the bins they are taken as the last one.
        bins: logits float32 (..., 4, BINS).

    Returns:
        float32 (...): the mean over the four edges.
    """
    cells = ops.clip(cells, 0.0, _LAST)
    # A bin's share falls from 1 at its distance to 0 at its neighbours'.
    shares = ops.maximum(1.0 - ops.abs(ops.subtract(cells[..., None], np.arange(BINS, dtype=np.float32))), 0.0)
    return ops.mean(ops.logsumexp(bins, axis=-1) - ops.sum(shares * bins, axis=-1), axis=-1)


class BoxObjective(keras.losses.Loss):
    """The weighted sum of the three losses, as one Keras loss on raw outputs.

    A picture's weight counts in the losses and in what they are divided by alike: of one with weight 0, a filler of the
    last batch, nothing is left.
    """

    def __init__(self, size: Size, factors: Sequence[float] = ()) -> None:
        super().__init__(name="objective", reduction="sum")
        self._size = size
        self._factors = tuple(factors) or FACTORS

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Targets (B, M, 6), raw outputs (B, A, 64 + C) and weights (B,), ones if left out → one float32."""
        targets, outputs = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        *values, scores = box_losses(targets, outputs, self._size)
        each = sum(factor * value for factor, value in zip(self._factors, values, strict=True))
        if sample_weight is None:
            return ops.sum(each) / ops.maximum(ops.sum(scores), 1.0)
        weights = ops.cast(ops.reshape(sample_weight, (-1,)), "float32")
        weights = weights / ops.maximum(ops.max(weights), _TINY)  # those of a last batch are raised for its fillers
        return ops.sum(each * weights) / ops.maximum(ops.sum(scores * weights), 1.0)
