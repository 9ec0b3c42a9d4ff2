"""What an engine of another precision may change of golden answers, and what it may not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import Geometry, ImageSpec
from leakdet_tf.edge.agreement import LIMITS, Agreement, compare, objection

SIZE = (64, 64)
GEOMETRY = Geometry(SIZE, SIZE, SIZE)
SEGMENT = Contract("segment", {"image": ImageSpec(*SIZE)}, classes_of(["background", "gas"]))
CLASSIFY = Contract("classify", {"image": ImageSpec(*SIZE)}, classes_of(["dry", "oil", "water"]))
FINAL = Contract(
    "detect", {"image": ImageSpec(*SIZE)}, classes_of(["hot", "cold"]), "linear", max_boxes=4, outputs="final"
)
ROWS = np.array([[2, 3, 20, 30, 0.9, 0], [30, 30, 50, 60, 0.8, 1], [4, 40, 9, 49, 0.3, 0], [0] * 6], np.float32)


def agreement(contract: Contract, kept: np.ndarray, answered: np.ndarray, precision: str = "float16") -> Agreement:
    return compare([({"output": kept}, {"output": answered}, GEOMETRY)], contract, precision)


def scores(gas: float) -> np.ndarray:
    mask = np.full((*SIZE, 2), 0.1, np.float32)
    mask[..., 0] = 1 - gas
    mask[..., 1] = gas
    return mask


def test_equal_answers_agree() -> None:
    found = agreement(SEGMENT, scores(0.9), scores(0.9))
    assert found == Agreement(1, 64 * 64, 0, 0, 0.0, 0.0)
    for precision in ("float32", *LIMITS):
        assert objection(found, precision, 1e-3) == ""


def test_a_narrow_decision_may_change_and_a_clear_one_may_not() -> None:
    narrow = agreement(SEGMENT, scores(0.505), scores(0.498))
    assert (narrow.changed, narrow.clear) == (64 * 64, 0)
    assert objection(narrow, "float16", 1e-3) == ""
    clear = agreement(SEGMENT, scores(0.52), scores(0.498))
    assert clear.clear == 64 * 64
    assert "4096 of 4096 decisions are clearly others" in objection(clear, "float16", 1e-3)
    assert agreement(SEGMENT, scores(0.52), scores(0.498), "int8").clear == 0


def test_some_clear_changes_pass_by_the_limit_s_share_and_by_one_s_own() -> None:
    kept = scores(0.9)
    other = kept.copy()
    other[:1, :8] = other[:1, :8, ::-1]  # 8 of 4096: .002
    found = agreement(SEGMENT, kept, other)
    assert objection(found, "float16", 1e-3)
    assert objection(found, "float16", 1e-3, 0.002) == ""
    assert objection(agreement(SEGMENT, kept, other, "int8"), "int8", 1e-3) == ""


def test_outputs_that_drift_without_a_changed_decision_are_noticed() -> None:
    found = agreement(SEGMENT, scores(0.99), scores(0.90))
    assert found.changed == 0
    assert "on average" in objection(found, "float16", 1e-3)
    assert "on average" in objection(found, "int8", 1e-3)


def test_float32_is_held_to_the_tolerance_alone() -> None:
    found = agreement(SEGMENT, scores(0.9), scores(0.902), "float32")
    assert "outputs differ by 0.002, limit 0.001" in objection(found, "float32", 1e-3)
    assert objection(found, "float32", 1e-2) == ""


def test_a_classifier_s_changed_label_is_refused() -> None:
    kept, other = np.float32([0.1, 0.8, 0.1]), np.float32([0.1, 0.4, 0.5])
    found = agreement(CLASSIFY, kept, other, "int8")
    assert (found.decisions, found.clear) == (1, 1)
    assert objection(found, "int8", 0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_what_is_not_finite_or_has_another_shape_or_name_cannot_pass(precision: str, value: float) -> None:
    off = scores(0.9)
    off[3, 3, 1] = value
    for pair in (
        ({"output": scores(0.9)}, {"output": off}, GEOMETRY),
        ({"output": scores(0.9)}, {"output": scores(0.9)[1:]}, GEOMETRY),
        ({"output": scores(0.9)}, {"other": scores(0.9)}, GEOMETRY),
    ):
        assert objection(compare([pair], SEGMENT, precision), precision, 1e-3)


@pytest.mark.parametrize("precision", ["float32", *LIMITS])
def test_a_difference_that_is_nan_is_no_agreement(precision: str) -> None:
    assert objection(Agreement(1, 10, 0, 0, np.nan, np.nan), precision, 1e-3)


def test_nothing_compared_is_no_agreement() -> None:
    for precision in ("float32", *LIMITS):
        assert objection(compare([], SEGMENT, precision), precision, 1e-3)


def test_boxes_may_move_a_little_and_change_places() -> None:
    moved = ROWS[[1, 0, 2, 3]].copy()
    moved[:3, :4] += 0.2
    moved[:3, 4] -= 0.004
    found = agreement(FINAL, ROWS, moved)
    assert (found.decisions, found.changed) == (3, 0)
    assert objection(found, "float16", 1e-3) == ""


@pytest.mark.parametrize(("row", "column", "by"), [(0, 4, -0.8), (1, 5, -1.0), (1, 0, -12.0)])
def test_a_box_that_is_lost_of_another_class_or_elsewhere_is_a_change(row: int, column: int, by: float) -> None:
    off = ROWS.copy()
    off[row, column] += by
    for first, second in ((ROWS, off), (off, ROWS)):
        found = agreement(FINAL, first, second, "int8")
        assert found.clear >= 1
        assert objection(found, "int8", 1e-3)


def test_a_box_near_the_threshold_may_come_or_go() -> None:
    gone = ROWS * (np.arange(4) != 2)[:, None]
    found = agreement(replace(FINAL, threshold=0.29), ROWS, gone)
    assert (found.changed, found.clear) == (1, 0)
    assert objection(found, "float16", 1e-3) == ""
    assert objection(agreement(FINAL, ROWS, gone), "float16", 1e-3)


def test_a_detector_without_boxes_on_its_frames_is_compared_by_its_scores() -> None:
    contract = replace(FINAL, outputs="decoded", threshold=0.9)
    kept = np.zeros((84, 6), np.float32)
    found = agreement(contract, kept, kept + np.float32([0, 0, 0, 0, 0.3, 0.3]))
    assert (found.decisions, found.share) == (0, 0.0)
    assert "on average" in objection(found, "float16", 1e-3)
