"""A factory whose model is traced in a second; ``model.factory=few_layers:few_layers`` with this folder on the path."""

from __future__ import annotations

from typing import Any

import keras

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
