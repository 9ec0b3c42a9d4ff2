"""Classifiers of whole pictures: an encoder, its last features averaged over the picture, one dense layer.

Any encoder of the U-Net serves here, and the other way round. Layers of the encoder are named ``encoder_…``, those of
the head ``head_…``, so that training can freeze them as groups.

Source: Lin et al., Network in Network, arXiv 1312.4400 (global average pooling before the classes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError, did_you_mean
from leakdet_tf.models.pretrained import load_encoder
from leakdet_tf.models.segmenter import SCALES, encoded, finished
from leakdet_tf.models.weight_files import find_weights

_ACTIVATIONS = {"softmax": 2, "sigmoid": 1}
"""The fewest classes with which an activation means something."""


def resnet_classifier(
    input_shape: Sequence[int | None] = (224, 224, 3),
    classes: int = 2,
    encoder: str | Callable[..., Any] = "resnet50_v1",
    activation: str = "softmax",
    *,
    encoder_weights: str | None = None,
    dropout: float = 0.0,
    encoder_options: Mapping[str, Any] | None = None,
    input_dtype: str = "uint8",
    input_name: str = "image",
    seed: int | None = None,
    name: str = "resnet_classifier",
) -> keras.Model:
    """Model from raw pixels ``input_dtype`` (B, H, W, C) to float32 (B, classes) scores of the picture.

    Photometry is part of the model: an input of uint8 or float32 is taken as 0..255, one of uint16 is divided by 257
    to the same scale. What the weights expect of the pixels beyond that is the encoder's first layer. The layer
    ``"logits"`` holds the raw outputs, the layer ``"probabilities"`` the model's output, both in float32 under every
    policy.

    Sources: He et al., arXiv 1512.03385; Lin et al., arXiv 1312.4400 (the average before the classes).

    Args:
        input_shape: (H, W, C). H and W are divisible by 32, or None for any such size; C is any number of channels.
        classes: length of the output.
        encoder: a registered name, a ``"package.module:function"`` path, or a callable, as for
            :func:`~leakdet_tf.models.unet`. Published weights are for ``resnet18_v1``, ``resnet34_v1``,
            ``resnet50_v1`` and the MobileNets.
        activation: ``"softmax"`` (one class a picture) or ``"sigmoid"`` (each class by itself: several or none).
        encoder_weights: None (all weights are drawn), ``"imagenet"`` (downloaded), or the path of a file; see
            :mod:`~leakdet_tf.models.weight_files`. The encoder's options ``preprocessing`` and ``stride_in`` follow
            from it, and other values of them are refused. An experiment file has no None: there it is left out, or
            written ``""`` or ``"none"``.
        dropout: share of the averaged features that is dropped while training, from 0 to below 1.
        encoder_options: keyword arguments for the encoder, such as ``{"width": 32}``.
        input_dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``.
        input_name: name of the input, as exported files and contracts call it.
        seed: draws the initial weights, before published ones are put in; as for
            :func:`~leakdet_tf.models.unet`.
        name: name of the model.

    Returns:
        A ``keras.Model`` of one input and one output.

    Raises:
        ModelError: an argument is out of range, the encoder does not return what it should, or the weights do not fit.
    """
    shape = _checked_shape(name, input_shape)
    _check(name, classes, activation, input_dtype, dropout)
    options, file = dict(encoder_options or {}), None
    if encoder_weights and encoder_weights != "none":
        if shape[2] != 3:
            raise ModelError(
                f"{name}: encoder_weights are for red, green and blue, the input has {shape[2]} channels",
                remedy="leave encoder_weights out, or give a colour input",
            )
        file = find_weights(encoder, encoder_weights, options)
        options = file.options | options

    picture, features = encoded(shape, input_dtype, input_name, encoder, options)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="head_pool")(features[-1])
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="head_dropout")(x)
    x = keras.layers.Dense(classes, name="head_dense")(x)
    model = finished(picture, features, x, encoder, activation, seed=seed, name=name)
    if file is not None:
        load_encoder(model, file, options)
    return model


def mobilenet_classifier(
    input_shape: Sequence[int | None] = (224, 224, 3),
    classes: int = 2,
    encoder: str | Callable[..., Any] = "mobilenet_v2",
    activation: str = "softmax",
    *,
    alpha: float = 1.0,
    encoder_weights: str | None = None,
    dropout: float = 0.0,
    encoder_options: Mapping[str, Any] | None = None,
    input_dtype: str = "uint8",
    input_name: str = "image",
    seed: int | None = None,
    name: str = "mobilenet_classifier",
) -> keras.Model:
    """As :func:`resnet_classifier`, for ``mobilenet``, ``mobilenet_v2``, ``mobilenet_v3_small`` and ``_large``.

    Sources: Howard et al., arXiv 1704.04861; Sandler et al., arXiv 1801.04381; Howard et al., arXiv 1905.02244.

    Args:
        input_shape: (H, W, C), as there; so are all that are not named here.
        encoder: a registered name, of a MobileNet or of any other, a path or a callable.
        alpha: factor on the encoder's filters, the same as its option of that name.

    Returns:
        A ``keras.Model`` of one input, (B, H, W, C) raw pixels, and one output, float32 (B, classes).

    Raises:
        ModelError: as there, or ``alpha`` and ``encoder_options`` differ.
    """
    options = dict(encoder_options or {})
    if alpha != 1.0 and options.setdefault("alpha", alpha) != alpha:
        raise ModelError(
            f"{name}: alpha is {alpha!r}, and {options['alpha']!r} in encoder_options", remedy="give it once"
        )
    return resnet_classifier(
        input_shape,
        classes,
        encoder,
        activation,
        encoder_weights=encoder_weights,
        dropout=dropout,
        encoder_options=options,
        input_dtype=input_dtype,
        input_name=input_name,
        seed=seed,
        name=name,
    )


def _check(name: str, classes: int, activation: str, input_dtype: str, dropout: float) -> None:
    if input_dtype not in SCALES:
        raise ModelError(f"{name}: input_dtype '{input_dtype}' is unknown", remedy=did_you_mean(input_dtype, SCALES))
    if activation not in _ACTIVATIONS:
        raise ModelError(f"{name}: activation '{activation}' is unknown", remedy=did_you_mean(activation, _ACTIVATIONS))
    fewest = _ACTIVATIONS[activation]
    if type(classes) is not int or classes < fewest:
        raise ModelError(
            f"{name}: with activation '{activation}' classes must be a whole number from {fewest} up, not {classes!r}",
            remedy="for one class that is there or not use activation = 'sigmoid'",
        )
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ModelError(f"{name}: dropout must be from 0 to below 1, not {dropout!r}", remedy="0.2 is a usual one")


def _checked_shape(name: str, shape: Sequence[int | None]) -> tuple[int | None, int | None, int]:
    channels = shape[2] if len(shape) == 3 else None
    if type(channels) is not int or channels < 1:
        raise ModelError(
            f"{name}: input_shape must be (H, W, C) with C from 1 up, not {tuple(shape)!r}",
            remedy="the batch is not part of it: (224, 224, 3)",
        )
    height, width = shape[:2]
    for axis, size in (("height", height), ("width", width)):
        if size is not None and (type(size) is not int or size < 1 or size % 32):
            raise ModelError(
                f"{name}: the {axis} of input_shape must be divisible by 32, not {size!r}",
                remedy="use a multiple of 32 such as 224, or None for any such size",
            )
    return height, width, channels
