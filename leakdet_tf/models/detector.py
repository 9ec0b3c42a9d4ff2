"""YOLOv8: boxes from three grids of anchors, each with its classes and, for every edge, a distribution of distances.

A CSP encoder, features joined down and up again (Liu et al. 2018, arXiv 1803.01534), and a head for each grid whose
boxes and classes have branches of their own (Ge et al. 2021, arXiv 2107.08430); edges as in Li et al. 2020, arXiv
2006.04388. The network is KerasCV 0.9's, which differs from ultralytics' in one place: on the way up its blocks always
have two bottlenecks. Layers are named ``encoder_…``, ``decoder_…`` and ``head_…``, so that training can freeze groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError, did_you_mean
from leakdet_tf.core.tasks.detect import BINS, STRIDES, anchors_of
from leakdet_tf.models.initialize import draw_weights
from leakdet_tf.models.yolov8_kerascv import kerascv_logits

SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "n": ((32, 64, 128, 256), (1, 2, 2, 1)),
    "s": ((64, 128, 256, 512), (1, 2, 2, 1)),
    "m": ((96, 192, 384, 576), (2, 4, 4, 2)),
    "l": ((128, 256, 512, 512), (3, 6, 6, 3)),
    "x": ((160, 320, 640, 640), (3, 6, 6, 3)),
}
"""Channels and bottlenecks of the encoder's four stages, at strides 4, 8, 16 and 32."""
_SCALES = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1 / 255}
# Boxes of each class that are expected on a picture of this many pixels a side, before anything is learnt.
_EXPECTED, _SIDE = 5.0, 640.0


def yolov8(
    input_shape: Sequence[int] = (640, 640, 3),
    classes: int = 1,
    size: str = "n",
    *,
    implementation: str = "kerascv",
    channels: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    input_dtype: str = "uint8",
    input_name: str = "image",
    seed: int | None = None,
    name: str = "yolov8",
) -> keras.Model:
    """Model from raw pixels ``input_dtype`` (B, H, W, C) to float32 (B, A, 64 + classes) raw outputs.

    What they mean stands in :mod:`leakdet_tf.core.tasks.detect`, which also decodes them. Photometry is part of the
    model: an input of uint8 or float32 is taken as 0..255, one of uint16 as 0..65535. The layer ``"logits"``, followed
    by a linear activation, holds the outputs in float32 under every policy.

    Both implementations are the same network with the same names, order and initial values of its weights: one's
    ``.keras`` file is a start for the other. A saved model needs neither to be loaded.

    Sources: Liu et al., arXiv 1803.01534; Ge et al., arXiv 2107.08430; Li et al., arXiv 2006.04388; KerasCV 0.9.

    Args:
        input_shape: (H, W, C). H and W are divisible by 32; C is any number of channels.
        classes: how many there are, background not among them.
        size: ``"n"``, ``"s"``, ``"m"``, ``"l"`` or ``"x"``: a row of :data:`SIZES`.
        implementation: ``"kerascv"``: layers that KerasCV's YOLOV8Backbone and YOLOV8Detector build, on TensorFlow;
            ``"native"``: plain Keras layers, on every backend, without that package and with fewer of them.
        channels: four numbers in place of the size's, each even.
        depths: four numbers in place of the size's. The first is also the depth of the decoder's way down.
        input_dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``.
        input_name: name of the input, as exported files and contracts call it.
        seed: draws the initial weights with :func:`~leakdet_tf.models.draw_weights`, the same on every
            backend. With None, all draws are Keras's.
        name: name of the model.

    Returns:
        A ``keras.Model`` of one input and one output; A = H / 8 * W / 8 + H / 16 * W / 16 + H / 32 * W / 32 anchors.

    Raises:
        ModelError: an argument is out of range, or KerasCV is wanted and not installed, or not under TensorFlow.
    """
    _check(name, input_shape, classes, input_dtype)
    for word, value, known in (("size", size, SIZES), ("implementation", implementation, _IMPLEMENTATIONS)):
        if value not in known:
            raise ModelError(f"{name}: {word} '{value}' is unknown", remedy=did_you_mean(str(value), known))
    if implementation == "kerascv" and (backend := keras.config.backend()) != "tensorflow":
        raise ModelError(
            f"{name}: implementation 'kerascv' is for the backend tensorflow, Keras is at work under {backend}",
            remedy='set implementation = "native" in [model]: the same network',
        )
    widths = _four(name, "channels", SIZES[size][0] if channels is None else channels, even=True)
    stages = _four(name, "depths", SIZES[size][1] if depths is None else depths)

    image = keras.Input(tuple(input_shape), dtype=input_dtype, name=input_name)
    x = _IMPLEMENTATIONS[implementation](image, _SCALES[input_dtype], classes, widths, stages, stages[0])
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    x = keras.layers.Activation("linear", dtype="float32", name="outputs")(x)

    model = keras.Model(image, x, name=name)
    if seed is not None:
        draw_weights(model, seed)
    _expect(model, classes)
    return model


def native_logits(
    image: keras.KerasTensor, scale: float, classes: int, channels: Sequence[int], depths: Sequence[int], neck: int
) -> keras.KerasTensor:
    """Input (B, H, W, C) → raw outputs (B, A, 64 + classes), as KerasCV 0.9 computes them.

    Args:
        image: the input, of any dtype.
        scale: factor that puts it on 0..1.
        classes: how many there are.
        channels: of the encoder's stages.
        depths: bottlenecks of the encoder's stages.
        neck: bottlenecks of the decoder's blocks on the way down; on the way up they are always two.
    """
    # float32 under every policy: 65535 is beyond float16. The layers after it cast to what they compute in.
    x = keras.layers.Rescaling(scale, dtype="float32", name="photometry")(image)
    x = _conv(x, channels[0] // 2, "encoder_stem_1", kernel=3, stride=2)
    x = _conv(x, channels[0], "encoder_stem_2", kernel=3, stride=2)
    features = []
    for stage, (width, depth) in enumerate(zip(channels, depths, strict=True), start=1):
        label = f"encoder_stack{stage}"
        if stage > 1:
            x = _conv(x, width, f"{label}_downsample", kernel=3, stride=2)
        x = _csp(x, width, f"{label}_c2f", depth, shortcut=True)
        features.append(x)
    features[-1] = _pooled(x, "encoder_stack4_spp_fast")
    return _head(_joined(features[1:], neck), classes)


_IMPLEMENTATIONS: dict[str, Callable[..., keras.KerasTensor]] = {"kerascv": kerascv_logits, "native": native_logits}


def _joined(features: Sequence[keras.KerasTensor], depth: int) -> list[keras.KerasTensor]:
    """Features at strides 8, 16, 32 → the same with what the others know: down from the coarsest, and up again."""
    p3, p4, p5 = features
    p4p5 = _csp(_concat(_doubled(p5), p4), p4.shape[-1], "decoder_p4p5", depth)
    fine = _csp(_concat(_doubled(p4p5), p3), p3.shape[-1], "decoder_p3p4p5", depth)
    label = "decoder_p3p4p5_downsample1"
    x = _conv(fine, fine.shape[-1], label, kernel=3, stride=2)
    middle = _csp(_concat(x, p4p5), p4p5.shape[-1], f"{label}_block", 2)
    label = "decoder_p3p4p5_downsample2"
    x = _conv(middle, middle.shape[-1], label, kernel=3, stride=2)
    return [fine, middle, _csp(_concat(x, p5), p5.shape[-1], f"{label}_block", 2)]


def _head(features: Sequence[keras.KerasTensor], classes: int) -> keras.KerasTensor:
    """Features of each grid → raw outputs (B, A, 64 + classes), grid by grid."""
    finest = features[0].shape[-1]
    outputs = []
    for number, feature in enumerate(features, start=1):
        label = f"head_{number}"
        parts = {}
        for part, width, last in (
            ("box", max(4 * BINS, finest // 4), 4 * BINS),
            ("class", max(classes, finest), classes),
        ):
            x = _conv(feature, width, f"{label}_{part}_1", kernel=3)
            x = _conv(x, width, f"{label}_{part}_2", kernel=3)
            parts[part] = keras.layers.Conv2D(last, 1, data_format="channels_last", name=f"{label}_{part}_3_conv")(x)
        # Does nothing but set the layers in KerasCV's order, by which weights are counted.
        parts["class"] = keras.layers.Activation("linear", name=f"{label}_classifier")(parts["class"])
        x = _concat(parts["box"], parts["class"])
        outputs.append(keras.layers.Reshape((-1, 4 * BINS + classes), name=f"{label}_output_reshape")(x))
    return keras.layers.Concatenate(axis=1)(outputs)


def _csp(x: keras.KerasTensor, width: int, name: str, depth: int, *, shortcut: bool = False) -> keras.KerasTensor:
    """Half of the channels go through ``depth`` bottlenecks one after the other, and all that they gave is joined."""
    half = width // 2
    x = _conv(x, 2 * half, f"{name}_pre")
    parts = list(keras.ops.split(x, 2, axis=-1))
    for number in range(depth):
        x = _conv(parts[-1], half, f"{name}_pre_{number}_1", kernel=3)
        x = _conv(x, half, f"{name}_pre_{number}_2", kernel=3)
        parts.append(keras.layers.Add()([parts[-1], x]) if shortcut else x)
    return _conv(_concat(*parts), width, f"{name}_output")


def _pooled(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Spatial pyramid pooling by repeated maxima of 5x5 (He et al. 2014, arXiv 1406.4729, made sequential)."""
    width = x.shape[-1]
    parts = [_conv(x, width // 2, f"{name}_pre")]
    for number in (1, 2, 3):
        pool = keras.layers.MaxPooling2D(5, 1, padding="same", data_format="channels_last", name=f"{name}_pool{number}")
        parts.append(pool(parts[-1]))
    return _conv(_concat(*parts), width, f"{name}_output")


def _conv(x: keras.KerasTensor, filters: int, name: str, *, kernel: int = 1, stride: int = 1) -> keras.KerasTensor:
    """Convolution, batch norm, swish. A stride of 2 pads one row and column before, as many as it ever reads."""
    if stride == 2:
        x = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), data_format="channels_last", name=f"{name}_pad")(x)
    x = keras.layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        data_format="channels_last",
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(axis=-1, momentum=0.97, epsilon=1e-3, name=f"{name}_bn")(x)
    return keras.layers.Activation("swish", name=name)(x)


def _concat(*parts: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Concatenate(axis=-1)(list(parts))


def _doubled(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.UpSampling2D(2, data_format="channels_last")(x)


def _expect(model: keras.Model, classes: int) -> None:
    """Set the heads' last biases, so that few anchors claim an object before anything is learnt."""
    for number, stride in enumerate(STRIDES, start=1):
        for part, value in (("class", math.log(_EXPECTED / classes / (_SIDE / stride) ** 2)), ("box", 1.0)):
            bias = model.get_layer(f"head_{number}_{part}_3_conv").bias
            bias.assign(keras.ops.full(bias.shape, value))


def _check(name: str, shape: Sequence[Any], classes: Any, input_dtype: str) -> None:
    if input_dtype not in _SCALES:
        raise ModelError(f"{name}: input_dtype '{input_dtype}' is unknown", remedy=did_you_mean(input_dtype, _SCALES))
    if type(classes) is not int or classes < 1:
        raise ModelError(
            f"{name}: classes must be a whole number from 1 up, not {classes!r}",
            remedy="the background is not one of them",
        )
    if len(shape) != 3 or not all(type(length) is int and length > 0 for length in shape):
        raise ModelError(
            f"{name}: input_shape must be (H, W, C), whole numbers above 0, not {tuple(shape)!r}",
            remedy="the batch is not part of it: (640, 640, 3)",
        )
    anchors_of((shape[0], shape[1]))


def _four(name: str, word: str, given: Sequence[Any], *, even: bool = False) -> tuple[int, ...]:
    good = len(given) == 4 and all(type(number) is int and number > 0 for number in given)
    if not good or (even and any(number % 2 for number in given)):
        raise ModelError(
            f"{name}: {word} must be four {'even ' if even else ''}numbers above 0, not {list(given)!r}",
            remedy=f"one for each stage of the encoder, for example {list(SIZES['n'][0 if even else 1])}",
        )
    return tuple(given)
