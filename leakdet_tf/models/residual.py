"""ResNet encoders with post-activation (v1) units: the networks whose ImageNet weights are handed around.

They stand beside the pre-activation ones of :mod:`~leakdet_tf.models.resnet` because the two compute different
functions: there a unit normalises before each convolution, here after it, so no file of the one fits the other. The
U-Net of the paper uses the former, which train better from nothing; torchvision, timm and Keras publish weights of the
latter. Layers are laid out as torchvision's: convolutions without bias, padded alike on all sides, batch norms with
epsilon 1e-5, and in bottlenecks the stride in the 3x3 convolution ("v1.5").

Sources: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385; He et al., Delving Deep into
Rectifiers, arXiv 1502.01852 (initial weights, by fan out); Goyal et al., arXiv 1706.02677 (stride in the 3x3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError, did_you_mean
from leakdet_tf.models.resnet import check_width, conv, pooled

Unit = Callable[[keras.KerasTensor, int, tuple[int, int], str], keras.KerasTensor]

# Mean and standard deviation of ImageNet's red, green and blue on the scale 0..255: torchvision's numbers times 255.
_TORCHVISION = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
# Means that Caffe's networks, and Keras's ResNets after them, subtract; red, green, blue.
_CAFFE = ([123.68, 116.779, 103.939], [1.0, 1.0, 1.0])
PREPROCESSING = ("signed", "torchvision", "caffe")
"""What an encoder does to pixels of 0..255 first: to -1..1; less mean by deviation, as torchvision; less mean only."""


def resnet18_v1(
    x: keras.KerasTensor, *, width: int = 64, preprocessing: str = "signed", name: str = "encoder"
) -> list[keras.KerasTensor]:
    """Features of ResNet-18 v1 (2, 2, 2, 2 units of two 3x3 convolutions).

    Sources: He et al., arXiv 1512.03385; as torchvision lays it out.

    Args:
        x: float32 (B, H, W, C) image tensor on the scale 0..255; H and W divisible by 32, any C.
        width: filters of the first stage, doubled at each of the three that follow.
        preprocessing: ``"signed"`` puts pixels on -1..1, ``"torchvision"`` subtracts ImageNet's mean and divides by
            its deviation, ``"caffe"`` subtracts a mean; the latter two take red, green, blue. Pretrained weights need
            the one that they were trained with.
        name: prefix of every layer name, so that one model can hold two encoders.

    Returns:
        Five tensors (B, H/s, W/s, width * m) for s = 2, 4, 8, 16, 32 and m = 1, 1, 2, 4, 8.

    Raises:
        ModelError: ``width`` is not a positive whole number, or ``preprocessing`` is unknown or not for C channels.
    """
    return _encode(x, (2, 2, 2, 2), _two_convolutions, width, (1, 2), preprocessing, name)


def resnet34_v1(
    x: keras.KerasTensor, *, width: int = 64, preprocessing: str = "signed", name: str = "encoder"
) -> list[keras.KerasTensor]:
    """Features of ResNet-34 v1 (3, 4, 6, 3 units of two 3x3 convolutions); otherwise as :func:`resnet18_v1`."""
    return _encode(x, (3, 4, 6, 3), _two_convolutions, width, (1, 2), preprocessing, name)


def resnet50_v1(
    x: keras.KerasTensor,
    *,
    width: int = 64,
    stride_in: str = "3x3",
    preprocessing: str = "signed",
    name: str = "encoder",
) -> list[keras.KerasTensor]:
    """Features of ResNet-50 v1 (3, 4, 6, 3 bottleneck units); as :func:`resnet18_v1`, with m = 1, 4, 8, 16, 32.

    ``stride_in`` names the convolution of a unit that halves the picture: ``"3x3"``, as torchvision and timm, or
    ``"1x1"``, the first one, as the paper and Keras. Weights of the one fit the other in shape, but not in meaning.
    """
    if stride_in not in ("3x3", "1x1"):
        raise ModelError(f"encoder stride_in '{stride_in}' is unknown", remedy="choose from: 1x1, 3x3")

    def unit(x: keras.KerasTensor, filters: int, strides: tuple[int, int], name: str) -> keras.KerasTensor:
        first, second = strides if stride_in == "1x1" else strides[::-1]
        x = _conv_norm(x, filters, 1, first, name, "1")
        x = _conv_norm(_relu(x, f"{name}_relu1"), filters, 3, second, name, "2")
        return _conv_norm(_relu(x, f"{name}_relu2"), filters * 4, 1, 1, name, "3")

    return _encode(x, (3, 4, 6, 3), unit, width, (4, 3), preprocessing, name)


def _encode(
    x: keras.KerasTensor,
    depths: tuple[int, ...],
    unit: Unit,
    width: int,
    shape: tuple[int, int],
    preprocessing: str,
    name: str,
) -> list[keras.KerasTensor]:
    """Stem and four stages; ``shape`` is (filters out by filters in, convolutions) of a unit."""
    check_width(width)
    expansion, convolutions = shape

    x = _preprocess(x, preprocessing, f"{name}_preprocessing")
    x = _relu(_conv_norm(x, width, 7, 2, name, "0"), f"{name}_relu0")
    features = [x]
    x = pooled(x, name)
    for stage, depth in enumerate(depths, start=1):
        filters = width * 2 ** (stage - 1)
        for index in range(1, depth + 1):
            unit_name = f"{name}_stage{stage}_unit{index}"
            stride = 2 if stage > 1 and index == 1 else 1
            shortcut = x
            if stride > 1 or x.shape[-1] != filters * expansion:
                shortcut = _conv_norm(x, filters * expansion, 1, stride, unit_name, "_shortcut")
            x = keras.layers.Add(name=f"{unit_name}_add")([unit(x, filters, (stride, 1), unit_name), shortcut])
            x = _relu(x, f"{unit_name}_relu{convolutions}")
        features.append(x)
    return features


def _two_convolutions(x: keras.KerasTensor, filters: int, strides: tuple[int, int], name: str) -> keras.KerasTensor:
    x = _conv_norm(x, filters, 3, strides[0], name, "1")
    return _conv_norm(_relu(x, f"{name}_relu1"), filters, 3, strides[1], name, "2")


def _conv_norm(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str, label: str
) -> keras.KerasTensor:
    """Convolution without bias, padded by kernel // 2 on all four sides, then a batch norm."""
    drawn = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    x = conv(x, filters, kernel, stride, f"{name}_conv{label}", initializer=drawn)
    return keras.layers.BatchNormalization(axis=-1, momentum=0.9, epsilon=1e-5, name=f"{name}_bn{label}")(x)


def _relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.Activation("relu", name=name)(x)


def _preprocess(x: keras.KerasTensor, kind: str, name: str) -> keras.KerasTensor:
    """Pixels of 0..255 on the scale that the first convolution takes; float32 under every policy."""
    if kind not in PREPROCESSING:
        raise ModelError(f"encoder preprocessing '{kind}' is unknown", remedy=did_you_mean(str(kind), PREPROCESSING))
    return preprocessing_layer(kind, x.shape[-1], name)(x)


def preprocessing_layer(kind: str, channels: Any, name: str) -> keras.layers.Layer:
    """The layer for one of :data:`PREPROCESSING`; its numbers are in its configuration, so a saved model has them.

    Raises:
        ModelError: the kind is made for colour and there are not three channels.
    """
    if kind == "signed":
        return keras.layers.Rescaling(1.0 / 127.5, offset=-1.0, dtype="float32", name=name)
    if channels != 3:
        raise ModelError(
            f"encoder preprocessing '{kind}' takes red, green and blue, not {channels} channels",
            remedy="use preprocessing = 'signed' and no pretrained weights",
        )
    mean, deviation = _TORCHVISION if kind == "torchvision" else _CAFFE
    variance = [value * value for value in deviation]
    return keras.layers.Normalization(axis=-1, mean=mean, variance=variance, dtype="float32", name=name)
