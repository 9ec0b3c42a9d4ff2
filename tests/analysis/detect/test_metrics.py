"""A detector's figures as worked by hand: hits, false alarms, thresholds, sizes, what is absent, intervals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from leakdet_tf.analysis.detect.answers import Answers
from leakdet_tf.analysis.detect.coco import HIT, IGNORED, curves, matches
from leakdet_tf.analysis.detect.metrics import (
    best_threshold,
    counts_at,
    map_of,
    measure,
    quick_map,
    resample,
    sweep,
    tally_of,
)
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.errors import DataError, LeakdetError

Told = Callable[..., Answers]
SETTINGS = Evaluate(resamples=200)
TRUE = [[10, 10, 50, 40, 0, 0], [60, 20, 100, 60, 1, 0]]
SAME = [[10, 10, 50, 40, 0, 0.9], [60, 20, 100, 60, 1, 0.8]]


def test_what_is_all_found_is_one_and_what_is_not_found_is_nought(told: Told) -> None:
    assert quick_map(told([TRUE], [SAME])) == {"map": 1.0, "map50": 1.0}
    assert quick_map(told([TRUE], [[]])) == {"map": 0.0, "map50": 0.0}
    found = map_of(told([TRUE], [SAME]))
    assert (float(found["map75"]), float(found["ar"])) == (1.0, 1.0)
    np.testing.assert_array_equal(found["ap50"], [1, 1])


def test_average_precision_as_worked_by_hand(told: Told) -> None:
    # hit, false, hit: precision 1 up to a recall of 1/2, then 2/3; the first of 101 steps are 0 to .50, then .51 to 1
    true = [[0, 0, 20, 20, 0, 0], [40, 0, 60, 20, 0, 0]]
    found = [[0, 0, 20, 20, 0, 0.9], [100, 50, 120, 70, 0, 0.8], [40, 0, 60, 20, 0, 0.7]]
    assert quick_map(told([true], [found]))["map50"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)


def test_a_class_without_truth_is_left_out_of_means_but_alarms(told: Told) -> None:
    answers = told([TRUE[:1], []], [[*SAME[:1], [1, 1, 9, 9, 1, 0.9]], []])
    measured = measure(answers, SETTINGS, seed=0, threshold=0.5)
    figures = measured.figures
    assert (float(figures["map50"]), float(figures["mean_f1"])) == (1.0, 1.0)
    for name in ("ap", "ap50", "recall", "f1"):
        assert np.isnan(figures[name][1]), name
        assert figures[name][0] == 1
    np.testing.assert_array_equal(figures["precision"], [1, 0])
    assert float(figures["false_alarms"]) == 0.5
    assert np.isnan(measured.low["ap"][1])


@pytest.mark.parametrize("found", [[[], []], [SAME, []]])
def test_pictures_without_any_truth_are_undefined_but_not_an_error(told: Told, found: list[list[float]]) -> None:
    answers = told([[], []], found)
    assert np.isnan(list(quick_map(answers).values())).all()
    measured = measure(answers, SETTINGS, seed=0, threshold=0.5)
    assert np.isnan(float(measured.figures["map"]))
    assert np.isnan(float(measured.figures["mean_f1"]))
    alarms = len(found[0])
    assert float(measured.figures["empty_false_alarms"]) == alarms / 2
    assert float(measured.figures["empty_alarmed"]) == (0.5 if alarms else 0)
    assert best_threshold(answers).value is None
    assert "no boxes to find" in best_threshold(answers).note


def test_sizes_are_cocos(told: Told) -> None:
    true = [[0, 0, 30, 30, 0, 0], [40, 0, 80, 40, 0, 0], [0, 41, 120, 141, 0, 0]]
    found = [[*row[:5], 0.5] for row in true[:2]]
    figures = map_of(told([true], [found]))
    assert [float(figures[f"map_{size}"]) for size in ("small", "medium", "large")] == [1, 1, 0]
    bound = [[0, 0, 32, 32, 0, 0]]  # 32² is small and medium
    figures = map_of(told([bound], [[]]))
    assert [float(figures[f"ar_{size}"]) for size in ("small", "medium")] == [0, 0]
    assert np.isnan(float(figures["map_large"]))


def test_what_lies_in_an_ignored_region_counts_neither_way(told: Told) -> None:
    region = [60, 60, 120, 118, 0, 1]
    inside = [[62, 62, 80, 80, 0, 0.95], [90, 90, 110, 110, 0, 0.9]]
    answers = told([[TRUE[0], region]], [[*inside, SAME[0]]])
    assert quick_map(answers) == {"map": 1.0, "map50": 1.0}
    found = matches(answers)
    assert sorted(found.state[0, 0].tolist()) == [IGNORED, IGNORED, HIT]
    np.testing.assert_array_equal(counts_at(found, 0.0)[0, 0], [1, 0, 1])
    other = replace(answers, truths=(answers.truths[0] * np.array([1, 1, 1, 1, 0, 1], np.float32),))
    other.truths[0][1, 4] = 1  # a region of the other class
    assert quick_map(other)["map50"] < 1
    assert counts_at(matches(other), 0.0)[0, 0].tolist() == [1, 2, 1]


def test_counts_at_a_threshold_as_worked_by_hand(told: Told) -> None:
    wrong, twice = [0, 80, 20, 100, 0, 0.6], [11, 10, 50, 40, 0, 0.55]
    answers = told(
        [TRUE, TRUE[:1], []],
        [[*SAME, wrong], [twice, [10, 10, 50, 40, 0, 0.5]], [[1, 1, 9, 9, 1, 0.4]]],
    )
    found = matches(answers)
    low, high = counts_at(found, 0.3), counts_at(found, 0.7)
    np.testing.assert_array_equal(low[0], [[1, 1, 1], [1, 0, 1]])
    np.testing.assert_array_equal(low[1], [[1, 1, 1], [0, 0, 0]])  # a box found twice is one hit
    np.testing.assert_array_equal(low[2], [[0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(high.sum((0, 1)), [2, 0, 3])
    np.testing.assert_array_equal(tally_of(low, answers), [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1]])
    measured = measure(answers, SETTINGS, seed=0, threshold=0.7)
    figures = {name: float(measured.figures[name]) for name in ("mean_precision", "mean_recall", "faultless")}
    assert figures == pytest.approx({"mean_precision": 1.0, "mean_recall": 0.75, "faultless": 2 / 3})
    assert float(measured.figures["mean_f1"]) == pytest.approx((2 / 3 + 1) / 2)
    np.testing.assert_array_equal(measured.errors, [0, 1, 0])
    assert measured.worst(5) == [1]
    assert measure(answers, SETTINGS, seed=0, threshold=0.3).worst(2) == [0, 1]


def test_a_picture_of_ignored_regions_alone_is_not_empty(told: Told) -> None:
    wrong = [0, 80, 20, 100, 0, 0.6]
    measured = measure(told([[[60, 60, 120, 118, 0, 1]], []], [[wrong], []]), SETTINGS, seed=0, threshold=0.5)
    np.testing.assert_array_equal(measured.tally, [[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0]])
    assert float(measured.figures["empty_alarmed"]) == 0
    assert float(measured.figures["false_alarms"]) == 0.5


def test_a_score_at_the_threshold_is_shown(told: Told) -> None:
    found = matches(told([TRUE[:1]], [[[*SAME[0][:5], 0.5]]]))
    assert counts_at(found, 0.5)[0, 0, 0] == 1
    assert counts_at(found, np.nextafter(0.5, 1))[0, 0, 0] == 0


def test_what_is_judged_on_a_picture(told: Told) -> None:
    truth = [TRUE[1], TRUE[0], [120, 60, 150, 100, 0, 1], [0, 80, 20, 100, 0, 0]]
    found = [[100, 5, 120, 20, 1, 0.95], *SAME, [121, 61, 140, 90, 0, 0.7], [0, 80, 20, 100, 0, 0.1]]
    measured = measure(told([[], truth], [[], found]), SETTINGS, seed=0, threshold=0.5)
    verdict = measured.judged(1)
    assert verdict.shown.tolist() == [0, 1, 2, 3]
    assert verdict.states.tolist() == [0, 1, 1, -1]
    assert verdict.found.tolist() == [True, True, False, False]
    assert measured.judged(0).shown.size == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_is_the_best_of_all(by_chance: Callable[..., Answers], seed: int) -> None:
    answers = by_chance(seed, pictures=12, skill=0.9)
    found, chosen = matches(answers), best_threshold(answers)
    scores = np.unique(found.score[found.state[0, 0] != IGNORED])
    tried = {score: naive_f1(answers, score) for score in scores}
    assert chosen.value is not None
    assert chosen.f1 == pytest.approx(max(tried.values()))
    assert naive_f1(answers, chosen.value) == pytest.approx(max(tried.values()))
    assert chosen.value not in scores or chosen.value == scores[0]
    assert sweep(found, np.array([chosen.value]))["f1"][0] == pytest.approx(chosen.f1)
    higher = [value for score, value in tried.items() if score > chosen.value][1:]
    assert all(value < chosen.f1 - 1e-12 for value in higher)


def naive_f1(answers: Answers, threshold: float) -> float:
    """Mean F1 over the classes that are there, from an evaluation of only those boxes that reach the threshold."""
    kept = tuple(
        replace(
            found,
            **{name: getattr(found, name)[found.scores >= threshold] for name in ("boxes", "scores", "labels")},
        )
        for found in answers.predictions
    )
    found, values = matches(replace(answers, predictions=kept), overlaps=1, sizes=False), []
    for label in range(len(answers.classes)):
        present, states = found.truths[0, label].sum(), found.state[0, 0, found.label == label]
        if present:
            values.append(2 * (states == HIT).sum() / ((states != IGNORED).sum() + present))
    return float(np.mean(values))


def test_no_threshold_where_nothing_was_right(told: Told) -> None:
    assert best_threshold(told([TRUE], [[]])).note == "nothing was found"
    assert best_threshold(told([TRUE], [[[0, 0, 5, 5, 0, 0.9]]])).note == "no box was found"
    assert best_threshold(told([TRUE], [SAME])) == best_threshold(told([TRUE, []], [SAME, []]))
    assert best_threshold(told([TRUE], [SAME])).value == pytest.approx(0.8, abs=1e-6)  # nothing lower to lie between


def test_intervals_hold_the_value_and_are_those_of_their_seed(by_chance: Callable[..., Answers]) -> None:
    answers = by_chance(5, pictures=40, skill=0.9)
    one, two, three = (measure(answers, SETTINGS, seed=seed, threshold=0.4) for seed in (1, 1, 2))
    for name in ("map", "map50", "ar", "mean_f1", "false_alarms"):
        low, value, high = (float(part[name]) for part in (one.low, one.figures, one.high))
        assert low < value < high, name
        assert (float(two.low[name]), float(two.high[name])) == (low, high)
        assert float(three.low[name]) != low
        assert high - low < 0.5 * (1 + value)


def test_groups_are_resampled_together(by_chance: Callable[..., Answers]) -> None:
    answers = by_chance(5, pictures=40, skill=0.9)
    whole = replace(answers, groups=("one",) * 40)
    assert np.isnan(float(measure(whole, SETTINGS, seed=0, threshold=0.4).low["map"]))
    copied = answers.take(range(8))
    twice = Answers(
        tuple(f"{name} {copy}" for name in copied.ids for copy in range(2)),
        tuple(truth for truth in copied.truths for _ in range(2)),
        tuple(found for found in copied.predictions for _ in range(2)),
        copied.classes,
        groups=tuple(name for name in copied.ids for _ in range(2)),
    )
    spreads = []
    for one in (copied, twice, replace(twice, groups=())):
        found = matches(one)
        counts = counts_at(found, 0.4)
        drawn = resample(found, counts, tally_of(counts, one), one.groups, 300, seed=0)
        spreads.append(np.nanstd(drawn["mean_recall"]))
    assert spreads[1] == pytest.approx(spreads[0], rel=1e-6)  # copies are no new evidence
    assert spreads[2] < 0.9 * spreads[0]


def test_curves_end_where_recall_ends(told: Told) -> None:
    found = curves(told([TRUE, TRUE], [SAME, []]))
    assert found.precision.shape == (10, 101, 2, 4)
    np.testing.assert_array_equal(found.precision[0, :, 0, 0], np.arange(101) <= 50)
    assert found.recall[0, 0, 0] == 0.5
    assert curves(told([TRUE], [SAME]), sizes=False).precision.shape == (10, 101, 2, 1)


def test_thresholds_that_cannot_be_are_refused(told: Told) -> None:
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(DataError, match="threshold of boxes must lie from 0 to 1"):
            measure(told([TRUE], [SAME]), SETTINGS, seed=0, threshold=threshold)


def test_nothing_is_printed(told: Told, capfd: pytest.CaptureFixture[str]) -> None:
    measure(told([TRUE, []], [SAME, SAME]), SETTINGS, seed=0, threshold=0.5)
    assert capfd.readouterr() == ("", "")


def test_without_the_evaluator_the_line_to_type_is_said(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(LeakdetError, match=r"'faster_coco_eval'.*pip install 'leakdet_tf\[train\]'"):
        quick_map(told([TRUE], [SAME]))
