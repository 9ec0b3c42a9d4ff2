"""Batch-norm statistics, computed again from data without changing what the model answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import ModelError

Floats = npt.NDArray[np.float64]


def reestimate_batch_norm(model: keras.Model, batches: Iterable[Any]) -> list[str]:
    """Set each batch norm's moving mean and variance to those of its inputs over all batches, in place.

    Scale and offset are changed along with them, so that the model answers as before in inference: a batch norm of
    statistics (m, v), scale g and offset b becomes one of (M, V), g * sqrt((V + e) / (v + e)) and
    b + g * (M - m) / sqrt(v + e). Weights whose batch norms were folded into the convolutions need this before they
    learn: their m = 0 and v = 1 are placeholders, and a step in training mode would normalise by the batch's instead.
    Because nothing changes in inference, one pass gives every layer its exact statistics over the given pictures
    (mean and biased variance, joined over batches by Chan et al. 1983, in float64).

    Args:
        model: a functional model; batch norms are looked for among its own layers, not in models within it.
        batches: what the model takes, batch by batch: arrays, or arrays by input name. A few hundred pictures like
            those that it will learn from.

    Returns:
        Names of the layers that were changed, in order.

    Raises:
        ModelError: there is no batch or no batch norm, a batch norm has no scale or offset to adjust, or its inputs
            hold NaN or infinity. Nothing was changed then.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        raise ModelError(f"model '{model.name}' has no batch norms", remedy="there is nothing to re-estimate")
    for norm in norms:
        if norm.gamma is None or norm.beta is None:
            raise ModelError(
                f"batch norm '{norm.name}' has no scale or no offset: its statistics are part of its answer",
                remedy="re-estimate models whose batch norms have both",
            )
    probe = keras.Model(model.inputs, [_moments(norm) for norm in norms])  # takes a list, whatever the model took
    totals: list[tuple[float, Floats, Floats]] = []
    for batch in batches:
        given = [batch[tensor.name] for tensor in model.inputs] if isinstance(batch, Mapping) else batch
        answers = probe(given if isinstance(given, list) else [given], training=False)
        found = [tuple(np.asarray(keras.ops.convert_to_numpy(value), np.float64) for value in one) for one in answers]
        parts = [(float(count), mean, variance) for count, mean, variance in found]
        totals = [_joined(a, b) for a, b in zip(totals, parts, strict=True)] if totals else parts
    if not totals:
        raise ModelError("no batches to re-estimate batch norms from", remedy="give at least one")
    for norm, (_, mean, variance) in zip(norms, totals, strict=True):
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            raise ModelError(f"the inputs of batch norm '{norm.name}' hold NaN or infinity", remedy="check the weights")
    for norm, (_, mean, variance) in zip(norms, totals, strict=True):
        _assign(norm, mean, variance)
    return [norm.name for norm in norms]


def _moments(norm: Any) -> list[keras.KerasTensor]:
    """Values a channel, their mean (C,) and biased variance (C,), of what goes into a batch norm; float32."""
    x = keras.ops.cast(norm.input, "float32")
    axis = norm.axis % len(x.shape)
    others = tuple(place for place in range(len(x.shape)) if place != axis)
    count = keras.ops.sum(keras.ops.ones_like(keras.ops.take(x, 0, axis=axis)))
    return [count, keras.ops.mean(x, axis=others), keras.ops.var(x, axis=others)]


def _joined(a: tuple[float, Floats, Floats], b: tuple[float, Floats, Floats]) -> tuple[float, Floats, Floats]:
    """(count, mean, variance) of two sets of values together."""
    count = a[0] + b[0]
    apart = b[1] - a[1]
    mean = a[1] + apart * (b[0] / count)
    squares = a[2] * a[0] + b[2] * b[0] + apart**2 * (a[0] * b[0] / count)
    return count, mean, squares / count


def _assign(norm: Any, mean: Floats, variance: Floats) -> None:
    gamma, beta, old_mean, old_variance = (
        np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        for value in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    slope = gamma / np.sqrt(old_variance + norm.epsilon)
    values = (slope * np.sqrt(variance + norm.epsilon), beta + slope * (mean - old_mean), mean, variance)
    for variable, value in zip((norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance), values, strict=True):
        variable.assign(value.astype(np.float32))
