"""Counting while training: the same matrix as ``core``'s, past the limits of 32 bits, and its ratios in the logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.data import Augment
from leakdet_tf.core.confusion_matrix import confusion, ratios
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.pipeline import plain, training
from leakdet_tf.training.losses import Objective, Scheme, cross_entropy
from leakdet_tf.training.measure import Confusion, Measure

LIMB = 1 << 24


def random_batch(seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, (4, 7, 9)).astype(np.uint8)
    targets[random.random(targets.shape) < 0.2] = IGNORE
    return targets, random.normal(size=(4, 7, 9, classes)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_the_matrix_equals_core(classes: int) -> None:
    metric = Confusion(Labelling(classes))
    expected = np.zeros((classes, classes), np.int64)
    for seed in range(4):
        targets, logits = random_batch(seed, classes)
        metric.update_state(targets, logits)
        expected += confusion(targets, logits.argmax(-1).astype(np.uint8), classes)
    np.testing.assert_array_equal(metric.counts(), expected)
    assert metric.counts().dtype == np.int64
    assert float(metric.result()) == expected.sum()


def test_rows_are_the_truth() -> None:
    metric = Confusion(Labelling(2))
    metric.update_state(np.array([[[0, 0, 1]]]), np.array([[[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]]]))
    np.testing.assert_array_equal(metric.counts(), [[0, 2], [0, 1]])


def test_weights_do_not_change_counts_and_all_may_be_ignored() -> None:
    targets, logits = random_batch(0)
    metric = Confusion(Labelling(3))
    metric.update_state(targets, logits, sample_weight=np.zeros(4, np.float32))
    np.testing.assert_array_equal(metric.counts(), confusion(targets, logits.argmax(-1).astype(np.uint8), 3))
    metric.reset_state()
    metric.update_state(np.full_like(targets, IGNORE), logits)
    assert metric.counts().sum() == 0


def test_counts_carry_over_the_low_limb() -> None:
    metric = Confusion(Labelling(2))
    metric._low.assign([LIMB - 1, LIMB - 3, 5, 0])
    metric._high.assign([0, 7, 0, 200])
    start = metric.counts()
    np.testing.assert_array_equal(start, [[LIMB - 1, 8 * LIMB - 3], [5, 200 * LIMB]])
    targets, logits = random_batch(1, 2)
    added = confusion(targets, logits.argmax(-1).astype(np.uint8), 2)
    metric.update_state(targets, logits)
    np.testing.assert_array_equal(metric.counts(), start + added)
    assert int(metric._low.numpy().max()) < LIMB
    assert int(metric._high.numpy()[0]) == 1


def test_counts_beyond_32_bits_are_exact() -> None:
    metric = Confusion(Labelling(2))
    metric._high.assign([1 << 20, 0, 0, 0])
    metric._low.assign([LIMB - 1, 0, 0, 0])
    metric.update_state(np.zeros((1, 1, 2), np.uint8), np.array([[[[1.0, 0.0], [1.0, 0.0]]]]))
    assert int(metric.counts()[0, 0]) == (1 << 44) + LIMB + 1


class Capture(keras.callbacks.Callback):
    """Keeps the logs as callbacks after Measure see them."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.logs.append(dict(logs))


def counted(model: Any, cache: Cache) -> np.ndarray:
    """IoU by another way: all pictures at once, counted in core."""
    logits = model(cache.inputs, training=False).numpy()
    return ratios(confusion(cache.targets, logits.argmax(-1).astype(np.uint8), 2))["iou"]


@pytest.mark.parametrize("rate", [0.0, 0.02])
def test_the_logs_hold_the_ratios_of_training_and_validation(
    make_blobs: Callable[..., Cache], make_tiny: Callable[..., Any], rate: float
) -> None:
    cache, other = make_blobs(10, seed=0), make_blobs(7, seed=1)
    served = make_tiny(seed=2)
    model = keras.Model(served.inputs, served.get_layer("logits").output)
    metric, capture = Confusion(Labelling(2)), Capture()
    model.compile(
        keras.optimizers.SGD(rate),
        Objective([cross_entropy], Scheme("softmax", Labelling(2), np.ones(2, np.float32))),
        metrics=[metric],
    )
    still = Augment(flip_horizontal=0, flip_vertical=0, brightness=0, contrast=0)
    model.fit(
        training(cache, batch_size=4, seed=0, settings=still, epochs=2),
        validation_data=plain(other, batch_size=4),
        epochs=2,
        steps_per_epoch=3,
        callbacks=[Measure(metric, ("background", "disc")), capture],
        shuffle=False,
        verbose=0,
    )
    last = capture.logs[-1]
    assert set(last) == {
        *("loss", "mean_iou", "iou_background", "iou_disc"),
        *("val_loss", "val_mean_iou", "val_iou_background", "val_iou_disc"),
    }
    seen = counted(model, other)
    assert [last["val_iou_background"], last["val_iou_disc"]] == list(seen)
    assert last["val_mean_iou"] == np.nanmean(seen)
    if rate == 0:  # the weights never change, so the training figure can be counted again too
        seen = counted(model, cache)
        assert [last["iou_background"], last["iou_disc"]] == list(seen)
        # Another order fills up the last batch, which Keras's mean loss counts like the others.
        assert capture.logs[0] == {**last, "loss": pytest.approx(last["loss"], rel=1e-2)}
        assert last["mean_iou"] != last["val_mean_iou"]
    else:
        assert capture.logs[0] != last
