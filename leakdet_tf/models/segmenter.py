"""U-Net: an encoder's features, joined again step by step on the way back to full size (arXiv 1505.04597)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError, did_you_mean
from leakdet_tf.core.registry import REGISTRY, resolve
from leakdet_tf.models.initialize import draw_weights

STRIDES = (2, 4, 8, 16, 32)
# Factor that puts a raw input on the scale 0..255, by the dtype it is declared with.
SCALES = {"uint8": 1.0, "uint16": 1.0 / 257.0, "float32": 1.0}
# Fewest classes with which an activation means something.
_ACTIVATIONS = {"softmax": 2, "sigmoid": 1, "linear": 1}


def unet(
    input_shape: Sequence[int | None] = (256, 256, 3),
    classes: int = 3,
    encoder: str | Callable[..., Any] = "resnet18",
    activation: str = "softmax",
    *,
    head: str | Callable[..., Any] = "conv",
    encoder_options: dict[str, Any] | None = None,
    decoder_filters: Sequence[int] = (256, 128, 64, 32, 16),
    input_dtype: str = "uint8",
    input_name: str = "image",
    seed: int | None = None,
    name: str = "unet",
) -> keras.Model:
    """Model from raw pixels ``input_dtype`` (B, H, W, C) to float32 (B, H, W, classes) per-pixel class scores.

    The same network, weight by weight in the same order, as ``Unet(...)`` of the package segmentation-models; in plain
    Keras layers and channels-last, so it runs on every Keras backend. Photometry is part of the model: an input of
    uint8 or float32 is taken as 0..255, one of uint16 is divided by 257 to the same scale. The layer ``"logits"`` holds
    the raw outputs in float32 (training computes its loss from it), the layer ``"probabilities"`` the model's output.
    Both stay float32 under a mixed-precision policy.

    Sources: Ronneberger et al., arXiv 1505.04597; on ResNets, He et al., arXiv 1603.05027 and 1512.03385.

    Args:
        input_shape: (H, W, C). H and W are divisible by 32, or None for any such size; C is any number of channels.
        classes: channels of the output.
        encoder: a registered name, a ``"package.module:function"`` path, or a callable ``encoder(x, **options)`` that
            returns five feature tensors at strides 2, 4, 8, 16, 32 in that order.
        activation: ``"softmax"`` (one class a pixel), ``"sigmoid"`` (each class by itself), or ``"linear"``: raw
            outputs, unbounded, of which the largest decides; our losses read them as probabilities, clipped.
        head: a registered name, a path or a callable ``head(x, classes)`` → (B, H, W, classes) before the activation.
        encoder_options: keyword arguments for the encoder, such as ``{"width": 32}``.
        decoder_filters: filters of the five decoder stages, from the coarsest to full size.
        input_dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``.
        input_name: name of the input, as exported files and contracts call it.
        seed: draws the initial weights with :func:`~leakdet_tf.models.draw_weights`, the same on every
            backend. An encoder that is not registered keeps the weights that it came with, pretrained ones for
            example. With None, all draws are Keras's.
        name: name of the model.

    Returns:
        A ``keras.Model`` of one input and one output.

    Raises:
        ModelError: an argument is out of range, or the encoder or head does not return what it should.
    """
    height, width, _ = shape = _checked_shape(input_shape)
    if input_dtype not in SCALES:
        raise ModelError(f"unet: input_dtype '{input_dtype}' is unknown", remedy=did_you_mean(input_dtype, SCALES))
    _check_outputs(classes, activation)
    if len(decoder_filters) != len(STRIDES) or not all(_positive(filters) for filters in decoder_filters):
        raise ModelError(
            f"unet: decoder_filters must be {len(STRIDES)} positive whole numbers, not {decoder_filters!r}",
            remedy="give one for each decoder stage, for example (256, 128, 64, 32, 16)",
        )

    image, features = encoded(shape, input_dtype, input_name, encoder, encoder_options or {})
    *skips, x = features
    for stage, filters in enumerate(decoder_filters):
        skip = skips.pop() if skips else None
        x = _decoder_stage(x, skip, filters, f"decoder_stage{stage}")
    x = _apply_head(x, head, classes, (height, width))
    return finished(image, features, x, encoder, activation, seed=seed, name=name)


def _decoder_stage(x: keras.KerasTensor, skip: keras.KerasTensor | None, filters: int, name: str) -> keras.KerasTensor:
    """Double the size (nearest), join the encoder's features of that size, two 3x3 convolutions."""
    x = keras.layers.UpSampling2D(2, data_format="channels_last", name=f"{name}_upsampling")(x)
    if skip is not None:
        x = keras.layers.Concatenate(axis=-1, name=f"{name}_concat")([x, skip])
    for part in "ab":
        x = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_uniform",
            data_format="channels_last",
            name=f"{name}{part}_conv",
        )(x)
        x = keras.layers.BatchNormalization(axis=-1, momentum=0.99, epsilon=1e-3, name=f"{name}{part}_bn")(x)
        x = keras.layers.Activation("relu", name=f"{name}{part}_relu")(x)
    return x


def encoded(
    shape: tuple[int | None, int | None, int],
    input_dtype: str,
    input_name: str,
    encoder: str | Callable[..., Any],
    options: dict[str, Any],
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """An input of shape (H, W, C), and its five feature maps, finest first.

    What the encoder returns is checked against the contract; ModelError where it is anything else.
    """
    image = keras.Input(shape, dtype=input_dtype, name=input_name)
    # float32 under every policy: 65535 is beyond float16. The encoder's layers cast to what they compute in.
    x = keras.layers.Rescaling(SCALES[input_dtype], dtype="float32", name="photometry")(image)
    label = _label("encoder", encoder)
    function = resolve("encoder", encoder)
    _check_options(label, function, x, options)
    features = function(x, **options)
    remedy = "an encoder returns a list of five (B, H, W, C) tensors at strides 2, 4, 8, 16, 32, in that order"
    if not isinstance(features, (list, tuple)):
        raise ModelError(f"{label}: expected a list of 5 tensors, got {type(features).__name__}", remedy=remedy)
    if len(features) != len(STRIDES):
        raise ModelError(f"{label}: expected 5 tensors, got {len(features)}", remedy=remedy)
    for place, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
        expected = (shape[0] and shape[0] // stride, shape[1] and shape[1] // stride, None)
        _check_map(f"{label}: tensor {place} (stride {stride})", feature, expected, remedy)
    return image, list(features)


def finished(
    image: keras.KerasTensor,
    features: list[keras.KerasTensor],
    outputs: keras.KerasTensor,
    encoder: str | Callable[..., Any],
    activation: str,
    *,
    seed: int | None,
    name: str,
) -> keras.Model:
    """The model that ends in ``outputs``, its weights drawn; those of an encoder that is not registered are kept."""
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(outputs)
    x = keras.layers.Activation(activation, dtype="float32", name="probabilities")(x)
    model = keras.Model(image, x, name=name)
    if seed is not None:
        foreign = callable(encoder) or encoder not in REGISTRY["encoder"]
        draw_weights(model, seed, keep=keras.Model(image, features).layers if foreign else ())
    return model


def _apply_head(
    x: keras.KerasTensor, head: str | Callable[..., Any], classes: int, size: tuple[int | None, int | None]
) -> keras.KerasTensor:
    outputs = resolve("head", head)(x, classes)
    remedy = "head(x, classes) returns one (B, H, W, classes) tensor of the size of its input, before any activation"
    _check_map(_label("head", head), outputs, (*size, classes), remedy)
    return outputs


def _check_map(label: str, tensor: Any, expected: tuple[int | None, int | None, int | None], remedy: str) -> None:
    """A (B, H, W, C) tensor of the expected size, as far as sizes are known, and with a known number of channels."""
    if not isinstance(tensor, keras.KerasTensor):
        raise ModelError(f"{label}: expected a Keras tensor, got {type(tensor).__name__}", remedy=remedy)
    actual = tuple(tensor.shape[1:])
    agrees = len(actual) == 3 and actual[-1] is not None
    if not agrees or any(
        want is not None and have is not None and want != have for want, have in zip(expected, actual, strict=True)
    ):
        wanted, found = (f"({', '.join('?' if n is None else str(n) for n in s)})" for s in (expected, actual))
        raise ModelError(f"{label}: expected (H, W, C) = {wanted}, got {found}", remedy=remedy)


def _check_options(label: str, function: Callable[..., Any], x: Any, options: dict[str, Any]) -> None:
    """Compare the options with the encoder's signature, so that a slip is told in the words of the experiment file."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # callables of compiled code have none to read
        return
    try:
        signature.bind(x, **options)
    except TypeError as error:
        known = [
            parameter.name
            for parameter in list(signature.parameters.values())[1:]
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        unknown = [option for option in options if option not in known]
        remedy = did_you_mean(unknown[0], known) if unknown else f"its options are: {', '.join(known) or 'none'}"
        raise ModelError(f"{label}: encoder_options: {error}", remedy=remedy) from error


def _check_outputs(classes: int, activation: str) -> None:
    if activation not in _ACTIVATIONS:
        raise ModelError(f"unet: activation '{activation}' is unknown", remedy=did_you_mean(activation, _ACTIVATIONS))
    fewest = _ACTIVATIONS[activation]
    if not (_positive(classes) and classes >= fewest):
        remedy = "for one foreground class use activation='sigmoid', or count the background as a class"
        raise ModelError(
            f"unet: with activation '{activation}' classes must be a whole number from {fewest} up, not {classes!r}",
            remedy=remedy if fewest > 1 else "give the number of output channels",
        )


def _checked_shape(input_shape: Sequence[int | None]) -> tuple[int | None, int | None, int]:
    if len(input_shape) != 3:
        raise ModelError(
            f"unet: input_shape must be (H, W, C), not {tuple(input_shape)!r}",
            remedy="the batch is not part of it, the channels are: (256, 256, 3)",
        )
    height, width, channels = input_shape
    coarsest = STRIDES[-1]
    for axis, size in (("height", height), ("width", width)):
        if size is None or (_positive(size) and size % coarsest == 0):
            continue
        remedy = f"use a multiple of {coarsest}"
        if _positive(size):
            below, above = size // coarsest * coarsest, -(-size // coarsest) * coarsest
            remedy += f", {below} or {above}" if below else f", {above}"
        raise ModelError(
            f"unet: the {axis} of input_shape must be divisible by {coarsest}, not {size!r}",
            remedy=f"{remedy}, or None for any such size",
        )
    if channels is None or not _positive(channels):
        raise ModelError(
            f"unet: the channels of input_shape must be a positive whole number, not {channels!r}",
            remedy="3 for colour, 1 for thermal",
        )
    return height, width, channels


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _label(kind: str, named: str | Callable[..., Any]) -> str:
    return f"{kind} '{named if isinstance(named, str) else getattr(named, '__qualname__', type(named).__name__)}'"
