"""The one file that knows KerasCV: its YOLOv8, taken apart into plain Keras layers of our names.

What comes out needs KerasCV no longer: it is saved, loaded and exported like any other model. Importing KerasCV loads
TensorFlow and tensorflow-datasets, so it is imported when a model is built, not before.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError

_GROUPS = ((r"^(stem|stack)", r"encoder_\1"), (r"^pa_fpn_", "decoder_"), (r"^yolo_v8_head_", "head_"))
"""Beginnings of KerasCV's layer names, and what takes their place."""


def kerascv_logits(
    image: keras.KerasTensor, scale: float, classes: int, channels: Sequence[int], depths: Sequence[int], neck: int
) -> keras.KerasTensor:
    """Input (B, H, W, C) → raw outputs (B, A, 64 + classes) of ``YOLOV8Detector``'s layers.

    Args:
        image: the tensor of a ``keras.Input``, of any dtype.
        scale: factor that puts it on 0..1.
        classes: as the detector's ``num_classes``.
        channels: ``stackwise_channels`` of its backbone.
        depths: ``stackwise_depth`` of its backbone.
        neck: ``fpn_depth``.

    Raises:
        ModelError: KerasCV is not installed.
    """
    try:
        models = importlib.import_module("keras_cv").models
    except ModuleNotFoundError as error:
        raise ModelError(
            f"yolov8: implementation 'kerascv' needs the package '{error.name}'",
            remedy="pip install 'leakdet_tf[kerascv]', or set implementation = \"native\" in [model]: the same network",
        ) from error
    backbone = models.YOLOV8Backbone(
        stackwise_channels=list(channels),
        stackwise_depth=list(depths),
        include_rescaling=True,
        input_shape=tuple(image.shape[1:]),
    )
    detector = models.YOLOV8Detector(backbone=backbone, num_classes=classes, bounding_box_format="xyxy", fpn_depth=neck)
    # What the detector adds after this layer is for its own loss.
    (logits,) = _copied(keras.Model(detector.input, detector.get_layer("box_outputs").output), image, scale)
    return logits


def _copied(model: Any, image: keras.KerasTensor, scale: float) -> list[keras.KerasTensor]:
    """Outputs of the model's layers, built again on another input; those of models within it too, one by one."""

    def copied(layer: Any) -> Any:
        return layer if isinstance(layer, keras.Model) else _renamed(layer, scale)

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _copied(layer, inputs[0], scale)
        return layer(*inputs, **options)

    given = [image] if isinstance(model.input, list) else image
    outputs: list[keras.KerasTensor] = keras.models.clone_model(
        model, input_tensors=given, clone_function=copied, call_function=call
    ).outputs
    return outputs


def _renamed(layer: Any, scale: float) -> Any:
    settings = layer.get_config()
    for beginning, ours in _GROUPS:
        settings["name"] = re.sub(beginning, ours, settings["name"])
    if isinstance(layer, keras.layers.Rescaling):
        settings |= {"name": "photometry", "scale": scale, "dtype": "float32"}
    if settings["name"].endswith("_classifier"):
        settings["activation"] = "linear"  # KerasCV's own loss takes probabilities, ours logits
    return type(layer).from_config(settings)
