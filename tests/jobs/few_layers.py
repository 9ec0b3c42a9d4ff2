"""A factory whose model is traced in a second; ``model.factory=few_layers:few_layers`` with this folder on the path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from leakdet_tf.core.images import ImageSpec
from leakdet_tf.models import draw_weights

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


def few_pairs(inputs: Mapping[str, ImageSpec], classes: int, *, seed: int = 0) -> Any:
    """Colour and heat: rgb (B, H, W, 3), thermal (B, H, W, 1), each uint8 or uint16 → float32 (B, H, W, classes)."""
    pair, x = _joined(inputs, seed, strides=1)
    x = keras.layers.Conv2D(classes, 1, name="head_conv")(x)
    return _answering(pair, x, "few_pairs", seed)


def few_pair_labels(inputs: Mapping[str, ImageSpec], classes: int, *, seed: int = 0) -> Any:
    """As :func:`few_pairs`, a classifier: float32 (B, classes)."""
    pair, x = _joined(inputs, seed, strides=2)
    x = keras.layers.Dense(classes, name="head_dense")(keras.layers.GlobalAveragePooling2D(name="head_pool")(x))
    return _answering(pair, x, "few_pair_labels", seed)


def _joined(inputs: Mapping[str, ImageSpec], seed: int, *, strides: int) -> tuple[list[Any], Any]:
    """The two inputs, and their features side by side: a convolution of its own for each, batch norm, dropout."""
    pair, parts = [], []
    for name in ("rgb", "thermal"):
        spec = inputs[name]
        pair.append(keras.Input(spec.shape, dtype=spec.dtype, name=name))
        scale = 1 / np.iinfo(spec.dtype).max
        x = keras.layers.Rescaling(scale, dtype="float32", name=f"scaled_{name}")(pair[-1])
        parts.append(keras.layers.Conv2D(8, 3, strides, padding="same", name=f"encoder_{name}_conv")(x))
    x = keras.layers.Concatenate(name="encoder_joined")(parts)
    x = keras.layers.ReLU(name="encoder_relu")(keras.layers.BatchNormalization(name="encoder_norm")(x))
    return pair, keras.layers.Dropout(0.2, seed=seed, name="head_dropout")(x)


def _answering(pair: list[Any], x: Any, name: str, seed: int) -> Any:
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    model = keras.Model(pair, keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x), name=name)
    draw_weights(model, seed)
    return model
