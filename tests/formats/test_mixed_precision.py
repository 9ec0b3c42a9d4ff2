"""Models of mixed precision, and operators that TFLite lacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ExportError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.edge.backends.litert import LiteRTBackend
from leakdet_tf.formats import child, tflite
from leakdet_tf.formats.child import Asked
from leakdet_tf.formats.precision import in_float32

SIDE = 16
CONTRACT = Contract("classify", {"image": ImageSpec(SIDE, SIDE)}, classes_of(["one", "two", "three"]), "softmax")
PICTURES = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def filtering() -> Iterator[None]:
    import keras

    yield
    keras.config.enable_traceback_filtering()


def small(policy: str, last: Any = None) -> Any:
    """A classifier of a convolution, a norm and an inner model, under a policy; its answer is float32."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        given = keras.Input((SIDE // 2, SIDE // 2, 8))
        inner = keras.Model(given, keras.layers.Conv2D(8, 3, activation="relu", name="inner_conv")(given), name="inner")
        image = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
        x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, 2, padding="same")(x))
        x = keras.layers.GlobalAveragePooling2D()(inner(x))
        x = keras.layers.Dense(3)(last(x) if last else x)
        model = keras.Model(image, keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x))
    finally:
        keras.config.set_dtype_policy(before)
    random = np.random.default_rng(3)
    for weight in model.weights:
        if weight.ndim > 1:
            weight.assign(random.normal(0, 0.5, weight.shape))
    return model


def policies(model: Any) -> set[str]:
    inner = set().union(*(policies(layer) for layer in getattr(model, "layers", ())))
    return inner | {model.dtype_policy.name}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_model_is_rebuilt_in_float32_with_its_weights(policy: str, tmp_path: Path) -> None:
    model = small(policy)
    assert policy in policies(model)
    model.save(tmp_path / "m.keras")
    loaded = child.load(tmp_path / "m.keras", CONTRACT, batched=True)  # ONNX takes this road too
    assert policies(loaded) == {"float32"}
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        assert theirs.dtype == "float32"
        np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))
    exact, mixed = (np.asarray(one.predict_on_batch(PICTURES)) for one in (loaded, model))
    np.testing.assert_allclose(mixed, exact, atol=0.03)
    assert np.abs(mixed - exact).max() > 0, "low precision rounds, or this test shows nothing"
    twin = small("float32")
    twin.set_weights(model.get_weights())
    np.testing.assert_allclose(exact, np.asarray(twin.predict_on_batch(PICTURES)), atol=1e-6)


def test_a_float32_model_is_left_as_it_is() -> None:
    model = small("float32")
    assert in_float32(model) is model


def converted(model: Any, folder: Path) -> LiteRTBackend:
    model.save(folder / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own
        tflite._convert_here(folder / "m.keras", CONTRACT, folder / "m.tflite", Asked("tflite_float32"))
    return LiteRTBackend((folder / "m.tflite").read_bytes(), CONTRACT)


def test_a_mixed_model_converts(tmp_path: Path) -> None:
    model = small("mixed_float16")
    backend = converted(model, tmp_path)
    exact = np.asarray(in_float32(model).predict_on_batch(PICTURES))
    for picture, answer in zip(PICTURES, exact, strict=True):
        np.testing.assert_allclose(next(iter(backend.run({"image": picture}).values())), answer, atol=1e-5)


def test_operators_that_tflite_lacks_are_named(tmp_path: Path) -> None:
    import keras

    with pytest.raises(ExportError, match=r"^TFLite has no builtin operators for: Erf; use other layers$"):
        converted(small("float32", keras.ops.erf), tmp_path)
    assert not (tmp_path / "m.tflite").exists()
