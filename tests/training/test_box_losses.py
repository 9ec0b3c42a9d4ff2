"""A detector's losses against NumPy, their gradients at the edges of what is defined, and that they teach."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from leakdet_tf.config.train import Train
from leakdet_tf.core.boxes import overlaps
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import Geometry, ImageSpec
from leakdet_tf.core.tasks.detect import BINS, VOID, anchors_of, boxes_from, decode, distances, grid
from leakdet_tf.models import yolov8
from leakdet_tf.training.box_assign import assign
from leakdet_tf.training.detection_losses import (
    FACTORS,
    BoxObjective,
    box_losses,
    complete_iou,
    distribution_focal,
)
from leakdet_tf.training.loop import compiled

SIZE = (64, 64)
MIDDLES, STRIDES = grid(SIZE)
ANCHORS = anchors_of(SIZE)


def some(seed: int, *, batch: int = 3, rows: int = 6, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Targets (B, M, 6), the last row void and the first of the last picture ignored, and raw outputs."""
    random = np.random.default_rng(seed)
    targets = np.zeros((batch, rows, 6), np.float32)
    targets[..., :2] = random.uniform(0, 40, (batch, rows, 2))
    targets[..., 2:4] = targets[..., :2] + random.uniform(4, 24, (batch, rows, 2))
    targets[..., 4] = random.integers(0, classes, (batch, rows))
    targets[:, -1, 4] = VOID
    targets[-1, 0, 5] = 1
    outputs = random.normal(0, 1, (batch, ANCHORS, 4 * BINS + classes)).astype(np.float32)
    return targets, outputs


def array(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def ciou_by_hand(true: np.ndarray, found: np.ndarray) -> float:
    x1, y1, x2, y2 = (float(edge) for edge in true)
    u1, v1, u2, v2 = (float(edge) for edge in found)
    both = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
    share = both / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both)
    apart = ((x1 + x2 - u1 - u2) ** 2 + (y1 + y2 - v1 - v2) ** 2) / 4
    whole = (max(x2, u2) - min(x1, u1)) ** 2 + (max(y2, v2) - min(y1, v1)) ** 2
    aspect = 4 / math.pi**2 * (math.atan((x2 - x1) / (y2 - y1)) - math.atan((u2 - u1) / (v2 - v1))) ** 2
    return share - apart / whole - aspect * aspect / (1 - share + aspect)


def by_hand(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The losses (3, B) and sums of scores (B,), anchor by anchor; who learns what is as assign() says."""
    boxes = boxes_from(distances(outputs[..., : 4 * BINS]), MIDDLES, STRIDES)
    given = assign(targets, boxes, outputs[..., 4 * BINS :], MIDDLES)
    row, score, positive, ignored = (array(part) for part in given)
    sums = np.zeros((4, len(targets)))
    for picture in range(len(targets)):
        for anchor in range(ANCHORS):
            logits = outputs[picture, anchor].astype(np.float64)
            wanted = np.zeros(len(logits) - 4 * BINS)
            weight = score[picture, anchor]
            if positive[picture, anchor]:
                true = targets[picture, row[picture, anchor]]
                wanted[int(true[4])] = weight
                sums[0, picture] += weight * (1 - ciou_by_hand(true[:4], boxes[picture, anchor]))
                x, y = MIDDLES[anchor]
                for edge, cells in enumerate([x - true[0], y - true[1], true[2] - x, true[3] - y]):
                    cells = min(max(cells / STRIDES[anchor], 0), 14.99)
                    bins = logits[edge * BINS : (edge + 1) * BINS]
                    logs = bins - np.log(np.exp(bins).sum())
                    left = int(cells)
                    sums[2, picture] -= weight / 4 * ((left + 1 - cells) * logs[left] + (cells - left) * logs[left + 1])
            if not ignored[picture, anchor]:
                p = 1 / (1 + np.exp(-logits[4 * BINS :]))
                sums[1, picture] -= (wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).sum()
            sums[3, picture] += weight
    return sums


@pytest.mark.parametrize("classes", [1, 3])
def test_equals_loops_in_numpy(classes: int) -> None:
    targets, outputs = some(classes, classes=classes)
    found = box_losses(targets, outputs, SIZE)
    np.testing.assert_allclose(np.stack([array(part) for part in found]), by_hand(targets, outputs), rtol=1e-4)


def test_the_objective_is_their_weighted_sum_over_the_scores() -> None:
    targets, outputs = some(5)
    outputs[:, :, : 4 * BINS] = 0  # boxes large enough to be some of the true ones
    targets[..., 2:4] += 16
    box, classes, edges, scores = by_hand(targets, outputs)
    parts = FACTORS[0] * box + FACTORS[1] * classes + FACTORS[2] * edges
    assert scores.sum() > 1.5
    assert float(BoxObjective(SIZE)(targets, outputs)) == pytest.approx(parts.sum() / scores.sum(), rel=1e-4)
    own = float(BoxObjective(SIZE, [1.0, 2.0, 3.0])(targets, outputs))
    assert own == pytest.approx((box + 2 * classes + 3 * edges).sum() / scores.sum(), rel=1e-4)
    weights = np.array([2.0, 1.0, 0.5], np.float32)
    weighted = float(BoxObjective(SIZE)(targets, outputs, weights))
    assert (scores * weights).sum() > 2
    assert weighted == pytest.approx((parts * weights).sum() / (scores * weights).sum(), rel=1e-4)


@pytest.mark.parametrize("size", [0, 1])
def test_fillers_leave_nothing(size: int) -> None:
    targets, outputs = some(6, batch=4)
    outputs[:, :, : 4 * BINS] *= size
    targets[3, :, 4] = VOID
    alone = float(BoxObjective(SIZE)(targets[:3], outputs[:3], np.ones(3)))
    raised = np.array([4 / 3, 4 / 3, 4 / 3, 0], np.float32)
    assert float(BoxObjective(SIZE)(targets, outputs, raised)) == pytest.approx(alone, rel=1e-5)


def test_pictures_without_boxes_teach_that_nothing_is_there() -> None:
    targets, outputs = some(7)
    targets[..., 4] = VOID
    found = [array(part) for part in box_losses(targets, outputs, SIZE)]
    assert found[0].sum() == found[2].sum() == found[3].sum() == 0
    np.testing.assert_allclose(found[1], np.log1p(np.exp(outputs[..., 4 * BINS :])).sum(axis=(1, 2)), rtol=1e-5)
    assert float(BoxObjective(SIZE)(targets, outputs)) == pytest.approx(0.5 * found[1].sum(), rel=1e-5)


def test_more_rows_change_nothing() -> None:
    targets, outputs = some(8)
    more = np.concatenate([targets, np.full((3, 60, 6), VOID, np.float32)], axis=1)
    assert float(BoxObjective(SIZE)(more, outputs)) == pytest.approx(
        float(BoxObjective(SIZE)(targets, outputs)), rel=1e-6
    )


@pytest.mark.parametrize("where", [0, 40, 64])
def test_outputs_that_are_nan_are_told(where: int) -> None:
    targets, outputs = some(9)
    outputs[1, 5, where] = np.nan
    assert math.isnan(float(BoxObjective(SIZE)(targets, outputs)))


def gradient(targets: np.ndarray, outputs: np.ndarray, jit: bool = False) -> np.ndarray:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow; runs again with KERAS_BACKEND=tensorflow")
    import tensorflow as tf

    @tf.function(jit_compile=jit)
    def slope(given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = BoxObjective(SIZE)(targets, given)
        return tape.gradient(loss, given)

    return np.asarray(slope(tf.constant(outputs)))


def test_gradients_are_those_of_differences() -> None:
    targets, outputs = some(10, batch=1)
    slopes = gradient(targets, outputs)
    assert (slopes != 0).mean() > 0.01
    # Steps of bins that are far from the best anchors do not change who learns what.
    boxes = boxes_from(distances(outputs[..., : 4 * BINS]), MIDDLES, STRIDES)
    score = array(assign(targets, boxes, outputs[..., 4 * BINS :], MIDDLES).score)[0]
    strongest = int(score.argmax())
    step = np.zeros_like(outputs)
    step[0, strongest, 4 * BINS] = 1e-2
    before, after = (by_hand_fixed(targets, outputs, outputs + sign * step) for sign in (-1, 1))
    assert slopes[0, strongest, 4 * BINS] == pytest.approx((after - before) / 2e-2, rel=1e-2)


def by_hand_fixed(targets: np.ndarray, fixed: np.ndarray, outputs: np.ndarray) -> float:
    """The class loss with the scores that ``fixed`` outputs are to have."""
    boxes = boxes_from(distances(fixed[..., : 4 * BINS]), MIDDLES, STRIDES)
    row, score, positive, ignored = (array(part) for part in assign(targets, boxes, fixed[..., 64:], MIDDLES))
    logits = outputs[0, :, 64:].astype(np.float64)
    labels = targets[0, row[0], 4].astype(int)
    wanted = (labels[:, None] == np.arange(logits.shape[1])) * (score[0] * positive[0])[:, None]
    losses = (np.log1p(np.exp(logits)) - wanted * logits) * (1 - ignored[0])[:, None]
    return float(0.5 * losses.sum() / max(score.sum(), 1))


@pytest.mark.parametrize("jit", [False, True])
def test_gradients_are_finite_whatever_the_boxes(jit: bool) -> None:
    targets, outputs = some(11, batch=3, rows=20)
    targets[0, 0, :4] = [20, 20, 20, 20]  # a point
    targets[0, 1, :4] = [20, 20, 40, 20]  # a line
    targets[0, 2, :4] = [40, 40, 20, 20]  # turned inside out
    targets[0, 3, :4] = [-500, -500, 900, 900]  # farther than the bins reach
    targets[0, 4, :4] = [20, 20, 20.001, 40]
    targets[1] = targets[1, :1]  # the same box twenty times
    outputs[2, :, : 4 * BINS] = 0
    outputs[2, :, 0 : 4 * BINS : BINS] = 80  # all edges at the middles: boxes without area
    outputs[2, :, 4 * BINS :] = 60
    slopes = gradient(targets, outputs, jit)
    assert np.isfinite(slopes).all()
    assert (slopes[0] != 0).any()


def test_complete_iou() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 30, (50, 2, 2))
    pairs = np.concatenate([low, low + random.uniform(1, 30, (50, 2, 2))], axis=-1).astype(np.float32)
    wanted = [ciou_by_hand(true, found) for true, found in pairs]
    np.testing.assert_allclose(array(complete_iou(pairs[:, 0], pairs[:, 1])), wanted, atol=1e-5)
    assert array(complete_iou(pairs[:, 0], pairs[:, 0])) == pytest.approx(np.ones(50), abs=1e-5)


@pytest.mark.parametrize(("cells", "peak"), [(0.0, 0), (3.0, 3), (14.9, 15), (40.0, 15), (-3.0, 0)])
def test_distribution_focal_is_least_where_the_edge_is(cells: float, peak: int) -> None:
    bins = np.zeros((BINS, 4, BINS), np.float32)
    for place in range(BINS):
        bins[place, :, place] = 5
    found = array(distribution_focal(np.full((BINS, 4), cells, np.float32), bins))
    assert found.argmin() == peak


def test_distribution_focal_between_two_bins() -> None:
    logits = np.random.default_rng(1).normal(0, 1, (1, 4, BINS)).astype(np.float32)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -(0.75 * logs[..., 6] + 0.25 * logs[..., 7]).mean()
    assert float(distribution_focal(np.full((1, 4), 6.25, np.float32), logits)[0]) == pytest.approx(wanted, rel=1e-5)


def test_one_batch_is_learnt_by_heart() -> None:
    """Squares of two colours: the loss falls to a third, and decoding finds each one and its class."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes a minute elsewhere; runs again with KERAS_BACKEND=tensorflow")
    random = np.random.default_rng(0)
    images = random.integers(90, 120, (8, *SIZE, 3), dtype=np.uint8)
    targets = np.full((8, 3, 6), VOID, np.float32)
    for image, rows in zip(images, targets, strict=True):
        x, y, wide, tall = (*random.integers(2, 30, 2), *random.integers(12, 30, 2))
        label = int(random.integers(0, 2))
        image[y : y + tall, x : x + wide] = [(230, 40, 40), (40, 40, 230)][label]
        rows[0] = [x, y, x + wide, y + tall, label, 0]
    model = yolov8((*SIZE, 3), 2, implementation="native", channels=[16, 16, 32, 32], depths=[1, 1, 1, 1], seed=0)
    contract = Contract("detect", {"image": ImageSpec(*SIZE)}, classes_of(["red", "blue"]), "linear")
    trained, metric = compiled(model, contract, Train(learning_rate=5e-3))
    assert metric is None
    losses = [float(trained.train_on_batch(images, targets)) for _ in range(60)]
    assert losses[-1] < losses[0] / 3
    outputs = array(model(images, training=True))  # statistics of this batch: those that move lag behind
    for picture, output in enumerate(outputs):
        found = decode(output, contract, Geometry(SIZE, SIZE, SIZE))
        assert found.labels[0] == targets[picture, 0, 4]
        assert overlaps(found.boxes[:1], targets[picture, :1, :4])[0, 0] > 0.7
