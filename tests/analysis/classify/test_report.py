"""The report on a classifier: cases worked by hand, scikit-learn's figures, and intervals that know of groups."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

from leakdet_tf.analysis.classify.report import (
    PER_CLASS,
    Measured,
    figures_of,
    lines,
    measure,
    report,
    sides_of,
    wilson_of,
)
from leakdet_tf.analysis.classify.scores import Answers
from leakdet_tf.analysis.stats.significance import wilson
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.errors import DataError

NAMES = ("ok", "oil_leak", "crack")
SETTINGS = Evaluate(resamples=400)


def answers(scores: Any, truth: Any, activation: str = "softmax", **more: Any) -> Answers:
    scores = np.asarray(scores, np.float32)
    ids = tuple(f"p{i}" for i in range(len(scores)))
    return Answers(ids, np.asarray(truth, np.uint8), scores, NAMES[: scores.shape[1]], activation, **more)


def surely(labels: list[int], sure: list[float], truth: list[int], **more: Any) -> Answers:
    """Softmax answers over three classes: a label each, with its score; the rest is shared equally."""
    scores = np.repeat((1 - np.array(sure))[:, None] / 2, 3, axis=1)
    scores[np.arange(len(labels)), labels] = sure
    return answers(scores, np.eye(3)[truth], **more)


def random_answers(number: int, activation: str = "softmax", seed: int = 0, **more: Any) -> Answers:
    random = np.random.default_rng(seed)
    truth = np.eye(3)[random.integers(0, 3, number)] if activation == "softmax" else random.integers(0, 2, (number, 3))
    logits = random.normal(0, 1, (number, 3)) + 1.5 * truth - 0.75
    scores = softmax(logits, axis=1) if activation == "softmax" else expit(logits)
    return answers(scores, truth, activation, **more)


def measured(one: Answers, **more: Any) -> Measured:
    return measure(one, SETTINGS, seed=0, **more)


def test_a_hand_worked_report() -> None:
    """Truth 0 0 0 1 1, answered 0 0 1 1 0: class 0 has 2 hits of 3 true and of 3 answered; class 1 1 of 2 and of 2."""
    one = surely([0, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.95], [0, 0, 0, 1, 1])
    found = report(measured(one), SETTINGS, {"kind": "keras"})
    assert (found["format"], found["kind"], found["pictures"]) == (1, "keras", 5)
    assert found["truth"] == {"ok": 3, "oil_leak": 2, "crack": 0}
    assert found["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    metrics = found["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(3 / 5)
    for key in PER_CLASS:
        assert metrics[key]["ok"]["value"] == pytest.approx(2 / 3)
        assert metrics[key]["oil_leak"]["value"] == pytest.approx(1 / 2)
        assert metrics[key]["crack"] == {"value": None, "low": None, "high": None}
        assert metrics[f"mean_{key}"]["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    low, high = wilson(3, 5, 0.95)
    assert found["accuracy_wilson"] == {"value": 0.6, "low": low, "high": high}
    assert [item["id"] for item in found["worst"]] == ["p4", "p2"]
    assert found["worst"][0] == {
        "id": "p4",
        "truth": ["oil_leak"],
        "answer": ["ok"],
        "confidence": pytest.approx(0.95),
        "unsure": False,
    }
    assert "sources" not in found
    text = "\n".join(lines(found))
    for part in ("absent", "ok taken for oil_leak: 1 of 3", "0.6000 [", "5 pictures", "temperature 1.000: NLL"):
        assert part in text
    json.dumps(found, allow_nan=False)


def test_a_class_that_is_answered_only_or_there_only() -> None:
    """Class 2 is answered and never there: precision 0, no recall, F1 0. Class 1 is there, never answered: all 0."""
    found = measured(surely([0, 0, 2], [0.9] * 3, [0, 1, 0])).figures
    np.testing.assert_array_equal(found["precision"], [0.5, 0, 0])
    np.testing.assert_array_equal(found["recall"], [0.5, 0, np.nan])
    np.testing.assert_array_equal(found["f1"], [0.5, 0, 0])
    assert (found["mean_recall"], found["mean_f1"]) == (0.25, pytest.approx(0.5 / 3))


@pytest.mark.parametrize("seed", range(3))
def test_one_label_is_measured_as_scikit_learn_does(seed: int) -> None:
    one = random_answers(200, seed=seed)
    found = report(measured(one), SETTINGS, {})
    truth, said = one.truth.argmax(1), one.scores.argmax(1)
    np.testing.assert_array_equal(found["confusion"], confusion_matrix(truth, said, labels=range(3)))
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(accuracy_score(truth, said), abs=1e-6)
    _as_scikit_learn(found, truth, said)


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_are_measured_as_scikit_learn_does(seed: int) -> None:
    one = random_answers(200, "sigmoid", seed=seed)
    found = report(measured(one), SETTINGS, {})
    said = (one.scores >= 0.5).astype(int)
    np.testing.assert_array_equal(list(found["confusion"].values()), multilabel_confusion_matrix(one.truth, said))
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(accuracy_score(one.truth, said), abs=1e-6)
    _as_scikit_learn(found, one.truth, said)
    assert "taken for" not in "\n".join(lines(found))


def _as_scikit_learn(found: dict[str, Any], truth: Any, said: Any) -> None:
    each = precision_recall_fscore_support(truth, said, average=None, zero_division=0)
    means = precision_recall_fscore_support(truth, said, average="macro", zero_division=0)
    for key, values, mean in zip(PER_CLASS, each[:3], means[:3], strict=True):
        got = [found["metrics"][key][name]["value"] for name in NAMES]
        np.testing.assert_allclose(got, values, atol=1e-6)
        assert found["metrics"][f"mean_{key}"]["value"] == pytest.approx(mean, abs=1e-6)
    assert list(found["truth"].values()) == list(each[3])


def test_sides_are_true_and_false_positives_and_negatives() -> None:
    truth, there = np.array([[False, False, True, True]]), np.array([[False, True, False, True]])
    sides = sides_of(truth, there)
    assert sides.shape == (1, 4, 2, 2)
    assert sides.reshape(4, 4).tolist() == np.eye(4).tolist()  # TN, FP, FN, TP


def test_unsure_answers_as_worked_by_hand() -> None:
    """From 0.75 on three of five are answered, two of them rightly; without temperature and threshold all are."""
    one = surely([0, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.95], [0, 0, 0, 1, 1])
    found = report(measured(one, abstain=0.75), SETTINGS, {})["abstain"]
    assert (found["threshold"], found["answered"]) == (0.75, 3)
    assert found["coverage"]["value"] == pytest.approx(3 / 5)
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["coverage_by_class"] == {"ok": pytest.approx(2 / 3), "oil_leak": 0.5, "crack": None}
    whole = report(measured(one), SETTINGS, {})
    assert whole["abstain"]["coverage"] == {"value": 1, "low": 1, "high": 1}
    assert "answered from" not in "\n".join(lines(whole))
    assert "60.0% (3 of 5), accuracy 0.6667" in "\n".join(lines(report(measured(one, abstain=0.75), SETTINGS, {})))


def test_a_certainty_of_the_threshold_is_answered() -> None:
    one = surely([0, 1], [0.8, 0.7], [0, 1])
    np.testing.assert_array_equal(measured(one, abstain=float(np.float32(0.8))).answered, [True, False])


def test_nothing_answered_has_no_accuracy() -> None:
    found = report(measured(surely([0, 1], [0.9, 0.8], [0, 1]), abstain=1.0), SETTINGS, {})
    assert found["abstain"]["accuracy"] == {"value": None, "low": None, "high": None}
    assert "0.0% (0 of 2), accuracy absent" in "\n".join(lines(found))


def test_sigmoid_is_as_sure_as_its_least_sure_class() -> None:
    one = answers([[0.99, 0.4, 0.01], [0.9, 0.1, 0.2]], [[1, 0, 0], [1, 0, 0]], "sigmoid")
    np.testing.assert_array_equal(measured(one, abstain=0.7).answered, [False, True])


def test_a_temperature_moves_certainty_and_not_answers() -> None:
    one = random_answers(100)
    plain, soft = measured(one), measured(one, temperature=3.0)
    np.testing.assert_array_equal(plain.there, soft.there)
    assert (soft.sure < plain.sure).all()
    found = report(measured(one, temperature=3.0), SETTINGS, {})
    assert [part["temperature"] for part in found["calibration"]] == [1, 3]


def test_the_worst_are_the_surest_wrong_answers() -> None:
    one = surely([0, 0, 1, 2, 0], [0.9, 0.8, 0.7, 0.99, 0.95], [0, 1, 0, 2, 1])
    assert measured(one).worst(9) == [4, 1, 2]
    assert measured(one).worst(2) == [4, 1]
    assert measured(surely([0], [0.9], [0])).worst(5) == []
    several = answers([[0.9, 0.4, 0.1], [0.99, 0.6, 0.1]], [[0, 1, 0], [1, 0, 0]], "sigmoid")
    found = measured(several)
    assert found.worst(5) == [0, 1]  # wrong with 0.9 and 0.6; with 0.9 and nothing wrong at 0.99
    np.testing.assert_allclose(found.confidence(), [0.9, 0.6])
    assert found.labels(1) == ["ok", "oil_leak"]


def test_sources_are_told_apart() -> None:
    one = surely([0, 0, 1, 1], [0.9] * 4, [0, 0, 1, 0], sources=("a", "a", "b", "b"))
    found = report(measured(one), SETTINGS, {})["sources"]
    assert found["a"] == {
        "pictures": 2,
        "accuracy": 1,
        "mean_f1": 1,
        "coverage": 1,
        "f1": {"ok": 1, "oil_leak": None, "crack": None},
    }
    assert (found["b"]["accuracy"], found["b"]["f1"]["oil_leak"]) == (0.5, pytest.approx(2 / 3))


def test_a_single_picture_has_no_interval() -> None:
    found = report(measured(surely([0], [0.9], [0])), SETTINGS, {})
    assert found["metrics"]["accuracy"] == {"value": 1, "low": None, "high": None}
    assert found["metrics"]["mean_f1"] == {"value": 1, "low": None, "high": None}
    assert found["accuracy_wilson"]["low"] == pytest.approx(wilson(1, 1, 0.95)[0])
    one_group = measured(surely([0, 1], [0.9, 0.9], [0, 0], groups=("g", "g")))
    assert np.isnan(one_group.low["accuracy"])


def test_intervals_are_those_of_the_binomial_where_pictures_are_alone() -> None:
    one = random_answers(400, seed=4)
    found = measured(one)
    share = float(found.figures["accuracy"])
    half = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert found.low["accuracy"] == pytest.approx(share - half, abs=0.012)
    assert found.high["accuracy"] == pytest.approx(share + half, abs=0.012)


def test_pictures_seen_twice_are_no_more_evidence() -> None:
    """Each of 100 pictures four times: alone they halve the interval, as groups they leave it as it was."""
    one = random_answers(100, seed=5)
    four = np.repeat(np.arange(100), 4)
    many = {"scores": one.scores[four], "truth": one.truth[four]}
    plain, copied = measured(one), measured(answers(**many))
    grouped = measured(answers(**many, groups=tuple(f"g{i}" for i in four)))

    def width(found: Measured, key: str) -> float:
        return float(found.high[key] - found.low[key])

    for key in ("accuracy", "mean_f1"):
        assert found_same(plain, grouped, key)
        assert width(copied, key) < 0.65 * width(grouped, key)
        assert width(grouped, key) == pytest.approx(width(plain, key), rel=0.2)
    text = report(grouped, SETTINGS, {})
    assert (text["groups"], text["intervals"]["method"]) == (100, "bootstrap over groups of pictures")
    assert report(plain, SETTINGS, {})["intervals"]["method"] == "bootstrap over pictures"
    assert text["accuracy_wilson"] == report(plain, SETTINGS, {})["accuracy_wilson"]
    assert "400 pictures in 100 groups" in "\n".join(lines(text))


def found_same(one: Measured, two: Measured, key: str) -> bool:
    return float(one.figures[key]) == pytest.approx(float(two.figures[key]))


def test_intervals_are_the_same_every_time_and_others_with_another_seed() -> None:
    one = random_answers(60)
    first, second, third = (measure(one, SETTINGS, seed=seed) for seed in (1, 1, 2))
    assert first.low["mean_f1"] == second.low["mean_f1"]
    assert not np.array_equal(first.drawn["mean_f1"], third.drawn["mean_f1"])


def test_resamples_are_the_figures_of_pictures_drawn_again() -> None:
    one = random_answers(12, seed=7)
    found = measured(one)
    weights = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=200)[17]
    chosen = np.repeat(np.argsort(one.ids), weights)  # groups are drawn in the order of their names
    expected = figures_of(
        sides_of(one.truth[chosen] > 0, found.there[chosen]).sum(0),
        np.stack([np.ones(12), *(flag[chosen] for flag in (found.right, found.answered, found.right))], 1).sum(0),
    )
    for name, value in expected.items():
        np.testing.assert_allclose(found.drawn[name][17], value, atol=1e-12)


def test_groups_are_drawn_with_all_of_their_pictures() -> None:
    """Of a, with 1 of 2 right, and b, with 3 of 3, two are drawn: 2 of 4, 4 of 5 or 6 of 6 are right."""
    found = measured(surely([0] * 5, [0.9] * 5, [0, 1, 0, 0, 0], groups=tuple("aabbb")))
    assert set(np.round(found.drawn["accuracy"], 6)) == {0.5, 0.8, 1.0}


def test_wilson_over_groups_stays_around_the_share() -> None:
    flags = np.array([True] * 5 + [False])
    found = wilson_of(flags, ("a",) * 6, 0.95)
    assert found["low"] is not None
    assert found["high"] is not None
    assert found["low"] <= 5 / 6 <= found["high"] == 1
    assert wilson_of(np.zeros(0, np.bool_), (), 0.95) == {"value": None, "low": None, "high": None}


def test_pictures_of_no_class_and_odd_settings_are_refused() -> None:
    with pytest.raises(DataError, match="'p1' has no class to measure against"):
        measured(answers([[0.9, 0.1], [0.5, 0.5]], [[1, 0], [0, 0]]))
    for odd in (-0.1, 1.1, float("nan")):
        with pytest.raises(DataError, match="threshold of answers must lie from 0 to 1"):
            measured(random_answers(4), abstain=odd)
    with pytest.raises(DataError, match="temperature must be above 0"):
        measured(random_answers(4), temperature=0)
