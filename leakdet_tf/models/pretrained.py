"""Published weights in an encoder: a file is checked whole, then taken.

What a file needs of the encoder, its scale of pixels and where it strides, is checked along with names and shapes: with
the wrong ones its weights would fit and mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.models.residual import preprocessing_layer
from leakdet_tf.models.weight_files import WeightFile, read_keras, read_torch

_TORCH = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
_TORCH["moving_variance"] = "running_var"


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder's weights come from. ``dropped`` names the file's arrays that were not taken: its own head.

    ``folded`` says that the file's batch norms were folded into the convolutions: their statistics are placeholders,
    and before the encoder learns :func:`~leakdet_tf.models.norms.reestimate_batch_norm` must put true ones there.
    """

    encoder: str
    source: str
    sha256: str
    loaded: int
    total: int
    dropped: tuple[str, ...]
    folded: bool

    def lines(self) -> list[str]:
        """What to tell the user."""
        text = [f"encoder: {self.loaded} of {self.total} weights taken from {self.source} (SHA-256 {self.sha256[:12]})"]
        if self.dropped:
            text.append(f"  not taken, its own head: {', '.join(self.dropped)}")
        if self.folded:
            text.append("  its batch norms are folded: re-estimate their statistics before the encoder learns")
        return text


def encoder_source(model: keras.Model) -> EncoderSource | None:
    """What :func:`load_encoder` put into this model; None for one with drawn weights, or read from a file."""
    return getattr(model, "encoder_source", None)


def load_encoder(model: keras.Model, file: WeightFile, options: Mapping[str, Any]) -> EncoderSource:
    """Put a file's weights into the encoder of ``model``, whose layers' names begin with ``<name>_``; all, or none.

    Args:
        model: any model built with the encoder that ``file`` is for; other layers stay as they are.
        file: from :func:`find_weights`.
        options: the options that the encoder was built with (``name``, ``alpha``).

    Raises:
        ModelError: the file is damaged or of another network, or the encoder scales pixels or strides otherwise than
            the file wants. The model is unchanged then.
        MissingExtraError: it is a ``.safetensors`` file and the package that reads them is not installed.
    """
    prefix = options.get("name", "encoder")
    _check_meaning(model, file, prefix)
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise ModelError(f"{file.source}: cannot be read ({error.strerror})", remedy="check encoder_weights") from error
    if file.torch:
        arrays, head = read_torch(file, content)
    else:
        arrays, head = read_keras(file, options)

    faults, pairs = [], []
    targets = _targets(model, file, prefix)
    for key, variable in targets.items():
        array = arrays.pop(key, None)
        if array is None:
            faults.append(f"{key} is not there")
        elif array.shape != tuple(variable.shape):
            faults.append(f"{key} is {array.shape}, not {tuple(variable.shape)}")
        elif not np.isfinite(array).all():
            faults.append(f"{key} holds NaN or infinity")
        else:
            pairs.append((variable, array))
    dropped = sorted(key for key in arrays if key in head)  # safetensors keeps no order
    faults += [f"{key} has no place" for key in sorted(arrays) if key not in head]
    if faults or not targets:
        raise ModelError(
            f"{file.source}: {len(faults)} of its and the encoder's {len(targets)} weights do not fit "
            f"({'; '.join(faults[:2])}{' …' if len(faults) > 2 else ''})",
            remedy=f"is it a file of '{file.encoder}' with these encoder_options?",
        )
    for variable, array in pairs:
        variable.assign(array.astype(np.float32))
    norms = [layer for layer in _layers(model, prefix) if isinstance(layer, keras.layers.BatchNormalization)]
    found = EncoderSource(
        file.encoder,
        file.source,
        sha256_bytes(content),
        len(pairs),
        len(targets),
        tuple(dropped),
        all(map(_is_folded, norms)),
    )
    model.encoder_source = found
    return found


def _is_folded(norm: Any) -> bool:
    mean, variance = (keras.ops.convert_to_numpy(value) for value in (norm.moving_mean, norm.moving_variance))
    return bool((mean == 0.0).all() and (variance == 1.0).all())


def _layers(model: keras.Model, prefix: str) -> list[Any]:
    return [layer for layer in model.layers if layer.name.startswith(f"{prefix}_")]


def _targets(model: keras.Model, file: WeightFile, prefix: str) -> dict[str, Any]:
    """The encoder's variables under the names that the file has for them."""
    found = {}
    for layer in _layers(model, prefix):
        own = layer.name.removeprefix(f"{prefix}_")
        for variable in layer.weights:
            if file.torch:
                found[f"{_torch_name(own)}.{_TORCH[variable.name]}"] = variable
            else:
                found[f"{_keras_name(own, file.encoder)}/{variable.name}"] = variable
    return found


def _torch_name(own: str) -> str:
    """``stage1_unit2_conv1`` → ``layer1.1.conv1``; ``conv0`` → ``conv1``."""
    parts = re.fullmatch(r"stage(\d)_unit(\d+)_(conv|bn)(\d|_shortcut)", own)
    if parts is None:
        return f"{own.removesuffix('0')}1"
    stage, unit, kind, label = parts.groups()
    if label == "_shortcut":
        kind, label = "downsample.", "0" if kind == "conv" else "1"
    return f"layer{stage}.{int(unit) - 1}.{kind}{label}"


def _keras_name(own: str, encoder: str) -> str:
    """``stage1_unit2_conv1`` → ``conv2_block2_1_conv``, ``conv0`` → ``conv1_conv``; MobileNets kept Keras's names."""
    if not encoder.startswith("resnet"):
        return re.sub(r"^(stem|stage\d)_", "", own)
    parts = re.fullmatch(r"stage(\d)_unit(\d+)_(conv|bn)(\d|_shortcut)", own)
    if parts is None:
        return f"conv1_{own.removesuffix('0')}"
    stage, unit, kind, label = parts.groups()
    return f"conv{int(stage) + 1}_block{unit}_{0 if label == '_shortcut' else label}_{kind}"


def _check_meaning(model: keras.Model, file: WeightFile, prefix: str) -> None:
    """The encoder's scale of pixels, and where its bottlenecks stride, against what the file was trained with."""
    names = {layer.name: layer for layer in model.layers}
    wanted = file.preprocessing or "signed"
    layer = names.get(f"{prefix}_preprocessing")
    if layer is None:
        raise ModelError(
            f"model '{model.name}' has no layer '{prefix}_preprocessing'",
            remedy=f"build it with encoder '{file.encoder}'",
        )
    expected = preprocessing_layer(wanted, 3, layer.name)
    if type(layer) is not type(expected) or layer.get_config() != expected.get_config():
        raise ModelError(
            f"{file.source}: its weights want pixels scaled as preprocessing '{wanted}'",
            remedy=f"build the encoder with the option preprocessing = '{wanted}'",
        )
    first = names.get(f"{prefix}_stage2_unit1_conv1")
    stride_in = file.stride_in
    if stride_in and first is not None and (first.strides == (1, 1)) != (stride_in == "3x3"):
        raise ModelError(
            f"{file.source}: its network strides in the {stride_in} convolutions",
            remedy=f"set encoder_options = {{stride_in = '{stride_in}'}}",
        )
