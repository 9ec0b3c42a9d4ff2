"""Losses against arithmetic done by hand, against Keras and against NumPy; ignored pixels weigh nothing."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.training.losses import Objective, Scheme, cross_entropy, dice, focal, jaccard, probabilities

ACTIVATIONS = ["softmax", "sigmoid", "linear"]
LOSSES = [cross_entropy, focal, dice, jaccard]


def scheme(activation: str, classes: int = 3) -> Scheme:
    return Scheme(activation, Labelling(classes), np.ones(classes, np.float32))


def value(loss: Any, targets: Any, logits: Any, activation: str) -> np.ndarray:
    outputs = tf.constant(logits, tf.float32)
    found = loss(tf.constant(targets, tf.int32), outputs, scheme(activation, outputs.shape[-1]))
    assert found.shape == (len(targets),)
    return np.asarray(found.numpy())


def random_case(seed: int = 0, *, classes: int = 3, ignored: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, (4, 5, 6))
    targets[random.random(targets.shape) < ignored] = IGNORE
    return targets, random.normal(0, 2, (4, 5, 6, classes)).astype(np.float32)


def log(x: float) -> float:
    return -math.log(x)


# Two pixels, two classes: logits ln 3, 0 (softmax 3/4, 1/4) with truth 0; logits 0, 0 (1/2, 1/2) with truth 1.
PIXELS = [[[[math.log(3), 0.0], [0.0, 0.0]]]]
TRUTH = [[[0, 1]]]


def test_cross_entropy_softmax_by_hand() -> None:
    np.testing.assert_allclose(
        value(cross_entropy, TRUTH, PIXELS, "softmax"), [(log(3 / 4) + log(1 / 2)) / 2], rtol=1e-6
    )
    np.testing.assert_allclose(value(cross_entropy, [[[0, IGNORE]]], PIXELS, "softmax"), [log(3 / 4)], rtol=1e-6)


def test_cross_entropy_sigmoid_by_hand() -> None:
    # Sigmoid of ln 3 is 3/4: right for class 0 of the first pixel; every other output is 1/2.
    expected = ((log(3 / 4) + log(1 / 2)) / 2 + log(1 / 2)) / 2
    np.testing.assert_allclose(value(cross_entropy, TRUTH, PIXELS, "sigmoid"), [expected], rtol=1e-6)


def test_cross_entropy_linear_by_hand() -> None:
    outputs = [[[[0.8, 0.2], [-3.0, 5.0]]]]  # read as probabilities, cut to 1e-7 and 1
    np.testing.assert_allclose(value(cross_entropy, TRUTH, outputs, "linear"), [log(0.8) / 2], rtol=1e-5)
    np.testing.assert_allclose(
        value(cross_entropy, [[[0, 0]]], outputs, "linear"), [(log(0.8) + log(1e-7)) / 2], rtol=1e-5
    )


def test_dice_softmax_by_hand() -> None:
    # Class 0: overlap 3/4, sizes 1 and 5/4. Class 1: overlap 1/2, sizes 1 and 3/4. One pixel of smoothing each.
    expected = ((1 - (2 * 3 / 4 + 1) / (1 + 5 / 4 + 1)) + (1 - (2 * 1 / 2 + 1) / (1 + 3 / 4 + 1))) / 2
    np.testing.assert_allclose(value(dice, TRUTH, PIXELS, "softmax"), [expected], rtol=1e-6)


def test_dice_leaves_out_classes_that_the_truth_does_not_hold() -> None:
    expected = 1 - (2 * 5 / 4 + 1) / (2 + 5 / 4 + 1)
    np.testing.assert_allclose(value(dice, [[[0, 0]]], PIXELS, "softmax"), [expected], rtol=1e-6)


def test_dice_sigmoid_and_linear_by_hand() -> None:
    sigmoid = ((1 - (2 * 3 / 4 + 1) / (1 + 5 / 4 + 1)) + (1 - (2 * 1 / 2 + 1) / (1 + 1 + 1))) / 2
    np.testing.assert_allclose(value(dice, TRUTH, PIXELS, "sigmoid"), [sigmoid], rtol=1e-6)
    outputs = [[[[0.8, 0.2], [-3.0, 5.0]]]]  # clipped to (0.8, 0.2), (0, 1)
    linear = ((1 - (2 * 0.8 + 1) / (1 + 0.8 + 1)) + (1 - (2 * 1 + 1) / (1 + 1.2 + 1))) / 2
    np.testing.assert_allclose(value(dice, TRUTH, outputs, "linear"), [linear], rtol=1e-6)


def numpy_dice(targets: np.ndarray, chances: np.ndarray) -> np.ndarray:
    results = []
    for truth, chance in zip(targets, chances.astype(np.float64), strict=True):
        kept = truth != IGNORE
        parts = []
        for index in range(chance.shape[-1]):
            of_class, p = truth[kept] == index, chance[kept][:, index]
            if of_class.any():
                parts.append(1 - (2 * (of_class * p).sum() + 1) / (of_class.sum() + p.sum() + 1))
        results.append(np.mean(parts) if parts else 0.0)
    return np.array(results)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_dice_equals_the_formula_in_numpy(activation: str, seed: int) -> None:
    targets, logits = random_case(seed, classes=4)
    targets[1][targets[1] == 2] = IGNORE
    targets[3] = IGNORE
    chances = probabilities(tf.constant(logits), activation).numpy()
    np.testing.assert_allclose(value(dice, targets, logits, activation), numpy_dice(targets, chances), rtol=1e-5)


def test_probabilities_equal_their_formulas() -> None:
    logits = random_case()[1]
    raised = np.exp(logits.astype(np.float64))
    for activation, expected in (
        ("softmax", raised / raised.sum(-1, keepdims=True)),
        ("sigmoid", raised / (1 + raised)),
        ("linear", np.clip(logits, 1e-7, 1)),
    ):
        np.testing.assert_allclose(probabilities(tf.constant(logits), activation).numpy(), expected, rtol=1e-5)
    with pytest.raises(ModelError, match="'relu'"):
        probabilities(logits, "relu")


def test_cross_entropy_equals_keras() -> None:
    targets, logits = random_case(ignored=0)
    keras_says = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)(targets, logits).numpy()
    np.testing.assert_allclose(value(cross_entropy, targets, logits, "softmax"), keras_says.mean((1, 2)), rtol=1e-5)
    binary = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
    keras_says = binary(keras.ops.one_hot(targets, 3), logits).numpy()
    np.testing.assert_allclose(value(cross_entropy, targets, logits, "sigmoid"), keras_says.mean((1, 2)), rtol=1e-5)


def test_cross_entropy_with_ignored_pixels_equals_keras() -> None:
    targets, logits = random_case()
    keras_says = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE, reduction=None)
    losses = keras_says(targets, logits).numpy()
    kept = targets != IGNORE
    expected = [losses[i][kept[i]].mean() for i in range(len(targets))]
    np.testing.assert_allclose(value(cross_entropy, targets, logits, "softmax"), expected, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_change_nothing_and_get_no_gradient(loss: Any, activation: str) -> None:
    targets, logits = random_case()
    ignored = targets == IGNORE
    other = logits.copy()
    other[ignored] = np.random.default_rng(1).normal(0, 50, other[ignored].shape)
    np.testing.assert_array_equal(value(loss, targets, logits, activation), value(loss, targets, other, activation))

    outputs = tf.constant(other)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total = tf.reduce_sum(loss(tf.constant(targets, tf.int32), outputs, scheme(activation)))
    gradient = tape.gradient(total, outputs).numpy()
    assert (gradient[ignored] == 0).all()
    assert np.abs(gradient[~ignored]).max() > 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_picture_with_all_pixels_ignored_counts_zero(loss: Any, activation: str) -> None:
    targets, logits = random_case()
    targets[2] = IGNORE
    outputs = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses = loss(tf.constant(targets, tf.int32), outputs, scheme(activation))
    assert losses.numpy()[2] == 0
    assert np.isfinite(losses.numpy()).all()
    assert (tape.gradient(losses, outputs).numpy()[2] == 0).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1e2, 1e6, 1e30])
def test_huge_logits_stay_finite(loss: Any, activation: str, scale: float) -> None:
    targets, logits = random_case()
    outputs = tf.constant(logits * np.float32(scale))
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses = loss(tf.constant(targets, tf.int32), outputs, scheme(activation))
    assert np.isfinite(losses.numpy()).all()
    assert np.isfinite(tape.gradient(losses, outputs).numpy()).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_right_answer_costs_nothing_and_a_wrong_one_most(loss: Any) -> None:
    targets, _ = random_case()
    sure = 50.0 * np.eye(3, dtype=np.float32)[np.where(targets == IGNORE, 0, targets)]
    right, wrong = value(loss, targets, sure, "softmax"), value(loss, targets, -sure, "softmax")
    assert (right < 1e-6).all()
    assert (wrong > 0.5).all()


def test_the_objective_adds_up_and_averages_over_pictures() -> None:
    targets, logits = random_case()
    parts = [value(loss, targets, logits, "softmax") for loss in LOSSES]
    objective = Objective(LOSSES, scheme("softmax"))
    np.testing.assert_allclose(objective(targets.astype(np.uint8), logits).numpy(), sum(parts).mean(), rtol=1e-6)
    weights = np.array([1, 0, 2, 1], np.float32)
    weighted = (sum(parts) * weights).sum() / 4
    np.testing.assert_allclose(objective(targets.astype(np.uint8), logits, weights).numpy(), weighted, rtol=1e-6)


def test_the_objective_computes_in_float32_from_half_precision() -> None:
    targets, logits = random_case()
    half = tf.cast(logits, tf.bfloat16)
    found = Objective(LOSSES, scheme("softmax")).call(targets.astype(np.uint8), half)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, Objective(LOSSES, scheme("softmax")).call(targets, tf.cast(half, tf.float32)))


def test_a_loss_of_the_wrong_shape_is_refused() -> None:
    targets, logits = random_case()

    def by_pixel(truth: Any, outputs: Any, meaning: Scheme) -> Any:
        return keras.ops.zeros_like(truth, "float32")

    def one_number(truth: Any, outputs: Any, meaning: Scheme) -> Any:
        return keras.ops.mean(outputs)

    with pytest.raises(ModelError, match=r"loss 'by_pixel': returns shape \(4, 5, 6\)"):
        Objective([cross_entropy, by_pixel], scheme("softmax")).call(targets, logits)
    with pytest.raises(ModelError, match=r"loss 'one_number': returns shape \(\)"):
        Objective([one_number], scheme("softmax")).call(targets, logits)
