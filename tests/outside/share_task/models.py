"""A model to ``share``: the mean of a few features, and one number."""

from __future__ import annotations

from typing import Any

import keras

from leakdet_tf.models import draw_weights


def few_numbers(input_shape: tuple[int, int, int], *, seed: int = 0) -> Any:
    image = keras.Input(input_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="scaled")(image)
    x = keras.layers.Conv2D(16, 3, 2, padding="same", activation="relu", name="encoder_conv")(x)
    x = keras.layers.Conv2D(16, 3, 2, padding="same", activation="relu", name="encoder_last")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dense(1, name="head_dense")(x)
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    model = keras.Model(image, keras.layers.Activation("sigmoid", dtype="float32", name="share")(x), name="few_numbers")
    draw_weights(model, seed)
    return model
