"""ResNet encoders with pre-activation (v2) units, the ones that segmentation-models puts under its U-Net.

An encoder is any callable ``encoder(x, **options) -> [f2, f4, f8, f16, f32]``: five feature maps of an image tensor
``x``, float32 (B, H, W, C) on the scale 0..255, at strides 2, 4, 8, 16 and 32 in that order.

Sources: He et al., Identity Mappings in Deep Residual Networks, arXiv 1603.05027 (units); arXiv 1512.03385 (depths);
He et al., Delving Deep into Rectifiers, arXiv 1502.01852 (initial weights).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from leakdet_tf.core.errors import ModelError

Unit = Callable[[keras.KerasTensor, int, int, str], keras.KerasTensor]


def resnet18(x: keras.KerasTensor, *, width: int = 64, name: str = "encoder") -> list[keras.KerasTensor]:
    """Features of ResNet-18 (2, 2, 2, 2 units of two 3x3 convolutions).

    Sources: He et al., arXiv 1603.05027 (units) and 1512.03385 (depths).

    Args:
        x: float32 (B, H, W, C) image tensor; H and W divisible by 32, any C.
        width: filters of the first stage, doubled at each of the three that follow.
        name: prefix of every layer name, so that one model can hold two encoders.

    Returns:
        Five tensors (B, H/s, W/s, width * m) for s = 2, 4, 8, 16, 32 and m = 1, 1, 2, 4, 8.

    Raises:
        ModelError: ``width`` is not a positive whole number.
    """
    return _encode(x, (2, 2, 2, 2), _two_convolutions, width, 1, name)


def resnet34(x: keras.KerasTensor, *, width: int = 64, name: str = "encoder") -> list[keras.KerasTensor]:
    """Features of ResNet-34 (3, 4, 6, 3 units of two 3x3 convolutions); otherwise as :func:`resnet18`."""
    return _encode(x, (3, 4, 6, 3), _two_convolutions, width, 1, name)


def resnet50(x: keras.KerasTensor, *, width: int = 64, name: str = "encoder") -> list[keras.KerasTensor]:
    """Features of ResNet-50 (3, 4, 6, 3 bottleneck units); otherwise as :func:`resnet18`, with m = 1, 4, 8, 16, 32."""
    return _encode(x, (3, 4, 6, 3), _bottleneck, width, 4, name)


def _encode(
    x: keras.KerasTensor, depths: tuple[int, ...], unit: Unit, width: int, expansion: int, name: str
) -> list[keras.KerasTensor]:
    """Stem and four stages. The first unit of a stage halves the picture (but for stage 1, which follows a pooling)."""
    check_width(width)

    # The picture is normalised in float32 under every policy: 16-bit counts would not fit into half precision.
    x = _norm(x, f"{name}_bn_data", scale=False, dtype="float32")
    x = conv(x, width, 7, 2, f"{name}_conv0")
    x = _norm_relu(x, name, "0")
    features = [x]
    x = pooled(x, name)
    for stage, depth in enumerate(depths, start=1):
        filters = width * 2 ** (stage - 1)
        for index in range(1, depth + 1):
            unit_name = f"{name}_stage{stage}_unit{index}"
            activated = _norm_relu(x, unit_name, "1")
            shortcut, stride = x, 1
            if index == 1:
                stride = 1 if stage == 1 else 2
                shortcut = conv(activated, filters * expansion, 1, stride, f"{unit_name}_shortcut")
                if stage > 1:
                    features.append(activated)
            x = keras.layers.Add(name=f"{unit_name}_add")([unit(activated, filters, stride, unit_name), shortcut])
    features.append(_norm_relu(x, name, "_last"))
    return features


def _two_convolutions(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    x = conv(x, filters, 3, stride, f"{name}_conv1")
    x = _norm_relu(x, name, "2")
    return conv(x, filters, 3, 1, f"{name}_conv2")


def _bottleneck(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    x = conv(x, filters, 1, 1, f"{name}_conv1")
    x = _norm_relu(x, name, "2")
    x = conv(x, filters, 3, stride, f"{name}_conv2")
    x = _norm_relu(x, name, "3")
    return conv(x, filters * 4, 1, 1, f"{name}_conv3")


def check_width(width: Any) -> None:
    """Raise ModelError unless ``width`` is a positive whole number."""
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ModelError(f"encoder width must be a positive whole number, not {width!r}", remedy="64 is the usual one")


def pooled(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Maxima of 3x3 at stride 2. Zeros pad as well as minus infinity here: what is pooled went through a ReLU."""
    x = keras.layers.ZeroPadding2D(1, data_format="channels_last", name=f"{name}_pool0_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, data_format="channels_last", name=f"{name}_pool0")(x)


def conv(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str, *, initializer: Any = "he_uniform"
) -> keras.KerasTensor:
    """Convolution without bias, padded by kernel // 2 on all four sides.

    With a stride Keras's "same" pads only right and below, which shifts the grid; hence the explicit padding.
    """
    padding = "same"
    if stride > 1:
        padding = "valid"
        if kernel > 1:
            x = keras.layers.ZeroPadding2D(kernel // 2, data_format="channels_last", name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializer,
        data_format="channels_last",
        name=name,
    )(x)


def _norm(x: keras.KerasTensor, name: str, *, scale: bool = True, dtype: str | None = None) -> keras.KerasTensor:
    return keras.layers.BatchNormalization(axis=-1, momentum=0.99, epsilon=2e-5, scale=scale, dtype=dtype, name=name)(x)


def _norm_relu(x: keras.KerasTensor, name: str, label: str) -> keras.KerasTensor:
    x = _norm(x, f"{name}_bn{label}")
    return keras.layers.Activation("relu", name=f"{name}_relu{label}")(x)
