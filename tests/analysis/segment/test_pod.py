"""Probability of detection and false alarms: hand-worked pictures, Wilson's values, and a curve fitted by SciPy too."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize

from leakdet_tf.analysis.figures import save
from leakdet_tf.analysis.segment.pod import Detection, collect, draw, lines, logistic, report
from leakdet_tf.analysis.stats.significance import wilson
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE, Mask, Origin, Sample

CONTRACT = Contract("segment", {"image": ImageSpec(10, 10)}, classes_of(["background", "gas", "machine"]))
SAID = {"has_gas": True, "gas_fraction": 0.2, "delta_t_k": -3.5, "distance_m": 12.0, "confusers": ["steam", "cloud"]}


def sample(truth: np.ndarray, parameters: dict[str, object]) -> Sample:
    origin = Origin("a.png", "rendered", "gas", 1, dict(parameters))
    return Sample("a", {"image": np.zeros((10, 10, 1), np.uint8)}, truth.astype(np.uint8), origin)


def mask(labels: np.ndarray) -> Mask:
    return Mask(labels=labels.astype(np.uint8), scores=np.ones((10, 10), np.float32))


def target(found: int, size: float = 0.01, **more: object) -> Detection:
    return Detection("t", 1000, 100, found, found, True, size, **more)  # type: ignore[arg-type]


def clean(predicted: int, *confusers: str) -> Detection:
    return Detection("c", 1000, 0, 0, predicted, False, confusers=confusers)


def test_collecting_counts_pixels_and_parameters() -> None:
    truth, answer = np.zeros((10, 10)), np.zeros((10, 10))
    truth[:2], truth[9] = 1, IGNORE
    answer[1:3], answer[9] = 1, 1
    seen = collect(sample(truth, SAID), mask(answer), CONTRACT, "gas")
    assert seen == Detection("a", 90, 20, 10, 20, True, 0.2, 3.5, 12.0, ("steam", "cloud"))


def test_sets_of_labels_count_where_they_are_clear() -> None:
    truth, answer = np.zeros((10, 10)), np.ones((10, 10))
    truth[:2], truth[2:5], truth[5:6] = 1, 3, 4
    labelling = Labelling(3, ((0, 2), (0, 1)))  # not gas for certain, and perhaps gas
    seen = collect(sample(truth, SAID), mask(answer), CONTRACT, "gas", labelling)
    assert seen is not None
    assert (seen.pixels, seen.true, seen.found, seen.predicted) == (90, 20, 20, 90)
    seen = collect(sample(truth, SAID), mask(answer), CONTRACT, "gas")
    assert seen is not None
    assert (seen.pixels, seen.predicted) == (60, 60)


def test_pictures_that_say_nothing_are_not_collected() -> None:
    truth = np.zeros((10, 10))
    assert collect(sample(truth, {}), mask(truth), CONTRACT, "gas") is None
    assert collect(sample(truth, SAID), mask(truth), CONTRACT, "smoke") is None
    assert collect(sample(truth + IGNORE, SAID), mask(truth), CONTRACT, "gas") is None
    assert collect(sample(truth + IGNORE, {"has_gas": False}), mask(truth), CONTRACT, "gas") is None
    bare = collect(
        sample(truth + 1, {"has_gas": True, "delta_t_k": 0.0, "distance_m": None}), mask(truth), CONTRACT, "gas"
    )
    assert bare is not None
    assert (bare.size, bare.delta_t_k, bare.distance_m, bare.confusers) == (1.0, None, None, ())


def test_detected_and_false_alarms_by_their_definitions() -> None:
    """Exactly 10 % found is detected and 9 % not; exactly 0.1 % predicted is an alarm, nothing predicted is none."""
    unseen = Detection("u", 1000, 0, 0, 0, True)
    seen = [target(10), target(9), unseen, clean(1), clean(0, "steam"), clean(5, "steam", "cloud")]
    found = report(seen, 0.95)
    assert (found["detected"]["hits"], found["detected"]["pictures"], found["unseen"]) == (1, 2, 1)
    assert found["false_alarms"]["hits"] == 2
    counts = {tag: (part["hits"], part["pictures"]) for tag, part in found["by_confuser"].items()}
    assert counts == {"none": (1, 1), "cloud": (1, 1), "steam": (1, 2)}
    assert found["stray"] == 0
    strict = report(seen, 0.95, found_share=0.05, alarm_share=0.002)
    assert (strict["detected"]["hits"], strict["false_alarms"]["hits"]) == (2, 1)
    stray = report([Detection("s", 1000, 100, 50, 95, True, 0.1)], 0.95)
    assert stray["stray"] == pytest.approx(45 / 900)


@pytest.mark.parametrize(
    ("hits", "number", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(hits: int, number: int, low: float, high: float) -> None:
    np.testing.assert_allclose(wilson(hits, number, 0.95), (low, high), atol=5e-5)
    mirrored = wilson(number - hits, number, 0.95)
    np.testing.assert_allclose(mirrored, (1 - high, 1 - low), atol=5e-5)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0, 0.95) == (0.0, 1.0)


def drawn(seed: int, number: int, intercept: float, slope: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(-4, 1.2, number)
    return x, random.random(number) < 1 / (1 + np.exp(-(intercept + slope * x)))


def test_the_fit_recovers_what_was_planted() -> None:
    x, hit = drawn(0, 20_000, 8.0, 1.7)
    fit = logistic(x, hit)
    errors = np.sqrt(np.diag(fit.covariance))
    assert abs(fit.intercept - 8.0) < 3 * errors[0]
    assert abs(fit.slope - 1.7) < 3 * errors[1]
    assert errors[1] < 0.05


@pytest.mark.parametrize("seed", range(12))
def test_the_fit_is_scipy_s_on_the_same_likelihood(seed: int) -> None:
    x, hit = drawn(seed, 40 + 15 * seed, 8.0 - seed, 1.7 - 0.25 * seed)

    def loss(beta: np.ndarray) -> float:
        logit = beta[0] + beta[1] * x
        return float(np.logaddexp(0, np.where(hit, -logit, logit)).sum())

    def slope(beta: np.ndarray) -> np.ndarray:
        rest = 1 / (1 + np.exp(-(beta[0] + beta[1] * x))) - hit
        return np.array([rest.sum(), (rest * x).sum()])

    def curve(beta: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-(beta[0] + beta[1] * x)))
        design = np.stack([np.ones_like(x), x], axis=1)
        return (design * (p * (1 - p))[:, None]).T @ design

    theirs = minimize(loss, np.zeros(2), jac=slope, hess=curve, method="trust-exact", options={"gtol": 1e-11})
    fit = logistic(x, hit)
    np.testing.assert_allclose([fit.intercept, fit.slope], theirs.x, atol=1e-6)
    np.testing.assert_allclose(fit.covariance, np.linalg.inv(curve(theirs.x)), rtol=1e-5)


def test_a_fit_near_separation_still_converges() -> None:
    x = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    hit = x > 4.5
    hit[4], hit[5] = True, False
    fit = logistic(x, hit)
    assert fit.slope > 1
    assert -fit.intercept / fit.slope == pytest.approx(4.5)
    far = logistic(1e6 + 1e-3 * x, hit)
    assert far.slope * 1e-3 == pytest.approx(fit.slope, rel=1e-5)


@pytest.mark.parametrize(
    ("x", "hit", "said"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], "one value parts"),
        ([1, 2, 3, 4], [1, 1, 0, 0], "one value parts"),
        ([1, 2, 2, 3], [0, 0, 1, 1], "one value parts"),  # quasi-complete: parted but for ties
        ([2, 2, 2, 2], [0, 1, 0, 1], "one value parts"),
        ([1, 2], [1, 1], "all were detected"),
        ([1, 2], [0, 0], "none was detected"),
    ],
)
def test_where_no_curve_has_the_largest_likelihood(x: list[float], hit: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        logistic(x, hit)


def many(number: int, seed: int = 0) -> list[Detection]:
    x, hit = drawn(seed, number, 8.0, 1.7)
    random = np.random.default_rng(seed)
    return [
        target(50 if h else 0, float(np.exp(v)), delta_t_k=float(random.exponential(3)), distance_m=20.0)
        for v, h in zip(np.minimum(x, -0.1), hit, strict=True)
    ]


def test_a90_is_where_the_curve_says() -> None:
    found = report(many(2000), 0.9)
    size = found["pod"]["size"]
    assert size["a90"] == pytest.approx(math.exp((math.log(9) - 8.0) / 1.7), rel=0.25)
    assert size["a90_seen"] is True
    assert sum(item["pictures"] for item in size["bins"]) == 2000
    rates = [item["rate"] for item in size["bins"]]
    assert rates == sorted(rates)
    for item in size["bins"]:
        assert item["from"] <= item["median"] <= item["to"]
        assert item["low"] <= item["rate"] <= item["high"]
    assert len(found["pod"]["distance_m"]["bins"]) == 1
    assert "one value" in found["pod"]["distance_m"]["no_fit"]
    assert "a90" not in found["pod"]["delta_t_k"]
    json.dumps(found, allow_nan=False)
    assert any("probability 0.9" in line and "%" in line for line in lines(found))


def test_a_falling_curve_has_no_a90() -> None:
    falling = [target(50 - item.found, item.size or 0.1) for item in many(300)]
    size = report(falling, 0.95)["pod"]["size"]
    assert size["fit"]["slope"] < 0
    assert size["a90"] is None
    assert size["a90_seen"] is False


@pytest.mark.parametrize(
    "seen",
    [[], [target(50)], [clean(0), clean(3, "steam")], many(9), [target(50, 0.01 * n) for n in range(1, 30)], many(200)],
    ids=["nothing", "one target", "clean only", "few", "all detected", "many"],
)
def test_any_set_of_pictures_is_reported_and_drawn(seen: list[Detection], tmp_path: Path) -> None:
    found = report(seen, 0.95)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all("\n" not in line for line in lines(found))
    save(draw(found), tmp_path / "detection.png")
    with Image.open(tmp_path / "detection.png") as picture:
        assert min(picture.size) > 400
