"""Helpers of the analysis room's tests: answers of a detector, by hand and by chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from leakdet_tf.analysis.detect.answers import Answers
from leakdet_tf.core.records import Boxes

SIZE = (120, 160)
CLASSES = ("leak", "crack", "rust")


def told(truths: Sequence[Any], found: Sequence[Any], classes: Sequence[str] = CLASSES[:2], **rest: Any) -> Answers:
    """Answers from rows: x1, y1, x2, y2, label, ignored of truth; x1, y1, x2, y2, label, score of what was found."""
    names, predictions = tuple(classes), []
    for rows in found:
        array = np.array(rows, np.float32).reshape(-1, 6)
        predictions.append(
            Boxes(boxes=array[:, :4], scores=array[:, 5], labels=array[:, 4].astype(np.int64), classes=names, size=SIZE)
        )
    ids = tuple(f"p{place}" for place in range(len(truths)))
    arrays = tuple(np.array(rows, np.float32).reshape(-1, 6) for rows in truths)
    return Answers(ids, arrays, tuple(predictions), names, **rest)


def by_chance(seed: int, *, pictures: int = 0, skill: float | None = None, many: bool = False) -> Answers:
    """Answers on 3 to 8 pictures (or as many as asked): crowds, empty pictures, classes that are not there, equal
    scores, edges on a grid so that overlaps are equal too, and where ``many``, more boxes than count.

    What is true depends on the seed alone, what is found also on ``skill``.
    """
    random = np.random.default_rng(seed)
    classes, number = int(random.integers(1, 4)), pictures or int(random.integers(3, 9))
    grid, crowds, kinds = int(random.choice([1, 4, 16])), random.choice([0, 0.2]), int(random.integers(1, classes + 1))
    truths = []
    for _ in range(number):
        amount = int(random.integers(0, 6)) * int(random.random() < 0.75)
        edges = _edges(random, amount, grid)
        label, crowd = random.integers(0, kinds, amount), random.random(amount) < crowds
        truths.append(np.column_stack([edges, label, crowd]))
    share = float(random.choice([0, 0.3, 0.9])) if skill is None else skill
    random = np.random.default_rng([seed, int(1000 * share)])
    silent = skill is None and not many and random.random() < 0.08
    found = []
    for truth in truths:
        if silent:
            found.append(np.empty((0, 6)))
            continue
        near = truth[random.random(len(truth)) < share].repeat(int(random.integers(1, 3)), axis=0)
        moved = near[:, :4] + grid * random.integers(-1, 2, (len(near), 4)) * random.choice([1, 1, 3])
        amount = int(random.integers(0, 5)) if not many else 110
        edges = np.concatenate([moved, _edges(random, amount, grid)])
        edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
        label = np.concatenate([near[:, 4], random.integers(0, classes, amount)])
        score = random.uniform(0.001, 1, len(edges))
        if grid > 1:
            score = np.maximum(np.round(score * 5) / 5, 0.001)
        found.append(np.column_stack([edges, label, score])[np.argsort(-score, kind="stable")])
    return told(truths, found, CLASSES[:classes])


def _edges(random: np.random.Generator, amount: int, grid: int) -> np.ndarray:
    corner = random.uniform(0, 100, (amount, 2)) // grid * grid
    span = random.choice([12, 40, 130], (amount, 1)) * random.uniform(0.5, 1, (amount, 2)) // grid * grid
    return np.concatenate([corner, corner + np.maximum(span, grid)], axis=1)


@pytest.fixture(name="told")
def told_fixture() -> Callable[..., Answers]:
    """See :func:`told`."""
    return told


@pytest.fixture(name="by_chance")
def by_chance_fixture() -> Callable[..., Answers]:
    """See :func:`by_chance`."""
    return by_chance
