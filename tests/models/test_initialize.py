"""Weights drawn in NumPy: the right distributions, the same draws whatever the process built before."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ModelError
from leakdet_tf.models import draw_weights, unet

NARROW: dict[str, Any] = {"encoder_options": {"width": 8}, "decoder_filters": (16, 16, 8, 8, 4)}


def dense(initializer: Any, shape: tuple[int, int] = (300, 200)) -> keras.Model:
    x = keras.Input(shape[:1])
    return keras.Model(x, keras.layers.Dense(shape[1], kernel_initializer=initializer, name="dense_layer")(x))


def kernel(model: keras.Model) -> np.ndarray:
    return np.asarray(model.get_weights()[0])


def automatic() -> keras.Model:
    """Layers, inner layers and a nested model whose names Keras numbers by itself."""
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3), keras.layers.Conv2D(4, 3)])
    x = y = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 1)(y)
    y = keras.layers.DepthwiseConv2D(3, padding="same")(y)
    y = keras.layers.SeparableConv2D(4, 3, padding="same")(y)
    y = keras.layers.BatchNormalization()(inner(y))
    y = keras.layers.Reshape((16, 4))(y)
    y = keras.layers.MultiHeadAttention(2, 3)(y, y)
    y = keras.layers.LSTM(5)(keras.layers.LayerNormalization()(y))
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Dropout(0.1)(y)))


@pytest.mark.parametrize(
    "initializer",
    [
        "he_uniform",
        "he_normal",
        "glorot_uniform",
        "glorot_normal",
        "lecun_uniform",
        "lecun_normal",
        keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        keras.initializers.RandomUniform(-0.1, 0.3),
        keras.initializers.RandomNormal(0.2, 0.3),
        keras.initializers.TruncatedNormal(0.2, 0.3),
        "orthogonal",
    ],
    ids=lambda initializer: initializer if isinstance(initializer, str) else type(initializer).__name__,
)
def test_draws_have_the_distribution_keras_gives(initializer: Any) -> None:
    keras.utils.set_random_seed(0)
    model = dense(initializer)
    theirs = kernel(model)
    draw_weights(model, 1)
    ours = kernel(model)
    assert not np.array_equal(ours, theirs)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * theirs.std() / np.sqrt(theirs.size))
    assert ours.std() == pytest.approx(theirs.std(), rel=0.015)
    ranks = (0.001, 0.25, 0.75, 0.999)
    np.testing.assert_allclose(np.quantile(ours, ranks), np.quantile(theirs, ranks), atol=0.15 * theirs.std())


def test_limits_of_uniform_and_truncated_draws() -> None:
    uniform, truncated = dense("he_uniform"), dense("he_normal")
    draw_weights(uniform, 0)
    draw_weights(truncated, 0)
    limit = np.sqrt(6 / 300)
    assert 0.999 * limit < np.abs(kernel(uniform)).max() <= limit
    cut = 2 * np.sqrt(2 / 300) / 0.87962566103423978
    assert 0.98 * cut < np.abs(kernel(truncated)).max() <= cut * (1 + 1e-6)
    assert kernel(truncated).std() == pytest.approx(np.sqrt(2 / 300), rel=0.01)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_orthogonal_draws_are_orthonormal(shape: tuple[int, int]) -> None:
    model = dense(keras.initializers.Orthogonal(gain=2.0), shape)
    draw_weights(model, 0)
    matrix = kernel(model)
    product = matrix @ matrix.T if shape[0] < shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(20), atol=1e-5)


def test_fans_count_the_window_and_named_axes() -> None:
    x = keras.Input((8, 8, 64))
    convolved = keras.Model(x, keras.layers.Conv2D(32, 3, kernel_initializer="he_uniform")(x))
    draw_weights(convolved, 0)
    assert kernel(convolved).std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    x = keras.Input((10, 40))
    heads = keras.layers.EinsumDense("abc,cde->abde", output_shape=(10, 8, 25), kernel_initializer="glorot_normal")
    projected = keras.Model(x, heads(x))
    before = kernel(projected).std()
    draw_weights(projected, 0)
    assert kernel(projected).std() == pytest.approx(before, rel=0.05)


def test_two_builds_in_one_process_draw_the_same() -> None:
    first = automatic()
    keras.layers.Conv2D(1, 1)(keras.Input((4, 4, 1)))
    second = automatic()
    assert [w.path for w in first.weights] != [w.path for w in second.weights]  # else this test shows nothing
    for model in (first, second):
        draw_weights(model, 7)
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_two_weights_share_a_draw() -> None:
    model = automatic()
    before = model.get_weights()
    draw_weights(model, 0)
    drawn = [
        new
        for old, new in zip(before, model.get_weights(), strict=True)
        if np.issubdtype(new.dtype, np.floating) and not np.array_equal(old, new)
    ]
    assert len(drawn) == 13  # 3 convolutions, 1 depthwise, 2 separable, 4 of the attention, 2 LSTM, 1 dense
    firsts = [float(array.flat[0] / array.std()) for array in drawn]
    assert len(set(firsts)) == len(firsts)


def test_other_seeds_draw_other_weights() -> None:
    model = unet((32, 32, 3), **NARROW)
    draws = []
    for seed in (0, 0, 1, -1):
        draw_weights(model, seed)
        draws.append(model.get_weights())
    for a, b, c, d in zip(*draws, strict=True):
        np.testing.assert_array_equal(a, b)
        if a.ndim == 4:
            assert not np.array_equal(a, c)
            assert not np.array_equal(a, d)
        else:
            np.testing.assert_array_equal(a, c)


def test_draws_do_not_change_from_release_to_release() -> None:
    """A stored fingerprint: whoever changes the keys or the draws breaks the reproduction of earlier runs."""
    model = unet((32, 32, 3), seed=0, **NARROW)
    rounded = [np.round(weight.astype("float64"), 4) + 0.0 for weight in model.get_weights()]
    assert hashlib.sha256(b"".join(weight.tobytes() for weight in rounded)).hexdigest()[:16] == "2a41f15ec3b6d341"


def test_layers_of_the_factory_are_named_by_it() -> None:
    first, second = (unet((32, 32, 3), **NARROW) for _ in range(2))
    assert [w.path for w in first.weights] == [w.path for w in second.weights]
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


def test_constants_stay_as_they_are() -> None:
    x = keras.Input((4,))
    layer = keras.layers.Dense(4, kernel_initializer=keras.initializers.Identity(), bias_initializer="ones")
    model = keras.Model(x, keras.layers.BatchNormalization()(layer(x)))
    before = model.get_weights()
    draw_weights(model, 0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@keras.saving.register_keras_serializable("tests")
class Halves(keras.initializers.HeUniform):
    """Somebody's own initializer, derived from one of Keras's."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return super().__call__(shape, dtype) / 2


class Hidden(keras.layers.Layer):
    """A layer that keeps no initializer for its weights."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    def build(self, input_shape: Any) -> None:
        self.w = self.add_weight(shape=(int(input_shape[-1]),), initializer=self.kind, name="w")

    def call(self, x: Any) -> Any:
        return x * self.w


def test_unknown_initializer_names_the_weight_and_changes_nothing() -> None:
    x = keras.Input((4,))
    y = keras.layers.Dense(4, name="known")(x)
    model = keras.Model(x, keras.layers.Dense(4, kernel_initializer=Halves(), name="odd")(y))
    before = model.get_weights()
    with pytest.raises(ModelError, match="weight 'odd/kernel': its initializer Halves cannot be drawn"):
        draw_weights(model, 0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_hidden_initializer_is_an_error_only_when_random() -> None:
    x = keras.Input((4,))
    draw_weights(keras.Model(x, Hidden("ones")(x)), 0)
    with pytest.raises(ModelError, match=r"weight 'gate/w' \(Hidden\).*'w_initializer'"):
        draw_weights(keras.Model(x, Hidden("random_normal", name="gate")(x)), 0)


def test_weights_must_exist_and_the_seed_be_whole() -> None:
    with pytest.raises(ModelError, match="has no weights to draw; build it first"):
        draw_weights(keras.Sequential([keras.layers.Dense(2)]), 0)
    with pytest.raises(ModelError, match=r"seed must be a whole number, not 0\.5"):
        draw_weights(dense("he_normal"), 0.5)  # type: ignore[arg-type]
