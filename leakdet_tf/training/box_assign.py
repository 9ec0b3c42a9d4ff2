"""Which anchor learns which box: task-aligned assignment (Feng et al. 2021, TOOD, arXiv 2108.07755).

An anchor whose middle lies in a true box is as good as ``t = p^alpha · IoU^beta`` says, p its score of the box's class,
IoU that of its own box and the true one. The best ``TOP`` of them learn the box, those that overlap best where several
boxes want one. The score that an anchor is to have is t, made such that a box's best anchor has that box's best IoU.

Two things are done otherwise than in the paper. t is kept as its logarithm: of small boxes IoU^6 falls below every
epsilon that would keep a ratio of such numbers defined. And a box that is narrower than a cell of the finest grid takes
middles from the width of one cell around it: many such boxes hold no middle at all and could never be learnt, or, where
they are to be ignored, never be.

Boxes are looked at a few at a time, as many times as the batch's fullest picture needs, so that neither memory nor
time follow from the rows that hold none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from leakdet_tf.core.tasks.detect import STRIDES
from leakdet_tf.training.losses import one_of

Tensor = Any
TOP = 10
"""Anchors that learn a box, at most."""
ALPHA, BETA = 0.5, 6.0
_ROWS = 16  # rows of targets that are looked at together
_FAR = -1e30  # stands for the logarithm of nothing
_TINY = 1e-9


class Assigned(NamedTuple):
    """What each anchor is to learn, without gradients.

    Attributes:
        row: int32 (B, A), the row of its box among the picture's targets; 0 where it has none.
        score: float32 (B, A), the score that it is to have of its box's class; 0 where it has none.
        positive: float32 (B, A), 1 where it has a box.
        ignored: float32 (B, A), 1 where its middle lies in an ignored region, as wide as a cell at least, and it has no
            box.
    """

    row: Tensor
    score: Tensor
    positive: Tensor
    ignored: Tensor


def assign(targets: Tensor, boxes: Tensor, class_logits: Tensor, middles: Tensor, *, rows: int = _ROWS) -> Assigned:
    """Give true boxes to anchors.

    Args:
        targets: float32 (B, M, 6) of :data:`~leakdet_tf.core.records.BOX_COLUMNS` in the model's pixels; a negative
            label says that the row holds no box. A box without area is given to nobody.
        boxes: float32 (B, A, 4), the anchors' own edges x1, y1, x2, y2 in the model's pixels.
        class_logits: float32 (B, A, C).
        middles: float32 (A, 2), x and y.
        rows: how many of a picture's targets are looked at together.
    """
    boxes, class_logits = ops.stop_gradient(boxes), ops.stop_gradient(class_logits)
    targets, middles = ops.stop_gradient(targets), ops.convert_to_tensor(middles)
    batch, most = ops.shape(targets)[:2]
    anchors = middles.shape[0]
    said = ops.transpose(-ops.softplus(-class_logits), (0, 2, 1))  # log p (B, C, A)
    nothing = ops.zeros((batch, anchors), "float32")
    best = (ops.cast(nothing, "int32"), nothing - 1.0, nothing + _FAR, nothing)  # row, IoU, log t, ignored
    if most <= rows:
        best = _better(best, targets, 0, boxes, said, middles)
    else:
        padded = ops.pad(targets, ((0, 0), (0, -most % rows), (0, 0)), constant_values=-1.0)
        used = ops.any(targets[..., 4] >= 0, axis=0)  # (M,)
        end = ops.max(ops.where(used, ops.arange(1, most + 1, dtype="int32"), 0))

        def look(start: Tensor, *found: Tensor) -> tuple[Tensor, ...]:
            part = ops.slice(padded, (0, start, 0), (batch, rows, targets.shape[-1]))
            return (start + rows, *_better(found, part, start, boxes, said, middles))

        begun = (ops.zeros((), "int32"), *best)
        _, *best = ops.while_loop(lambda start, *found: start < end, look, begun)
    row, overlap, metric, ignored = best
    positive = ops.cast(overlap >= 0, "float32")
    # The best metric and the best overlap among the anchors of each box.
    place = ops.arange(batch, dtype="int32")[:, None] * most + row
    place = ops.reshape(ops.where(overlap >= 0, place, batch * most), (-1,))
    tops = []
    for value in (metric, overlap):
        highest = ops.segment_max(ops.reshape(value, (-1,)), place, num_segments=batch * most + 1)
        tops.append(ops.reshape(ops.take(highest, place), (batch, anchors)))
    share = ops.exp(ops.minimum(ops.where(overlap >= 0, metric - tops[0], _FAR), 0.0))
    score = share * ops.maximum(tops[1], 0.0)
    ignored = ignored * (1.0 - positive)
    return Assigned(*(ops.stop_gradient(part) for part in (row, score, positive, ignored)))


def _better(
    found: tuple[Tensor, ...],
    targets: Tensor,
    start: Tensor,
    boxes: Tensor,
    said: Tensor,
    middles: Tensor,
) -> tuple[Tensor, ...]:
    """What is best so far, and among some more rows (B, m, 6) of the targets, the first of them row ``start``."""
    edges, label = targets[..., :4], targets[..., 4]
    low, high = edges[..., :2], edges[..., 2:]
    there = ops.logical_and(label >= 0, ops.all(high > low, axis=-1))
    wanted = ops.logical_and(there, targets[..., 5] <= 0)[..., None]
    dropped = ops.logical_and(there, targets[..., 5] > 0)[..., None]

    slack = ops.maximum(STRIDES[0] - (high - low), 0.0) / 2
    inside = _inside(low - slack, high + slack, middles)
    held = ops.logical_and(inside, wanted)
    overlap = iou(edges[:, :, None], boxes[:, None])
    kinds = ops.cast(label, "int32")
    scores = said if said.shape[1] == 1 else ops.matmul(one_of(kinds, said.shape[1]), said)
    metric = ALPHA * scores + BETA * ops.log(ops.maximum(overlap, _TINY))
    metric = ops.where(held, metric, _FAR)
    least = ops.top_k(metric, min(TOP, metric.shape[-1]), sorted=True)[0][..., -1:]
    taken = ops.logical_and(held, metric >= least)
    # Of the boxes that want an anchor, the one it overlaps most has it; the first of those alike.
    overlap = ops.where(taken, overlap, -1.0)
    chosen = ops.cast(ops.argmax(overlap, axis=1), "int32")  # (B, A)
    most = ops.max(overlap, axis=1)
    value = ops.take_along_axis(metric, chosen[:, None], axis=1)[:, 0]
    ahead = most > found[1]
    ignored = ops.any(ops.logical_and(inside, dropped), axis=1)
    return (
        ops.where(ahead, chosen + start, found[0]),
        ops.maximum(most, found[1]),
        ops.where(ahead, value, found[2]),
        ops.maximum(found[3], ops.cast(ignored, "float32")),
    )


def _inside(low: Tensor, high: Tensor, middles: Tensor) -> Tensor:
    """bool (B, m, A): whether a middle lies in a box (B, m, 2) to (B, m, 2); on its edge too."""
    after = ops.logical_and(middles[:, 0] >= low[..., 0:1], middles[:, 1] >= low[..., 1:2])
    return ops.logical_and(after, ops.logical_and(middles[:, 0] <= high[..., 0:1], middles[:, 1] <= high[..., 1:2]))


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) and others (..., 4) that broadcast, float32 (...); 0 where both are
    empty."""
    wide = ops.minimum(boxes[..., 2], others[..., 2]) - ops.maximum(boxes[..., 0], others[..., 0])
    tall = ops.minimum(boxes[..., 3], others[..., 3]) - ops.maximum(boxes[..., 1], others[..., 1])
    both = ops.maximum(wide, 0.0) * ops.maximum(tall, 0.0)
    return both / ops.maximum(_area(boxes) + _area(others) - both, _TINY)


def _area(boxes: Tensor) -> Tensor:
    return ops.maximum(boxes[..., 2] - boxes[..., 0], 0.0) * ops.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
