"""Batches for Keras from a decoded split, through tf.data.

The order of an epoch and every random change follow from (seed, epoch, index), so a stream that starts at epoch k
equals one that was read up to k.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from leakdet_tf.config.schema import Augment
from leakdet_tf.core.records import Batch
from leakdet_tf.data.augment import augment
from leakdet_tf.data.cache import Cache

Dataset = Any


def steps(count: int, batch_size: int) -> int:
    """Batches in an epoch; the last may be smaller."""
    return math.ceil(count / batch_size)


def training(
    cache: Cache, *, batch_size: int, seed: int, settings: Augment, epochs: int, first_epoch: int = 0
) -> Dataset:
    """Shuffled and augmented batches of epochs ``first_epoch`` to ``epochs - 1`` in one stream.

    Yields:
        :class:`~leakdet_tf.core.records.Batch` of uint8/uint16 (B, h, w, C) inputs, uint8 (B, h, w) targets and
        float32 (B,) weights; ``steps`` batches an epoch.
    """
    count = len(cache)

    def order(epoch: Any) -> Dataset:
        shuffled = tf.argsort(_keys(count, seed, epoch), stable=True)
        batches = tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size)
        return batches.map(lambda index: (epoch, tf.cast(index, tf.int64)))

    def finish(epoch: Any, index: Any) -> Batch:
        inputs, targets = _gather(cache, index)
        inputs, targets = augment(inputs, targets, settings, seed=seed, epoch=epoch, index=index)
        return Batch(inputs, targets, tf.ones(tf.shape(index), tf.float32))

    stream = tf.data.Dataset.range(first_epoch, epochs).flat_map(order)
    return stream.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def plain(cache: Cache, *, batch_size: int) -> Dataset:
    """Batches in the split's order, unchanged, once."""

    def finish(index: Any) -> Batch:
        inputs, targets = _gather(cache, index)
        return Batch(inputs, targets, tf.ones(tf.shape(index), tf.float32))

    stream = tf.data.Dataset.range(len(cache)).batch(batch_size)
    stream = stream.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
    return stream.apply(tf.data.experimental.assert_cardinality(steps(len(cache), batch_size)))


def _keys(count: int, seed: int, epoch: Any) -> Any:
    base = tf.random.experimental.stateless_fold_in(tf.constant([seed, 0], tf.int64), epoch)
    return tf.random.stateless_uniform([count], base, minval=None, maxval=None, dtype=tf.int32)


def _gather(cache: Cache, index: Any) -> tuple[dict[str, Any], Any]:
    # One call a batch copies rows out of the cache; the arrays stay outside the graph, whatever their size.
    names = sorted(cache.inputs)
    arrays = [*(cache.inputs[name] for name in names), cache.targets]

    def rows(chosen: Any) -> list[Any]:
        return [array[chosen] for array in arrays]

    found = tf.numpy_function(rows, [index], [tf.as_dtype(array.dtype) for array in arrays], stateful=False)
    for tensor, array in zip(found, arrays, strict=True):
        tensor.set_shape([None, *array.shape[1:]])
    return dict(zip(names, found[:-1], strict=True)), found[-1]
