"""The U-Net factory: shapes, photometry, contracts of encoder and head, policies, files, one training step."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.registry import names, resolve
from leakdet_tf.models import unet
from leakdet_tf.models.heads import conv_head


def plain_encoder(x: Any, *, width: int = 4) -> list[Any]:
    """Somebody's own encoder: five strided convolutions with names that Keras numbers by itself."""
    features = []
    for _ in range(5):
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", data_format="channels_last")(x)
        features.append(x)
    return features


NARROW: dict[str, Any] = {"encoder_options": {"width": 8}, "decoder_filters": (16, 16, 8, 8, 4), "seed": 0}
RAW: dict[str, Any] = {**NARROW, "activation": "linear"}
SMALL: dict[str, Any] = {"encoder": plain_encoder, "decoder_filters": (8, 8, 8, 4, 4), "seed": 0}
WIDTHS = {"resnet18": (8, 8, 16, 32, 64), "resnet34": (8, 8, 16, 32, 64), "resnet50": (8, 32, 64, 128, 256)}


def pictures(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    high = 256 if dtype == "uint8" else 65536
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def answers(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(batch, training=False))


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal to 1e-5 of the largest value: fresh batch norms let raw outputs grow to hundreds."""
    assert expected.std() > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def policy() -> Iterator[Any]:
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def first_channels() -> Iterator[None]:
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def test_default_model_has_the_published_size_and_interface() -> None:
    model = unet()
    assert model.count_params() == 14_340_860
    assert model.input_shape == (None, 256, 256, 3)
    assert model.output_shape == (None, 256, 256, 3)
    assert (model.inputs[0].name, model.inputs[0].dtype) == ("image", "uint8")
    for name in ("logits", "probabilities"):
        assert model.get_layer(name).output.dtype == "float32"
    assert model.get_layer("probabilities").output is model.output


@pytest.mark.parametrize("encoder", names("encoder"))
def test_registered_encoder_builds_narrow_with_its_strides(encoder: str) -> None:
    x = keras.Input((64, 96, 3))
    options = {"alpha": 0.35} if encoder.startswith("mobilenet") else {"width": 8}
    features = resolve("encoder", encoder)(x, **options)
    shapes = [tuple(feature.shape[1:]) for feature in features]
    assert [shape[:2] for shape in shapes] == [(64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
    if encoder in WIDTHS:
        assert tuple(shape[2] for shape in shapes) == WIDTHS[encoder]
    model = unet((64, 96, 3), encoder=encoder, **{**NARROW, "encoder_options": options})
    scores = answers(model, pictures((2, 64, 96, 3)))
    assert scores.shape == (2, 64, 96, 3)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores.sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_channels_and_any_size(channels: int) -> None:
    model = unet((None, None, channels), 2, **NARROW)
    assert model.output_shape == (None, None, None, 2)
    assert answers(model, pictures((1, 64, 96, channels))).shape == (1, 64, 96, 2)


def test_open_size_equals_fixed_size() -> None:
    batch = pictures((1, 64, 96, 3))
    assert_close(answers(unet((None, None, 3), **RAW), batch), answers(unet((64, 96, 3), **RAW), batch))


def test_channels_stay_last_whatever_keras_is_set_to(first_channels: None) -> None:
    assert unet((64, 96, 3), **NARROW).output_shape == (None, 64, 96, 3)


def test_two_encoders_fit_into_one_model() -> None:
    x = keras.Input((64, 64, 3))
    encoder = resolve("encoder", "resnet18")
    deepest = [encoder(x, width=8, name=name)[-1] for name in ("rgb", "thermal")]
    keras.Model(x, keras.layers.Concatenate()(deepest))


@pytest.mark.parametrize(("input_dtype", "factor"), [("uint16", 257), ("float32", 1)])
def test_other_input_dtypes_land_on_the_scale_of_uint8(input_dtype: str, factor: int) -> None:
    batch = pictures((1, 64, 64, 1))
    byte = unet((64, 64, 1), **RAW)
    other = unet((64, 64, 1), input_dtype=input_dtype, **RAW)
    assert other.inputs[0].dtype == input_dtype
    scaled = batch.astype(input_dtype) * factor
    assert_close(answers(other, scaled), answers(byte, batch))


@pytest.mark.parametrize(
    ("activation", "classes"), [("softmax", 2), ("sigmoid", 1), ("sigmoid", 3), ("linear", 1), ("linear", 3)]
)
def test_activation_is_applied_to_the_logits(activation: str, classes: int) -> None:
    keras.utils.set_random_seed(0)  # an outside encoder's draws are Keras's
    model = unet((32, 32, 3), classes, activation=activation, input_dtype="float32", **SMALL)
    both = keras.Model(model.input, [model.get_layer("logits").output, model.output])
    logits, scores = (keras.ops.convert_to_numpy(y) for y in both(pictures((1, 32, 32, 3)) / np.float32(100)))
    assert 0.01 < logits.std() < 10  # else the activation is in saturation, or does nothing
    if activation == "softmax":
        raised = np.exp(logits - logits.max(-1, keepdims=True))
        expected = raised / raised.sum(-1, keepdims=True)
    else:
        expected = logits if activation == "linear" else 0.5 + 0.5 * np.tanh(logits / 2)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("policy_name", ["mixed_bfloat16", "mixed_float16"])
def test_outputs_stay_float32_in_mixed_precision(policy: Any, policy_name: str) -> None:
    policy(policy_name)
    model = unet((32, 32, 1), input_dtype="uint16", **NARROW)
    compute = policy_name.removeprefix("mixed_")
    assert model.get_layer("head_conv").compute_dtype == compute
    assert {layer.compute_dtype for layer in model.layers if isinstance(layer, keras.layers.Conv2D)} == {compute}
    assert model.get_layer("logits").output.dtype == model.output.dtype == "float32"
    # The brightest count, 65535, is more than float16 can hold.
    scores = answers(model, np.full((1, 32, 32, 1), 65535, "uint16"))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_saved_file_answers_the_same(tmp_path: Path) -> None:
    model = unet((None, None, 3), **RAW)
    batch = pictures((1, 64, 64, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.inputs[0].dtype == "uint8"
    np.testing.assert_array_equal(answers(loaded, batch), answers(model, batch))


def test_training_lowers_the_loss() -> None:
    """Step by step: tracing a graph takes longer than four steps, and the tests of the jobs train one."""
    batch = pictures((4, 32, 32, 3))
    truth = (batch[..., 0] > 127).astype("int32")
    scores = unet((32, 32, 3), 2, **NARROW)
    # One row of pixels: torch 2.13 cannot differentiate this loss on a picture ("grad_input must be contiguous").
    model = keras.Model(scores.input, keras.layers.Reshape((-1, 2))(scores.output))
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", run_eagerly=True)
    losses = model.fit(batch, truth.reshape(4, -1), epochs=4, batch_size=4, verbose=0).history["loss"]
    assert losses[-1] < 0.98 * losses[0]


# --- somebody else's encoder and head -------------------------------------------------------------------------------


def test_encoder_may_be_a_callable_or_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_encoder.py").write_text(
        "import keras\n\n"
        "def three_by_three(x, *, width=4):\n"
        "    features = []\n"
        "    for _ in range(5):\n"
        "        x = keras.layers.Conv2D(width, 3, strides=2, padding='same', activation='relu',\n"
        "                                data_format='channels_last')(x)\n"
        "        features.append(x)\n"
        "    return tuple(features)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    common: dict[str, Any] = {"encoder_options": {"width": 6}, "decoder_filters": (8, 8, 8, 8, 4), "seed": 3}
    common["activation"] = "linear"
    by_path = unet((64, 64, 3), encoder="foreign_encoder:three_by_three", **common)
    by_function = unet((64, 64, 3), encoder=plain_encoder, **common)
    by_function.set_weights(by_path.get_weights())  # an outside encoder's own draws are Keras's
    batch = pictures((1, 64, 64, 3))
    np.testing.assert_array_equal(answers(by_path, batch), answers(by_function, batch))


def test_an_encoder_of_ones_own_keeps_the_weights_it_came_with() -> None:
    def pretrained(x: Any) -> list[Any]:
        features = []
        for stage in range(5):
            ones = keras.initializers.RandomUniform(7.0, 7.5, seed=stage)
            x = keras.layers.Conv2D(4, 2, strides=2, kernel_initializer=ones, name=f"mine{stage}")(x)
            features.append(x)
        return features

    first, second = (unet((32, 32, 3), encoder=pretrained, decoder_filters=(4, 4, 4, 4, 4), seed=s) for s in (1, 2))
    for model in (first, second):
        assert np.asarray(model.get_layer("mine0").kernel).min() >= 7.0
    decoders = [np.asarray(model.get_layer("decoder_stage0a_conv").kernel) for model in (first, second)]
    assert not np.array_equal(*decoders), "the decoder is drawn from the seed all the same"


def test_head_may_be_a_callable() -> None:
    def point_head(x: Any, classes: int) -> Any:
        return keras.layers.Conv2D(classes, 1, data_format="channels_last", name="point")(x)

    model = unet((32, 32, 3), 5, head=point_head, **SMALL)
    assert model.output_shape == (None, 32, 32, 5)
    assert tuple(model.get_layer("point").kernel.shape) == (1, 1, 4, 5)
    assert unet((32, 32, 3), head=conv_head, **SMALL).get_layer("head_conv").kernel.shape[0] == 3


def finest_last(x: Any) -> list[Any]:
    return plain_encoder(x)[::-1]


def four_only(x: Any) -> list[Any]:
    return plain_encoder(x)[:4]


def one_tensor(x: Any) -> Any:
    return plain_encoder(x)[-1]


def arrays(x: Any) -> list[Any]:
    return [np.zeros((1, 32, 32, 4))] * 5


def pooled(x: Any) -> list[Any]:
    return [*plain_encoder(x)[:4], keras.layers.GlobalAveragePooling2D()(x)]


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (finest_last, r"'finest_last': tensor 0 \(stride 2\): expected \(H, W, C\) = \(32, 32, \?\), got \(2, 2, 4\)"),
        (four_only, "'four_only': expected 5 tensors, got 4"),
        (one_tensor, "'one_tensor': expected a list of 5 tensors, got KerasTensor"),
        (arrays, r"'arrays': tensor 0 \(stride 2\): expected a Keras tensor, got ndarray"),
        (pooled, r"'pooled': tensor 4 \(stride 32\): expected \(H, W, C\) = \(2, 2, \?\), got \(3\)"),
    ],
)
def test_what_an_encoder_returns_is_checked(encoder: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        unet((64, 64, 3), encoder=encoder)
    assert "strides 2, 4, 8, 16, 32" in caught.value.remedy


def test_unnamed_callables_can_be_encoders_too() -> None:
    unet((32, 32, 3), encoder=functools.partial(plain_encoder, width=2), decoder_filters=(4, 4, 4, 4, 4))
    with pytest.raises(ModelError, match="encoder 'partial'"):
        unet((32, 32, 3), encoder=functools.partial(four_only))


def test_what_a_head_returns_is_checked() -> None:
    def forgetful(x: Any, classes: int) -> Any:
        return x

    with pytest.raises(ModelError, match=r"forgetful': expected \(H, W, C\) = \(32, 32, 3\), got \(32, 32, 4\)"):
        unet((32, 32, 3), head=forgetful, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"input_shape": (100, 64, 3)}, "height of input_shape must be divisible by 32, not 100; .*96 or 128"),
        ({"input_shape": (64, 20, 3)}, "width of input_shape must be divisible by 32, not 20; .*32, or None"),
        ({"input_shape": (0, 64, 3)}, "height"),
        ({"input_shape": (64, 64)}, r"must be \(H, W, C\)"),
        ({"input_shape": (64, 64, None)}, "channels"),
        ({"classes": 0, "activation": "sigmoid"}, "from 1 up, not 0"),
        ({"classes": 1}, "from 2 up, not 1; .*sigmoid"),
        ({"classes": 2.0}, "whole number"),
        ({"classes": True, "activation": "sigmoid"}, "whole number"),
        ({"activation": "softmx"}, "did you mean 'softmax'"),
        ({"input_dtype": "uint8t"}, "did you mean 'uint8'"),
        ({"decoder_filters": (16, 16, 8, 8)}, "decoder_filters must be 5"),
        ({"decoder_filters": (16, 16, 8, 8, 0)}, "decoder_filters must be 5"),
        ({"encoder": "resnet19"}, "unknown encoder 'resnet19'; did you mean 'resnet1"),
        ({"head": "cnov", **SMALL}, "unknown head 'cnov'; did you mean 'conv'"),
        ({"encoder_options": {"widht": 8}}, "encoder 'resnet18': encoder_options: .*widht.*; did you mean 'width'"),
        ({"encoder_options": {"width": 0}}, "width must be a positive whole number, not 0"),
        ({"encoder_options": {"width": True}}, "width must be a positive whole number, not True"),
    ],
)
def test_wrong_arguments_are_told_with_a_remedy(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        unet(**{"input_shape": (64, 64, 3), **arguments})
    assert caught.value.remedy
