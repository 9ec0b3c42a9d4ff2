"""A factory whose model is traced in a second; ``model.factory=few_layers:few_layers`` with this folder on the path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from leakdet_tf.models.initialize import draw_weights

OVERRIDES = (
    "model={factory = 'few_layers:few_layers'}",
    "data.synth.counts={train = 8, val = 2, test = 2}",
    "data.synth.size=[32, 32]",
    "data.inputs.image.size=[32, 32]",
    "train.batch_size=4",
    "train.patience=0",
)
"""What makes experiments/gas_unet.toml a matter of seconds."""


def few_layers(input_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> Any:
    """uint8 (B, H, W, 3) → float32 (B, H, W, classes), with a batch norm and a dropout on the way."""
    image = keras.Input(input_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="scaled")(image)
    x = keras.layers.Conv2D(8, 3, padding="same", name="encoder_conv")(x)
    x = keras.layers.BatchNormalization(name="encoder_norm")(x)
    x = keras.layers.Dropout(0.2, seed=seed, name="head_dropout")(keras.layers.ReLU(name="encoder_relu")(x))
    x = keras.layers.Conv2D(classes, 1, name="head_conv")(x)
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    answer = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)
    model = keras.Model(image, answer, name="few_layers")
    draw_weights(model, seed)
    return model


def few_grids(
    input_shape: tuple[int, int, int], classes: int, *, widths: Sequence[int] = (12, 16, 24, 24, 24), seed: int = 0
) -> Any:
    """A detector of eight convolutions: uint8 (B, H, W, 3) → float32 (B, A, 64 + classes)."""
    image = keras.Input(input_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="scaled")(image)
    parts = []
    for number, width in enumerate(widths):
        x = keras.layers.Conv2D(width, 3, 2, padding="same", name=f"encoder_{number}_conv")(x)
        x = keras.layers.ReLU(name=f"encoder_{number}_relu")(
            keras.layers.BatchNormalization(name=f"encoder_{number}_norm", momentum=0.9)(x)
        )
        if number >= 2:
            part = keras.layers.Conv2D(64 + classes, 1, name=f"head_{number}_conv")(x)
            parts.append(keras.layers.Reshape((-1, 64 + classes), name=f"head_{number}_rows")(part))
    x = keras.layers.Concatenate(axis=1, name="head_rows")(parts)
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    model = keras.Model(image, keras.layers.Activation("linear", dtype="float32", name="raw")(x), name="few_grids")
    draw_weights(model, seed)
    for number in (2, 3, 4):  # few anchors hold a box
        bias = np.zeros(64 + classes, np.float32)
        bias[64:] = -4.0
        model.get_layer(f"head_{number}_conv").bias.assign(bias)
    return model


def few_labels(input_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> Any:
    """A classifier of two convolutions: uint8 (B, H, W, 3) → float32 (B, classes)."""
    image = keras.Input(input_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="scaled")(image)
    x = keras.layers.Conv2D(16, 3, 2, padding="same", name="encoder_conv")(x)
    x = keras.layers.BatchNormalization(name="encoder_norm")(x)
    x = keras.layers.Conv2D(32, 3, 2, padding="same", name="encoder_last")(keras.layers.ReLU(name="encoder_relu")(x))
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dense(classes, name="head_dense")(keras.layers.Dropout(0.2, seed=seed, name="head_dropout")(x))
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    answer = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)
    model = keras.Model(image, answer, name="few_labels")
    draw_weights(model, seed)
    return model
