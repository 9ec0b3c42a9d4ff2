"""The one file that knows the package segmentation-models: its networks as plain Keras layers of our names.

What comes out needs that package no longer: it is saved, loaded and exported like any other model. Importing it loads
TensorFlow and prints a line, so it is imported when a model is built, quietly.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError, did_you_mean
from leakdet_tf.models.initialize import draw_weights
from leakdet_tf.models.segmenter import SCALES

ARCHITECTURES = {"unet": "Unet", "fpn": "FPN", "linknet": "Linknet", "pspnet": "PSPNet"}
"""Our names of the package's functions (arXiv 1505.04597, 1612.03144, 1707.03718, 1612.01105)."""
_OURS = ("backbone_name", "input_shape", "classes", "activation", "weights", "encoder_weights", "encoder_freeze")
_DECODER = re.compile(r"(center_block|fpn_|segm_|upsampling_|aggregation|pyramid_|final_|psp_|spatial_dropout)")
# ImageNet's mean and standard deviation on 0..1, as torchvision has them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TORCH = ([1 / (255 * s) for s in _STD], [-m / s for m, s in zip(_MEAN, _STD, strict=True)])
# Scale and offset that put pixels of 0..255 where an encoder's authors had them; others take them as they are.
_PHOTOMETRY = (
    (r"vgg", ([1.0] * 3, [-123.68, -116.779, -103.939])),
    (r"mobilenet|inception", ([1 / 127.5] * 3, [-1.0] * 3)),
    (r"efficientnet", _TORCH),
)


def segmentation_models(
    input_shape: Sequence[int] = (256, 256, 3),
    classes: int = 3,
    architecture: str = "fpn",
    encoder: str = "resnet18",
    activation: str = "softmax",
    *,
    options: dict[str, Any] | None = None,
    input_dtype: str = "uint8",
    input_name: str = "image",
    seed: int | None = None,
    name: str = "segmentation_models",
) -> keras.Model:
    """Model from raw pixels ``input_dtype`` (B, H, W, C) to float32 (B, H, W, classes) per-pixel class scores.

    Photometry is part of the model, as its encoder's authors had it: an input of uint8 or float32 is taken as 0..255,
    one of uint16 is divided by 257 to the same scale. Weights are drawn, never fetched. Layers are named ``encoder_…``,
    ``decoder_…`` and ``head_…``; ``"logits"`` holds the raw outputs in float32, ``"probabilities"`` the answer.

    Sources: arXiv 1505.04597 (U-Net), 1612.03144 (FPN), 1707.03718 (LinkNet), 1612.01105 (PSPNet).

    Args:
        input_shape: (H, W, C). H and W are divisible by 32; PSPNet wants 48 (6 times ``downsample_factor``).
        classes: channels of the output.
        architecture: ``"unet"``, ``"fpn"``, ``"linknet"`` or ``"pspnet"``.
        encoder: the package's name of one, such as ``"resnet34"``, ``"vgg16"``, ``"mobilenetv2"``. Those with Lambda
            layers (ResNeXt, SE-Nets, Inception-ResNet) are refused, for a file of them cannot be loaded safely; Keras 3
            itself refuses the names in DenseNet.
        activation: ``"softmax"``, ``"sigmoid"`` or ``"linear"``.
        options: other arguments of the package's function, such as ``{"pyramid_block_filters": 128}``.
        input_dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``.
        input_name: name of the input, as exported files and contracts call it.
        seed: draws the initial weights with :func:`~leakdet_tf.models.draw_weights`.
        name: name of the model.

    Returns:
        A ``keras.Model`` of one input and one output.

    Raises:
        ModelError: the package is not installed or refuses, an argument is out of range, or Keras runs on another
            backend than TensorFlow.
    """
    for word, value, known in (
        ("architecture", architecture, ARCHITECTURES),
        ("input_dtype", input_dtype, SCALES),
        ("activation", activation, ("softmax", "sigmoid", "linear")),
    ):
        if value not in known:
            raise ModelError(f"{name}: {word} '{value}' is unknown", remedy=did_you_mean(str(value), known))
    shape, side = tuple(input_shape), 1 if architecture == "pspnet" else 32  # PSPNet's depends, and it says so itself
    if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape) or shape[0] % side or shape[1] % side:
        raise ModelError(
            f"{name}: input_shape must be (H, W, C) with H and W divisible by {side}, not {shape!r}",
            remedy="set size in [data.inputs] to such",
        )
    package = _package(name)
    if encoder not in (known := package.get_available_backbone_names()):
        raise ModelError(f"{name}: encoder '{encoder}' is unknown", remedy=did_you_mean(encoder, known))
    function = getattr(package, ARCHITECTURES[architecture])
    given = options or {}
    own = [key for key in inspect.signature(function).parameters if key not in (*_OURS, "kwargs")]
    for key in given:
        if key not in own:
            raise ModelError(f"{name}: options: '{architecture}' has no '{key}'", remedy=did_you_mean(key, own))
    try:
        with _quiet():
            theirs = function(
                encoder, input_shape=shape, classes=classes, activation="linear", encoder_weights=None, **given
            )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name}: {architecture} on {encoder}: {reason}", remedy="choose another encoder or size"
        ) from error

    image = keras.Input(shape, dtype=input_dtype, name=input_name)
    scaled = _photometry(image, encoder, SCALES[input_dtype])
    x = _copied(theirs, image, scaled, f"{name}: encoder '{encoder}'")
    x = keras.layers.Activation(activation, dtype="float32", name="probabilities")(x)
    model = keras.Model(image, x, name=name)
    if seed is not None:
        draw_weights(model, seed)
    return model


def _package(name: str) -> Any:
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"{name}: segmentation-models builds its networks with TensorFlow alone, Keras runs on "
            f"{keras.backend.backend()}",
            remedy='set KERAS_BACKEND=tensorflow, or take model.factory = "unet"',
        )
    before = os.environ.get("SM_FRAMEWORK")
    os.environ["SM_FRAMEWORK"] = "tf.keras"  # read once, while the package is imported; else it wants a Keras of 2019
    try:
        with _quiet():
            return importlib.import_module("segmentation_models")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{name}: needs the package '{error.name}'",
            remedy="pip install 'leakdet_tf[sm]', or take model.factory = \"unet\"",
        ) from error
    finally:
        if before is None:
            del os.environ["SM_FRAMEWORK"]
        else:
            os.environ["SM_FRAMEWORK"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # It prints which framework it uses, and its dependencies warn of one another.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _photometry(image: keras.KerasTensor, encoder: str, factor: float) -> keras.KerasTensor:
    # float32 under every policy: 65535 is beyond float16. Of other than three channels the scale is the middle one's.
    scale, offset = next((how for part, how in _PHOTOMETRY if re.match(part, encoder)), ([1.0] * 3, [0.0] * 3))
    if image.shape[-1] != 3:
        scale, offset = [scale[1]] * image.shape[-1], [offset[1]] * image.shape[-1]
    scaled = keras.layers.Rescaling([factor * s for s in scale], offset, dtype="float32", name="photometry")
    return scaled(image)


def _copied(model: Any, image: keras.KerasTensor, scaled: keras.KerasTensor, where: str) -> keras.KerasTensor:
    """The model's output, its layers built again under our names; what took its input takes ``scaled``."""

    head = [layer for layer in model.layers if layer.weights][-1]
    counts: Counter[str] = Counter()

    def copied(layer: Any) -> Any:
        named = "head_conv" if layer is head else _name(layer, counts)
        if layer is model.layers[-1]:
            return keras.layers.Activation("linear", dtype="float32", name="logits")
        if type(layer).__name__ == "FixedDropout":  # the package's own, of Keras's features
            return keras.layers.Dropout(layer.rate, noise_shape=layer.noise_shape, name=named)
        if isinstance(layer, keras.layers.Activation):
            return keras.layers.Activation(layer.activation.__name__, name=named)  # swish is a closure
        if isinstance(layer, keras.layers.Lambda) or not type(layer).__module__.startswith("keras."):
            raise ModelError(
                f"{where} has a layer '{layer.name}' ({type(layer).__name__}) that runs code of the file that holds it",
                remedy="choose one that is made of Keras layers alone, such as resnet34",
            )
        return type(layer).from_config({**layer.get_config(), "name": named})

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        return layer(*(scaled if one is image else one for one in inputs), **options)

    given = [image] if isinstance(model.input, list) else image
    (logits,) = keras.models.clone_model(model, input_tensors=given, clone_function=copied, call_function=call).outputs
    return logits


def _name(layer: Any, counts: Counter[str]) -> str:
    theirs = str(layer.name)
    kind = re.sub(r"_\d+$", "", theirs)
    if kind.replace("_", "") == type(layer).__name__.lower():  # numbered by Keras over the whole process
        theirs = f"{kind}_{counts[kind]}"
        counts[kind] += 1
    if theirs.startswith("decoder_"):
        return theirs
    return f"decoder_{theirs}" if _DECODER.match(theirs) else f"encoder_{theirs}"
