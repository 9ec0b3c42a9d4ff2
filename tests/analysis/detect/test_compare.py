"""Two detectors side by side: a difference with its paired interval and test, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from leakdet_tf.analysis.detect.answers import Answers
from leakdet_tf.analysis.detect.compare import check_comparable, difference
from leakdet_tf.analysis.detect.metrics import map_of, quick_map
from leakdet_tf.core.errors import ConfigError, DataError

Chance = Callable[..., Answers]
FEW = {"resamples": 200, "permutations": 200}


@pytest.fixture
def pair(by_chance: Chance) -> tuple[Answers, Answers]:
    """A good and a worse detector on the same 24 pictures."""
    return by_chance(2, pictures=24, skill=0.95), by_chance(2, pictures=24, skill=0.4)


@pytest.mark.parametrize("metric", ["map50", "map", "ap50:leak"])
def test_the_difference_is_that_of_the_figures(pair: tuple[Answers, Answers], metric: str) -> None:
    found = difference(*pair, metric, **FEW)
    one, two = (map_of(answers) for answers in pair)
    wanted = one["ap50"][0] - two["ap50"][0] if ":" in metric else one[metric] - two[metric]
    assert found["value"] == pytest.approx(float(wanted), abs=1e-12)
    assert found["value"] > 0
    assert found["low"] < found["value"] < found["high"]
    assert found["swaps"] == 200
    back = difference(pair[1], pair[0], metric, **FEW)
    assert [back[key] for key in ("value", "low", "high")] == pytest.approx(
        [-found[key] for key in ("value", "high", "low")]
    )


def test_what_is_better_holds_and_what_is_alike_does_not(by_chance: Chance, pair: tuple[Answers, Answers]) -> None:
    found = difference(*pair, **FEW)
    assert found["p"] < 0.05
    assert found["low"] > 0
    first, second = by_chance(2, pictures=24, skill=0.8), by_chance(2, pictures=24, skill=0.81)
    alike = difference(first, second, **FEW)
    assert alike["p"] > 0.05
    assert alike["low"] < 0 < alike["high"]
    assert difference(*pair, seed=3, **FEW) == difference(*pair, seed=3, **FEW)


def test_a_detector_does_not_differ_from_itself(pair: tuple[Answers, Answers]) -> None:
    found = difference(pair[0], pair[0], **FEW)
    assert found == pytest.approx({"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "swaps": 1}, abs=1e-12)


def test_few_pictures_are_swapped_in_all_ways(by_chance: Chance) -> None:
    first, second = by_chance(8, pictures=5, skill=0.9), by_chance(8, pictures=5, skill=0.2)
    seen = quick_map(first)["map50"] - quick_map(second)["map50"]
    larger, ways = 0, list(product((False, True), repeat=5))
    for swaps in ways:
        chosen = [
            (two, one) if swap else (one, two)
            for one, two, swap in zip(first.predictions, second.predictions, swaps, strict=True)
        ]
        ours, theirs = (
            quick_map(replace(first, predictions=tuple(part)))["map50"] for part in zip(*chosen, strict=True)
        )
        larger += abs(ours - theirs) >= abs(seen) - 1e-12
    found = difference(first, second, **FEW)
    differ = sum(
        not (len(one) == len(two) and np.array_equal(one.boxes, two.boxes) and np.array_equal(one.scores, two.scores))
        for one, two in zip(first.predictions, second.predictions, strict=True)
    )
    assert found["swaps"] == 2**differ
    assert found["p"] == pytest.approx(larger / len(ways))


def test_groups_are_swapped_and_resampled_as_one(pair: tuple[Answers, Answers]) -> None:
    groups = tuple(str(place // 4) for place in range(24))
    found = difference(*(replace(answers, groups=groups) for answers in pair), **FEW)
    assert found["swaps"] == 2**6
    one = difference(*(replace(answers, groups=("all",) * 24) for answers in pair), **FEW)
    assert (one["low"], one["high"], one["swaps"], one["p"]) == (None, None, 2, 1.0)


def test_what_is_undefined_is_null(told: Chance) -> None:
    nothing = told([[], []], [[], []])
    assert difference(nothing, nothing) == {"value": None, "low": None, "high": None, "p": None, "swaps": 0}


def test_what_cannot_be_compared_is_refused(pair: tuple[Answers, Answers]) -> None:
    first, second = (answers.take(np.argsort([-len(t) for t in answers.truths], kind="stable")) for answers in pair)
    moved = (second.truths[0] + np.float32(1), *second.truths[1:])
    moved[0][:, 4:] -= 1
    odd = {
        "other classes": replace(
            second,
            classes=tuple(f"x{name}" for name in second.classes),
            predictions=tuple(
                replace(found, classes=tuple(f"x{name}" for name in second.classes)) for found in second.predictions
            ),
        ),
        "other pictures": second.take(range(20)),
        "grouped otherwise": replace(second, groups=("a",) * 24),
    }
    odd[f"the boxes of picture '{first.ids[0]}' were others"] = replace(second, truths=moved)
    for said, other in odd.items():
        with pytest.raises(DataError, match=rf"two detectors: .*{said}.*; evaluate both on the same pictures"):
            check_comparable(first, other)
    with pytest.raises(ConfigError, match=r"--metric ap50:leek: unknown; did you mean 'ap50:leak'"):
        difference(first, second, "ap50:leek")
