"""Random changes to training pictures, as a pure function of (seed, epoch, index): nothing reads global state.

Geometry changes pictures and masks alike; intensity changes pictures alone.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from leakdet_tf.config.schema import Augment

Tensor = Any


def augment(
    inputs: dict[str, Tensor], targets: Tensor, settings: Augment, *, seed: int, epoch: Tensor, index: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Change one batch.

    Args:
        inputs: uint8 or uint16 (B, h, w, C) by name.
        targets: uint8 (B, h, w).
        settings: strengths.
        seed: the experiment's.
        epoch: int64 scalar.
        index: int64 (B,), each picture's position in its split.

    Returns:
        Inputs and targets of the same shapes and dtypes.
    """
    names = sorted(inputs)
    draws = _draws(seed, epoch, index, 2 + 2 * len(names))
    changed = dict(inputs)
    if settings.flip_horizontal:
        chosen = draws[:, 0] < settings.flip_horizontal
        changed, targets = {n: _flip(image, chosen, 2) for n, image in changed.items()}, _flip(targets, chosen, 2)
    if settings.flip_vertical:
        chosen = draws[:, 1] < settings.flip_vertical
        changed, targets = {n: _flip(image, chosen, 1) for n, image in changed.items()}, _flip(targets, chosen, 1)
    if settings.brightness or settings.contrast:
        for position, name in enumerate(names):
            shift = settings.brightness * (2 * draws[:, 2 + 2 * position] - 1)
            gain = 1 + settings.contrast * (2 * draws[:, 3 + 2 * position] - 1)
            changed[name] = _intensity(changed[name], shift, gain)
    return changed, targets


def _draws(seed: int, epoch: Tensor, index: Tensor, count: int) -> Tensor:
    # float32 (B, count) in [0, 1): row i depends on (seed, epoch, index[i]) alone.
    base = tf.random.experimental.stateless_fold_in(tf.constant([seed, 1], tf.int64), epoch)

    def row(position: Tensor) -> Tensor:
        return tf.random.stateless_uniform([count], tf.random.experimental.stateless_fold_in(base, position))

    return tf.map_fn(row, index, fn_output_signature=tf.TensorSpec([count], tf.float32))


def _flip(batch: Tensor, chosen: Tensor, axis: int) -> Tensor:
    # Only the chosen pictures are turned, whole: choosing pixel by pixel with tf.where takes three times as long.
    rows = tf.range(tf.shape(batch)[0])
    turned, kept = tf.boolean_mask(rows, chosen), tf.boolean_mask(rows, ~chosen)
    parts = [tf.reverse(tf.gather(batch, turned), [axis]), tf.gather(batch, kept)]
    return tf.ensure_shape(tf.dynamic_stitch([turned, kept], parts), batch.shape)


def _intensity(batch: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    top = float(batch.dtype.max)
    pixels = tf.cast(batch, tf.float32)
    mean = tf.reduce_mean(pixels, axis=[1, 2, 3], keepdims=True)
    gain, shift = gain[:, None, None, None], shift[:, None, None, None]
    changed = pixels * gain + (mean * (1 - gain) + top * shift)
    return tf.cast(tf.clip_by_value(tf.round(changed), 0.0, top), batch.dtype)
