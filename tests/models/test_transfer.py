"""Weights taken over from another model: everything that fits, and an account of the rest."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ModelError
from leakdet_tf.models import unet
from leakdet_tf.models.initialize import named_weights
from leakdet_tf.models.weight_transfer import transfer

SMALL: dict[str, Any] = {"encoder_options": {"width": 8}, "decoder_filters": (8, 8, 8, 8, 8)}


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: variable.numpy().copy() for path, variable in named_weights(model)}


def test_the_same_architecture_takes_everything() -> None:
    source, target = unet((64, 64, 3), 3, seed=1, **SMALL), unet((64, 64, 3), 3, seed=2, **SMALL)
    for path, variable in named_weights(source):
        if "moving" in path:
            variable.assign(np.full(variable.shape, 0.25, np.float32))
    done = transfer(source, target, where="x")
    assert (done.loaded, done.missing, done.unused) == (done.total, (), ())
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(source.predict_on_batch(picture), target.predict_on_batch(picture))


def test_other_classes_start_their_head_anew_and_say_so() -> None:
    source, target = unet((64, 64, 3), 2, seed=1, **SMALL), unet((64, 64, 3), 3, seed=2, **SMALL)
    before = weights(target)
    done = transfer(source, target, where="x")
    assert done.missing == (
        "head_conv/kernel (3, 3, 8, 3): there it is (3, 3, 8, 2)",
        "head_conv/bias (3,): there it is (2,)",
    )
    assert done.loaded == done.total - 2
    after, given = weights(target), weights(source)
    for path in after:
        np.testing.assert_array_equal(after[path], (before if path.startswith("head_conv") else given)[path])
    lines = done.lines("runs/a")
    assert lines[0] == f"weights: {done.loaded} of {done.total} taken from runs/a"
    assert len(lines) == 3


def test_what_the_other_model_lacks_or_has_too_much_is_named() -> None:
    source = unet((64, 64, 3), 3, encoder="resnet18", seed=1, **SMALL)
    target = unet((64, 64, 3), 3, encoder="resnet34", seed=2, **SMALL)
    done = transfer(source, target, where="x")
    assert any("the other model has none of that name" in line for line in done.missing)
    back = transfer(target, source, where="x")
    assert back.unused
    assert "not used" in back.lines("x")[-1]


def test_a_model_of_which_nothing_fits_is_refused() -> None:
    image = keras.Input((8, 8, 3))
    other = keras.Model(image, keras.layers.Conv2D(2, 3, name="odd")(image))
    target = unet((64, 64, 3), 3, seed=2, **SMALL)
    before = weights(target)
    with pytest.raises(ModelError, match="none of its weights fits"):
        transfer(other, target, where="x")
    for path, value in weights(target).items():
        np.testing.assert_array_equal(value, before[path])
