"""Batches for Keras from a decoded split, through tf.data.

The order of an epoch and every random change follow from (seed, epoch, index), so a stream that starts anywhere equals
one that was read up to there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from leakdet_tf.config.data import Augment
from leakdet_tf.core.records import IGNORE, Batch
from leakdet_tf.core.tasks.detect import VOID
from leakdet_tf.data.augmentation import augment, training_key
from leakdet_tf.data.cache import Cache, stacked
from leakdet_tf.data.mosaic import changed_picture
from leakdet_tf.data.mosaic import rows as rows_of
from leakdet_tf.edge.machine import cores

Dataset = Any
Places = npt.NDArray[np.int64]
_EMPTY_ROW = np.array([0, 0, 0, 0, VOID, 0], np.float32)  # a target's, of no box
_ORDER = 0  # the number after the seed in the keys of orders; training_key has another


def steps(count: int, batch_size: int) -> int:
    """Batches for so many pictures."""
    return math.ceil(count / batch_size)


def epoch_length(weights: Sequence[float]) -> int:
    """Pictures in an epoch when picture i is seen ``weights[i]`` times on average."""
    values, counts = np.unique(np.asarray(weights, np.float64), return_counts=True)
    return sum(math.floor(v) * int(n) + _drawn(v, n) for v, n in zip(values, counts, strict=True))


def epoch_order(weights: Sequence[float], *, seed: int, epoch: int) -> Places:
    """Which pictures an epoch shows, shuffled: int64 (M, 2) of picture and of how often it was shown before in it.

    Each picture comes ``floor(weight)`` times; of those of one weight, the share ``weight - floor(weight)``, chosen
    for each epoch, comes once more.
    """
    rng = np.random.default_rng((seed, _ORDER, epoch))
    given = np.asarray(weights, np.float64)
    parts: list[Places] = []
    for value in np.unique(given):
        members = np.flatnonzero(given == value)
        whole = math.floor(value)
        parts += [np.stack([members, np.full_like(members, copy)], axis=1) for copy in range(whole)]
        more = rng.permutation(members)[: _drawn(value, len(members))]
        parts.append(np.stack([more, np.full_like(more, whole)], axis=1))
    return rng.permutation(np.concatenate(parts).astype(np.int64))


def _drawn(weight: float, count: int) -> int:
    # At least one of those that are to come now and then, so that a small source never stays away.
    share = weight - math.floor(weight)
    return max(1, round(share * count)) if share else 0


def training(
    cache: Cache,
    *,
    batch_size: int,
    seed: int,
    settings: Augment,
    epochs: int,
    first_epoch: int = 0,
    first_step: int = 0,
    weights: Sequence[float] | None = None,
    last_epoch: int | None = None,
) -> Dataset:
    """Shuffled and augmented batches of epochs ``first_epoch`` to ``epochs - 1`` in one stream.

    Every batch has the same static shape: TensorFlow 2.21's oneDNN kernels were seen to corrupt memory when a model is
    trained with an unknown batch size. What the last batch of an epoch lacks is filled up with pictures whose targets
    are IGNORE (of boxes all rows VOID) and whose weight is 0; the other weights of that batch are raised, so that its
    mean is over what counts.

    Args:
        cache: the split.
        batch_size: pictures a batch.
        seed: the experiment's.
        settings: strengths of the changes.
        epochs: where the stream ends.
        first_epoch: where it begins.
        first_step: how many batches of that epoch are left out.
        weights: how often each picture is seen in an epoch on average; None: each once.
        last_epoch: how many epochs the whole training has, of which the last ``settings.mosaic_close`` do without
            mosaic and mixup; ``epochs`` when left out.

    Yields:
        :class:`~leakdet_tf.core.records.Batch` of uint8/uint16 (B, h, w, C) inputs, uint8 (B, h, w) or (B, C) or
        float32 (B, M, 6) targets and float32 (B,) weights; ``steps`` batches an epoch of :func:`epoch_length`
        pictures. M is :func:`leakdet_tf.data.mosaic.rows` in every epoch.
    """
    cv2.setNumThreads(1)  # tf.data's own threads do this work already
    often = [1.0] * len(cache) if weights is None else list(weights)
    length = epoch_length(often)

    def order(epoch: Any) -> Dataset:
        places = tf.numpy_function(
            lambda number: epoch_order(often, seed=seed, epoch=int(number)), [epoch], tf.int64, stateful=False
        )
        places = _full_batches(tf.ensure_shape(places, [length, 2]), length, batch_size)
        return places.map(lambda place, counts: (epoch, place, counts))

    def finish(epoch: Any, place: Any, counts: Any) -> Batch:
        return _batch(cache, place, counts, batch_size, change=changes, epoch=epoch)

    closing = (epochs if last_epoch is None else last_epoch) - settings.mosaic_close
    changes = _Changes(settings, seed, often, closing)
    stream = tf.data.Dataset.range(first_epoch, epochs).flat_map(order).skip(first_step)
    return _ahead(stream, finish)


def plain(cache: Cache, *, batch_size: int) -> Dataset:
    """Batches in the split's order, unchanged, once; the last is filled up as in :func:`training`."""
    count = len(cache)

    def finish(place: Any, counts: Any) -> Batch:
        return _batch(cache, place, counts, batch_size)

    order = np.stack([np.arange(count), np.zeros(count, np.int64)], axis=1)
    stream = _full_batches(tf.constant(order, tf.int64), count, batch_size)
    stream = _ahead(stream, finish)
    return stream.apply(tf.data.experimental.assert_cardinality(steps(count, batch_size)))


@contextmanager
def plain_disk_errors(caches: Iterable[Cache]) -> Iterator[None]:
    """Turn TensorFlow's account of a disk that failed while batches were read from it into one line.

    Raises:
        DataError: that line.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for cache in caches:
            if cache.store and cache.store.failure:
                raise cache.store.failure from error
        raise


def _ahead(stream: Dataset, finish: Any) -> Dataset:
    # threads of its own: those that operations share may be one, so that a step adds up in the same order each time
    options = tf.data.Options()
    options.threading.private_threadpool_size = max(2, cores())
    made = stream.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
    return made.with_options(options)


def _full_batches(order: Any, count: int, batch_size: int) -> Dataset:
    # (places int64 (B, 2), counts bool (B,)): the order, begun again where the last batch needs more.
    row = tf.range(steps(count, batch_size) * batch_size)
    return tf.data.Dataset.from_tensor_slices((tf.gather(order, row % count), row < count)).batch(
        batch_size, drop_remainder=True
    )


@dataclass(frozen=True)
class _Changes:
    settings: Augment
    seed: int
    often: Sequence[float]
    closing: int  # the first epoch without mosaic and mixup


def _batch(
    cache: Cache, place: Any, counts: Any, batch_size: int, *, change: _Changes | None = None, epoch: Any = 0
) -> Batch:
    # One call a batch copies rows out of the cache; the arrays stay outside the graph, whatever their size.
    names = sorted(cache.inputs)
    of_boxes = cache.of_boxes
    shapes = [list(array.shape[1:]) for array in (*(cache.inputs[name] for name in names), cache.targets)]
    if of_boxes and change is not None:
        shapes[-1][0] = rows_of(shapes[-1][0], change.settings)

    def rows(chosen: Places, counted: npt.NDArray[np.bool_], number: Any) -> list[Any]:
        if change is None:
            found = [array[chosen[:, 0]] for array in (*(cache.inputs[name] for name in names), cache.targets)]
        elif of_boxes:
            found = _with_boxes(cache, names, chosen, change, int(number), shapes[-1][0])
        else:
            found = _with_labels(cache, names, chosen, change, int(number))
        found[-1][~counted] = _EMPTY_ROW if of_boxes else IGNORE
        weights = counted.astype(np.float32)
        return [*found, weights / weights.mean()]

    dtypes = [*(tf.as_dtype(cache.inputs[name].dtype) for name in names), tf.as_dtype(cache.targets.dtype), tf.float32]
    *inputs, targets, weights = tf.numpy_function(rows, [place, counts, epoch], dtypes, stateful=False)
    for tensor, shape in zip([*inputs, targets], shapes, strict=True):
        tensor.set_shape([batch_size, *shape])
    weights.set_shape([batch_size])
    return Batch(dict(zip(names, inputs, strict=True)), targets, weights)


def _with_labels(cache: Cache, names: list[str], chosen: Places, change: _Changes, epoch: int) -> list[Any]:
    found = [array[chosen[:, 0]] for array in (*(cache.inputs[name] for name in names), cache.targets)]
    nowhere = np.zeros((1, 1), np.uint8)
    for row, (index, copy) in enumerate(chosen):
        key = training_key(change.seed, epoch=epoch, index=int(index), copy=int(copy))
        pictures = {name: found[n][row] for n, name in enumerate(names)}
        if found[-1].ndim > 2:
            pictures, found[-1][row] = augment(pictures, found[-1][row], change.settings, key=key)
        else:  # labels of whole pictures do not move with them
            pictures, _ = augment(pictures, nowhere, change.settings, key=key)
        for n, name in enumerate(names):
            found[n][row] = pictures[name]
    return found


def _with_boxes(cache: Cache, names: list[str], chosen: Places, change: _Changes, epoch: int, most: int) -> list[Any]:
    found: list[Any] = [np.empty((len(chosen), *cache.inputs[n].shape[1:]), cache.inputs[n].dtype) for n in names]
    boxes = []
    for row, (index, copy) in enumerate(chosen):
        pictures, own = changed_picture(
            cache.fetch,
            change.often,
            change.settings,
            size=cache.size,
            seed=change.seed,
            epoch=epoch,
            index=int(index),
            copy=int(copy),
            composed=epoch < change.closing,
        )
        boxes.append(own)
        for n, name in enumerate(names):
            found[n][row] = pictures[name]
    return [*found, stacked(boxes, most)]
