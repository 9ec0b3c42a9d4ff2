"""A detector's answers: what is refused, files that come back as they were written, and batches of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.analysis.detect.answers import (
    LOW,
    MOST,
    Answers,
    answers_of,
    decoded,
    joined,
    load_boxes,
    measuring,
    save_boxes,
)
from leakdet_tf.analysis.detect.metrics import quick_map
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ContractError, DataError
from leakdet_tf.core.images import Geometry, ImageSpec
from leakdet_tf.core.records import Boxes, Origin, Sample
from leakdet_tf.core.tasks import detect

Told = Callable[..., Answers]
TRUE = [[10, 10, 50, 40, 0, 0], [60, 20, 90, 80, 1, 1]]
FOUND = [[12, 10, 50, 42, 0, 0.9], [0, 0, 8, 8, 1, 0.2]]
SIDE = 64


def agreed(**keys: Any) -> Contract:
    spec = {"image": ImageSpec(SIDE, SIDE)}
    return Contract("detect", spec, classes_of(["leak", "crack"]), activation="linear", **keys)


def test_what_is_left_out_is_filled_in(told: Told) -> None:
    one = told([TRUE, []], [FOUND, []])
    assert (one.sources, one.groups, one.repeats) == (("data",) * 2, one.ids, False)
    assert told([TRUE, []], [FOUND, []], groups=("film", "film")).repeats


@pytest.mark.parametrize(
    ("truth", "found", "rest", "said"),
    [
        ([10, 10, 50, 40, 2, 0], FOUND, {}, "picture 'p1': a true box's label is none of 2 classes"),
        ([10, 10, 50, 40, -1, 0], FOUND, {}, "label is none of 2 classes"),
        ([10, 10, 50, 40, 0.5, 0], FOUND, {}, "label is none of 2 classes"),
        ([10, 10, 50, 40, 0, 2], FOUND, {}, "neither 0 nor 1"),
        ([10, 10, 50, np.nan, 0, 0], FOUND, {}, "NaN or infinity stands in its truth"),
        ([10, 10, 10, 40, 0, 0], FOUND, {}, "one of its boxes has no area"),
        (TRUE[0], [[10, 10, 5, 40, 0, 0.5]], {}, "one of its boxes has no area"),
        (TRUE[0], FOUND, {"groups": ("a",)}, "1 groups for 2 pictures"),
        (TRUE[0], FOUND, {"sources": ("a", "b", "c")}, "3 sources for 2 pictures"),
        (TRUE[0], [], {"classes": ("leak", "leak")}, "a name stands twice"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(told: Told, truth: Any, found: Any, rest: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"answers of a detector: .*{said}.*; run evaluate again") as caught:
        told([TRUE, [truth]], [FOUND if "classes" not in rest else [], found], **rest)
    assert len(str(caught.value).splitlines()) == 1


def test_parts_that_do_not_belong_together_are_refused(told: Told) -> None:
    one = told([TRUE, []], [FOUND, []])
    other = replace(one.predictions[0], classes=("leak", "rust"))
    wrong: dict[str, dict[str, Any]] = {
        "its boxes are of other classes": {"predictions": (other, one.predictions[1])},
        r"its truth is float64 \(2, 6\)": {"truths": (one.truths[0].astype(np.float64), one.truths[1])},
        r"its truth is float32 \(2, 5\)": {"truths": (one.truths[0][:, :5], one.truths[1])},
        "1 predictions for 2 pictures": {"predictions": one.predictions[:1]},
        "a name stands twice": {"ids": ("a", "a")},
        "there are none": {"ids": ()},
    }
    for said, changes in wrong.items():
        with pytest.raises(DataError, match=said):
            replace(one, **changes)


def test_some_answers_can_be_taken(told: Told) -> None:
    one = told([TRUE, [], TRUE[:1]], [FOUND, [], []], groups=tuple("abb"), sources=tuple("xyx"))
    part = one.take([2, 0])
    assert (part.ids, part.groups, part.sources) == (("p2", "p0"), ("b", "a"), ("x", "x"))
    assert [len(truth) for truth in part.truths] == [1, 2]
    assert [len(found) for found in part.predictions] == [0, 2]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_come_back_as_they_were_written(
    by_chance: Callable[..., Answers], told: Told, tmp_path: Path, seed: int
) -> None:
    one = by_chance(seed) if seed else told([[], []], [[], []], groups=("a", "a"), sources=("s", "t"))
    save_boxes(tmp_path / "boxes.npz", one)
    two = load_boxes(tmp_path / "boxes.npz")
    assert (two.ids, two.classes, two.sources, two.groups) == (one.ids, one.classes, one.sources, one.groups)
    for ours, theirs in zip(two.truths, one.truths, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(two.predictions, one.predictions, strict=True):
        assert ours.size == theirs.size
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.npz"]


def test_damaged_boxes_are_one_line_with_a_remedy(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "boxes.npz"
    with pytest.raises(DataError, match=r"boxes\.npz: missing; run evaluate again"):
        load_boxes(path)
    one = told([TRUE, []], [FOUND, FOUND])
    save_boxes(path, one)
    whole, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for number in range(120):
        data = bytearray(whole[: len(whole) // 2] if number == 0 else whole)
        for place in random.integers(0, len(data), 4):
            data[place] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(data))
        try:
            assert load_boxes(path).ids == one.ids  # a flipped byte may hit what nobody reads
        except DataError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
            assert "boxes.npz: " in str(error)
            assert "run evaluate again" in str(error)
    assert refused > 80


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"counts": np.array([3, 2])}, "'boxes' are not as many as 'counts' says"),
        ({"counts": np.array([2, 2, 0])}, "'counts' are not those of 2 pictures"),
        ({"counts": np.array([2**62, 2**62])}, "'boxes' are not as many"),
        ({"truth_counts": np.array([-1, 3])}, "'truth_counts' are not those"),
        ({"truth_counts": np.array([1, 0])}, "'truths' are not as many"),
        ({"sizes": np.array([[0, 5], [5, 5]])}, "its size is"),
        ({"sizes": np.array([5, 5])}, "'sizes' is int64"),
        ({"scores": np.full(4, np.nan, np.float32)}, "scores are probabilities"),
        ({"scores": np.full(4, 0.5)}, "'scores' is float64"),
        ({"labels": np.full(4, 7)}, "label has no name"),
        ({"boxes": np.full((4, 4), np.inf, np.float32)}, "NaN or infinite"),
        ({"truths": np.zeros((2, 6), np.float32)}, "no area"),
        ({"ids": np.array([1, 2])}, "'ids' are not names"),
    ],
)
def test_arrays_that_are_no_answers_are_refused(told: Told, tmp_path: Path, changes: Any, said: str) -> None:
    path = tmp_path / "boxes.npz"
    save_boxes(path, told([TRUE, []], [FOUND, FOUND]))
    with np.load(path) as archive:
        np.savez(path, **({name: archive[name] for name in archive.files} | changes))
    with pytest.raises(DataError, match=rf"boxes\.npz: .*{said}.*run evaluate again"):
        load_boxes(path)


def test_a_detector_is_measured_from_a_low_score_on() -> None:
    asked = measuring(agreed(threshold=0.4, max_boxes=50))
    assert (asked.threshold, asked.max_boxes, asked.nms_iou) == (LOW, MOST, 0.7)
    assert measuring(agreed(max_boxes=900)).max_boxes == 900
    assert measuring(agreed(max_boxes=50, outputs="final")).max_boxes == 50  # the graph's own shape


def test_samples_and_what_was_found_on_them_become_answers() -> None:
    image = {"image": np.zeros((30, 40, 3), np.uint8)}
    sample = Sample("a.png", image, np.array(TRUE, np.float32), Origin("a.png"))
    found = Boxes(
        boxes=np.array([[1, 2, 3, 4]], np.float32),
        scores=np.array([0.5], np.float32),
        labels=np.array([1]),
        classes=("leak", "crack"),
        size=(30, 40),
    )
    one = answers_of([sample], [found], sources=("s",), groups=("g",))
    assert (one.ids, one.classes, one.sources, one.groups) == (("a.png",), ("leak", "crack"), ("s",), ("g",))
    assert one.predictions == (found,)
    with pytest.raises(DataError, match=r"a\.png: has no boxes to measure against; add them"):
        answers_of([replace(sample, truth=None)], [found])
    with pytest.raises(DataError, match="no pictures to evaluate on"):
        answers_of([], [])


def raw_of(rows: np.ndarray) -> np.ndarray:
    """Raw outputs that say these boxes (N, 6) of targets: at the nearest anchor of 8 px, edges in whole cells."""
    middles, strides = detect.grid((SIDE, SIDE))
    raw = np.full((len(middles), 4 * detect.BINS + 2), -12, np.float32)
    for x1, y1, x2, y2, label, _ in rows:
        middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        place = np.argmin(np.where(strides == 8, np.abs(middles - middle).sum(1), np.inf))
        x, y = middles[place]
        for edge, distance in enumerate(np.array([x - x1, y - y1, x2 - x, y2 - y]) / 8):
            assert distance == int(distance)
            raw[place, edge * detect.BINS + int(distance)] = 40
        raw[place, 4 * detect.BINS + int(label)] = 3
    return raw


def test_a_batch_of_training_is_decoded_in_the_models_pixels() -> None:
    rows = np.array([[4, 4, 36, 20, 0, 0], [28, 36, 60, 52, 1, 0]], np.float32)
    void = np.array([0, 0, 0, 0, detect.VOID, 0], np.float32)
    targets = np.stack([np.stack([*rows, void]), np.stack([rows[1], void, void]), np.stack([void] * 3)])
    raw = np.stack([raw_of(rows), raw_of(rows[1:]), raw_of(rows)])
    one = decoded(raw, agreed(threshold=0.99), targets, np.array([1, 0.5, 0]), first=7)
    assert one.ids == ("7", "8")
    assert [len(truth) for truth in one.truths] == [2, 1]
    np.testing.assert_allclose(one.predictions[0].boxes, rows[:, :4], atol=1e-3)
    np.testing.assert_array_equal(one.predictions[0].labels, [0, 1])
    assert quick_map(one) == {"map": 1.0, "map50": 1.0}
    both = joined([one, decoded(raw[:1], agreed(), targets[:1], first=9)])
    assert both.ids == ("7", "8", "9")
    np.testing.assert_array_equal(both.predictions[2].boxes, one.predictions[0].boxes)
    with pytest.raises(DataError, match="a name stands twice"):
        joined([one, one])
    with pytest.raises(DataError, match="no pictures"):
        joined([])


def test_a_batch_that_is_not_as_the_contract_says_is_refused() -> None:
    raw, targets = raw_of(np.empty((0, 6)))[None], np.zeros((1, 1, 6), np.float32)
    targets[..., 4] = detect.VOID
    with pytest.raises(ContractError, match="1 outputs and 2 targets"):
        decoded(raw, agreed(), targets.repeat(2, axis=0))
    with pytest.raises(ContractError, match="shape"):
        decoded(raw[..., :-1], agreed(), targets)
    with pytest.raises(ContractError, match="not to final"):
        decoded(raw, agreed(outputs="final"), targets)
    raw[0, 3, 5] = np.nan
    with pytest.raises(ContractError, match="NaN"):
        decoded(raw, agreed(), targets)


def test_figures_of_a_training_are_near_those_of_the_original_pictures() -> None:
    geometry = Geometry((SIDE * 2, SIDE * 2), (SIDE, SIDE), (SIDE, SIDE))
    rows = np.array([[4, 4, 36, 20, 0, 0], [28, 36, 60, 52, 1, 0]], np.float32)
    truth = rows * np.array([2, 2, 2, 2, 1, 1], np.float32)
    np.testing.assert_allclose(detect.targets(truth, geometry), rows)
    raw = raw_of(rows)
    raw[:, 4 * detect.BINS] -= np.linspace(0, 30, len(raw))  # some doubt about one class
    small = decoded(raw[None], agreed(), rows[None])
    found = detect.decode(raw, measuring(agreed()), geometry)
    image = {"image": np.zeros((SIDE * 2, SIDE * 2, 3), np.uint8)}
    large = answers_of([Sample("a", image, truth, Origin("a"))], [found])
    assert quick_map(small) == pytest.approx(quick_map(large))
