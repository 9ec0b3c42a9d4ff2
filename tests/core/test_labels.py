"""Labels that are sets of classes: what they allow, and the figures drawn from them, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from leakdet_tf.core.confusion_matrix import confusion, ratios
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE

# background, gas, machine; label 3 is "background or machine"
MERGED = Labelling(3, ((0, 2),))


def test_members_names_and_count() -> None:
    assert MERGED.count == 4
    assert MERGED.members.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]
    assert MERGED.names(("background", "gas", "machine")) == ("background", "gas", "machine", "background|machine")
    assert Labelling(2).members.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("sets", [((0,),), ((0, 1, 2),), ((0, 3),), ((0, 0),), ((0, 1), (0, 1)), ((-1, 0),)])
def test_sets_that_say_nothing_or_name_no_class_are_refused(sets: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ContractError):
        Labelling(3, sets)


def test_labels_must_fit_eight_bits() -> None:
    assert Labelling(255).count == 255
    with pytest.raises(ContractError, match="8-bit"):
        Labelling(255, ((0, 1),))


def test_confusion_has_a_row_for_each_set() -> None:
    truth = np.array([0, 1, 2, 3, 3, 3, IGNORE], np.uint8)
    guess = np.array([0, 1, 0, 0, 1, 2, 1], np.uint8)
    assert confusion(truth, guess, 3, labels=4).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 1]]
    with pytest.raises(ContractError, match=r"outside 0\.\.2"):
        confusion(truth, guess, 3)


def test_figures_of_a_merged_set_by_hand() -> None:
    counts = np.array(
        [
            [5, 1, 2],  # background
            [1, 4, 0],  # gas
            [0, 2, 3],  # machine
            [6, 2, 4],  # background or machine
        ]
    )
    found = ratios(counts, MERGED.members)
    # Gas: hit 4; missed 1; wrongly said in rows 0, 2 and 3: 1 + 2 + 2. The set's row counts, for it excludes gas.
    assert found["iou"][1] == pytest.approx(4 / (4 + 1 + 5))
    # Background: hit 5; missed 1 + 2; wrongly said in rows 1 and 2: 1 + 0. The set's row says neither yes nor no.
    assert found["iou"][0] == pytest.approx(5 / (5 + 3 + 1))
    assert found["dice"][0] == pytest.approx(2 * 5 / (2 * 5 + 3 + 1))
    assert found["accuracy"][0] == pytest.approx(5 / 8)
    assert found["iou"][2] == pytest.approx(3 / (3 + 2 + 2))
    # The set as a label: rows 0, 2 and 3, columns 0 and 2. Hit 7 + 3 + 10; missed 1 + 2 + 2; wrongly said 1.
    assert found["iou"][3] == pytest.approx(20 / (20 + 5 + 1))
    assert float(found["mean_iou"]) == pytest.approx((4 / 10 + 5 / 9 + 3 / 7) / 3)  # over classes only
    assert float(found["pixel_accuracy"]) == pytest.approx((5 + 4 + 3 + 6 + 4) / 30)


def test_a_source_that_never_told_two_classes_apart_measures_the_third_alone() -> None:
    counts = np.array([[0, 0, 0], [3, 7, 0], [0, 0, 0], [50, 5, 35]])
    found = ratios(counts, MERGED.members)
    assert np.isnan(found["iou"][[0, 2]]).all()  # gas pixels called background are wrong ones, but none can be right
    assert float(found["mean_iou"]) == found["iou"][1]
    assert found["iou"][1] == pytest.approx(7 / 15)
    assert found["iou"][3] == pytest.approx(85 / (90 + 3))


def test_without_sets_nothing_changes() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (4, 3, 3))
    for key, value in ratios(counts).items():
        np.testing.assert_array_equal(value, ratios(counts, Labelling(3).members)[key])
