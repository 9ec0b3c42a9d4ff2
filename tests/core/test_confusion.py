"""Confusion counts and the ratios drawn from them, against cases worked by hand and a count in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakdet_tf.core.confusion_matrix import confusion, ratios
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.records import IGNORE

TRUTH = np.array([[0, 0, 0, 1], [1, 1, 2, IGNORE]], np.uint8)
GUESS = np.array([[0, 0, 1, 1], [1, 0, 2, 2]], np.uint8)
COUNTS = [[2, 1, 0], [1, 2, 0], [0, 0, 1]]


def by_hand(truth: np.ndarray, guess: np.ndarray, classes: int) -> dict[str, list[float]]:
    """IoU, Dice and recall by counting pixels one by one."""
    pairs = [(int(t), int(g)) for t, g in zip(truth.ravel(), guess.ravel(), strict=True) if t != IGNORE]
    found: dict[str, list[float]] = {"iou": [], "dice": [], "accuracy": []}
    for index in range(classes):
        both = sum(t == g == index for t, g in pairs)
        either = sum(index in (t, g) for t, g in pairs)
        of_truth, of_guess = sum(t == index for t, _ in pairs), sum(g == index for _, g in pairs)
        found["iou"].append(both / either if either else math.nan)
        found["dice"].append(2 * both / (of_truth + of_guess) if of_truth + of_guess else math.nan)
        found["accuracy"].append(both / of_truth if of_truth else math.nan)
    return found


def test_rows_are_truth_and_ignored_pixels_do_not_count() -> None:
    counts = confusion(TRUTH, GUESS, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == COUNTS
    assert confusion(np.array([0], np.uint8), np.array([1], np.uint8), 2).tolist() == [[0, 1], [0, 0]]


def test_ratios_worked_by_hand() -> None:
    found = ratios(np.array(COUNTS))
    np.testing.assert_allclose(found["iou"], [2 / 4, 2 / 4, 1])
    np.testing.assert_allclose(found["dice"], [4 / 6, 4 / 6, 1])
    np.testing.assert_allclose(found["accuracy"], [2 / 3, 2 / 3, 1])
    assert float(found["mean_iou"]) == pytest.approx(2 / 3)
    assert float(found["mean_dice"]) == pytest.approx(7 / 9)
    assert float(found["mean_accuracy"]) == pytest.approx(7 / 9)
    assert float(found["pixel_accuracy"]) == pytest.approx(5 / 7)


def test_an_absent_class_is_nan_and_left_out_of_means() -> None:
    found = ratios(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(found["iou"], [0.75, 0, np.nan])  # class 1 is predicted, so its IoU is 0
    np.testing.assert_allclose(found["dice"], [6 / 7, 0, np.nan])
    np.testing.assert_allclose(found["accuracy"], [0.75, np.nan, np.nan])
    assert float(found["mean_iou"]) == pytest.approx(0.375)
    assert float(found["mean_accuracy"]) == pytest.approx(0.75)


def test_no_pixels_give_nan_and_no_warning() -> None:
    nothing = confusion(np.full((2, 2), IGNORE, np.uint8), np.zeros((2, 2), np.uint8), 2)
    assert nothing.tolist() == [[0, 0], [0, 0]]
    for value in ratios(nothing).values():
        assert np.isnan(value).all()


def test_leading_axes_are_kept() -> None:
    stack = np.random.default_rng(0).integers(0, 50, (4, 5, 3, 3))
    found = ratios(stack)
    assert {key: value.shape for key, value in found.items()} == {
        **dict.fromkeys(("iou", "dice", "accuracy"), (4, 5, 3)),
        **dict.fromkeys(("mean_iou", "mean_dice", "mean_accuracy", "pixel_accuracy"), (4, 5)),
    }
    for key, value in ratios(stack[2, 3]).items():
        np.testing.assert_array_equal(found[key][2, 3], value)


@given(st.integers(2, 6), st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_any_labels_agree_with_counting_by_hand(classes: int, height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (height, width)).astype(np.uint8)
    guess = random.integers(0, classes, (height, width)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.2] = IGNORE
    counts = confusion(truth, guess, classes)
    assert counts.sum() == (truth != IGNORE).sum()
    found = ratios(counts)
    for key, expected in by_hand(truth, guess, classes).items():
        np.testing.assert_allclose(found[key], expected)
        present = [value for value in expected if not math.isnan(value)]
        mean = sum(present) / len(present) if present else math.nan
        np.testing.assert_allclose(found[f"mean_{key}"], mean)


@pytest.mark.parametrize(
    ("truth", "guess", "said"),
    [
        (TRUTH, GUESS[:, :2], r"truth has shape \(2, 4\), prediction \(2, 2\)"),
        (np.array([3], np.uint8), np.array([0], np.uint8), r"a label is outside 0\.\.2"),
        (np.array([0], np.uint8), np.array([3], np.uint8), r"a label is outside 0\.\.2"),
        (np.array([0], np.uint8), np.array([IGNORE], np.uint8), r"a label is outside 0\.\.2"),
        (np.array([1], np.int64), np.array([-1], np.int64), r"a label is outside 0\.\.2"),
        (np.array([-1], np.int64), np.array([2], np.int64), r"a label is outside 0\.\.2"),
        (np.array([0.7]), np.array([0.2]), "labels are integers"),
    ],
)
def test_labels_that_break_the_rules_are_refused(truth: np.ndarray, guess: np.ndarray, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        confusion(truth, guess, 3)
