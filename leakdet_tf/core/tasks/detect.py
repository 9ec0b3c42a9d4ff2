"""Detection: boxes with a class and a score, in the original picture's pixels.

A model looks at its input through three grids, of 8, 16 and 32 pixels a cell. Each cell, an *anchor*, says how far the
left, upper, right and lower edge of a box lie from its middle, and how sure it is of each class. Anchors come grid by
grid, the finest first, row by row. A contract's ``outputs`` says how much of the decoding the graph does itself:

- ``raw`` float (A, 4·16 + C): for each edge 16 logits over distances of 0 to 15 cells, whose mean is the distance
  (Li et al. 2020, arXiv 2006.04388), then a logit for each class. What a model trains to, and what int8 keeps best.
- ``decoded`` float (A, 4 + C): edges x1, y1, x2, y2 in the model's pixels, then each class's probability.
- ``final`` float (M, 6): the same edges, score and class index after non-maximum suppression, M = ``max_boxes``;
  rows past the last box are 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from leakdet_tf.core.boxes import SAME_IOU, SAME_PX, apart, areas, clip, overlaps, pairs, suppress
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import Geometry, Pixels, Size
from leakdet_tf.core.records import IGNORE, Boxes
from leakdet_tf.core.tasks.output import changed_decisions, output_of
from leakdet_tf.core.tasks.protocol import Array, Changes, Near, Outputs, Things, Truth
from leakdet_tf.core.tasks.segment import viewable

Floats = npt.NDArray[np.float32]

TRUTH: Truth = "boxes"
LEAST_CLASSES = 1
ACTIVATIONS = ("linear",)
FIELDS = ("threshold", "nms_iou", "max_boxes", "outputs")
LOSSES = ("box", "class", "edges")
LOSS_KIND = WEIGHED_BY = ""
COUNTED = "boxes"
TARGET_DTYPE: type = np.float32
FLOAT_OUTPUT = True
UNITS = ("anchors", "boxes")
CHECK_TRUTH: Callable[[Any, Contract], None] | None = None
IMAGES: Mapping[str, Callable[[Any], npt.NDArray[np.uint8]]] = {}
STRIDES = (8, 16, 32)
"""Pixels a cell of each grid."""
BINS = 16
"""Distances that each edge has a logit for: 0 to 15 cells."""
COLUMNS = 6
"""Columns of a target: :data:`~leakdet_tf.core.records.BOX_COLUMNS`."""
VOID = -1.0
"""The label of a target's rows that hold no box."""
CANDIDATES = 4096
"""The best anchors, which suppression looks at."""


def anchors_of(size: Size) -> int:
    """Anchors of an input of (height, width) pixels, both multiples of 32.

    Raises:
        ContractError: they are not.
    """
    if size[0] % STRIDES[-1] or size[1] % STRIDES[-1]:
        raise ContractError(
            f"a detector's input is {size[0]}x{size[1]} px", remedy=f"make both multiples of {STRIDES[-1]}"
        )
    return sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)


@lru_cache(maxsize=8)
def grid(size: Size) -> tuple[Floats, Floats]:
    """Middles float32 (A, 2), x and y in the model's pixels, and strides float32 (A,) of an input's anchors."""
    middles, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[0 : size[0] // stride, 0 : size[1] // stride].reshape(2, -1)
        middles.append((np.stack([columns, rows], axis=1) + 0.5) * stride)
        strides.append(np.full(len(rows), stride))
    return np.concatenate(middles).astype(np.float32), np.concatenate(strides).astype(np.float32)


def output_shape(size: Size, classes: int, outputs: str = "raw", most: int = 300) -> tuple[int, ...]:
    """Shape of a model's output for one picture."""
    if outputs == "final":
        return (most, COLUMNS)
    return (anchors_of(size), (4 if outputs == "decoded" else 4 * BINS) + classes)


def target_shape(size: Size, classes: int) -> tuple[int, ...]:
    """Shape of one picture's :func:`targets`, None where it is as many as the picture with most boxes has."""
    return (-1, COLUMNS)


def amounts(targets: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Boxes by class, int64 (256,), in targets (..., 6); ignored regions are counted at :data:`IGNORE`."""
    rows = targets.reshape(-1, COLUMNS)
    rows = rows[rows[:, 4] >= 0]
    labels = np.where(rows[:, 5] > 0, IGNORE, rows[:, 4]).astype(np.int64)
    return np.bincount(labels, minlength=256)


def targets(truth: Floats, geometry: Geometry) -> Floats:
    """True boxes float32 (N, 6) of the original picture → the same in the model's pixels."""
    moved = truth.astype(np.float32, copy=True)
    corners = moved[:, :4].reshape(-1, 2)
    moved[:, :4] = geometry.points_to_target(corners).reshape(-1, 4)
    return moved


def distances(logits: npt.NDArray[Any]) -> Floats:
    """Logits (..., 4·16) → distances float32 (..., 4) of the edges in cells: the mean over the bins' softmax."""
    given = np.asarray(logits, np.float32)
    bins = np.ascontiguousarray(given.reshape(-1, BINS).T)  # NumPy reduces long rows faster than many short ones
    weights = np.exp(bins - bins.max(axis=0))
    # not by a matrix product, whose last digit depends on how many there are
    found: Floats = (weights * np.arange(BINS, dtype=np.float32)[:, None]).sum(axis=0) / weights.sum(axis=0)
    return found.reshape(*given.shape[:-1], 4)


def boxes_from(distance: Floats, middles: Floats, strides: Floats) -> Floats:
    """Distances (..., A, 4) in cells, left, up, right, down → edges (..., A, 4) in the model's pixels."""
    spread = distance * strides[:, None]
    return np.concatenate([middles - spread[..., :2], middles + spread[..., 2:]], axis=-1)


def candidates(array: npt.NDArray[Any], contract: Contract) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """A ``raw`` or ``decoded`` output (A, ...) → boxes, scores and labels of the anchors that reach the threshold.

    Each anchor speaks for its best class alone. Boxes are in the model's pixels.

    Raises:
        ContractError: an output is NaN or infinite.
    """
    if not np.isfinite(array).all():
        raise ContractError("the model's output holds NaN or infinity", remedy="do not use this model")
    raw = contract.outputs == "raw"
    first = 4 * BINS if raw else 4
    classes = array[:, first:]
    best = np.ascontiguousarray(classes.T).max(axis=0)  # long rows, as in distances()
    keep = np.flatnonzero(best >= (_logit(contract.threshold) if raw else contract.threshold))
    if len(keep) > CANDIDATES:
        keep = np.sort(keep[np.argsort(-best[keep], kind="stable")[:CANDIDATES]])
    labels = classes[keep].argmax(axis=1).astype(np.int64)
    scores = best[keep].astype(np.float32)
    if not raw:
        return array[keep, :4].astype(np.float32), np.clip(scores, 0, 1), labels
    middles, strides = grid(contract.inputs[contract.primary].size)
    boxes = boxes_from(distances(array[keep, :first]), middles[keep], strides[keep])
    return boxes, sigmoid(scores), labels


def _changes(
    ours: Array, theirs: Array, contract: Contract, exported: Contract, geometry: Geometry, near: Near = None
) -> Changes:
    """How an exported file's output differs from the model's, which is decoded here where the file's graph decodes.

    Where the file should compute the same, by anchors: those of another class, or of another place where one is shown;
    of ``final`` boxes by those that have no partner. With ``near`` by the boxes that a user sees, which may move a
    little: of the anchors nearly all show nothing.
    """
    final, both = exported.outputs == "final", None
    if final or near:
        both = decode(ours, contract, geometry), decode(theirs, exported, geometry)
    if both and final:
        found = _unpaired(*both, exported)
    else:
        found = _by_anchor(decoded(ours, contract) if exported.outputs != contract.outputs else ours, theirs, exported)
    if both and near:
        scale = max(a / b for a, b in zip(geometry.source, geometry.inner, strict=True))
        lost, new = (apart(*pair, near[0], near[1] * scale) for pair in (both, both[::-1]))
        odd = np.concatenate([both[0].scores[lost], both[1].scores[new]]) - np.float32(exported.threshold)
        return Changes(len(both[0]) + int(new.sum()), odd, found.largest)
    return found


def _by_anchor(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], contract: Contract) -> Changes:
    return changed_decisions(
        ours,
        theirs,
        lambda one: decisions(one, contract),
        lambda one: margins(one, contract),
        also=lambda labels: (labels != IGNORE) & _moved(ours, theirs, contract),
    )


def _moved(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.bool_]:
    """Whether each anchor's box is another, bool (A,)."""
    first, second = ((decoded(one, contract) if contract.outputs == "raw" else one)[:, :4] for one in (ours, theirs))
    near = np.abs(first - second).max(axis=1) <= SAME_PX
    for place in np.flatnonzero(~near):
        near[place] = overlaps(first[place][None], second[place][None])[0, 0] > SAME_IOU
    return np.asarray(~near)


def _unpaired(ours: Boxes, theirs: Boxes, contract: Contract) -> Changes:
    partners = pairs(ours, theirs)
    there = partners >= 0
    alone = np.concatenate([ours.scores[~there], np.delete(theirs.scores, partners[there])])
    largest = float(np.abs(ours.boxes[there] - theirs.boxes[partners[there]]).max(initial=0))
    return Changes(int(there.sum()) + len(alone), alone - np.float32(contract.threshold), largest)


def decoded(raw: npt.NDArray[Any], contract: Contract) -> Floats:
    """A ``raw`` output (A, 4·16 + C) of the contract's model → the ``decoded`` one, float32 (A, 4 + C)."""
    middles, strides = grid(contract.inputs[contract.primary].size)
    edges = 4 * BINS
    boxes = boxes_from(distances(raw[:, :edges]), middles, strides)
    return np.concatenate([boxes, sigmoid(raw[:, edges:])], axis=1)


def decode(outputs: Outputs, contract: Contract, geometry: Geometry) -> Boxes:
    """A model's output for one picture → its boxes in the original picture's pixels, cut at its edges.

    Raises:
        ContractError: the shape is not the contract's, or a value is not finite.
    """
    size = contract.inputs[contract.primary].size
    array = output_of(outputs, output_shape(size, len(contract.classes), contract.outputs, contract.max_boxes))
    if contract.outputs == "final":
        rows = np.asarray(array, np.float32)
        if not np.isfinite(rows).all():
            raise ContractError("the model's output holds NaN or infinity", remedy="do not use this model")
        rows = rows[(rows[:, 4] >= contract.threshold) & (rows[:, 4] > 0)]
        boxes, scores, labels = rows[:, :4], np.clip(rows[:, 4], 0, 1), rows[:, 5].round().astype(np.int64)
    else:
        boxes, scores, labels = candidates(array, contract)
        kept = suppress(boxes, scores, labels, iou=contract.nms_iou, most=contract.max_boxes)
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    edges = geometry.points_to_source(boxes.reshape(-1, 2)).reshape(-1, 4)
    moved = clip(edges, geometry.source).astype(np.float32)
    there = areas(moved) > 0  # what lies in the padding, or is turned inside out, is not on the picture
    return Boxes(
        boxes=moved[there],
        scores=scores[there],
        labels=labels[there],
        classes=contract.class_names,
        size=geometry.source,
        model=contract.id,
    )


def decisions(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.uint8]:
    """What is decided for a picture's ``raw`` or ``decoded`` outputs, uint8 (A,): each anchor's class, or IGNORE below
    the threshold."""
    scores = class_scores(outputs, contract)
    said: npt.NDArray[np.uint8] = scores.argmax(axis=1).astype(np.uint8)
    said[scores.max(axis=1) < contract.threshold] = IGNORE
    return said


def margins(outputs: npt.NDArray[Any], contract: Contract) -> Floats:
    """By how much each of :func:`decisions` was taken: float32 (A,), the best score's distance from the threshold or,
    where a class was chosen, its lead over the second if that is less."""
    top = np.sort(class_scores(outputs, contract), axis=1)
    margin: Floats = np.abs(top[:, -1] - np.float32(contract.threshold))
    if top.shape[1] > 1:
        margin = np.where(top[:, -1] >= contract.threshold, np.minimum(margin, top[:, -1] - top[:, -2]), margin)
    return margin


def class_scores(outputs: npt.NDArray[Any], contract: Contract) -> Floats:
    """Each anchor's probability of each class, float32 (A, C)."""
    if contract.outputs == "raw":
        return sigmoid(outputs[:, 4 * BINS :])
    return np.asarray(outputs[:, 4:], np.float32)


def draw(image: Pixels, prediction: Boxes, contract: Contract) -> npt.NDArray[np.uint8]:
    """Picture (H, W, C) and boxes → uint8 (H, W, 3) with each box outlined and named, the most certain on top.

    Raises:
        ContractError: picture and boxes differ in size.
    """
    if image.shape[:2] != prediction.size:
        raise ContractError(f"boxes of {prediction.size} px cannot be drawn on a picture of {image.shape[:2]} px")
    canvas = Image.fromarray(np.ascontiguousarray(viewable(image)))
    pen = ImageDraw.Draw(canvas)
    line = max(1, round(min(prediction.size) / 256))
    for box, score, label in list(zip(prediction.boxes, prediction.scores, prediction.labels, strict=True))[::-1]:
        color = contract.classes[label].rgb or (255, 255, 255)
        x1, y1, x2, y2 = (float(edge) for edge in box)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=line)
        text = f"{contract.classes[label].name} {score:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text)
        place = (min(x1, max(0, image.shape[1] - right)), y1 - bottom - 1 if y1 > bottom else y2)
        pen.rectangle((place[0], place[1], place[0] + right, place[1] + bottom), fill=color)
        pen.text((place[0] - left, place[1] - top / 2), text, fill=(0, 0, 0))
    return np.asarray(canvas)


def columns(classes: Sequence[str]) -> list[str]:
    """How many boxes of each class, and the best score."""
    return [*(f"boxes_{name}" for name in classes), "best_score"]


def row(prediction: Boxes) -> dict[str, Any]:
    """A detector's values by column."""
    found = Counter(prediction.names)
    best = f"{float(prediction.scores.max()):.4f}" if len(prediction) else ""
    return {f"boxes_{name}": found[name] for name in prediction.classes} | {"best_score": best}


def _things(prediction: Boxes) -> list[dict[str, str]]:
    """A line for each box, the most certain first; edges in the original picture's pixels."""
    rows = []
    for name, score, box in zip(prediction.names, prediction.scores, prediction.boxes, strict=True):
        edges = {key: f"{edge:.1f}" for key, edge in zip(("x1", "y1", "x2", "y2"), box, strict=True)}
        rows.append({"class": name, "score": f"{score:.4f}", **edges})
    return rows


def sigmoid(logits: npt.NDArray[Any]) -> Floats:
    """Logits → probabilities, float32."""
    given = np.asarray(logits, np.float32)
    small = np.exp(-np.abs(given))
    found: Floats = np.where(given >= 0, np.float32(1), small) / (1 + small)
    return found


def _logit(share: float) -> float:
    if not 0 < share < 1:
        return -np.inf if share <= 0 else np.inf
    return float(np.log(share / (1 - share)))


CHANGES: Callable[..., Changes] | None = _changes
THINGS: Things | None = Things("boxes", ("class", "score", "x1", "y1", "x2", "y2"), _things)
