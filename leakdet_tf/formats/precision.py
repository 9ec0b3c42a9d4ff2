"""Mixed-precision models in float32, for converters that take no other floats."""

from __future__ import annotations

from typing import Any

import keras

_LOW = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def in_float32(model: Any) -> Any:
    """The model itself when it computes in float32; else the same layers and weights with every policy float32.

    Weights of mixed policies are float32 already, so nothing is lost; outputs differ from the given model's by what its
    low precision rounds.
    """
    if not any(_is_low(layer) for layer in _layers(model)):
        return model
    config = _raised(keras.saving.serialize_keras_object(model))
    rebuilt = keras.saving.deserialize_keras_object(config, safe_mode=True)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _layers(model: Any) -> list[Any]:
    inner = [deeper for layer in getattr(model, "layers", ()) for deeper in _layers(layer)]
    return [model, *inner]


def _is_low(layer: Any) -> bool:
    return layer.dtype_policy.name in _LOW


def _raised(config: Any) -> Any:
    """A serialized model's configuration with its low policies replaced, wherever they stand as a layer's ``dtype``."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in _LOW:
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: "float32" if key == "dtype" and value in _LOW else _raised(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_raised(value) for value in config)
    return config
