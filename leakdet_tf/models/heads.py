"""Heads: what turns the decoder's last feature map into one channel a class. ``head(x, classes) -> raw outputs``."""

from __future__ import annotations

import keras


def conv_head(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """float (B, H, W, C) features → float (B, H, W, classes) raw outputs, before any activation.

    One 3x3 convolution with bias, drawn Glorot-uniform (Glorot & Bengio 2010), as in segmentation-models.

    Args:
        x: the decoder's last features, of any number of channels C.
        classes: channels of the output.
    """
    return keras.layers.Conv2D(
        classes,
        3,
        padding="same",
        kernel_initializer="glorot_uniform",
        data_format="channels_last",
        name="head_conv",
    )(x)
