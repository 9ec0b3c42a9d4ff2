"""Areas, overlaps, clipping and suppression of boxes, against what a loop of plain Python finds."""

from __future__ import annotations

import numpy as np
import pytest

from leakdet_tf.core.boxes import areas, clip, overlaps, suppress


def naive_overlap(a: np.ndarray, b: np.ndarray) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = wide * high
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / whole if whole > 0 else 0.0


def naive_suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou: float, most: int) -> list[int]:
    """Greedy, one box after the other; Python's sort keeps equal scores in their order."""
    kept: list[int] = []
    for place in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        alike = [other for other in kept if labels[other] == labels[place]]
        if len(kept) < most and all(naive_overlap(boxes[place], boxes[other]) <= iou for other in alike):
            kept.append(place)
    return kept


def by_chance(random: np.random.Generator, number: int, grid: int, classes: int) -> tuple[np.ndarray, ...]:
    corner = random.integers(0, 60 // grid, (number, 2)) * grid
    edges = np.concatenate([corner, corner + random.integers(1, 40 // grid + 1, (number, 2)) * grid], axis=1)
    scores = random.integers(1, 8, number) / 8 if grid > 1 else random.uniform(0, 1, number)
    return edges.astype(np.float32), scores.astype(np.float32), random.integers(0, classes, number)


@pytest.mark.parametrize("seed", range(60))
def test_suppression_is_that_of_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    number = int(random.choice([0, 1, 2, 30, 64, 65, 128, 200]))
    boxes, scores, labels = by_chance(random, number, int(random.choice([1, 4, 8])), int(random.choice([1, 2, 5])))
    iou, most = float(random.choice([0.0, 0.25, 0.5, 0.75, 1.0])), int(random.choice([1, 7, 64, 65, 300]))
    kept = suppress(boxes, scores, labels, iou=iou, most=most)
    assert kept.dtype == np.int64
    assert kept.tolist() == naive_suppress(boxes.astype(float), scores, labels, iou, most)


def test_of_equal_scores_the_first_is_kept_and_an_overlap_at_the_limit_is_not_beyond() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 10]], np.float32)
    scores, labels = np.full(3, 0.5, np.float32), np.zeros(3, np.int64)
    assert suppress(boxes, scores, labels, iou=0.5, most=9).tolist() == [0, 1]
    assert suppress(boxes, scores, labels, iou=0.49, most=9).tolist() == [0]
    assert suppress(boxes, scores, np.arange(3), iou=0.0, most=9).tolist() == [0, 1, 2]
    assert suppress(boxes, scores, labels, iou=1.0, most=2).tolist() == [0, 1]


def test_what_is_suppressed_does_not_suppress() -> None:
    chain = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert suppress(chain, scores, np.zeros(3, np.int64), iou=0.3, most=9).tolist() == [0, 2]


def test_boxes_that_are_not_numbers_suppress_nothing_but_are_not_kept_twice() -> None:
    boxes = np.array([[0, 0, 10, 10], [np.nan, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    kept = suppress(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64), iou=0.5, most=9)
    assert kept.tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(10))
def test_overlaps_are_those_of_each_pair(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, two = (by_chance(random, number, 4, 1)[0] for number in (9, 13))
    found = overlaps(one, two)
    wanted = [[naive_overlap(a, b) for b in two.astype(float)] for a in one.astype(float)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(np.diag(overlaps(one, one)), 1)
    np.testing.assert_array_equal(areas(one), (one[:, 2] - one[:, 0]) * (one[:, 3] - one[:, 1]))


def test_empty_boxes_have_no_area_and_overlap_nothing() -> None:
    odd = np.array([[5, 5, 5, 9], [9, 9, 3, 3], [0, 0, 4, 4]], np.float32)
    np.testing.assert_array_equal(areas(odd), [0, 0, 16])
    np.testing.assert_array_equal(overlaps(odd, odd), np.diag([0, 0, 1]))
    assert overlaps(odd[:0], odd).shape == (0, 3)


def test_boxes_are_cut_at_the_edges_of_the_picture() -> None:
    boxes = np.array([[-3, -4, 50, 60], [5, 6, 7, 8], [45, 2, 60, 9]], np.float32)
    cut = clip(boxes, (30, 40))
    np.testing.assert_array_equal(cut, [[0, 0, 40, 30], [5, 6, 7, 8], [40, 2, 40, 9]])
    assert cut.dtype == np.float32
