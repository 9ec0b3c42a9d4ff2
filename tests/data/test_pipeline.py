"""Batches: every picture once an epoch, the same from the same seed, and resumable at any epoch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.data import Augment
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import Batch
from leakdet_tf.data.augmentation import augment, training_key
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.pipeline import epoch_length, epoch_order, plain, steps, training
from leakdet_tf.training.losses import Objective, Scheme, cross_entropy, dice
from leakdet_tf.training.measure import Confusion

STILL = Augment(flip_horizontal=0, flip_vertical=0, brightness=0, contrast=0)
MOVING = Augment(flip_vertical=0.5, shift=0.2, scale=0.3, rotation=20.0, crop=0.2, brightness=0.2, blur=1.0, noise=0.1)
MakeCache = Callable[..., Cache]


def batches(stream: Any) -> list[Any]:
    """What counts in each batch: without the rows that only fill it up."""
    found = []
    for inputs, targets, weights in stream:
        counts = weights.numpy() > 0
        kept = {name: image.numpy()[counts] for name, image in inputs.items()}
        found.append(Batch(kept, targets.numpy()[counts], weights.numpy()[counts]))
    return found


def assert_same(actual: list[Any], expected: list[Any]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        for name in other.inputs:
            np.testing.assert_array_equal(one.inputs[name], other.inputs[name])
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_array_equal(one.weights, other.weights)


def read(
    cache: Cache, *, settings: Augment = MOVING, seed: int = 5, epochs: int = 4, first: int = 0, **more: Any
) -> Any:
    return batches(
        training(cache, batch_size=4, seed=seed, settings=settings, epochs=epochs, first_epoch=first, **more)
    )


def positions(cache: Cache, found: list[Any]) -> list[int]:
    """The place in the cache of each unchanged picture that was given out."""
    known = {image.tobytes(): i for i, image in enumerate(cache.inputs["image"])}
    return [known[image.tobytes()] for batch in found for image in batch.inputs["image"]]


def test_steps() -> None:
    assert [steps(count, 4) for count in (1, 4, 5, 8)] == [1, 1, 2, 2]


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_a_batch_is(make_cache: MakeCache, dtype: str, inputs: int) -> None:
    cache = make_cache(10, dtype=dtype, inputs=inputs)
    for stream in (training(cache, batch_size=4, seed=1, settings=MOVING, epochs=2), plain(cache, batch_size=4)):
        assert isinstance(stream.element_spec, Batch)
        batch = next(iter(stream))
        assert isinstance(batch, Batch)
        assert sorted(batch.inputs) == ["image", "thermal"][:inputs]
        for image in batch.inputs.values():
            assert (image.dtype.name, image.shape) == (dtype, (4, 6, 8, 3))
        assert (batch.targets.dtype.name, batch.targets.shape) == ("uint8", (4, 6, 8))
        assert (batch.weights.dtype.name, batch.weights.shape) == ("float32", (4,))
        assert (batch.weights.numpy() == 1).all()
        spec = stream.element_spec
        assert spec.inputs["image"].shape.as_list() == [4, 6, 8, 3]
        assert spec.targets.shape.as_list() == [4, 6, 8]


def test_every_picture_comes_once_an_epoch_and_the_last_batch_is_the_rest(make_cache: MakeCache) -> None:
    cache = make_cache(11)
    found = read(cache, settings=STILL, epochs=3)
    assert [len(batch.targets) for batch in found] == [4, 4, 3] * 3
    order = positions(cache, found)
    for epoch in range(3):
        assert sorted(order[epoch * 11 : epoch * 11 + 11]) == list(range(11))
    for batch in found:
        np.testing.assert_array_equal(batch.targets, batch.inputs["image"][..., 0] % 3)


@pytest.mark.parametrize("size", [4, 64])
def test_the_last_batch_is_filled_up_with_pictures_that_do_not_count(make_cache: MakeCache, size: int) -> None:
    """Batches of an unknown size made TensorFlow 2.21 corrupt memory, so each has the same static shape."""
    cache = make_cache(11)
    for stream in (training(cache, batch_size=size, seed=1, settings=MOVING, epochs=1), plain(cache, batch_size=size)):
        found = list(stream)
        assert stream.element_spec.inputs["image"].shape.as_list() == [size, 6, 8, 3]
        assert stream.element_spec.weights.shape.as_list() == [size]
        last, real = found[-1], 11 - size * (len(found) - 1)
        np.testing.assert_allclose(last.weights.numpy(), [size / real] * real + [0] * (size - real), rtol=1e-6)
        assert (last.targets.numpy()[real:] == 255).all()
        assert not (last.targets.numpy()[:real] == 255).any()


def test_filling_up_leaves_loss_and_counts_as_they_are(make_cache: MakeCache) -> None:
    cache = make_cache(5)
    losses, counts = [], []
    for size in (5, 8):
        keras.utils.set_random_seed(0)
        image = keras.Input((6, 8, 3), dtype="uint8", name="image")
        x = keras.layers.Rescaling(1 / 255)(image)
        model = keras.Model([image], keras.layers.Conv2D(3, 1)(x))
        metric = Confusion(Labelling(3))
        model.compile(
            loss=Objective([cross_entropy, dice], Scheme("softmax", Labelling(3), np.ones(3, np.float32))),
            metrics=[metric],
        )
        losses.append(model.evaluate(plain(cache, batch_size=size), return_dict=True, verbose=0)["loss"])
        counts.append(metric.counts())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    np.testing.assert_array_equal(counts[0], counts[1])
    assert counts[0].sum() == 5 * 6 * 8


def test_the_order_differs_between_epochs_and_seeds(make_cache: MakeCache) -> None:
    cache = make_cache(24)
    order = positions(cache, read(cache, settings=STILL, epochs=3))
    other = positions(cache, read(cache, settings=STILL, epochs=3, seed=6))
    parts = [tuple(run[start : start + 24]) for run in (order, other) for start in (0, 24, 48)]
    assert len(set(parts)) == 6
    assert tuple(range(24)) not in parts


def test_the_order_shows_no_preference() -> None:
    order = np.array([epoch_order([1.0] * 6, seed=5, epoch=epoch)[:, 0] for epoch in range(600)])
    counts = np.array([[(order[:, place] == picture).sum() for place in range(6)] for picture in range(6)])
    assert counts.min() > 65  # 100 expected, standard deviation 9
    assert counts.max() < 135


def test_the_same_seed_gives_the_same_batches_and_another_gives_others(make_cache: MakeCache) -> None:
    cache = make_cache(10)
    first = read(cache)
    assert_same(read(cache), first)
    assert not np.array_equal(read(cache, seed=6)[0].inputs["image"], first[0].inputs["image"])


def test_nothing_global_is_read(make_cache: MakeCache) -> None:
    cache = make_cache(10)
    first = read(cache)
    keras.utils.set_random_seed(123)
    assert_same(read(cache), first)


@pytest.mark.parametrize("first_epoch", [1, 2, 3])
def test_a_stream_that_starts_later_equals_the_unbroken_ones_rest(make_cache: MakeCache, first_epoch: int) -> None:
    cache = make_cache(10, inputs=2)
    whole = read(cache)
    assert len(whole) == 12
    assert_same(read(cache, first=first_epoch), whole[first_epoch * 3 :])


def test_a_stream_does_not_depend_on_where_it_ends(make_cache: MakeCache) -> None:
    cache = make_cache(10)
    assert_same(read(cache, epochs=2), read(cache, epochs=4)[:6])
    assert read(cache, epochs=2, first=2) == []


def test_a_pictures_change_is_the_same_in_batches_of_any_size(make_cache: MakeCache) -> None:
    cache = make_cache(10)
    parts = [batches(training(cache, batch_size=size, seed=5, settings=MOVING, epochs=2)) for size in (1, 3, 10, 64)]
    whole = [np.concatenate([batch.inputs["image"] for batch in found]) for found in parts]
    for other in whole[1:]:
        np.testing.assert_array_equal(other, whole[0])


def test_a_picture_is_changed_by_its_key_as_anyone_else_can_change_it(make_cache: MakeCache) -> None:
    cache = make_cache(6, inputs=2)
    found = read(cache, epochs=2, weights=[2.0] * 6)
    for epoch in range(2):
        batch_of = [(batch, row) for batch in found[epoch * 3 : epoch * 3 + 3] for row in range(4)]
        for (index, copy), (batch, row) in zip(epoch_order([2.0] * 6, seed=5, epoch=epoch), batch_of, strict=True):
            key = training_key(5, epoch=epoch, index=int(index), copy=int(copy))
            inputs = {name: images[index] for name, images in cache.inputs.items()}
            expected, labels = augment(inputs, cache.targets[index], MOVING, key=key)
            for name, image in expected.items():
                np.testing.assert_array_equal(batch.inputs[name][row], image)
            np.testing.assert_array_equal(batch.targets[row], labels)


def test_weights_say_how_often_a_picture_comes(make_cache: MakeCache) -> None:
    cache = make_cache(12)
    weights = [1.0] * 3 + [2.0] * 2 + [0.5] * 4 + [1.25] * 3
    length = 3 + 4 + 2 + 3 + 1
    assert epoch_length(weights) == length
    found = read(cache, settings=STILL, epochs=80, weights=weights)
    assert len(found) == 80 * steps(length, 4)
    order = np.array(positions(cache, found)).reshape(80, length)
    counts = np.array([np.bincount(epoch, minlength=12) for epoch in order])
    assert (counts[:, :3] == 1).all()
    assert (counts[:, 3:5] == 2).all()
    assert (counts[:, 5:9].sum(axis=1) == 2).all()
    assert (counts[:, 9:].sum(axis=1) == 4).all()
    assert counts[:, 5:9].max() == 1
    np.testing.assert_allclose(counts.mean(axis=0), weights, atol=0.2)
    np.testing.assert_array_equal(order[0], epoch_order(weights, seed=5, epoch=0)[:, 0])


def test_the_copies_of_a_picture_are_changed_each_in_its_own_way(make_cache: MakeCache) -> None:
    cache = make_cache(2)
    batch = read(cache, epochs=1, weights=[3.0, 1.0])[0]
    assert len({image.tobytes() for image in batch.inputs["image"]}) == 4
    order = epoch_order([3.0, 1.0], seed=5, epoch=0)
    assert sorted(map(tuple, order.tolist())) == [(0, 0), (0, 1), (0, 2), (1, 0)]


@pytest.mark.parametrize(("weights", "length"), [([0.5], 1), ([0.01, 1.0], 2), ([0.5] * 6, 3), ([100.0], 100)])
def test_an_epoch_is_never_empty_and_a_small_source_never_stays_away(weights: list[float], length: int) -> None:
    assert epoch_length(weights) == length
    assert all(len(epoch_order(weights, seed=1, epoch=epoch)) == length for epoch in range(5))


def test_weighted_streams_resume_like_any_other(make_cache: MakeCache) -> None:
    cache, weights = make_cache(7), [0.5, 0.5, 0.5, 0.5, 2.0, 1.0, 1.5]
    whole = read(cache, weights=weights)
    each = steps(epoch_length(weights), 4)
    assert_same(read(cache, first=2, weights=weights), whole[2 * each :])


def test_streams_read_at_once_are_the_same(make_cache: MakeCache) -> None:
    cache = make_cache(10, inputs=2)
    first = read(cache)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: read(cache), range(4)):
            assert_same(found, first)


def test_the_cache_is_left_as_it_is(make_cache: MakeCache) -> None:
    cache = make_cache(10)
    before = cache.inputs["image"].copy()
    read(cache)
    np.testing.assert_array_equal(cache.inputs["image"], before)


def test_plain_batches_are_the_cache_in_order_and_can_be_read_again(make_cache: MakeCache) -> None:
    cache = make_cache(10)
    stream = plain(cache, batch_size=4)
    assert int(stream.cardinality()) == 3
    for _ in range(2):
        found = batches(stream)
        assert [len(batch.targets) for batch in found] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate([b.inputs["image"] for b in found]), cache.inputs["image"])
        np.testing.assert_array_equal(np.concatenate([b.targets for b in found]), cache.targets)


@pytest.mark.parametrize("inputs", [1, 2])
def test_keras_takes_the_batches(make_cache: MakeCache, inputs: int) -> None:
    cache = make_cache(8, inputs=inputs)
    names = ["image", "thermal"][:inputs]
    tensors = [keras.Input((6, 8, 3), dtype="uint8", name=name) for name in names]
    scaled = [keras.layers.Rescaling(1 / 255, dtype="float32")(tensor) for tensor in tensors]
    x = keras.layers.Concatenate()(scaled) if inputs > 1 else scaled[0]
    model = keras.Model(tensors, keras.layers.Conv2D(3, 1)(x))

    def loss(targets: Any, logits: Any) -> Any:  # one value a picture, as the weights are
        losses = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return keras.ops.mean(losses, axis=(1, 2))

    model.compile(loss=loss)
    stream = training(cache, batch_size=4, seed=0, settings=MOVING, epochs=2)
    history = model.fit(
        stream, validation_data=plain(cache, batch_size=4), epochs=2, steps_per_epoch=2, shuffle=False, verbose=0
    )
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(history.history["val_loss"]).all()
