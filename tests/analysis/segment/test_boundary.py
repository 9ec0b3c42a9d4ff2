"""Boundary F1: cases worked by hand, and any masks against a count by SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from leakdet_tf.analysis.segment import boundary
from leakdet_tf.analysis.segment.boundary import boundary_counts, boundary_ratios, default_tolerance
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE

TWO, THREE = Labelling(2), Labelling(3)
CROSS = ndimage.generate_binary_structure(2, 1)


def block(height: int, width: int, rows: slice, columns: slice, value: int = 1) -> np.ndarray:
    field = np.zeros((height, width), np.uint8)
    field[rows, columns] = value
    return field


def by_scipy(truth: np.ndarray, predicted: np.ndarray, labelling: Labelling, tolerance: float) -> np.ndarray:
    """The definition in SciPy's words: erosion for boundaries, exact distances for matches."""
    found = []
    for index in range(labelling.classes):
        unclear = truth == IGNORE
        for number, members in enumerate(labelling.sets):
            if index in members:
                unclear |= truth == labelling.classes + number
        edges = []
        for labels in (predicted, truth):
            inside = (labels == index) & ~unclear
            # what lies outside the picture, and what does not count, erodes nothing
            edges.append(inside & ~ndimage.binary_erosion(inside | unclear, CROSS, border_value=1))
        row = []
        for mine, other in (edges, edges[::-1]):
            near = np.zeros(mine.shape, bool)
            if other.any():
                near = ndimage.distance_transform_edt(~other) <= tolerance + 1e-9
            row += [int((mine & near).sum()), int(mine.sum())]
        found.append(row)
    return np.array(found)


def blobs(random: np.random.Generator, shape: tuple[int, int], levels: int) -> np.ndarray:
    field = ndimage.gaussian_filter(random.normal(size=shape), random.uniform(0.5, 4))
    cuts = np.sort(random.choice(field.ravel(), levels - 1))
    return np.digitize(field, cuts).astype(np.uint8)


def test_a_square_moved_by_one_pixel() -> None:
    """A 4x4 square has 12 boundary pixels, its surroundings 16 (corners touch by their edges only)."""
    truth = block(10, 10, slice(3, 7), slice(3, 7))
    moved = block(10, 10, slice(3, 7), slice(4, 8))
    assert boundary_counts(truth, truth, TWO).tolist() == [[16, 16, 16, 16], [12, 12, 12, 12]]
    assert boundary_counts(truth, moved, TWO, tolerance=1).tolist()[1] == [12, 12, 12, 12]
    # Columns 3..6 and 4..7: on the top and bottom rows 3 pixels each coincide; the sides do not.
    assert boundary_counts(truth, moved, TWO, tolerance=0.5).tolist()[1] == [6, 12, 6, 12]
    found = boundary_ratios(boundary_counts(truth, moved, TWO, tolerance=0.5))
    assert found["boundary_f1"][1] == pytest.approx(0.5)


def test_precision_and_recall_are_not_alike() -> None:
    """A second, wrong square costs precision, not recall: 12 of 24 and 12 of 12 make 2/3."""
    truth = block(10, 20, slice(3, 7), slice(3, 7))
    twice = truth | block(10, 20, slice(3, 7), slice(13, 17))
    counts = boundary_counts(truth, twice, TWO)
    assert counts[1].tolist() == [12, 24, 12, 12]
    assert boundary_ratios(counts)["boundary_f1"][1] == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_the_picture_s_own_edge_is_no_boundary() -> None:
    truth = block(6, 6, slice(None), slice(0, 3))
    assert boundary_counts(truth, truth, TWO)[:, 3].tolist() == [6, 6]


def test_a_diagonal_neighbour_is_further_than_one_pixel() -> None:
    truth, moved = block(7, 7, slice(3, 4), slice(3, 4)), block(7, 7, slice(4, 5), slice(4, 5))
    assert boundary_counts(truth, moved, TWO, tolerance=1.4)[1].tolist() == [0, 1, 0, 1]
    assert boundary_counts(truth, moved, TWO, tolerance=math.sqrt(2))[1].tolist() == [1, 1, 1, 1]


def test_absent_classes() -> None:
    """Without any boundary: undefined and out of the mean. On one side only: 0."""
    nothing, some = np.zeros((8, 8), np.uint8), block(8, 8, slice(2, 4), slice(2, 4))
    found = boundary_ratios(boundary_counts(nothing, nothing, THREE))
    assert np.isnan(found["boundary_f1"]).all()
    assert np.isnan(found["mean_boundary_f1"])
    for truth, predicted in ((nothing, some), (some, nothing)):
        found = boundary_ratios(boundary_counts(truth, predicted, THREE))
        np.testing.assert_array_equal(found["boundary_f1"], [0, 0, np.nan])
        assert found["mean_boundary_f1"] == 0
    right = boundary_ratios(boundary_counts(some, some, THREE))
    np.testing.assert_array_equal(right["boundary_f1"], [1, 1, np.nan])
    assert right["mean_boundary_f1"] == 1


def test_ignored_and_unclear_pixels_count_on_neither_side() -> None:
    labelling = Labelling(3, ((0, 2),))
    truth = block(8, 8, slice(2, 6), slice(2, 6))
    truth[:, 6:] = 3  # background or machine
    truth[6:] = IGNORE
    predicted = block(8, 8, slice(2, 6), slice(2, 6))
    predicted[6:] = 1
    predicted[:2, 6:] = 2
    counts = boundary_counts(truth, predicted, labelling, tolerance=1)
    # gas: top row 4, left and right columns 3 more each; its lower side touches only what is ignored
    assert counts[1].tolist() == [10, 10, 10, 10]
    # machine lies only where it may be one of two: it counts nowhere
    assert counts[2].tolist() == [0, 0, 0, 0]
    # background: above and left of the gas; where it is unclear it neither is nor ends
    assert counts[0].tolist() == [8, 8, 8, 8]


def test_counts_agree_with_scipy_on_any_masks() -> None:
    random = np.random.default_rng(0)
    checked = 0
    for trial in range(260):
        labelling = Labelling(3, ((0, 2),)) if trial % 3 == 0 else THREE
        shape = (int(random.integers(1, 60)), int(random.integers(1, 60)))
        truth, predicted = blobs(random, shape, labelling.count), blobs(random, shape, 3)
        if trial % 5 == 1:
            predicted = np.where(random.random(shape) < 0.1, predicted, truth % 3).astype(np.uint8)
        if trial % 7 == 0:
            truth[random.random(shape) < 0.2] = IGNORE
        for number, field in ((11, truth), (13, predicted), (17, truth), (19, predicted)):
            if trial % number == 0:
                field[:] = 1 if number < 16 else 0
        if trial % 23 == 0:
            truth[:] = IGNORE
        tolerance = None if trial % 2 else float(random.choice([0.5, 1, math.sqrt(2), 2, math.sqrt(5), 5, 9, 14.5]))
        counts = boundary_counts(truth, predicted, labelling, tolerance=tolerance)
        expected = by_scipy(truth, predicted, labelling, tolerance or default_tolerance(*shape))
        np.testing.assert_array_equal(counts, expected, err_msg=f"trial {trial}")
        figures = boundary_ratios(counts)["boundary_f1"]
        for index, (hit, ours, met, theirs) in enumerate(expected.tolist()):
            if not ours and not theirs:
                assert math.isnan(figures[index])
                continue
            precision, recall = hit / ours if ours else 0.0, met / theirs if theirs else 0.0
            wanted = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            assert abs(figures[index] - wanted) <= 1e-6
            checked += 1
    assert checked > 300


def test_both_ways_to_find_near_pixels_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    for squared in range(1, 70):
        truth, predicted = blobs(random, (50, 70), 3), blobs(random, (50, 70), 3)
        found = []
        for limit in (0.0, 100.0):
            monkeypatch.setattr(boundary, "_SMALL", limit)
            found.append(boundary_counts(truth, predicted, THREE, tolerance=math.sqrt(squared)).tolist())
        assert found[0] == found[1], squared


def test_leading_axes_are_kept_and_counts_add_up() -> None:
    counts = np.random.default_rng(0).integers(1, 9, (4, 5, 3, 4))
    counts[..., 0], counts[..., 2] = (
        np.minimum(counts[..., 0], counts[..., 1]),
        np.minimum(counts[..., 2], counts[..., 3]),
    )
    found = boundary_ratios(counts)
    assert found["boundary_f1"].shape == (4, 5, 3)
    assert found["mean_boundary_f1"].shape == (4, 5)
    np.testing.assert_array_equal(found["boundary_f1"][2, 3], boundary_ratios(counts[2, 3])["boundary_f1"])


def test_the_default_tolerance_is_a_share_of_the_diagonal() -> None:
    assert default_tolerance(3000, 4000) == pytest.approx(37.5)
    assert default_tolerance(30, 40) == 1


@pytest.mark.parametrize(
    ("truth", "predicted", "tolerance", "said"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 1, r"truth has shape \(2, 3\)"),
        (np.zeros(3, np.uint8), np.zeros(3, np.uint8), 1, r"must be \(H, W\)"),
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), 1, "outside the 3 labels"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8), 1, "outside the 3 labels"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 0, "above 0"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), math.nan, "above 0"),
    ],
)
def test_what_breaks_the_rules_is_refused(
    truth: np.ndarray, predicted: np.ndarray, tolerance: float, said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        boundary_counts(truth, predicted, THREE, tolerance=tolerance)
