"""Batch-norm statistics computed again: those of the data, with the answers kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ModelError
from leakdet_tf.models import mobilenet_classifier, resnet_classifier
from leakdet_tf.models.initialize import named_weights
from leakdet_tf.models.norms import reestimate_batch_norm
from leakdet_tf.models.pretrained import encoder_source


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: keras.ops.convert_to_numpy(variable).copy() for path, variable in named_weights(model)}


def narrow(encoder: str = "resnet18_v1") -> Any:
    return resnet_classifier((32, 32, 3), 2, encoder, encoder_options={"width": 4}, seed=0)


def batches(sizes: tuple[int, ...] = (4, 3, 1)) -> list[np.ndarray]:
    random = np.random.default_rng(4)
    return [random.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8) for size in sizes]


def test_statistics_are_those_of_the_data_and_answers_stay() -> None:
    model = narrow()
    pictures = np.concatenate(batches())
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    probe = keras.Model(model.input, [norm.input for norm in norms])
    inputs = [keras.ops.convert_to_numpy(x).astype(np.float64) for x in probe(pictures, training=False)]
    features = keras.Model(model.input, model.get_layer("head_pool").output)
    before = keras.ops.convert_to_numpy(features(pictures, training=False))

    assert reestimate_batch_norm(model, batches()) == [norm.name for norm in norms]
    for norm, x in zip(norms, inputs, strict=True):
        spread = x.std(axis=(0, 1, 2)).max()
        np.testing.assert_allclose(norm.moving_mean, x.mean((0, 1, 2)), atol=1e-5 * spread)
        np.testing.assert_allclose(norm.moving_variance, x.var((0, 1, 2)), rtol=1e-4, atol=1e-6 * spread**2)
    after = keras.ops.convert_to_numpy(features(pictures, training=False))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


def test_after_it_a_step_in_training_mode_keeps_the_features() -> None:
    """What it is for: with placeholders the batch's statistics in their place destroy what the encoder knows."""
    model = narrow()
    (pictures,) = batches((16,))
    features = keras.Model(model.input, model.get_layer("head_pool").output)
    known = keras.ops.convert_to_numpy(features(pictures, training=False))

    def apart() -> float:
        saved = model.get_weights()
        trained = keras.ops.convert_to_numpy(features(pictures, training=True))
        model.set_weights(saved)  # moving statistics went a step
        return float(np.abs(trained - known).max() / np.abs(known).max())

    assert apart() > 0.5
    reestimate_batch_norm(model, [pictures])
    assert apart() < 1e-2


def test_nothing_is_changed_where_it_cannot_be_done() -> None:
    model = narrow("resnet18")
    before = values(model)
    with pytest.raises(ModelError, match="'encoder_bn_data' has no scale"):
        reestimate_batch_norm(model, batches())
    with pytest.raises(ModelError, match="no batches"):
        reestimate_batch_norm(narrow(), [])
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path])

    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ModelError, match="has no batch norms"):
        reestimate_batch_norm(plain, [np.zeros((1, 4))])

    spoilt = narrow()
    spoilt.get_layer("encoder_stage2_unit1_bn1").beta.assign(np.full(8, np.inf, np.float32))
    before = values(spoilt)
    with pytest.raises(ModelError, match="hold NaN or infinity"):
        reestimate_batch_norm(spoilt, batches())
    for path, value in values(spoilt).items():
        np.testing.assert_array_equal(value, before[path])


@pytest.mark.data
def test_real_folded_weights_need_it(shared: Path) -> None:
    """On noise: the folded MobileNetV2's features in training mode are far off before, and near after."""
    path = str(shared / "weights" / "mobilenet_v2_1.0_224_imagenet_1001.weights.h5")
    model = mobilenet_classifier((64, 64, 3), 2, encoder_weights=path, seed=0)
    source = encoder_source(model)
    assert source is not None
    assert "re-estimate" in source.lines()[-1]
    pictures = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    features = keras.Model(model.input, model.get_layer("head_pool").output)
    known = keras.ops.convert_to_numpy(features(pictures, training=False))
    reestimate_batch_norm(model, [pictures])
    saved = model.get_weights()
    trained = keras.ops.convert_to_numpy(features(pictures, training=True))
    model.set_weights(saved)
    still = keras.ops.convert_to_numpy(features(pictures, training=False))
    np.testing.assert_allclose(still, known, atol=1e-2 * np.abs(known).max())
    np.testing.assert_allclose(trained, known, atol=5e-2 * np.abs(known).max())
