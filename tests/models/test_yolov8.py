"""YOLOv8 in plain Keras layers: shapes, sizes, start, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ContractError, ModelError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks.detect import BINS, STRIDES, anchors_of, distances, grid
from leakdet_tf.models.detector import SIZES, yolov8
from leakdet_tf.models.factories import activation_of, build

PUBLISHED = {"n": 3_011_043, "s": 11_135_987, "m": 25_856_899, "l": 43_630_611, "x": 68_153_571}
"""What ultralytics prints for one class: weights that learn, and the 16 numbers of a layer that never does."""
NARROW: dict[str, Any] = {"implementation": "native", "channels": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}


def learning(model: Any) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def bottleneck(width: int) -> int:
    """Weights of two 3x3 convolutions with their batch norms, and of one more input of the block's last convolution."""
    half = width // 2
    return 2 * (9 * half * half + 2 * half) + half * width


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_the_published_ones(size: str) -> None:
    """But for the blocks on the way up: KerasCV's have two bottlenecks, ultralytics' one, two or three by size."""
    model = yolov8((64, 64, 3), 1, size, implementation="native")
    (_, _, middle, coarse), depths = SIZES[size]
    more = (2 - depths[0]) * (bottleneck(middle) + bottleneck(coarse))
    assert learning(model) == PUBLISHED[size] - 16 + more
    assert model.output.shape == (None, anchors_of((64, 64)), 4 * BINS + 1)


def test_an_output_is_where_its_anchor_is() -> None:
    """A change of one corner's pixels reaches the anchors of that corner most, on every grid."""
    size = (128, 192)
    model = yolov8((*size, 3), 2, **NARROW, seed=3)
    image = np.full((1, *size, 3), 100, np.uint8)
    changed = image.copy()
    changed[0, 96:, 160:] = 250
    apart = np.abs(np.asarray(model(changed)) - np.asarray(model(image)))[0].sum(axis=1)
    middles, strides = grid(size)
    for stride in STRIDES:
        x, y = middles[strides == stride][apart[strides == stride].argmax()]
        assert x > 128
        assert y > 64


def test_it_begins_by_expecting_little() -> None:
    model = yolov8((64, 64, 3), 4, **NARROW, seed=0)
    for number, stride in enumerate(STRIDES, start=1):
        found = np.asarray(model.get_layer(f"head_{number}_class_3_conv").bias)
        np.testing.assert_allclose(found, math.log(5 / 4 / (640 / stride) ** 2), rtol=1e-6)
        assert (np.asarray(model.get_layer(f"head_{number}_box_3_conv").bias) == 1).all()
    output = np.asarray(model(np.zeros((1, 64, 64, 3), np.uint8)))
    np.testing.assert_allclose(distances(output[..., : 4 * BINS]), 7.5, atol=1e-3)


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 255), ("uint16", 65535), ("float32", 255)])
def test_pixels_are_put_on_one_scale(dtype: str, largest: int) -> None:
    model = yolov8((32, 32, 1), 1, **NARROW, input_dtype=dtype, input_name="thermal")
    assert (model.inputs[0].name, str(model.inputs[0].dtype)) == ("thermal", dtype)
    first = keras.Model(model.inputs, model.get_layer("photometry").output)
    pixels = np.full((1, 32, 32, 1), largest, dtype)
    np.testing.assert_allclose(np.asarray(first([pixels])), 1.0, rtol=1e-6)


def test_a_seed_is_a_start() -> None:
    one, same, other = (yolov8((32, 32, 3), **NARROW, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), same.get_weights(), strict=True))
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def test_it_is_built_from_an_experiment() -> None:
    model = build("yolov8", dict(NARROW), inputs={"ir": ImageSpec(64, 96, 1)}, classes=2, seed=0, task="detect")
    assert activation_of(model) == "linear"
    assert [layer.name for layer in model.layers][-2:] == ["logits", "outputs"]
    assert model.input_shape == (None, 64, 96, 1)


def test_outputs_are_float32_under_a_mixed_policy() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = yolov8((32, 32, 3), **NARROW)
        assert model.get_layer("photometry").compute_dtype == model.output.dtype == "float32"
        assert model.get_layer("encoder_stem_1_conv").compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(before)


def test_a_file_is_loaded_without_our_code(tmp_path: Path) -> None:
    model = yolov8((32, 32, 3), **NARROW, seed=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(loaded(image)), np.asarray(model(image)))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"size": "xl"}, "size 'xl' is unknown; did you mean 'x'"),
        ({"implementation": "keras"}, "implementation 'keras' is unknown; did you mean 'kerascv'"),
        ({"classes": 0}, "classes must be a whole number from 1 up"),
        ({"input_dtype": "int8"}, "input_dtype 'int8' is unknown"),
        ({"input_shape": (None, 64, 3)}, r"input_shape must be \(H, W, C\)"),
        ({"input_shape": (64, 64)}, r"input_shape must be \(H, W, C\)"),
        ({"channels": [8, 8, 16]}, "channels must be four even numbers above 0"),
        ({"channels": [8, 9, 16, 16]}, "channels must be four even numbers above 0"),
        ({"depths": [0, 1, 1, 1]}, "depths must be four numbers above 0"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        yolov8(**(NARROW | {"input_shape": (64, 64, 3)} | keys))


def test_a_size_that_grids_do_not_divide_is_refused() -> None:
    with pytest.raises(ContractError, match="a detector's input is 64x80 px; make both multiples of 32"):
        yolov8((64, 80, 3), **NARROW)
