"""What a detector's outputs mean: decoding by hand, the same boxes from each layout, what is refused, and drawing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakdet_tf.core.boxes import suppress
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import Geometry, ImageSpec
from leakdet_tf.core.records import IGNORE, Boxes
from leakdet_tf.core.tasks import detect, task_named, task_of

NAMES = ["leak", "crack", "rust"]
SIZE = (64, 96)
ANCHORS = 8 * 12 + 4 * 6 + 2 * 3
SAME = Geometry(SIZE, SIZE, SIZE)


def agreed(**keys: Any) -> Contract:
    spec = {"image": ImageSpec(*SIZE, fit="letterbox")}
    return Contract("detect", spec, classes_of(NAMES), activation="linear", **keys)


def silent() -> np.ndarray:
    """Raw outputs in which no anchor is sure of anything."""
    return np.full((ANCHORS, 4 * detect.BINS + 3), -20, np.float32)


def say(raw: np.ndarray, place: int, distances: Any, label: int, logit: float = 2.0) -> None:
    """Let an anchor say a box by whole distances of left, up, right and down in cells."""
    raw[place, : 4 * detect.BINS] = 0
    for edge, distance in enumerate(distances):
        raw[place, edge * detect.BINS + distance] = 60
    raw[place, 4 * detect.BINS + label] = logit


def by_chance(seed: int, outputs: str = "raw") -> np.ndarray:
    random = np.random.default_rng(seed)
    raw = random.normal(0, 3, (ANCHORS, 4 * detect.BINS + 3)).astype(np.float32)
    raw[:, 4 * detect.BINS :] -= 2
    return raw if outputs == "raw" else decoded(raw)


def decoded(raw: np.ndarray) -> np.ndarray:
    """The layout ``decoded`` from raw logits, in float64 and by the formulas as they are written."""
    bins = raw[:, : 4 * detect.BINS].astype(np.float64).reshape(-1, 4, detect.BINS)
    weights = np.exp(bins) / np.exp(bins).sum(-1, keepdims=True)
    left, up, right, down = (weights * np.arange(16)).sum(-1).T
    middles, strides = detect.grid(SIZE)
    x, y = middles.T
    edges = [x - left * strides, y - up * strides, x + right * strides, y + down * strides]
    classes = 1 / (1 + np.exp(-raw[:, 4 * detect.BINS :].astype(np.float64)))
    return np.column_stack([*edges, classes]).astype(np.float32)


def test_the_task_is_found_by_its_contract() -> None:
    assert task_of(agreed()) is detect is task_named("detect")
    assert detect.anchors_of(SIZE) == ANCHORS
    assert detect.anchors_of((640, 640)) == 8400
    assert detect.output_shape(SIZE, 3) == (ANCHORS, 67)
    assert detect.output_shape(SIZE, 3, "decoded") == (ANCHORS, 7)
    assert detect.output_shape(SIZE, 3, "final", 50) == (50, 6)
    with pytest.raises(ContractError, match=r"64x100 px; make both multiples of 32"):
        detect.anchors_of((64, 100))


def test_anchors_come_grid_by_grid_and_row_by_row() -> None:
    middles, strides = detect.grid(SIZE)
    assert (middles.shape, strides.shape) == ((ANCHORS, 2), (ANCHORS,))
    np.testing.assert_array_equal(middles[[0, 1, 12, 95]], [[4, 4], [12, 4], [4, 12], [92, 60]])
    np.testing.assert_array_equal(middles[[96, 97, 120, 125]], [[8, 8], [24, 8], [16, 16], [80, 48]])
    np.testing.assert_array_equal(np.unique(strides, return_counts=True), [[8, 16, 32], [96, 24, 6]])


def test_logits_made_by_hand_become_boxes() -> None:
    raw = silent()
    say(raw, 13, (1, 0, 2, 3), label=2)  # row 1, column 1 of the finest grid: middle (12, 12)
    say(raw, 96 + 7, (1, 1, 1, 0), label=0, logit=3)  # row 1, column 1 of 16 px: middle (24, 24)
    raw[4, 4 * detect.BINS] = -1.2  # a score of .23: below the threshold
    found = detect.decode(raw, agreed(), SAME)
    np.testing.assert_allclose(found.boxes, [[8, 8, 40, 24], [4, 12, 28, 36]], atol=1e-4)
    np.testing.assert_array_equal(found.labels, [0, 2])
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-3, -2])), atol=1e-6)
    assert (found.names, found.size, found.model) == (("leak", "rust"), SIZE, agreed().id)


def test_a_distance_is_the_mean_over_its_bins() -> None:
    logits = np.zeros((2, 4 * detect.BINS), np.float32)
    logits[0, 3], logits[0, 5] = 50, 50
    np.testing.assert_allclose(detect.distances(logits)[0], [4, 7.5, 7.5, 7.5], rtol=1e-6)
    random = np.random.default_rng(0).normal(0, 30, (3, 5, 4 * detect.BINS))
    bins = random.reshape(3, 5, 4, 16)
    weights = np.exp(bins - bins.max(-1, keepdims=True))
    wanted = (weights * np.arange(16)).sum(-1) / weights.sum(-1)
    np.testing.assert_allclose(detect.distances(random), wanted, atol=1e-4)
    assert detect.distances(logits[:0]).shape == (0, 4)
    np.testing.assert_allclose(detect.distances(logits + 1000), detect.distances(logits))  # no overflow


@pytest.mark.parametrize("seed", range(12))
def test_each_layout_gives_the_same_boxes(seed: int) -> None:
    contract = agreed(threshold=0.3, nms_iou=0.5, max_boxes=20)
    raw = by_chance(seed)
    wanted = detect.decode(raw, contract, SAME)
    assert len(wanted) > 5
    half = detect.decode(decoded(raw), replace(contract, outputs="decoded"), SAME)
    boxes, scores, labels = detect.candidates(raw, contract)
    kept = suppress(boxes, scores, labels, iou=0.5, most=20)
    final = np.zeros((20, 6), np.float32)
    final[: len(kept)] = np.column_stack([boxes[kept], scores[kept], labels[kept]])
    whole = detect.decode({"boxes": final}, replace(contract, outputs="final"), SAME)
    for found in (half, whole):
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=2e-3)


def test_rows_past_the_last_box_are_no_boxes_even_at_no_threshold() -> None:
    final = np.zeros((300, 6), np.float32)
    final[0] = (1, 2, 30, 40, 0.6, 1)
    found = detect.decode(final, agreed(outputs="final", threshold=0.0), SAME)
    assert (len(found), found.names) == (1, ("crack",))


@pytest.mark.parametrize("seed", range(6))
def test_a_higher_threshold_leaves_boxes_out_and_changes_none(seed: int) -> None:
    raw = by_chance(seed)
    low, high = (detect.decode(raw, agreed(threshold=threshold), SAME) for threshold in (0.05, 0.6))
    kept = low.scores >= 0.6
    assert 0 < kept.sum() < len(low)
    np.testing.assert_array_equal(high.boxes, low.boxes[kept])
    np.testing.assert_array_equal(high.scores, low.scores[kept])


def test_an_anchor_speaks_for_its_best_class_alone() -> None:
    raw = silent()
    say(raw, 13, (1, 1, 1, 1), label=1, logit=2.0)
    raw[13, 4 * detect.BINS + 2] = 1.9
    assert detect.decode(raw, agreed(), SAME).names == ("crack",)


def test_of_very_many_candidates_the_best_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = by_chance(0)
    wanted = detect.decode(raw, agreed(threshold=0.0, max_boxes=5), SAME)
    monkeypatch.setattr(detect, "CANDIDATES", 40)
    found = detect.decode(raw, agreed(threshold=0.0, max_boxes=5), SAME)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    assert len(detect.candidates(raw, agreed(threshold=0.0))[0]) == 40


@pytest.mark.parametrize("outputs", ["raw", "decoded", "final"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_refused(outputs: Any, value: float) -> None:
    contract = agreed(outputs=outputs)
    array = np.zeros(detect.output_shape(SIZE, 3, outputs), np.float32)
    array[-1, 2] = value
    with pytest.raises(ContractError, match="holds NaN or infinity; do not use this model"):
        detect.decode(array, contract, SAME)


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(ContractError, match=r"shape \(126, 68\), the contract says \(126, 67\)"):
        detect.decode(np.zeros((ANCHORS, 68), np.float32), agreed(), SAME)


@given(st.integers(8, 300), st.integers(8, 300), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_a_letterbox_is_undone_exactly(height: int, width: int, seed: int) -> None:
    _, geometry = agreed().inputs["image"].apply(np.zeros((height, width, 3), np.uint8))
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.8, (5, 2))
    far = corner + random.uniform(0.1, 1 - corner)
    edges = np.concatenate([corner, far], axis=1) * (width, height, width, height)
    truth = np.column_stack([edges, np.arange(5) % 3, np.zeros(5)]).astype(np.float32)
    seen = detect.targets(truth, geometry)
    assert (seen.dtype, seen.shape) == (np.float32, (5, 6))
    np.testing.assert_array_equal(seen[:, 4:], truth[:, 4:])
    top, left = geometry.offset
    edge = np.float32(1e-3)
    assert (seen[:, :4] >= np.array([left, top, left, top]) - edge).all()
    ends = np.array([left + geometry.inner[1], top + geometry.inner[0]] * 2)
    assert (seen[:, :4] <= ends + edge).all()
    final = np.zeros((300, 6), np.float32)
    final[:5] = np.column_stack([seen[:, :4], [0.9, 0.8, 0.7, 0.6, 0.5], truth[:, 4]])
    found = detect.decode(final, agreed(outputs="final"), geometry)
    np.testing.assert_allclose(found.boxes, truth[:, :4], atol=2e-3)
    assert found.size == (height, width)


def test_boxes_are_cut_at_the_picture_and_those_in_the_padding_dropped() -> None:
    geometry = Geometry((128, 128), SIZE, (64, 64), (0, 16))  # bars of 16 px at both sides
    final = np.zeros((300, 6), np.float32)
    final[:4] = [
        (0, 10, 40, 30, 0.9, 0),  # begins in the left bar
        (1, 5, 15, 60, 0.8, 1),  # lies in it
        (82, 5, 95, 60, 0.7, 2),  # lies in the right one
        (50, 40, 200, 90, 0.6, 1),  # goes beyond
    ]
    found = detect.decode(final, agreed(outputs="final"), geometry)
    np.testing.assert_allclose(found.boxes, [[0, 20, 48, 60], [68, 80, 128, 128]])
    assert found.names == ("leak", "crack")


def test_a_box_turned_inside_out_is_dropped() -> None:
    final = np.zeros((300, 6), np.float32)
    final[:2] = [(30, 30, 10, 40, 0.9, 0), (10, 10, 20, 20, 0.8, 0)]
    found = detect.decode(final, agreed(outputs="final"), SAME)
    np.testing.assert_array_equal(found.boxes, [[10, 10, 20, 20]])


def test_amounts_count_boxes_by_class() -> None:
    rows = np.array([[[0, 0, 5, 5, 1, 0], [0, 0, 5, 5, 1, 1]], [[0, 0, 5, 5, 0, 0], [0, 0, 0, 0, -1, 0]]], np.float32)
    counts = detect.amounts(rows)
    assert counts.shape == (256,)
    assert {int(i): int(counts[i]) for i in np.flatnonzero(counts)} == {0: 1, 1: 1, IGNORE: 1}
    assert detect.amounts(rows[:0]).sum() == 0


@pytest.mark.parametrize("outputs", ["raw", "decoded"])
def test_decisions_and_margins_are_those_of_each_anchor(outputs: Any) -> None:
    contract, array = agreed(outputs=outputs, threshold=0.3), by_chance(4, outputs)
    scores = detect.class_scores(array, contract)
    assert scores.shape == (ANCHORS, 3)
    np.testing.assert_allclose(scores, detect.class_scores(by_chance(4), agreed()), atol=1e-6)
    said, margin = detect.decisions(array, contract), detect.margins(array, contract)
    for place in range(ANCHORS):
        best, second = sorted(scores[place])[:-3:-1]
        assert said[place] == (scores[place].argmax() if best >= 0.3 else IGNORE)
        assert margin[place] == pytest.approx(min(best - 0.3, best - second) if best >= 0.3 else 0.3 - best, abs=1e-6)
    assert {*said.tolist()} == {0, 1, 2, IGNORE}


def test_probabilities_of_any_logit_are_finite() -> None:
    found = detect.sigmoid(np.array([-1e4, -100, 0, 100, 1e4]))
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 1], atol=1e-30)
    assert found.dtype == np.float32


def boxes(*rows: tuple[float, ...], size: tuple[int, int] = (90, 120)) -> Boxes:
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(
        boxes=array[:, :4], scores=array[:, 4], labels=array[:, 5].astype(np.int64), classes=tuple(NAMES), size=size
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_boxes_are_outlined_in_their_class_colour(channels: int, kind: Any) -> None:
    contract, image = agreed(), np.zeros((90, 120, channels), kind)
    drawn = detect.draw(image, boxes((20, 40, 61, 81, 0.9, 1)), contract)
    color = contract.classes[1].rgb
    assert (drawn.shape, drawn.dtype) == ((90, 120, 3), np.uint8)
    for row, column in ((40, 20), (40, 60), (80, 20), (80, 60), (60, 20), (80, 40)):
        assert tuple(drawn[row, column]) == color, (row, column)
    for row, column in ((60, 40), (60, 62), (82, 40), (60, 18)):  # inside, and outside on three sides
        assert tuple(drawn[row, column]) == (0, 0, 0), (row, column)
    assert (drawn[:39] == color).all(-1).any()  # the name stands above
    assert not image.any()


def test_the_most_certain_box_lies_on_top_and_names_stay_on_the_picture() -> None:
    contract, image = agreed(), np.zeros((90, 120, 3), np.uint8)
    drawn = detect.draw(image, boxes((20, 40, 61, 81, 0.9, 1), (20, 40, 61, 81, 0.5, 2)), contract)
    assert tuple(drawn[81 - 1, 40]) == contract.classes[1].rgb
    corner = detect.draw(image, boxes((100, 0, 120, 20, 0.9, 0)), contract)
    color = contract.classes[0].rgb
    below = np.argwhere((corner[20:34] == color).all(-1))  # no room above: the name stands below, pushed to the left
    assert len(below)
    assert below[:, 1].min() < 99
    np.testing.assert_array_equal(detect.draw(image, boxes(), contract), image)


def test_boxes_of_another_size_are_not_drawn() -> None:
    with pytest.raises(ContractError, match="cannot be drawn"):
        detect.draw(np.zeros((90, 121, 3), np.uint8), boxes(), agreed())


def test_a_margin_is_the_lead_over_the_next_class_or_the_distance_from_the_threshold() -> None:
    contract = Contract("detect", {"image": ImageSpec(32, 32)}, classes_of(["spot", "strip"]), "linear", threshold=0.5)
    outputs = np.zeros((detect.anchors_of((32, 32)), 4 + 2), np.float32)
    outputs[0, 4:], outputs[1, 4:], outputs[2, 4:] = (0.9, 0.8), (0.6, 0.1), (0.3, 0.2)
    margins = detect.margins(outputs, replace(contract, outputs="decoded"))
    assert margins[:3] == pytest.approx([0.1, 0.1, 0.2])
