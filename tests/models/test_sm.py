"""segmentation-models' networks behind our contract: raw pixels in, a logits layer, plain Keras layers that reload."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.registry import resolve
from leakdet_tf.models import sm as room
from leakdet_tf.models.runtime import load_model, weights_sha256
from leakdet_tf.models.sm import ARCHITECTURES, segmentation_models

NARROW: dict[str, dict[str, Any]] = {
    "unet": {"decoder_filters": [16, 8, 8, 4, 4]},
    "fpn": {"pyramid_block_filters": 16},
    "linknet": {"decoder_filters": [16, 8, 8, 4, 4]},
    "pspnet": {"psp_conv_filters": 16},
}
SIDES = {"pspnet": 48}


@pytest.fixture(scope="module")
def package() -> Any:
    """The package, or a skip."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("segmentation-models builds on TensorFlow only; runs again with KERAS_BACKEND=tensorflow")
    try:
        return room._package("test")
    except ModelError:
        pytest.skip("segmentation-models is not installed; runs again after: pip install 'leakdet_tf[sm]'")


def pictures(side: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, side, side, channels), dtype=np.uint8)


def built(architecture: str, encoder: str = "resnet18", **keys: Any) -> Any:
    side = SIDES.get(architecture, 32)
    return segmentation_models((side, side, 3), 3, architecture, encoder, options=NARROW[architecture], seed=5, **keys)


def test_it_is_registered() -> None:
    assert resolve("model", "segmentation_models") is segmentation_models


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pixels_in_logits_and_probabilities_out(package: Any, architecture: str, tmp_path: Path) -> None:
    model = built(architecture)
    side = SIDES.get(architecture, 32)
    assert (model.inputs[0].name, model.inputs[0].dtype) == ("image", "uint8")
    assert model.output_shape == model.get_layer("logits").output.shape == (None, side, side, 3)
    assert model.get_layer("logits").output.dtype == "float32"
    groups = {layer.name.split("_")[0] for layer in model.layers if layer.weights}
    assert groups == {"encoder", "decoder", "head"}
    scores = np.asarray(model(pictures(side), training=False))
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)
    assert scores.std() > 1e-4
    assert weights_sha256(model) == weights_sha256(built(architecture))
    model.save(tmp_path / "model.keras")
    again = np.asarray(load_model(tmp_path / "model.keras", None)(pictures(side), training=False))
    np.testing.assert_array_equal(again, scores)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_the_package_s_network(package: Any, architecture: str) -> None:
    model, side = built(architecture, activation="linear"), SIDES.get(architecture, 32)
    theirs = getattr(package, ARCHITECTURES[architecture])(
        "resnet18",
        input_shape=(side, side, 3),
        classes=3,
        activation="linear",
        encoder_weights=None,
        **NARROW[architecture],
    )
    assert [tuple(w.shape) for w in model.weights] == [tuple(w.shape) for w in theirs.weights]
    theirs.set_weights(model.get_weights())
    batch = pictures(side)
    ours, expected = (np.asarray(one(x, training=False)) for one, x in ((model, batch), (theirs, batch.astype("f4"))))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("encoder", "scale", "offset"),
    [("mobilenetv2", 1 / 127.5, -1), ("vgg16", 1, -123.68), ("efficientnetb0", 1 / (255 * 0.229), -0.485 / 0.229)],
)
def test_an_encoder_gets_the_pixels_that_it_was_made_for(
    package: Any, encoder: str, scale: float, offset: float
) -> None:
    photometry = built("unet", encoder).get_layer("photometry")
    assert photometry.scale[0] == pytest.approx(scale)
    assert photometry.offset[0] == pytest.approx(offset)


def test_other_channels_and_depth(package: Any) -> None:
    keys: dict[str, Any] = {"options": NARROW["unet"], "seed": 5, "input_dtype": "uint16"}
    model = segmentation_models((32, 32, 1), 2, "unet", "mobilenet", **keys)
    assert model.inputs[0].dtype == "uint16"
    scaled = keras.Model(model.input, model.get_layer("photometry").output)
    brightest = np.asarray(scaled(np.full((1, 32, 32, 1), 65535, np.uint16)))
    np.testing.assert_allclose(brightest, 1, atol=1e-6)


def test_stages_freeze_the_encoder(package: Any) -> None:
    from leakdet_tf.training.loop import select

    model = built("fpn")
    assert 0 < select(model, ["head"]) < select(model, ["decoder", "head"]) < select(model, ["all"])


def test_an_encoder_that_cannot_be_loaded_safely_is_refused(package: Any) -> None:
    with pytest.raises(ModelError, match=r"encoder 'seresnet18' has a layer .*Lambda.*resnet34"):
        built("unet", "seresnet18")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"architecture": "fpm"}, "did you mean 'fpn'"),
        ({"encoder": "resnet81"}, "did you mean 'resnet18'"),
        ({"options": {"pyramid_filters": 3}}, "did you mean 'pyramid_block_filters'"),
        ({"options": {"encoder_weights": "imagenet"}}, "has no 'encoder_weights'"),
        ({"input_shape": (33, 32, 3)}, "divisible by 32"),
        ({"activation": "tanh"}, "activation 'tanh'"),
    ],
)
def test_what_is_wrong_is_one_line(package: Any, keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=text) as caught:
        segmentation_models(**({"input_shape": (32, 32, 3)} | keys))
    assert str(caught.value).isprintable()


def test_the_package_s_own_refusal_is_one_line(package: Any) -> None:
    with pytest.raises(ModelError, match="pspnet on resnet18"):
        segmentation_models((32, 32, 3), architecture="pspnet")


def test_without_the_package_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setitem(sys.modules, "segmentation_models", None)
    with pytest.raises(ModelError, match=r"pip install 'leakdet_tf\[sm\]'"):
        segmentation_models()


def test_another_backend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match="with TensorFlow alone, Keras runs on jax"):
        segmentation_models()
