"""Heat maps: right where the answer is known, equal on every backend, and refused in one line where there is none."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from leakdet_tf.analysis.explain.heat import GradCam, grad_cam, overlay, spread, thumbnail
from leakdet_tf.core.errors import ContractError, ModelError
from leakdet_tf.core.images import Geometry, letterbox
from leakdet_tf.models import unet

L = keras.layers
SMALL: dict[str, Any] = {"encoder_options": {"width": 4}, "decoder_filters": (8, 8, 8, 4, 4), "seed": 0}


def ends(x: Any) -> Any:
    """The two layers that every model of ours ends in."""
    return L.Activation("softmax", name="probabilities")(L.Activation("linear", name="logits")(x))


def weighted(size: int, units: int, kernel: Any, *, image: Any = None) -> keras.Model:
    """Scaled colours as the last map, their means times ``kernel`` (3, units) as logits."""
    image = keras.Input((size, size, 3), dtype="uint8", name="image") if image is None else image
    x = L.Rescaling(1 / 255, dtype="float32", name="colours")(image)
    dense = L.Dense(units, use_bias=False, name="dense")
    model = keras.Model(image, ends(dense(L.GlobalAveragePooling2D(name="pool")(x))))
    dense.set_weights([np.asarray(kernel, np.float32)])
    return model


def pictures(count: int, size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_a_logit_of_one_channel_is_explained_by_that_channel() -> None:
    model = weighted(8, 3, [[2, 0, -1], [0, 1, -1], [0, 0, -1]])
    images = pictures(2, 8)
    for index in (0, 1):
        heat = grad_cam(model, {"image": images}, target=index)
        assert heat.shape == (2, 8, 8)
        assert heat.dtype == np.float32
        channel = images[..., index].astype(float)
        np.testing.assert_allclose(heat, channel / channel.max((1, 2), keepdims=True), atol=1e-6)
    assert not grad_cam(model, images, target=2).any(), "what only speaks against a class has no heat, and no NaN"


def test_the_decided_class_is_explained_unless_one_is_named_for_all_or_each() -> None:
    model = weighted(8, 2, np.eye(3, 2))
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, 1, 2, 0], images[0, 5, 5, 1], images[1, 6, 3, 1], images[1, 0, 0, 0] = 200, 100, 200, 100
    places = [tuple(np.argwhere(heat == 1)[0].tolist()) for heat in grad_cam(model, images)]
    assert places == [(1, 2), (6, 3)]
    places = [tuple(np.argwhere(heat == 1)[0].tolist()) for heat in grad_cam(model, images, target=[1, 0])]
    assert places == [(5, 5), (0, 0)]


def test_a_negative_channel_takes_away() -> None:
    images = pictures(1, 8)
    heat = grad_cam(weighted(8, 2, [[1, 0], [-0.5, 0], [0, 1]]), images, target=0)[0]
    expected = np.maximum(images[0, ..., 0] - 0.5 * images[0, ..., 1].astype(float), 0)
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-5)


def test_the_weights_are_the_slopes_that_finite_differences_find() -> None:
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 3), dtype="uint8", name="image")
    x = L.Rescaling(1 / 127.5, -1, dtype="float32")(image)
    stem = L.Conv2D(4, 3, strides=2, activation="tanh", name="stem")(x)
    tail = [L.BatchNormalization(name="bn"), L.Conv2D(5, 2, activation="tanh"), L.Flatten(), L.Dense(3)]
    x = stem
    for layer in tail:
        x = layer(x)
    model = keras.Model(image, ends(x))
    model.get_layer("bn").moving_variance.assign(np.array([0.5, 2, 1, 3], np.float32))
    images = pictures(2, 12)
    activation = keras.Model(image, stem).predict_on_batch(images).astype(np.float64)

    def logit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        out = keras.ops.convert_to_tensor(values.astype(np.float32))
        for layer in tail:
            out = layer(out, training=False) if layer.name == "bn" else layer(out)
        return keras.ops.convert_to_numpy(out).astype(np.float64)[:, 1]

    step, slopes = 1e-2, np.zeros((2, 4))
    for channel in range(4):
        shift = np.zeros(4)
        shift[channel] = step
        # a shift of the whole channel is the sum over its pixels; Grad-CAM takes the mean
        slopes[:, channel] = (logit(activation + shift) - logit(activation - shift)) / (2 * step) / 25
    expected = np.maximum((activation * slopes[:, None, None]).sum(-1), 0)
    heat = grad_cam(model, images, layer="stem", target=1)
    np.testing.assert_allclose(heat, expected / expected.max((1, 2), keepdims=True), atol=2e-3)
    assert heat.shape == (2, 5, 5)
    assert ((heat > 0.05) & (heat < 0.95)).any()


@pytest.fixture(scope="module")
def gated() -> keras.Model:
    """A segmenter: the class's logit is the coarse red map where the gate is 0, the coarse green one where it is 1."""
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    gate = keras.Input((8, 8, 1), dtype="uint8", name="gate")
    coarse = L.AveragePooling2D(4, name="coarse")(L.Rescaling(1 / 255, dtype="float32")(image))
    fine = L.UpSampling2D(4, name="fine")(coarse)
    open_, shut = (
        L.Conv2D(1, 1, use_bias=False, name=f"pick{i}", kernel_initializer=keras.initializers.Zeros())(fine)
        for i in (0, 1)
    )
    flag = L.Rescaling(1.0, dtype="float32", name="flag")(gate)
    other = L.Rescaling(-1.0, 1.0, dtype="float32", name="other")(gate)
    wanted = L.Add(name="sum")([L.Multiply()([open_, other]), L.Multiply()([shut, flag])])
    against = L.Rescaling(0.0, 0.25, name="against")(wanted)
    model = keras.Model([image, gate], ends(L.Concatenate(name="both")([against, wanted])))
    for index in (0, 1):
        model.get_layer(f"pick{index}").set_weights([np.eye(3, dtype=np.float32)[:, [index]][None, None]])
    return model


def gated_inputs() -> dict[str, np.ndarray[Any, Any]]:
    gate = np.zeros((1, 8, 8, 1), np.uint8)
    gate[:, :, 4:] = 1
    return {"gate": gate, "image": pictures(1, 8, 3)}


def test_a_segmenter_explains_the_pixels_of_the_region(gated: keras.Model) -> None:
    inputs = gated_inputs()
    cam = GradCam(gated)
    assert cam.layer == "coarse"
    coarse = inputs["image"].reshape(1, 2, 4, 2, 4, 3).mean((2, 4))
    left = np.zeros((1, 8, 8), np.bool_)
    left[:, :, :4] = True
    for region, channel in ((left, 0), (~left, 1)):
        expected = coarse[..., channel] / coarse[..., channel].max()
        np.testing.assert_allclose(cam(inputs, target=1, region=region), expected, atol=1e-6)
    assert not cam(inputs, target=1, region=np.zeros((1, 8, 8), np.bool_)).any()


def test_a_segmenter_s_region_is_what_it_decides_as_the_class(gated: keras.Model) -> None:
    inputs = gated_inputs()
    inputs["image"][:, :, 4:, 1] = 10  # the right half is decided as the other class
    inputs["image"][:, :, :4, 0] = 200
    decided = gated.predict_on_batch([inputs["image"], inputs["gate"]]).argmax(-1) == 1
    assert decided[:, :, :4].all()
    assert not decided[:, :, 4:].any()
    cam = GradCam(gated)
    np.testing.assert_array_equal(cam(inputs, target=1), cam(inputs, target=1, region=decided))
    inputs["image"][:, :4, 4:, 1] = 200  # now most pixels are the class
    np.testing.assert_array_equal(cam(inputs), cam(inputs, target=1))
    inputs["image"][..., :2] = 0
    assert not cam(inputs, target=1).any(), "a class that is nowhere has no heat"


def test_a_unet_is_cut_at_the_encoder_s_last_map_and_goes_on_unchanged() -> None:
    images = pictures(1, 64)
    for shape in ((64, 64, 3), (None, None, 3)):
        model = unet(shape, 3, **SMALL)
        before = model.predict_on_batch(images)
        cam = GradCam(model)
        assert cam.layer == "encoder_relu_last"
        first, second = cam(images), GradCam(model, layer="encoder_relu_last")(images)
        assert first.shape == (1, 2, 2)
        np.testing.assert_allclose(first, second, atol=1e-6)
        assert GradCam(model, layer="decoder_stage3b_relu")(images).shape == (1, 32, 32)
        np.testing.assert_array_equal(model.predict_on_batch(images), before)
        model.trainable = False
        np.testing.assert_allclose(GradCam(model)(images), first, atol=1e-6)


def test_a_model_inside_a_model_is_one_layer_and_a_layer_used_twice_is_none() -> None:
    inner = keras.Input((8, 8, 3))
    body = keras.Model(inner, L.Conv2D(2, 3, strides=2, name="deep")(inner), name="body")
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = body(L.Rescaling(1 / 255, dtype="float32", name="scaled")(image))
    twice = L.Activation("tanh", name="twice")
    x = L.GlobalAveragePooling2D()(twice(L.Conv2D(2, 1, name="between")(twice(x))))
    model = keras.Model(image, ends(L.Dense(2)(x)))
    assert GradCam(model).layer == "between"
    assert grad_cam(model, pictures(1, 8), layer="body").shape == (1, 3, 3)
    with pytest.raises(ModelError, match="'twice' does not lie before the logits, once"):
        GradCam(model, layer="twice")
    with pytest.raises(ModelError, match="has no layer 'deep'"):
        GradCam(model, layer="deep")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("colors", "has no layer 'colors'; did you mean 'colours'?"),
        ("dense", r"'dense' gives \(None, 2\), no map \(B, h, w, C\); choose another, such as 'colours'"),
        ("single", r"'single' gives \(None, 1, 1, 3\), no map"),
        ("probabilities", "'probabilities' gives"),
        ("image", "'image' does not lie before the logits, once"),
    ],
)
def test_a_layer_that_cannot_be_used_is_named_with_one_that_can(layer: str, said: str) -> None:
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = L.Rescaling(1 / 255, dtype="float32", name="colours")(image)
    x = L.Flatten()(L.GlobalAveragePooling2D(keepdims=True, name="single")(x))
    model = keras.Model(image, ends(L.Dense(2, name="dense")(x)))
    with pytest.raises(ModelError, match=said) as caught:
        GradCam(model, layer=layer)
    assert len(str(caught.value).splitlines()) == 1


def no_logits() -> Any:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(image)))


def no_map() -> Any:
    image = keras.Input((8, 8, 3), name="image")
    return keras.Model(image, ends(L.Dense(2)(L.Flatten()(image))))


class Written(keras.Model):
    """A model that is no graph."""


@pytest.mark.parametrize(
    ("make", "said"), [(no_logits, "no layer 'logits'"), (Written, "no layer 'logits'"), (no_map, "gives a map")]
)
def test_a_model_that_cannot_be_explained_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        GradCam(make())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"target": 2}, "target class 2: unknown; the model has 0 to 1"),
        ({"target": -1}, "target class -1"),
        ({"target": [0]}, "one for each of 2 pictures"),
        ({"target": 0.5}, "one class index"),
        ({"region": np.ones((2, 8, 8), np.bool_)}, "no region"),
        ({"inputs": {"picture": pictures(2, 8)}}, r"takes \['image'\], got \['picture'\]"),
        ({"inputs": pictures(2, 8).astype(np.float32)}, "as uint8"),
        ({"inputs": pictures(2, 9)}, r"got uint8 \(2, 9, 9, 3\)"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        grad_cam(weighted(8, 2, np.eye(3, 2)), **({"inputs": pictures(2, 8)} | asked))


def test_a_region_of_another_size_and_values_that_are_not_finite_are_refused(gated: keras.Model) -> None:
    with pytest.raises(ModelError, match=r"bool \(1, 8, 8\), is bool \(1, 2, 2\)"):
        grad_cam(gated, gated_inputs(), region=np.ones((1, 2, 2), np.bool_))
    with pytest.raises(ContractError, match="NaN"):
        grad_cam(weighted(8, 2, np.full((3, 2), np.inf)), pictures(1, 8))


BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
SCRIPT = """
import sys
import numpy as np
from leakdet_tf.analysis.explain.heat import GradCam
from leakdet_tf.models import unet

model = unet((64, 64, 3), 3, encoder_options={"width": 4}, decoder_filters=(8, 8, 8, 4, 4), seed=0)
images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
np.savez(sys.argv[1], *(GradCam(model, layer=name)(images, target=1) for name in (None, "decoder_stage1b_relu")))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_finds_the_same_heat(backend: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"{backend} is not installed; runs again in `make test-backends`, which installs it")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "heat.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model, images = unet((64, 64, 3), 3, **SMALL), pictures(2, 64)
    with np.load(tmp_path / "heat.npz") as found:
        for key, layer in (("arr_0", None), ("arr_1", "decoder_stage1b_relu")):
            assert found[key].max() == 1
            np.testing.assert_allclose(found[key], GradCam(model, layer=layer)(images, target=1), atol=1e-4)


def test_heat_is_carried_to_where_the_picture_has_it() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[3, 0] = 1
    found = spread(heat, Geometry((100, 200), (64, 64), (64, 64)))
    assert found.shape == (100, 200)
    assert found[90, 10] == 1
    assert not found[:50].any()
    _, geometry = letterbox(np.zeros((100, 200, 3), np.uint8), (64, 64))
    assert (spread(np.ones((2, 2), np.float32), geometry) == 1).all()
    assert not spread(heat, geometry)[:60].any()
    middle = np.zeros((8, 8), np.float32)
    middle[3, 6] = 1  # pixels 24 to 31 and 48 to 55 of 64: rows 25 to 50, columns 150 to 175 of the picture
    place = np.unravel_index(spread(middle, geometry).argmax(), (100, 200))
    assert 25 <= place[0] < 50
    assert 150 <= place[1] < 175


def test_an_overlay_is_grey_where_cold_and_yellow_where_hot() -> None:
    image = np.full((20, 30, 3), (200, 60, 20), np.uint8)
    heat = np.zeros((20, 30), np.float32)
    heat[:, 20:] = 1
    drawn = overlay(image, heat)
    assert drawn.shape == (20, 30, 3)
    assert drawn.dtype == np.uint8
    assert np.ptp(drawn[:, :20].astype(int), axis=2).max() <= 4
    red, green, blue = drawn[0, 25].astype(int)
    assert red > 190
    assert green > 190
    assert blue < red - 20
    scale = np.linspace(0, 1, 30, dtype=np.float32)[None].repeat(20, 0)
    light = np.asarray(Image.fromarray(overlay(np.zeros_like(image), scale)).convert("L"))[0].astype(int)
    assert (np.diff(light) >= 0).all(), "hotter is lighter"
    assert overlay(np.full((20, 30, 1), 40000, np.uint16), heat).shape == (20, 30, 3)
    with pytest.raises(ContractError, match="cannot be drawn"):
        overlay(image, heat[:10])


def test_a_thumbnail_shows_outline_and_maximum() -> None:
    image = np.zeros((400, 800, 3), np.uint8)
    mask = np.zeros((400, 800), np.bool_)
    mask[100:200, 100:300] = True
    heat = np.zeros((400, 800), np.float32)
    heat[300, 600] = 1
    small = thumbnail(image, 200, heat=heat, mask=mask)
    assert small.shape == (100, 200, 3)
    cyan = np.argwhere((small == (0, 255, 255)).all(-1))
    assert cyan.min(0) == pytest.approx([25, 25], abs=1)
    assert cyan.max(0) == pytest.approx([49, 74], abs=1)
    white = np.argwhere((small == 255).all(-1))
    assert white.mean(0) == pytest.approx([75, 150], abs=1)
    np.testing.assert_array_equal(thumbnail(image[:40, :50], 200), image[:40, :50])
    assert thumbnail(image[:1], 100).shape == (1, 100, 3)
