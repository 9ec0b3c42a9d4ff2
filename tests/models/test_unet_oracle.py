"""Our U-Net against segmentation-models': same weights in, same numbers out."""

from __future__ import annotations

import os
import warnings
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.models import unet

PARAMETERS = {"resnet18": 14_340_860, "resnet34": 24_456_444, "resnet50": 32_561_404}


@pytest.fixture(scope="module")
def oracle() -> Any:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("segmentation-models runs on TensorFlow only; runs again with KERAS_BACKEND=tensorflow")
    before = os.environ.get("SM_FRAMEWORK")
    os.environ["SM_FRAMEWORK"] = "tf.keras"  # read once, while the package is imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, about their own dependencies
            return pytest.importorskip(
                "segmentation_models",
                reason="the oracle of the U-Net is segmentation-models; runs again once it is installed: pip install "
                "segmentation-models",
            )
    finally:
        if before is None:
            del os.environ["SM_FRAMEWORK"]
        else:
            os.environ["SM_FRAMEWORK"] = before


def lively(weights: list[np.ndarray], model: Any) -> list[np.ndarray]:
    """Random values for every weight, batch statistics included: with fresh ones, mistakes in them would not show."""
    random = np.random.default_rng(5)
    values = []
    for weight, variable in zip(weights, model.weights, strict=True):
        if weight.ndim > 1:
            values.append(weight)
        elif variable.name in ("gamma", "moving_variance"):
            values.append(random.uniform(0.5, 1.5, weight.shape).astype("float32"))
        else:
            values.append(random.normal(0.0, 0.2, weight.shape).astype("float32"))
    # The first norm, of the picture: mean and variance of pixels.
    first = next(i for i, variable in enumerate(model.weights) if variable.name == "moving_mean")
    values[first] = np.array([110.0, 120.0, 130.0], "float32")
    values[first + 1] = np.array([3600.0, 4000.0, 4400.0], "float32")
    return values


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_equals_segmentation_models(oracle: Any, encoder: str) -> None:
    ours = unet((64, 64, 3), 3, encoder, "linear", seed=0)
    theirs = oracle.Unet(encoder, input_shape=(64, 64, 3), classes=3, activation="linear", encoder_weights=None)
    assert ours.count_params() == theirs.count_params() == PARAMETERS[encoder]
    assert [tuple(w.shape) for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert [w.trainable for w in ours.weights] == [w.trainable for w in theirs.weights]

    weights = lively(ours.get_weights(), ours)
    ours.set_weights(weights)
    theirs.set_weights(weights)
    batch = np.random.default_rng(6).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    expected = np.asarray(theirs(batch.astype("float32"), training=False))
    actual = np.asarray(ours(batch, training=False))
    assert expected.std() > 0.1
    difference = float(np.abs(actual - expected).max() / max(1.0, np.abs(expected).max()))
    assert difference <= 1e-5


def test_batch_norms_learn_alike(oracle: Any) -> None:
    """Momentum and epsilon show only after a step in training mode."""
    ours = unet((32, 32, 3), 3, activation="linear", seed=0)
    theirs = oracle.Unet("resnet18", input_shape=(32, 32, 3), classes=3, activation="linear", encoder_weights=None)
    theirs.set_weights(ours.get_weights())
    batch = np.random.default_rng(6).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    for _ in range(2):
        ours(batch, training=True)
        theirs(batch.astype("float32"), training=True)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
