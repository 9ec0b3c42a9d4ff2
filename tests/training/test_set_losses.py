"""Losses on labels that are sets of classes, class weights and focal terms: by hand, in NumPy, and another library."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.training.losses import (
    Objective,
    Scheme,
    balanced,
    cross_entropy,
    dice,
    focal,
    jaccard,
    label_probabilities,
)

LOSSES = [cross_entropy, focal, dice, jaccard]
MERGED = Labelling(3, ((0, 2),))
EVEN = np.ones(3, np.float32)
# One pixel with probabilities 1/2, 1/3, 1/6.
LOGITS = [[[[math.log(3), math.log(2), 0.0]]]]


def value(loss: Any, targets: Any, logits: Any, scheme: Scheme) -> np.ndarray:
    return np.asarray(loss(tf.constant(targets, tf.int32), tf.constant(logits, tf.float32), scheme).numpy())


def test_cross_entropy_of_a_set_is_that_of_the_summed_probability() -> None:
    found = value(cross_entropy, [[[3]]], LOGITS, Scheme("softmax", MERGED, EVEN))
    np.testing.assert_allclose(found, [-math.log(1 / 2 + 1 / 6)], rtol=1e-6)


def test_cross_entropy_of_a_set_with_independent_classes() -> None:
    # Sigmoids of 0, ln 3, -ln 3: 1/2, 3/4, 1/4. The set {0, 2} is there unless both are absent; class 1 is not.
    logits = [[[[0.0, math.log(3), -math.log(3)]]]]
    there, absent = -math.log(1 - 1 / 2 * 3 / 4), -math.log(1 / 4)
    found = value(cross_entropy, [[[3]]], logits, Scheme("sigmoid", MERGED, EVEN))
    np.testing.assert_allclose(found, [(there + absent) / 2], rtol=1e-6)


def test_cross_entropy_of_a_set_with_a_linear_head() -> None:
    found = value(cross_entropy, [[[3]]], [[[[0.5, 0.9, 0.2]]]], Scheme("linear", MERGED, EVEN))
    np.testing.assert_allclose(found, [-math.log(0.7)], rtol=1e-6)
    assert value(cross_entropy, [[[3]]], [[[[0.9, 0.0, 0.9]]]], Scheme("linear", MERGED, EVEN)) == pytest.approx(0)


def test_focal_by_hand() -> None:
    scheme = Scheme("softmax", MERGED, EVEN, gamma=2.0)
    np.testing.assert_allclose(value(focal, [[[1]]], LOGITS, scheme), [(2 / 3) ** 2 * math.log(3)], rtol=1e-6)
    np.testing.assert_allclose(value(focal, [[[3]]], LOGITS, scheme), [(1 / 3) ** 2 * math.log(3 / 2)], rtol=1e-5)
    plain = Scheme("softmax", MERGED, EVEN, gamma=0.0)
    assert value(focal, [[[1]]], LOGITS, plain) == value(cross_entropy, [[[1]]], LOGITS, plain)


def test_class_weights_weigh_pixels_and_labels() -> None:
    logits = LOGITS[0][0] * 3
    scheme = Scheme("softmax", MERGED, np.array([3.0, 1.0, 1.0], np.float32))
    # Labels 0, 1 and the set {0, 2}, which weighs (3 + 1) / 2.
    expected = (3 * math.log(2) + 1 * math.log(3) + 2 * math.log(3 / 2)) / 6
    np.testing.assert_allclose(value(cross_entropy, [[[0, 1, 3]]], [[logits]], scheme), [expected], rtol=1e-6)
    # Dice: class 0 over pixels 0 and 1 (the set's pixel may be of it), class 1 over all, the set over all.
    of_0 = 1 - (2 * 1 / 2 + 1) / (1 + 2 / 2 + 1)
    of_1 = 1 - (2 * 1 / 3 + 1) / (1 + 3 / 3 + 1)
    of_set = 1 - (2 * 4 / 3 + 1) / (2 + 6 / 3 + 1)
    found = value(dice, [[[0, 1, 3]]], [[logits]], scheme)
    np.testing.assert_allclose(found, [(3 * of_0 + of_1 + 2 * of_set) / 6], rtol=1e-6)


def test_jaccard_by_hand() -> None:
    found = value(jaccard, [[[0, 1]]], [[LOGITS[0][0] * 2][0]], Scheme("softmax", Labelling(3), EVEN))
    of_0 = 1 - (1 / 2 + 1) / (1 + 1 - 1 / 2 + 1)
    of_1 = 1 - (1 / 3 + 1) / (1 + 2 / 3 - 1 / 3 + 1)
    np.testing.assert_allclose(found, [(of_0 + of_1) / 2], rtol=1e-6)


def reference(loss: Any, targets: np.ndarray, chances: np.ndarray, scheme: Scheme) -> np.ndarray:
    """The losses of probabilities (softmax) written out pixel by pixel in float64."""
    members, labels = scheme.labelling.members, scheme.labelling.count
    results = []
    for truth, chance in zip(targets, chances.astype(np.float64), strict=True):
        kept = [(int(t), p) for t, p in zip(truth.ravel(), chance.reshape(-1, 3), strict=True) if t != IGNORE]
        if loss in (cross_entropy, focal):
            gamma = scheme.gamma if loss is focal else 0.0
            total = weight = 0.0
            for label, p in kept:
                summed, own = p[members[label]].sum(), scheme.label_weights[label]
                total += own * (1 - summed) ** gamma * -math.log(summed)
                weight += own
            results.append(total / weight if weight else 0.0)
            continue
        parts, weights = [], []
        for label in range(labels):
            if all(t != label for t, _ in kept):
                continue
            both = of_truth = of_answer = 0.0
            for other, p in kept:
                inside = not (members[other] & ~members[label]).any()
                if (members[other] & members[label]).any() and not inside:
                    continue
                summed = p[members[label]].sum()
                both, of_truth, of_answer = both + inside * summed, of_truth + inside, of_answer + summed
            sizes = of_truth + of_answer
            share = (2 * both + 1) / (sizes + 1) if loss is dice else (both + 1) / (sizes - both + 1)
            parts.append(1 - share)
            weights.append(scheme.label_weights[label])
        results.append(np.average(parts, weights=weights) if parts else 0.0)
    return np.array(results)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_losses_equal_a_count_pixel_by_pixel(loss: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    labelling = [MERGED, Labelling(3, ((0, 2), (1, 2)))][seed % 2]
    targets = random.integers(0, labelling.count, (3, 4, 5))
    targets[random.random(targets.shape) < 0.2] = IGNORE
    targets[2] = IGNORE
    logits = random.normal(0, 2, (3, 4, 5, 3))
    scheme = Scheme("softmax", labelling, random.uniform(0.5, 2, 3).astype(np.float32), gamma=1.5)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = reference(loss, targets, chances, scheme)
    np.testing.assert_allclose(value(loss, targets, logits, scheme), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e30])
def test_sets_stay_finite_with_their_slopes(loss: Any, activation: str, scale: float) -> None:
    random = np.random.default_rng(1)
    targets = random.choice([0, 1, 2, 3, IGNORE], (3, 4, 5))
    outputs = tf.constant(random.normal(0, scale, (3, 4, 5, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses = loss(tf.constant(targets, tf.int32), outputs, Scheme(activation, MERGED, EVEN))
    slopes = tape.gradient(losses, outputs).numpy()
    assert np.isfinite(losses.numpy()).all()
    assert np.isfinite(slopes).all()
    assert (slopes[targets == IGNORE] == 0).all()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_training_on_sets_alone_never_prefers_one_of_their_classes_over_the_other(activation: str) -> None:
    outputs = tf.Variable(np.zeros((1, 2, 2, 3), np.float32))
    targets = tf.constant([[[3, 3], [1, 1]]], tf.int32)
    scheme = Scheme(activation, MERGED, EVEN)
    for _ in range(50):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(cross_entropy(targets, outputs, scheme) + dice(targets, outputs, scheme))
        outputs.assign_sub(tape.gradient(total, outputs))
    found = label_probabilities(outputs, scheme).numpy()
    assert (found[0, 0, :, 3] > 0.8).all()
    assert (found[0, 1, :, 1] > 0.8).all()
    np.testing.assert_allclose(found[..., 0], found[..., 2], rtol=1e-5)


def test_factors_of_an_objective() -> None:
    scheme = Scheme("softmax", MERGED, EVEN)
    targets, logits = np.array([[[3, 1]]]), np.array([LOGITS[0] * 2]).reshape(1, 1, 2, 3)
    parts = [value(loss, targets, logits, scheme) for loss in (cross_entropy, dice)]
    found = Objective([cross_entropy, dice], scheme, [0.5, 2.0]).call(targets, logits)
    np.testing.assert_allclose(found, 0.5 * parts[0] + 2.0 * parts[1], rtol=1e-6)


def test_balanced_weights() -> None:
    np.testing.assert_allclose(balanced([100, 400, 100]), np.array([2, 1, 2]) * 3 / 5, rtol=1e-6)
    with pytest.raises(ModelError, match="no pixels"):
        balanced([1, 0])


ORACLE = """
import sys, numpy as np, segmentation_models as sm
found = np.load(sys.argv[1])
truth, chance = found["truth"], found["chance"]
np.savez(
    sys.argv[2],
    dice=[float(sm.losses.DiceLoss(smooth=1.0)(truth[i : i + 1], chance[i : i + 1])) for i in range(len(truth))],
    jaccard=[float(sm.losses.JaccardLoss(smooth=1.0)(truth[i : i + 1], chance[i : i + 1])) for i in range(len(truth))],
    entropy=[float(sm.losses.CategoricalCELoss()(truth[i : i + 1], chance[i : i + 1])) for i in range(len(truth))],
    focal=[
        float(sm.losses.CategoricalFocalLoss(alpha=1.0, gamma=2.0)(truth[i : i + 1], chance[i : i + 1]))
        for i in range(len(truth))
    ],
)
"""


def test_segmentation_models_agrees(tmp_path: Path) -> None:
    """Its means are over all classes or values, ours over those in the truth or over pixels: all are in the truth."""
    random = np.random.default_rng(5)
    targets = random.integers(0, 3, (4, 8, 8))
    targets[:, 0, :3] = [0, 1, 2]
    logits = random.normal(0, 2, (4, 8, 8, 3)).astype(np.float32)
    chance = tf.nn.softmax(logits).numpy()
    np.savez(tmp_path / "given.npz", truth=np.eye(3, dtype=np.float32)[targets], chance=chance)
    done = subprocess.run(
        [sys.executable, "-c", ORACLE, str(tmp_path / "given.npz"), str(tmp_path / "said.npz")],
        env={**os.environ, "SM_FRAMEWORK": "tf.keras"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = np.load(tmp_path / "said.npz")
    scheme = Scheme("softmax", Labelling(3), EVEN, gamma=2.0)
    for name, loss, factor in (
        ("dice", dice, 1),
        ("jaccard", jaccard, 1),
        ("entropy", cross_entropy, 3),
        ("focal", focal, 3),
    ):
        np.testing.assert_allclose(value(loss, targets, logits, scheme), factor * said[name], atol=1e-6, err_msg=name)
