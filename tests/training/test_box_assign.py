"""Task-aligned assignment against loops in NumPy, and what must hold of it whatever comes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.boxes import overlaps
from leakdet_tf.core.tasks.detect import VOID, grid
from leakdet_tf.training.box_assign import TOP, Assigned, assign, iou

SIZE = (64, 96)
MIDDLES, STRIDES = grid(SIZE)
ANCHORS = len(MIDDLES)


def some_targets(random: np.random.Generator, batch: int, rows: int, classes: int) -> np.ndarray:
    """Boxes of 2 to 60 pixels; some rows are void, some ignored, and some have no area."""
    low = random.uniform(0, 60, (batch, rows, 2)) * [1.4, 0.9]
    sides = random.uniform(2, 60, (batch, rows, 2)) ** random.uniform(0.5, 1, (batch, rows, 1))
    found = np.zeros((batch, rows, 6), np.float32)
    found[..., :2], found[..., 2:4] = low, low + sides
    found[..., 4] = random.integers(0, classes, (batch, rows))
    found[..., 5] = random.random((batch, rows)) < 0.15
    found[random.random((batch, rows)) < 0.2, 4] = VOID
    flat = random.random((batch, rows)) < 0.1
    found[flat, 2] = found[flat, 0]
    return found


def some_boxes(random: np.random.Generator, batch: int) -> np.ndarray:
    """What anchors might say: boxes around their middles."""
    reach = random.uniform(0, 4, (batch, ANCHORS, 4)) * STRIDES[:, None]
    boxes = np.concatenate([MIDDLES - reach[..., :2], MIDDLES + reach[..., 2:]], axis=-1)
    return boxes.astype(np.float32)


def by_hand(targets: np.ndarray, boxes: np.ndarray, logits: np.ndarray) -> Assigned:
    """The same, picture by picture and box by box, in float64."""
    batch, classes = len(targets), logits.shape[-1]
    row, score = np.zeros((batch, ANCHORS), int), np.zeros((batch, ANCHORS))
    positive, ignored = np.zeros((batch, ANCHORS)), np.zeros((batch, ANCHORS))
    for picture in range(batch):
        owner, claimed = np.full(ANCHORS, -1), np.full(ANCHORS, -1.0)
        metrics, shares = {}, {}
        for number, (x1, y1, x2, y2, label, aside) in enumerate(targets[picture].astype(np.float64)):
            if label < 0 or x2 <= x1 or y2 <= y1:
                continue
            x, y = MIDDLES.T.astype(np.float64)
            dx, dy = max(0, 8 - (x2 - x1)) / 2, max(0, 8 - (y2 - y1)) / 2
            inside = (x >= x1 - dx) & (x <= x2 + dx) & (y >= y1 - dy) & (y <= y2 + dy)
            if aside:
                ignored[picture] += inside
                continue
            share = overlaps(np.array([[x1, y1, x2, y2]]), boxes[picture].astype(np.float64))[0]
            assert 0 <= label < classes
            probability = 1 / (1 + np.exp(-logits[picture, :, int(label)].astype(np.float64)))
            metrics[number], shares[number] = probability**0.5 * share**6, share
            candidates = np.flatnonzero(inside)
            best = candidates[np.argsort(-metrics[number][candidates], kind="stable")][:TOP]
            take = best[share[best] > claimed[best]]
            owner[take], claimed[take] = number, share[take]
        for number in metrics:
            mine = np.flatnonzero(owner == number)
            if len(mine):
                top = metrics[number][mine].max()
                score[picture, mine] = metrics[number][mine] / top * shares[number][mine].max() if top else 0
                row[picture, mine], positive[picture, mine] = number, 1
    return Assigned(row, score, positive, (ignored > 0) * (1 - positive))


def numbers(found: Assigned) -> Assigned:
    return Assigned(*(keras.ops.convert_to_numpy(part) for part in found))


def agree(found: Assigned, wanted: Assigned) -> None:
    for part, other in zip(numbers(found), wanted, strict=True):
        np.testing.assert_allclose(part, other, atol=2e-4)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("rows", [1, 5, 16, 40])
def test_equals_loops_in_numpy(classes: int, rows: int) -> None:
    random = np.random.default_rng(rows + classes)
    targets = some_targets(random, 4, rows, classes)
    boxes = some_boxes(random, 4)
    logits = random.normal(-2, 2, (4, ANCHORS, classes)).astype(np.float32)
    wanted = by_hand(targets, boxes, logits)
    assert wanted.positive.sum() > 0
    assert rows == 1 or wanted.ignored.sum() > 0
    agree(assign(targets, boxes, logits, MIDDLES), wanted)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_rows_looked_at_together_change_nothing(rows: int) -> None:
    random = np.random.default_rng(rows)
    targets, boxes = some_targets(random, 3, 12, 2), some_boxes(random, 3)
    logits = random.normal(0, 1, (3, ANCHORS, 2)).astype(np.float32)
    at_once = numbers(assign(targets, boxes, logits, MIDDLES, rows=12))
    for part, other in zip(numbers(assign(targets, boxes, logits, MIDDLES, rows=rows)), at_once, strict=True):
        np.testing.assert_allclose(part, other, atol=1e-6)


def test_compiled_it_is_the_same() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("compiles with TensorFlow; runs again with KERAS_BACKEND=tensorflow")
    import tensorflow as tf

    random = np.random.default_rng(2)
    targets, boxes = some_targets(random, 2, 20, 1), some_boxes(random, 2)
    logits = random.normal(0, 1, (2, ANCHORS, 1)).astype(np.float32)

    @tf.function(jit_compile=True)
    def compiled(*arrays: Any) -> Assigned:
        return assign(*arrays, MIDDLES, rows=4)

    for part, other in zip(numbers(compiled(targets, boxes, logits)), by_hand(targets, boxes, logits), strict=True):
        np.testing.assert_allclose(part, other, atol=2e-4)


def test_no_boxes_no_positives() -> None:
    targets = np.full((2, 40, 6), VOID, np.float32)
    targets[..., :4] = [0, 0, 64, 64]
    found = numbers(
        assign(targets, some_boxes(np.random.default_rng(0), 2), np.zeros((2, ANCHORS, 1), np.float32), MIDDLES)
    )
    assert found.positive.sum() == found.score.sum() == found.ignored.sum() == 0


@pytest.mark.parametrize("side", [1.0, 3.0, 7.9])
def test_every_small_box_is_learnt_somewhere(side: float) -> None:
    random = np.random.default_rng(1)
    low = random.uniform(0, 56, (20, 1, 2)).astype(np.float32)
    targets = np.concatenate([low, low + side, np.zeros((20, 1, 2), np.float32)], axis=-1)
    # All distances alike, as at the start: the boxes are far too large, and IoU^6 is below 1e-20.
    wide = np.concatenate([MIDDLES - 7.5 * STRIDES[:, None], MIDDLES + 7.5 * STRIDES[:, None]], axis=-1)
    found = numbers(
        assign(targets, np.broadcast_to(wide, (20, ANCHORS, 4)), np.zeros((20, ANCHORS, 1), np.float32), MIDDLES)
    )
    assert (found.positive.sum(axis=1) >= 1).all()
    assert (found.score.max(axis=1) > 0).all()


@pytest.mark.parametrize("side", [1.0, 3.0, 7.9])
def test_around_a_small_ignored_box_anchors_are_ignored(side: float) -> None:
    random = np.random.default_rng(1)
    low = random.uniform(0, 56, (20, 1, 2)).astype(np.float32)
    targets = np.concatenate([low, low + side, np.zeros((20, 1, 1)), np.ones((20, 1, 1))], axis=-1).astype(np.float32)
    found = numbers(assign(targets, some_boxes(random, 20), np.zeros((20, ANCHORS, 1), np.float32), MIDDLES))
    assert (found.ignored.sum(axis=1) >= 1).all()
    assert found.positive.sum() == 0
    for picture, (x, y) in enumerate(low[:, 0] + side / 2):
        away = np.abs(MIDDLES[found.ignored[picture] > 0] - [x, y])
        assert away.max() <= 4 + 1e-4


def test_a_score_is_the_overlap_where_it_is_best() -> None:
    targets = np.array([[[10, 10, 50, 40, 0, 0]]], np.float32)
    boxes = some_boxes(np.random.default_rng(4), 1)
    found = numbers(assign(targets, boxes, np.zeros((1, ANCHORS, 1), np.float32), MIDDLES))
    share = overlaps(targets[0, :, :4], boxes[0])[0]
    assert found.positive.sum() == TOP
    assert found.score.max() == pytest.approx(share[found.positive[0] > 0].max(), rel=1e-5)


def test_an_ignored_region_is_where_no_box_is() -> None:
    targets = np.array([[[0, 0, 96, 64, 0, 1], [10, 10, 50, 40, 0, 0]]], np.float32)
    found = numbers(
        assign(targets, some_boxes(np.random.default_rng(4), 1), np.zeros((1, ANCHORS, 1), np.float32), MIDDLES)
    )
    np.testing.assert_array_equal(found.ignored, 1 - found.positive)
    assert (found.row[found.positive > 0] == 1).all()


def test_iou_is_that_of_core() -> None:
    random = np.random.default_rng(3)
    ours, theirs = (np.sort(random.uniform(0, 9, (5, 2, 2)), axis=1).reshape(5, 4) for _ in range(2))
    ours[0, 2] = ours[0, 0]
    found = keras.ops.convert_to_numpy(iou(ours[:, None], theirs[None]))
    np.testing.assert_allclose(found, overlaps(ours, theirs), atol=1e-6)
