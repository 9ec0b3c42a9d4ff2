"""Losses for segmentation, on logits, with one value a picture.

A loss is ``loss(targets, logits, activation) -> (B,)``: targets int32 (B, h, w) with IGNORE, logits float32
(B, h, w, C), ``activation`` the head's. The registry names those of this file; an experiment may name its own.
With the ``linear`` head the raw outputs are read as probabilities and clipped to [1e-7, 1].
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.records import IGNORE

Tensor = Any
_TINY = 1e-7
_SMOOTH = 1.0  # pixel: keeps Dice defined for masks of a few pixels


def cross_entropy(targets: Tensor, logits: Tensor, activation: str) -> Tensor:
    """Mean over counted pixels of -log p(true class); for ``sigmoid`` the mean over classes of binary cross-entropy."""
    truth = _one_hot(targets, logits)
    if activation == "softmax":
        losses = -ops.sum(truth * ops.log_softmax(logits, axis=-1), axis=-1)
    elif activation == "sigmoid":
        losses = ops.mean(ops.relu(logits) - logits * truth + ops.softplus(-ops.abs(logits)), axis=-1)
    else:
        losses = -ops.sum(truth * ops.log(probabilities(logits, activation)), axis=-1)
    counted = _counted(targets)
    return ops.sum(losses * counted, axis=(1, 2)) / ops.maximum(ops.sum(counted, axis=(1, 2)), 1.0)


def dice(targets: Tensor, logits: Tensor, activation: str) -> Tensor:
    """1 - soft Dice (Milletari et al. 2016, arXiv 1606.04797, without squares), over the classes in a picture's truth.

    Classes that a picture does not hold are left out of its mean: cross-entropy speaks for them.
    """
    counted = _counted(targets)[..., None]
    truth = _one_hot(targets, logits) * counted
    predicted = probabilities(logits, activation) * counted
    overlap = ops.sum(truth * predicted, axis=(1, 2))
    sizes = ops.sum(truth, axis=(1, 2)) + ops.sum(predicted, axis=(1, 2))
    present = ops.cast(ops.sum(truth, axis=(1, 2)) > 0, "float32")
    losses = (1.0 - (2.0 * overlap + _SMOOTH) / (sizes + _SMOOTH)) * present
    return ops.sum(losses, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1.0)


def probabilities(logits: Tensor, activation: str) -> Tensor:
    """Logits (..., C) → probabilities (..., C) by the head's activation."""
    if activation == "softmax":
        return ops.softmax(logits, axis=-1)
    if activation == "sigmoid":
        return ops.sigmoid(logits)
    if activation == "linear":
        return ops.clip(logits, _TINY, 1.0)
    raise ModelError(f"no loss is defined for activation '{activation}'")


def _one_hot(targets: Tensor, logits: Tensor) -> Tensor:
    # IGNORE (255) is beyond the classes and becomes all zeros.
    return ops.one_hot(targets, logits.shape[-1], dtype="float32")


def _counted(targets: Tensor) -> Tensor:
    return ops.cast(ops.not_equal(targets, IGNORE), "float32")


class Objective(keras.losses.Loss):
    """The sum of several losses, as one Keras loss on logits."""

    def __init__(self, parts: list[Any], activation: str) -> None:
        super().__init__(name="objective", reduction="sum_over_batch_size")
        self._parts = parts
        self._activation = activation

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Targets (B, h, w) and logits (B, h, w, C) → float32 (B,).

        Raises:
            ModelError: a part does not give one value a picture; adding others up would broadcast in silence.
        """
        targets, logits = ops.cast(y_true, "int32"), ops.cast(y_pred, "float32")
        values = [part(targets, logits, self._activation) for part in self._parts]
        for part, value in zip(self._parts, values, strict=True):
            if len(value.shape) != 1:
                raise ModelError(
                    f"loss '{getattr(part, '__name__', part)}': returns shape {tuple(value.shape)}",
                    remedy="a loss returns one value a picture, shape (B,)",
                )
        return sum(values)
