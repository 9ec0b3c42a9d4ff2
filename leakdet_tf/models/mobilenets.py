"""MobileNet encoders: the networks of ``keras.applications``, layer by layer, with names that say where they stand.

The layers are Keras's own, so its weight files fit. They are built one by one into the caller's graph, not nested as a
model, and renamed to ``<name>_<part>_<Keras's name>``: ``part`` is ``stem`` up to stride 2, then ``stage1`` (stride 4)
to ``stage4`` (stride 32), the same words as in the ResNets, so that training can freeze them alike. A block that halves
the picture belongs to the stage that it leads into. Pixels of 0..255 are put on -1..1 by the encoder's first layer.

Sources: Howard et al., arXiv 1704.04861 (MobileNet); Sandler et al., arXiv 1801.04381 (V2); Howard et al., arXiv
1905.02244 (V3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError
from leakdet_tf.models.residual import preprocessing_layer

# As in the ResNets. Keras's .999 trails the weights by a thousand steps: fine-tuned for a few hundred, the model then
# answers by the statistics of weights that it no longer has.
_MOMENTUM = 0.9
# First block of each of the stages 1 to 4. Layers' names tell their block, but for the first one of V2 and V3: 0.
_STAGES = {
    "MobileNet": (2, 4, 6, 12),
    "MobileNetV2": (1, 3, 6, 13),
    "MobileNetV3Small": (0, 1, 3, 8),
    "MobileNetV3Large": (1, 3, 6, 12),
}
_NUMBERED = re.compile(r"(?:conv_(?:dw|pw|pad)|block|expanded_conv)_(\d+)(?:_|$)")


def mobilenet(x: keras.KerasTensor, *, alpha: float = 1.0, name: str = "encoder") -> list[keras.KerasTensor]:
    """Features of MobileNet (V1).

    Source: Howard et al., arXiv 1704.04861.

    Args:
        x: float32 (B, H, W, C) image tensor on the scale 0..255; H and W divisible by 32, any C.
        alpha: factor on the number of filters of every layer.
        name: prefix of every layer name, so that one model can hold two encoders.

    Returns:
        Five tensors at strides 2, 4, 8, 16, 32: the last of each size, (B, H/s, W/s, alpha * C) with C = 64, 128, 256,
        512, 1024.

    Raises:
        ModelError: ``alpha`` is not a positive number of which every layer has a filter left.
    """
    return _encode("MobileNet", x, alpha, name)


def mobilenet_v2(x: keras.KerasTensor, *, alpha: float = 1.0, name: str = "encoder") -> list[keras.KerasTensor]:
    """Features of MobileNetV2, widened ones inside the blocks that halve; as :func:`mobilenet`.

    With alpha 1, C = 96, 144, 192, 576, 1280; the last does not shrink with alpha. Source: arXiv 1801.04381.
    """
    return _encode("MobileNetV2", x, alpha, name)


def mobilenet_v3_small(x: keras.KerasTensor, *, alpha: float = 1.0, name: str = "encoder") -> list[keras.KerasTensor]:
    """Features of MobileNetV3-Small; as :func:`mobilenet`, with C = 16, 72, 96, 288, 576 for alpha 1.

    Source: Howard et al., arXiv 1905.02244.
    """
    return _encode("MobileNetV3Small", x, alpha, name)


def mobilenet_v3_large(x: keras.KerasTensor, *, alpha: float = 1.0, name: str = "encoder") -> list[keras.KerasTensor]:
    """Features of MobileNetV3-Large; as :func:`mobilenet`, with C = 64, 72, 240, 672, 960 for alpha 1.

    Source: Howard et al., arXiv 1905.02244.
    """
    return _encode("MobileNetV3Large", x, alpha, name)


def application(kind: str, alpha: float, *, channels: int = 3, classes: int | None = None) -> keras.Model:
    """The network itself from ``keras.applications`` with random weights; ``classes`` gives it its own head too.

    Raises:
        ModelError: Keras does not build it with this ``alpha``.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 10:
        raise ModelError(f"encoder alpha must be a positive number, not {alpha!r}", remedy="1.0 is the full width")
    arguments: dict[str, Any] = {"alpha": alpha, "weights": None, "include_top": classes is not None}
    if classes is not None:
        arguments["classes"] = classes
    if kind.startswith("MobileNetV3"):
        arguments["include_preprocessing"] = False
    size = None if classes is None else 224  # with its head Keras wants one, that no weight depends on
    try:
        return getattr(keras.applications, kind)(input_shape=_shape(size, channels), **arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{kind}: alpha {alpha}: {' '.join(str(error).split())}", remedy="use a larger alpha"
        ) from error


def _shape(size: int | None, channels: int) -> tuple[int | None, ...]:
    first = keras.config.image_data_format() == "channels_first"
    return (channels, size, size) if first else (size, size, channels)


def _encode(kind: str, x: keras.KerasTensor, alpha: float, name: str) -> list[keras.KerasTensor]:
    """Build the network's layers again on ``x``; a feature is what goes into the layer that halves."""
    x = preprocessing_layer("signed", x.shape[-1], f"{name}_preprocessing")(x)
    saved = application(kind, alpha, channels=x.shape[-1]).get_config()
    first, *entries = saved["layers"]
    parts, words, outputs = {first["name"]: 0}, {first["name"]: ""}, {first["name"]: x}
    features: list[keras.KerasTensor] = []
    padded: dict[str, str] = {}
    for entry in entries:
        (node,) = entry["inbound_nodes"]
        before = _sources(node)[0]
        old = entry["name"]
        word = _word(entry, words[before])
        part = _part(kind, old)
        parts[old], words[old] = parts[before] if part is None else part, word
        if entry["class_name"] == "ZeroPadding2D":
            padded[old] = before
        if tuple(entry["config"].get("strides", (1, 1))) == (2, 2) and before != first["name"]:
            features.append(outputs[padded.get(before, before)])
        place = f"stage{parts[old]}" if parts[old] else "stem"
        layer = _again(entry, f"{name}_{place}_{word}")
        outputs[old] = layer(*_tensors(node["args"], outputs), **_tensors(node["kwargs"], outputs))
    return [*features, outputs[saved["output_layers"][0]]]


def _word(entry: Mapping[str, Any], before: str) -> str:
    """Keras's name of a layer; for one that Keras numbered by itself, which depends on the process, one made up."""
    bare = re.sub(r"_\d+$", "", entry["name"]).replace("_", "")
    automatic = bare == entry["class_name"].lower()
    return f"{before}_{bare}" if automatic else str(entry["name"])


def _part(kind: str, old: str) -> int | None:
    """The stage, 0 for the stem, of a layer whose name tells its block; None for others, which follow their input."""
    found = _NUMBERED.match(old)
    if found is None and not old.startswith("expanded_conv_"):
        return None
    block = int(found[1]) if found else 0
    return sum(block >= start for start in _STAGES[kind])


def _again(entry: Mapping[str, Any], name: str) -> Any:
    """The layer again, under another name, channels last whatever Keras is set to."""
    config = {**entry["config"], "name": name}
    if "data_format" in config:
        config["data_format"] = "channels_last"
    if entry["class_name"] == "BatchNormalization":
        config["axis"] = -1
        config["momentum"] = _MOMENTUM
    kept = {key: entry[key] for key in ("module", "class_name", "registered_name")}
    return keras.saving.deserialize_keras_object({**kept, "config": config})


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__"


def _sources(value: Any) -> list[str]:
    """Names of the layers whose outputs a saved call takes, in order."""
    if _is_tensor(value):
        return [value["config"]["keras_history"][0]]
    if isinstance(value, Mapping):
        return [name for inner in value.values() for name in _sources(inner)]
    if isinstance(value, list | tuple):
        return [name for inner in value for name in _sources(inner)]
    return []


def _tensors(value: Any, outputs: Mapping[str, keras.KerasTensor]) -> Any:
    """A saved call's arguments with the tensors they stand for."""
    if _is_tensor(value):
        return outputs[value["config"]["keras_history"][0]]
    if isinstance(value, Mapping):
        return {key: _tensors(inner, outputs) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_tensors(inner, outputs) for inner in value]
    return value
