"""How golden answers are compared: what another CPU's rounding does passes, another model does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakdet_tf.core.boxes import pairs
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import Geometry, ImageSpec
from leakdet_tf.core.records import Boxes
from leakdet_tf.edge.golden import gap

SIZE = (64, 64)
GEOMETRY = Geometry(SIZE, SIZE, SIZE)
FINAL = Contract(
    "detect", {"image": ImageSpec(*SIZE)}, classes_of(["hot", "cold"]), "linear", max_boxes=4, outputs="final"
)
DECODED = replace(FINAL, outputs="decoded")
ROWS = np.array([[2, 3, 20, 30, 0.9, 0], [30, 30, 50, 60, 0.8, 1], [4, 4, 9, 9, 0.3, 0], [0] * 6], np.float32)
TOLERANCE = 1e-3


def changed(row: int, column: int, by: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[row, column] += by
    return rows


@pytest.mark.parametrize(
    "answered",
    [ROWS, ROWS[[1, 0, 2, 3]], changed(0, 4, 5e-4), changed(0, 2, 0.05)],
    ids=["equal", "two change places", "a score rounded", "an edge rounded"],
)
def test_final_boxes_pass_as_another_cpu_gives_them(answered: np.ndarray) -> None:
    assert gap(ROWS, answered, FINAL, GEOMETRY) <= TOLERANCE


@pytest.mark.parametrize(
    "answered",
    [changed(0, 4, -0.01), changed(1, 5, -1), changed(1, 0, -10), ROWS * (np.arange(4) != 0)[:, None], ROWS * 0],
    ids=["score", "class", "place", "a box lost", "all lost"],
)
def test_final_boxes_of_another_model_do_not(answered: np.ndarray) -> None:
    assert gap(ROWS, answered, FINAL, GEOMETRY) > TOLERANCE
    assert gap(answered, ROWS, FINAL, GEOMETRY) > TOLERANCE


def test_a_box_that_the_threshold_may_have_cut_off_needs_no_partner() -> None:
    at = replace(FINAL, threshold=0.2995)
    lost = ROWS * (np.arange(4) != 2)[:, None]
    assert gap(ROWS, lost, at, GEOMETRY) == 0
    assert gap(ROWS, lost, FINAL, GEOMETRY) == pytest.approx(0.3)


def test_a_box_that_the_number_may_have_cut_off_needs_no_partner() -> None:
    full = replace(FINAL, max_boxes=3)
    other = ROWS[:3].copy()
    other[2] = [40, 2, 60, 12, 0.3004, 1]
    assert gap(ROWS[:3], other, full, GEOMETRY) == 0
    other[2, 4] = 0.35
    assert gap(ROWS[:3], other, full, GEOMETRY) == pytest.approx(0.35)


def test_suppression_may_have_kept_the_other_of_two_equal_boxes() -> None:
    rows = ROWS.copy()
    rows[1, :4] += [0, 0, 0, 5]
    assert gap(ROWS, rows, replace(FINAL, nms_iou=0.7), GEOMETRY) == 0
    assert gap(ROWS, rows, replace(FINAL, nms_iou=0.95), GEOMETRY) > TOLERANCE


def test_decoded_scores_are_not_hidden_by_large_edges() -> None:
    kept = np.random.default_rng(0).uniform(0, 1, (84, 6)).astype(np.float32)
    kept[:, :4] *= 600
    off = kept.copy()
    off[7, 5] += 0.01
    assert gap(kept, off, DECODED, GEOMETRY) == pytest.approx(0.01, rel=1e-3)
    off = kept.copy()
    off[:, :4] *= 1.00001
    assert gap(kept, off, DECODED, GEOMETRY) <= 2e-5


@pytest.mark.parametrize("contract", [FINAL, DECODED], ids=["final", "decoded"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_other_shapes_cannot_pass(contract: Contract, value: float) -> None:
    off = changed(0, 1, value)
    assert gap(ROWS, off, contract, GEOMETRY) == np.inf
    assert gap(off, ROWS, contract, GEOMETRY) == np.inf
    assert gap(ROWS, ROWS[:3], contract, GEOMETRY) == np.inf


def test_each_box_has_one_partner_at_most() -> None:
    def boxes(scores: list[float]) -> Boxes:
        edges = np.tile(np.float32([2, 3, 20, 30]), (len(scores), 1))
        labels = np.zeros(len(scores), np.int64)
        return Boxes(boxes=edges, scores=np.float32(scores), labels=labels, classes=("hot",), size=SIZE)

    assert pairs(boxes([0.9, 0.9]), boxes([0.9])).tolist() == [0, -1]
    assert pairs(boxes([0.9, 0.9002]), boxes([0.9002, 0.9])).tolist() == [1, 0]
    assert pairs(boxes([0.9]), boxes([])).tolist() == [-1]
    assert pairs(boxes([]), boxes([0.9])).tolist() == []


def test_boxes_of_no_area_are_compared_by_their_edges() -> None:
    def box(x: float) -> Boxes:
        edges = np.float32([[x, 3, x, 3]])
        return Boxes(boxes=edges, scores=np.float32([0.5]), labels=np.array([0]), classes=("hot",), size=SIZE)

    assert pairs(box(2), box(2.001)).tolist() == [0]
    assert pairs(box(2), box(2.1)).tolist() == [-1]
