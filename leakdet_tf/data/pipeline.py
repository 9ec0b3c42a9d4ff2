"""Batches for Keras from a decoded split, through tf.data.

The order of an epoch and every random change follow from (seed, epoch, index), so a stream that starts at epoch k
equals one that was read up to k.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from leakdet_tf.config.schema import Augment
from leakdet_tf.core.records import IGNORE, Batch
from leakdet_tf.data.augment import augment
from leakdet_tf.data.cache import Cache

Dataset = Any


def steps(count: int, batch_size: int) -> int:
    """Batches in an epoch."""
    return math.ceil(count / batch_size)


def training(
    cache: Cache, *, batch_size: int, seed: int, settings: Augment, epochs: int, first_epoch: int = 0
) -> Dataset:
    """Shuffled and augmented batches of epochs ``first_epoch`` to ``epochs - 1`` in one stream.

    Every batch has the same static shape: TensorFlow 2.21's oneDNN kernels were seen to corrupt memory when a model is
    trained with an unknown batch size. What the last batch of an epoch lacks is filled up with pictures whose targets
    are IGNORE and whose weight is 0; the other weights of that batch are raised, so that its mean is over what counts.

    Yields:
        :class:`~leakdet_tf.core.records.Batch` of uint8/uint16 (B, h, w, C) inputs, uint8 (B, h, w) targets and
        float32 (B,) weights; ``steps`` batches an epoch.
    """
    count = len(cache)

    def order(epoch: Any) -> Dataset:
        shuffled = tf.argsort(_keys(count, seed, epoch), stable=True)
        return _full_batches(shuffled, count, batch_size).map(lambda index, counts: (epoch, index, counts))

    def finish(epoch: Any, index: Any, counts: Any) -> Batch:
        inputs, targets = _gather(cache, index, batch_size)
        inputs, targets = augment(inputs, targets, settings, seed=seed, epoch=epoch, index=index)
        return _batch(inputs, targets, counts)

    stream = tf.data.Dataset.range(first_epoch, epochs).flat_map(order)
    return stream.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def plain(cache: Cache, *, batch_size: int) -> Dataset:
    """Batches in the split's order, unchanged, once; the last is filled up as in :func:`training`."""
    count = len(cache)

    def finish(index: Any, counts: Any) -> Batch:
        return _batch(*_gather(cache, index, batch_size), counts)

    stream = _full_batches(tf.range(count), count, batch_size)
    stream = stream.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
    return stream.apply(tf.data.experimental.assert_cardinality(steps(count, batch_size)))


def _full_batches(order: Any, count: int, batch_size: int) -> Dataset:
    # (index int64 (B,), counts bool (B,)): the order, begun again where the last batch needs more.
    place = tf.range(steps(count, batch_size) * batch_size)
    index = tf.cast(tf.gather(order, place % count), tf.int64)
    return tf.data.Dataset.from_tensor_slices((index, place < count)).batch(batch_size, drop_remainder=True)


def _batch(inputs: dict[str, Any], targets: Any, counts: Any) -> Batch:
    targets = tf.where(counts[:, None, None], targets, tf.constant(IGNORE, tf.uint8))
    counted = tf.cast(counts, tf.float32)
    return Batch(inputs, targets, counted / tf.reduce_mean(counted))


def _keys(count: int, seed: int, epoch: Any) -> Any:
    base = tf.random.experimental.stateless_fold_in(tf.constant([seed, 0], tf.int64), epoch)
    return tf.random.stateless_uniform([count], base, minval=None, maxval=None, dtype=tf.int32)


def _gather(cache: Cache, index: Any, batch_size: int) -> tuple[dict[str, Any], Any]:
    # One call a batch copies rows out of the cache; the arrays stay outside the graph, whatever their size.
    names = sorted(cache.inputs)
    arrays = [*(cache.inputs[name] for name in names), cache.targets]

    def rows(chosen: Any) -> list[Any]:
        return [array[chosen] for array in arrays]

    found = tf.numpy_function(rows, [index], [tf.as_dtype(array.dtype) for array in arrays], stateful=False)
    for tensor, array in zip(found, arrays, strict=True):
        tensor.set_shape([batch_size, *array.shape[1:]])
    return dict(zip(names, found[:-1], strict=True)), found[-1]
