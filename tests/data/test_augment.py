"""Random changes: what each strength does, that masks follow geometry alone, and that a picture's change is its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from leakdet_tf.config.schema import Augment
from leakdet_tf.core.records import IGNORE
from leakdet_tf.data.augment import augment

NONE = {"flip_horizontal": 0.0, "flip_vertical": 0.0, "brightness": 0.0, "contrast": 0.0}
Arrays = dict[str, np.ndarray]


def pictures(count: int, dtype: str = "uint8", *, seed: int = 0) -> tuple[Arrays, np.ndarray]:
    """Pictures whose first channel is the mask."""
    random = np.random.default_rng(seed)
    image = random.integers(0, np.iinfo(dtype).max + 1, (count, 6, 8, 3)).astype(dtype)
    targets = random.choice(np.array([0, 1, 2, IGNORE], np.uint8), (count, 6, 8))
    image[..., 0] = targets
    return {"image": image}, targets


def changed(
    inputs: Arrays, targets: np.ndarray, *, seed: int = 7, epoch: int = 3, index: Any = None, **strengths: float
) -> tuple[Arrays, np.ndarray]:
    index = np.arange(len(targets)) if index is None else np.asarray(index)
    settings = Augment.model_validate(NONE | strengths)
    found, labels = augment(
        {name: tf.constant(image) for name, image in inputs.items()},
        tf.constant(targets),
        settings,
        seed=seed,
        epoch=tf.constant(epoch, tf.int64),
        index=tf.constant(index, tf.int64),
    )
    arrays = {name: image.numpy() for name, image in found.items()}
    for name, image in inputs.items():
        assert (arrays[name].dtype, arrays[name].shape) == (image.dtype, image.shape)
    assert (labels.numpy().dtype, labels.shape) == (targets.dtype, targets.shape)
    return arrays, labels.numpy()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_no_strength_changes_nothing(dtype: str) -> None:
    inputs, targets = pictures(5, dtype)
    found, labels = changed(inputs, targets)
    np.testing.assert_array_equal(found["image"], inputs["image"])
    np.testing.assert_array_equal(labels, targets)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_tiny_strength_rounds_to_no_change(dtype: str) -> None:
    inputs, targets = pictures(5, dtype)
    found, _ = changed(inputs, targets, brightness=1e-9, contrast=1e-9)
    np.testing.assert_array_equal(found["image"], inputs["image"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 2), ("flip_vertical", 1)])
def test_probability_one_flips_every_picture_and_its_mask(dtype: str, name: str, axis: int) -> None:
    inputs, targets = pictures(5, dtype)
    found, labels = changed(inputs, targets, **{name: 1.0})
    np.testing.assert_array_equal(found["image"], np.flip(inputs["image"], axis))
    np.testing.assert_array_equal(labels, np.flip(targets, axis))


def test_both_flips_turn_by_half() -> None:
    inputs, targets = pictures(3)
    found, labels = changed(inputs, targets, flip_horizontal=1.0, flip_vertical=1.0)
    np.testing.assert_array_equal(found["image"], inputs["image"][:, ::-1, ::-1])
    np.testing.assert_array_equal(labels, targets[:, ::-1, ::-1])


def test_picture_and_mask_flip_together_and_in_four_ways() -> None:
    inputs, targets = pictures(64)
    found, labels = changed(inputs, targets, flip_horizontal=0.5, flip_vertical=0.5)
    np.testing.assert_array_equal(found["image"][..., 0], labels)
    ways = [targets, targets[:, :, ::-1], targets[:, ::-1], targets[:, ::-1, ::-1]]
    counts = [sum(np.array_equal(labels[i], way[i]) for i in range(64)) for way in ways]
    assert sum(counts) == 64
    assert min(counts) >= 6


def test_a_flip_comes_as_often_as_it_should() -> None:
    inputs, targets = pictures(600)
    _, labels = changed(inputs, targets, flip_horizontal=0.2)
    flipped = np.mean([np.array_equal(labels[i], targets[i, :, ::-1]) for i in range(600)])
    assert 0.14 < flipped < 0.26


def test_two_inputs_flip_together_but_differ_in_intensity() -> None:
    inputs, targets = pictures(16)
    inputs["thermal"] = np.repeat(inputs["image"][..., :1].astype(np.uint16) * 257, 2, axis=3)
    found, labels = changed(inputs, targets, flip_horizontal=0.5)
    np.testing.assert_array_equal(found["image"][..., 0], labels)
    np.testing.assert_array_equal(found["thermal"][..., 0], labels.astype(np.uint16) * 257)

    grey = {"image": np.full((16, 6, 8, 1), 100, np.uint8), "thermal": np.full((16, 6, 8, 1), 30000, np.uint16)}
    found, _ = changed(grey, targets, brightness=0.2)
    shifts = [
        (found[name].reshape(16, -1)[:, 0] - grey[name][0, 0, 0, 0]) / top
        for name, top in (("image", 255), ("thermal", 65535))
    ]
    assert np.abs(shifts[0] - shifts[1]).max() > 0.05


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_intensity_never_touches_masks_and_follows_its_formula(dtype: str) -> None:
    inputs, targets = pictures(40, dtype)
    top = float(np.iinfo(dtype).max)
    found, labels = changed(inputs, targets, brightness=0.3)
    np.testing.assert_array_equal(labels, targets)
    inside = (found["image"] > 0) & (found["image"] < top)
    shifts = []
    for before, after, kept in zip(inputs["image"], found["image"], inside, strict=True):
        shift = (after.astype(float) - before)[kept]
        assert np.ptp(shift) <= 1
        shifts.append(shift.mean() / top)
    assert max(np.abs(shifts)) <= 0.3 + 1 / top
    assert np.ptp(shifts) > 0.4


def test_contrast_keeps_the_mean_and_scales_about_it() -> None:
    random = np.random.default_rng(1)
    image = random.integers(100, 156, (40, 6, 8, 1)).astype(np.uint8)
    found, _ = changed({"image": image}, np.zeros((40, 6, 8), np.uint8), contrast=0.5)
    gains = []
    for before, after in zip(image.astype(float), found["image"].astype(float), strict=True):
        assert abs(before.mean() - after.mean()) < 0.2
        gain = np.polyfit(before.ravel(), after.ravel(), 1)[0]
        np.testing.assert_allclose(after, before.mean() + gain * (before - before.mean()), atol=1.0)
        gains.append(gain)
    assert 0.49 < min(gains) < 0.65
    assert 1.35 < max(gains) < 1.51


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_values_are_clipped_and_never_wrap_around(dtype: str) -> None:
    top = np.iinfo(dtype).max
    image = np.zeros((32, 6, 8, 1), dtype)
    image[:, :, 4:] = top
    found, _ = changed({"image": image}, np.zeros((32, 6, 8), np.uint8), brightness=1.0, contrast=1.0)
    dark, bright = found["image"][:, 0, 0, 0].astype(float), found["image"][:, 0, 7, 0].astype(float)
    assert (bright >= dark).all()
    assert (dark > 0).any()
    assert (bright < top).any()
    assert (bright == top).any()


ALL = {"flip_horizontal": 0.5, "flip_vertical": 0.5, "brightness": 0.3, "contrast": 0.3}


def test_a_pictures_change_is_independent_of_its_batch() -> None:
    inputs, targets = pictures(12)
    whole, whole_labels = changed(inputs, targets, index=np.arange(100, 112), **ALL)
    order = np.random.default_rng(0).permutation(12)
    for rows in ([4], [11, 0, 5], [3, 3], list(order)):
        part, labels = changed({"image": inputs["image"][rows]}, targets[rows], index=100 + np.asarray(rows), **ALL)
        np.testing.assert_array_equal(part["image"], whole["image"][rows])
        np.testing.assert_array_equal(labels, whole_labels[rows])


def test_the_change_depends_on_seed_epoch_and_index() -> None:
    image = np.tile(pictures(1)[0]["image"], (8, 1, 1, 1))
    targets = np.zeros((8, 6, 8), np.uint8)

    def run(**keys: Any) -> np.ndarray:
        return changed({"image": image}, targets, **keys, **ALL)[0]["image"]

    first = run()
    np.testing.assert_array_equal(run(), first)
    assert not np.array_equal(run(seed=8), first)
    assert not np.array_equal(run(epoch=4), first)
    assert not np.array_equal(run(index=np.arange(8, 16)), first)
    assert len({row.tobytes() for row in first}) == 8


def test_one_strength_does_not_change_what_another_draws() -> None:
    inputs, targets = pictures(16)
    _, alone = changed(inputs, targets, flip_horizontal=0.5)
    _, together = changed(inputs, targets, flip_horizontal=0.5, brightness=0.5, contrast=0.5)
    np.testing.assert_array_equal(alone, together)


def test_an_empty_choice_and_a_batch_of_one_work_in_a_graph() -> None:
    inputs, targets = pictures(1)
    graph = tf.function(
        lambda image, labels, index: augment(
            {"image": image}, labels, Augment(flip_vertical=0.5), seed=1, epoch=tf.constant(0, tf.int64), index=index
        )
    )
    for index in range(6):
        found, labels = graph(inputs["image"], targets, tf.constant([index], tf.int64))
        assert found["image"].shape == (1, 6, 8, 3)
        assert labels.shape == (1, 6, 8)
