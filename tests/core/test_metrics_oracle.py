"""``core.confusion_matrix`` against scikit-learn: Jaccard, F1, recall and accuracy on random label maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, recall_score

from leakdet_tf.core.confusion_matrix import confusion, ratios
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE

THEIRS = {"iou": jaccard_score, "dice": f1_score, "accuracy": recall_score}


def maps(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A truth with ignored pixels and a prediction that is right more often than not; some classes are absent."""
    random = np.random.default_rng(seed)
    classes = int(random.integers(2, 9))
    shape = tuple(random.integers(1, 40, 2))
    drawn = random.choice(classes, int(random.integers(1, classes + 1)), replace=False)
    truth = random.choice(drawn, shape).astype(np.uint8)
    guess = np.where(random.random(shape) < 0.6, truth, random.integers(0, classes, shape)).astype(np.uint8)
    if seed % 3 == 0:
        guess = truth.copy() if seed % 2 else np.full(shape, random.integers(classes), np.uint8)
    truth[random.random(shape) < random.choice([0, 0.2, 0.9])] = IGNORE
    return truth, guess, classes


@pytest.mark.parametrize("seed", range(60))
def test_every_figure_is_scikit_learn_s(seed: int) -> None:
    truth, guess, classes = maps(seed)
    keep = truth != IGNORE
    if not keep.any():
        pytest.fail("the drawn map ignores every pixel; draw it otherwise")
    t, g, labels = truth[keep], guess[keep], list(range(classes))
    counts = confusion(truth, guess, classes)
    np.testing.assert_array_equal(counts, confusion_matrix(t, g, labels=labels))
    found = ratios(counts)
    assert abs(float(found["pixel_accuracy"]) - accuracy_score(t, g)) <= 1e-6
    present = {name: np.isin(labels, t) | (np.isin(labels, g) & (name != "accuracy")) for name in THEIRS}
    for name, figure in THEIRS.items():
        # zero_division speaks only for absent classes, whose figure is asserted to be NaN below
        theirs = np.asarray(figure(t, g, labels=labels, average=None, zero_division=0.0))
        np.testing.assert_array_equal(~np.isnan(found[name]), present[name])
        np.testing.assert_allclose(found[name][present[name]], theirs[present[name]], rtol=0, atol=1e-6)
        among = [label for label in labels if present[name][label]]
        mean = figure(t, g, labels=among, average="macro", zero_division=0.0)
        assert abs(float(found[f"mean_{name}"]) - mean) <= 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_sets_of_labels_leave_their_pixels_out_for_their_classes(seed: int) -> None:
    """IoU of a class is scikit-learn's on the pixels whose label is no set with this class in it."""
    random = np.random.default_rng(seed)
    labelling = Labelling(4, ((0, 2), (1, 2, 3)))
    truth = random.integers(0, labelling.count, (30, 30)).astype(np.uint8)
    guess = random.integers(0, 4, (30, 30)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.1] = IGNORE
    found = ratios(confusion(truth, guess, 4, labels=labelling.count), labelling.members)
    for index in range(4):
        sets = [4 + number for number, members in enumerate(labelling.sets) if index in members]
        keep = ~np.isin(truth, [IGNORE, *sets])
        for name in THEIRS:
            theirs = THEIRS[name](truth[keep] == index, guess[keep] == index)
            assert abs(float(found[name][index]) - theirs) <= 1e-6


def test_a_class_absent_from_truth_and_prediction_is_left_out() -> None:
    """Three classes, the third nowhere: 2 of 4 pixels of class 0 right, both of class 1; IoU 2/4 and 2/4."""
    truth, guess = (
        np.array([[0, 0, 0, 0], [1, 1, 255, 255]], np.uint8),
        np.array([[0, 0, 1, 1], [1, 1, 0, 2]], np.uint8),
    )
    found = ratios(confusion(truth, guess, 3))
    np.testing.assert_allclose(found["iou"], [2 / 4, 2 / 4, np.nan])
    np.testing.assert_allclose(found["dice"], [4 / 6, 4 / 6, np.nan])
    np.testing.assert_allclose(found["accuracy"], [2 / 4, 1, np.nan])
    assert float(found["mean_iou"]) == pytest.approx(0.5)  # over two classes, not three
    assert float(found["pixel_accuracy"]) == pytest.approx(4 / 6)


def test_a_class_that_is_only_predicted_counts_as_nought() -> None:
    found = ratios(confusion(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8), 3))
    np.testing.assert_allclose(found["iou"], [3 / 4, 0, np.nan])
    np.testing.assert_allclose(found["dice"], [6 / 7, 0, np.nan])
    np.testing.assert_allclose(found["accuracy"], [3 / 4, np.nan, np.nan])  # it has no pixels to be found
    assert float(found["mean_iou"]) == pytest.approx(3 / 8)
    assert float(found["mean_accuracy"]) == pytest.approx(3 / 4)


def test_a_class_that_is_missed_altogether_is_nought_too() -> None:
    found = ratios(confusion(np.array([[0, 0, 0, 1]], np.uint8), np.zeros((1, 4), np.uint8), 2))
    np.testing.assert_allclose(found["iou"], [3 / 4, 0])
    np.testing.assert_allclose(found["accuracy"], [1, 0])


def test_where_all_is_ignored_nothing_is_said() -> None:
    found = ratios(confusion(np.full((2, 2), IGNORE, np.uint8), np.zeros((2, 2), np.uint8), 2))
    assert all(np.isnan(value).all() for value in found.values())
    assert math.isnan(float(found["mean_iou"]))
