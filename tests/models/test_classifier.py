"""The classifier factories: shapes, photometry, layer names, files, frozen encoders, TFLite."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ConfigError, ModelError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.registry import resolve
from leakdet_tf.models import encoder_source, mobilenet_classifier, resnet_classifier, unet
from leakdet_tf.models.factories import activation_of, build
from leakdet_tf.models.initialize import named_weights

NARROW: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 8},
    "resnet18_v1": {"width": 8},
    "resnet34_v1": {"width": 8},
    "resnet50_v1": {"width": 8},
    "mobilenet": {"alpha": 0.25},
    "mobilenet_v2": {"alpha": 0.35},
    "mobilenet_v3_small": {"alpha": 0.35},
    "mobilenet_v3_large": {"alpha": 0.35},
}
CHANNELS = {
    "resnet18_v1": (8, 8, 16, 32, 64),
    "resnet34_v1": (8, 8, 16, 32, 64),
    "resnet50_v1": (8, 32, 64, 128, 256),
    "mobilenet": (16, 32, 64, 128, 256),
    "mobilenet_v2": (48, 48, 96, 192, 1280),
    "mobilenet_v3_small": (16, 40, 32, 96, 192),
    "mobilenet_v3_large": (32, 24, 96, 240, 336),
}


def narrow(encoder: str, size: int | None = 32, classes: int = 3, **arguments: Any) -> keras.Model:
    factory = mobilenet_classifier if encoder.startswith("mobilenet") else resnet_classifier
    arguments = {"seed": 0, "encoder_options": NARROW[encoder], **arguments}
    return factory((size, size, arguments.pop("channels", 3)), classes, encoder, **arguments)


def pictures(count: int = 2, size: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def answers(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(batch, training=False))


def logits(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return answers(keras.Model(model.input, model.get_layer("logits").output), batch)


def settle(model: keras.Model) -> keras.Model:
    """Set every batch norm's statistics to those of one batch. With fresh ones a deep network answers one value only,
    so a test of answers could not fail."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(pictures(8, seed=9, channels=model.input_shape[-1]), training=True)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return model


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


@pytest.mark.parametrize("encoder", CHANNELS)
def test_encoder_gives_five_maps_of_the_documented_channels(encoder: str) -> None:
    x = keras.Input((64, 96, 3))
    features = resolve("encoder", encoder)(x, **NARROW[encoder])
    assert [tuple(feature.shape[1:3]) for feature in features] == [(64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
    assert tuple(feature.shape[-1] for feature in features) == CHANNELS[encoder]


@pytest.mark.parametrize("encoder", NARROW)
def test_interface(encoder: str, tmp_path: Path) -> None:
    """Output, layer groups, and the file: it loads without code of ours and answers the same."""
    model = settle(narrow(encoder))
    batch = pictures()
    scores = answers(model, batch)
    assert model.output_shape == (None, 3)
    assert (model.inputs[0].name, model.inputs[0].dtype) == ("image", "uint8")
    assert model.get_layer("logits").output.dtype == model.output.dtype == "float32"
    assert model.layers[-1].name == "probabilities"
    assert activation_of(model) == "softmax"
    np.testing.assert_allclose(scores.sum(-1), 1.0, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-3

    own = {"image", "photometry", "head_pool", "head_dense", "logits", "probabilities"}
    assert {layer.name for layer in model.layers if not layer.name.startswith("encoder_")} == own
    for stage in range(1, 5):
        assert any(layer.name.startswith(f"encoder_stage{stage}_") and layer.weights for layer in model.layers)

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(answers(again, batch), scores)


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "mobilenet_v3_small", "resnet18_v1"])
def test_stages_of_all_encoders_begin_at_the_same_strides(encoder: str) -> None:
    model = narrow(encoder, 64)
    sizes = {}
    for layer in model.layers:
        if layer.name.startswith("encoder_") and layer.weights and len(layer.output.shape) == 4:
            sizes[layer.name.split("_")[1]] = layer.output.shape[1]
    assert [sizes[f"stage{stage}"] for stage in range(1, 5)] == [16, 8, 4, 2]


def test_names_and_initial_weights_do_not_depend_on_what_was_built_before() -> None:
    first = dict(named_weights(narrow("mobilenet_v3_small")))
    keras.layers.ReLU()
    again = dict(named_weights(narrow("mobilenet_v3_small")))
    assert list(first) == list(again)
    for path, variable in first.items():
        np.testing.assert_array_equal(variable.numpy(), again[path].numpy())
    other = dict(named_weights(narrow("mobilenet_v3_small", seed=1)))
    assert np.abs(other["encoder_stem_conv/kernel"].numpy() - first["encoder_stem_conv/kernel"].numpy()).max() > 0.01


@pytest.mark.parametrize("encoder", ["resnet18_v1", "mobilenet_v3_small"])
def test_unet_takes_the_new_encoders(encoder: str) -> None:
    model = unet((64, 64, 3), 2, encoder, encoder_options=NARROW[encoder], decoder_filters=(8, 8, 8, 4, 4), seed=0)
    assert answers(model, pictures(1, 64)).shape == (1, 64, 64, 2)


def test_two_encoders_fit_into_one_model() -> None:
    x = keras.Input((32, 32, 3))
    encoder = resolve("encoder", "mobilenet_v3_small")
    deepest = [encoder(x, alpha=0.35, name=name)[-1] for name in ("rgb", "thermal")]
    keras.Model(x, keras.layers.Concatenate()(deepest))


@pytest.mark.parametrize("encoder", ["resnet18_v1", "mobilenet_v2"])
def test_any_channels_and_any_size(encoder: str) -> None:
    batch = pictures(2, 64, channels=1)
    still, free = narrow(encoder, 64, channels=1), narrow(encoder, None, channels=1)
    settle(free)
    still.set_weights(free.get_weights())
    expected = logits(still, batch)
    assert np.ptp(expected, axis=0).max() > 1e-2
    np.testing.assert_allclose(logits(free, batch), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("encoder", ["resnet18_v1", "mobilenet_v3_small"])
def test_channels_stay_last_whatever_keras_is_set_to(encoder: str, first_channels: None) -> None:
    model = settle(narrow(encoder))
    assert model.input_shape == (None, 32, 32, 3)
    keras.config.set_image_data_format("channels_last")
    other = narrow(encoder)
    other.set_weights(model.get_weights())
    assert answers(model, pictures()).std(0).max() > 1e-3
    np.testing.assert_array_equal(answers(model, pictures()), answers(other, pictures()))


@pytest.mark.parametrize(("input_dtype", "factor"), [("uint16", 257), ("float32", 1)])
def test_other_input_dtypes_land_on_the_scale_of_uint8(input_dtype: str, factor: int) -> None:
    batch = pictures()
    other = narrow("resnet18_v1", input_dtype=input_dtype)
    expected = logits(narrow("resnet18_v1"), batch)
    np.testing.assert_allclose(logits(other, batch.astype(input_dtype) * factor), expected, rtol=1e-4, atol=1e-5)


def test_sigmoid_scores_each_class_by_itself() -> None:
    model = narrow("resnet18_v1", activation="sigmoid", classes=1)
    assert activation_of(model) == "sigmoid"
    np.testing.assert_allclose(answers(model, pictures()), 1 / (1 + np.exp(-logits(model, pictures()))), atol=1e-6)


def test_dropout_acts_only_in_training() -> None:
    model = narrow("resnet18_v1", dropout=0.5)
    assert [layer.rate for layer in model.layers if layer.name == "head_dropout"] == [0.5]
    np.testing.assert_array_equal(answers(model, pictures()), answers(model, pictures()))
    probe = keras.Model(model.input, model.get_layer("head_dropout").output)
    before = answers(keras.Model(model.input, model.get_layer("head_pool").output), pictures())
    dropped = keras.ops.convert_to_numpy(probe(pictures(), training=True))
    assert (dropped == 0).sum() > (before == 0).sum()


@pytest.mark.parametrize("encoder", ["resnet18_v1", "mobilenet_v3_small"])
def test_outputs_stay_float32_in_mixed_precision(policy: Any, encoder: str) -> None:
    policy("mixed_float16")
    model = narrow(encoder, input_dtype="uint16")
    assert model.get_layer("head_dense").compute_dtype == "float16"
    scores = answers(model, np.full((1, 32, 32, 3), 65535, "uint16"))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("encoder", ["resnet18_v1", "mobilenet_v2"])
def test_a_frozen_encoder_does_not_move_and_the_head_does(encoder: str) -> None:
    """Weights and batch-norm statistics bit by bit, after steps in training mode."""
    model = narrow(encoder, dropout=0.2)
    for layer in model.layers:
        if layer.name.startswith("encoder_"):
            layer.trainable = False
    before = {path: variable.numpy().tobytes() for path, variable in named_weights(model)}
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(pictures(4), np.array([0, 1, 2, 0]), batch_size=4, epochs=2, verbose=0)
    moved = {path for path, variable in named_weights(model) if variable.numpy().tobytes() != before[path]}
    assert moved == {"head_dense/kernel", "head_dense/bias"}
    assert sum("moving_" in path for path in before) > 20  # what must not move is there


def test_unfrozen_everything_learns() -> None:
    """The counterpart: without freezing, the same step moves the encoder and its statistics."""
    model = narrow("resnet18_v1")
    before = {path: variable.numpy().copy() for path, variable in named_weights(model)}
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(pictures(4), np.array([0, 1, 2, 0]), batch_size=4, epochs=1, verbose=0)
    assert all(np.abs(variable.numpy() - before[path]).max() > 0 for path, variable in named_weights(model))


@pytest.mark.parametrize(
    "encoder",
    [name if name in ("resnet18_v1", "mobilenet") else pytest.param(name, marks=pytest.mark.slow) for name in CHANNELS],
)
def test_tflite_answers_the_same(encoder: str, tmp_path: Path) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the converter takes models of the TensorFlow backend; runs again with KERAS_BACKEND=tensorflow")
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    model = settle(narrow(encoder))
    signature = [keras.InputSpec(shape=(1, 32, 32, 3), dtype="uint8", name="image")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's, about its own successor
        model.export(tmp_path / "saved", format="tf_saved_model", input_signature=signature, verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    batch, found = pictures(3), []
    for picture in batch:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    expected = answers(model, batch)
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("written", [{}, {"encoder_weights": ""}, {"encoder_weights": "none"}])
def test_a_file_without_null_has_words_for_no_weights(written: dict[str, str]) -> None:
    inputs, narrow = {"image": ImageSpec(32, 32)}, {"encoder": "resnet18_v1", "encoder_options": {"width": 4}}
    model = build("resnet_classifier", narrow | written, inputs=inputs, classes=2, seed=3, task="classify")
    drawn = resnet_classifier((32, 32, 3), 2, encoder_weights=None, seed=3, **narrow)
    assert encoder_source(model) is None
    for a, b in zip(model.get_weights(), drawn.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_build_passes_what_the_experiment_says() -> None:
    spec = ImageSpec(32, 64, 1, "uint16")
    model = build(
        "mobilenet_classifier",
        {"encoder": "mobilenet", "alpha": 0.25},
        inputs={"thermal": spec},
        classes=4,
        seed=3,
        task="classify",
    )
    assert (model.inputs[0].name, model.inputs[0].dtype, model.input_shape[1:]) == ("thermal", "uint16", (32, 64, 1))
    assert model.get_layer("encoder_stem_conv1").filters == 8
    with pytest.raises(ModelError, match="takes one input; the experiment gives 'rgb' as uint16"):
        build("resnet_classifier", {}, inputs={"rgb": spec, "thermal": spec}, classes=4, seed=3, task="classify")
    with pytest.raises(ConfigError, match="encoder_weight"):
        build("resnet_classifier", {"encoder_weight": "x"}, inputs={"a": spec}, classes=4, seed=3, task="classify")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (224, 224)}, r"resnet_classifier: input_shape must be \(H, W, C\)"),
        ({"input_shape": (224, 100, 3)}, "the width of input_shape must be divisible by 32, not 100"),
        ({"input_shape": (224, 224, 0)}, "C from 1 up"),
        ({"classes": 1}, "classes must be a whole number from 2 up, not 1.*sigmoid"),
        ({"classes": 0, "activation": "sigmoid"}, "from 1 up, not 0"),
        ({"activation": "linear"}, "activation 'linear' is unknown"),
        ({"input_dtype": "int8"}, "input_dtype 'int8' is unknown"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"dropout": float("nan")}, "dropout must be from 0 to below 1"),
        ({"encoder": "resnet18_v2"}, "unknown encoder 'resnet18_v2'"),
        ({"encoder": "resnet18_v1", "encoder_options": {"widht": 8}}, "did you mean 'width'"),
        ({"encoder": "resnet18_v1", "encoder_options": {"width": 0}}, "width must be a positive whole number"),
        ({"encoder_options": {"stride_in": "2x2"}}, "stride_in '2x2' is unknown"),
        ({"encoder": "resnet18_v1", "encoder_options": {"preprocessing": "sigend"}}, "did you mean 'signed'"),
        (
            {"input_shape": (32, 32, 1), "encoder": "resnet18_v1", "encoder_options": {"preprocessing": "torchvision"}},
            "takes red, green and blue, not 1 channels",
        ),
        ({"encoder": "mobilenet", "encoder_options": {"alpha": 0}}, "alpha must be a positive number, not 0"),
        ({"encoder": "mobilenet", "encoder_options": {"alpha": 0.001}}, "alpha 0.001"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resnet_classifier(**{"input_shape": (32, 32, 3), **arguments})


def test_alpha_is_given_once() -> None:
    with pytest.raises(ModelError, match="give it once"):
        mobilenet_classifier((32, 32, 3), alpha=0.5, encoder_options={"alpha": 0.75})
