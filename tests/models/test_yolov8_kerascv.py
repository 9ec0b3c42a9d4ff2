"""Our YOLOv8 against KerasCV's: same weights in, same numbers out, and either's file is the other's start."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.tasks.detect import BINS, boxes_from, distances, grid, sigmoid
from leakdet_tf.models.detector import SIZES, yolov8
from leakdet_tf.models.initialize import named_weights
from leakdet_tf.models.weight_transfer import transfer

SIZE = (64, 96)
NARROW: dict[str, Any] = {"channels": [8, 8, 16, 16], "depths": [1, 2, 1, 1]}


@pytest.fixture(scope="module")
def kerascv() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about their own dependencies
        return pytest.importorskip(
            "keras_cv",
            reason="the oracle of YOLOv8 is KerasCV; runs again once it is installed: leakdet_tf[kerascv]",
        )


def lively(model: Any) -> None:
    """Random values for every weight, batch statistics included: with fresh ones, mistakes in them would not show."""
    random = np.random.default_rng(5)
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) == 1:
            variable.assign(random.normal(0, 0.2, variable.shape))


def pictures(count: int = 2) -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (count, *SIZE, 3)).astype(np.uint8)


def far(one: Any, other: Any) -> float:
    one, other = np.asarray(one), np.asarray(other)
    return float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))


@pytest.mark.parametrize(
    ("keys", "classes"), [(NARROW, 3), ({"size": "n"}, 1), pytest.param({"size": "l"}, 3, marks=pytest.mark.slow)]
)
def test_native_is_the_same_network(kerascv: Any, keys: dict[str, Any], classes: int) -> None:
    theirs = yolov8((*SIZE, 3), classes, **keys, seed=7)
    ours = yolov8((*SIZE, 3), classes, **keys, implementation="native", seed=7)
    listed = [
        [(path, tuple(weight.shape), weight.trainable) for path, weight in named_weights(m)] for m in (ours, theirs)
    ]
    assert listed[0] == listed[1]
    assert [weight.path for weight in ours.weights] == [weight.path for weight in theirs.weights]
    assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True))
    lively(theirs)
    ours.set_weights(theirs.get_weights())
    for training in (False, True):  # the second also with the batch's own statistics
        assert far(ours(pictures(), training=training), theirs(pictures(), training=training)) <= 1e-5
    for one, other in zip(ours.non_trainable_weights, theirs.non_trainable_weights, strict=True):
        assert far(one, other) <= 1e-5, one.path  # momentum and epsilon


def test_flattening_changed_nothing(kerascv: Any) -> None:
    """KerasCV's own detector with the same weights: same boxes and probabilities, its anchors in our order."""
    channels, depths = SIZES["n"]
    flat = yolov8((*SIZE, 3), 3, "n", seed=7)
    lively(flat)
    backbone = kerascv.models.YOLOV8Backbone(
        stackwise_channels=list(channels), stackwise_depth=list(depths), include_rescaling=True, input_shape=(*SIZE, 3)
    )
    detector = kerascv.models.YOLOV8Detector(
        backbone=backbone, num_classes=3, bounding_box_format="xyxy", fpn_depth=depths[0]
    )
    # The head's layers come in another order there, because the backbone is a model within.
    given = {
        path.replace("encoder_", "").split("/")[0] + "/" + path.split("/")[1]: w for path, w in named_weights(flat)
    }
    for variable in detector.weights:
        name = variable.path.replace("pa_fpn", "decoder").replace("yolo_v8_head", "head")
        variable.assign(given.pop("/".join(name.split("/")[-2:])))
    assert not given
    raw = np.asarray(flat(pictures()))
    theirs = detector(pictures().astype(np.float32), training=False)
    assert far(raw[..., : 4 * BINS], theirs["boxes"]) <= 1e-5
    assert far(sigmoid(raw[..., 4 * BINS :]), theirs["classes"]) <= 1e-5

    seen: list[Any] = []

    class Kept(keras.layers.Layer):
        bounding_box_format = "xyxy"

        def call(self, boxes: Any, scores: Any) -> Any:
            seen.append(np.asarray(boxes))
            return boxes

    detector._prediction_decoder = Kept()
    detector.decode_predictions(theirs, pictures().astype(np.float32))
    middles, strides = grid(SIZE)
    assert far(boxes_from(distances(raw[..., : 4 * BINS]), middles, strides), seen[0]) <= 1e-5


def test_either_file_is_a_start_of_the_other(kerascv: Any, tmp_path: Path) -> None:
    for first, second in (("kerascv", "native"), ("native", "kerascv")):
        source = yolov8((*SIZE, 3), 2, **NARROW, implementation=first, seed=1)
        lively(source)
        source.save(tmp_path / "source.keras")
        target = yolov8((*SIZE, 3), 2, **NARROW, implementation=second, seed=2)
        done = transfer(keras.saving.load_model(tmp_path / "source.keras"), target, where="source.keras")
        assert (done.loaded, done.missing, done.unused) == (done.total, (), ())
        assert far(target(pictures()), source(pictures())) <= 1e-5


def test_its_file_is_loaded_where_kerascv_is_not(kerascv: Any, tmp_path: Path) -> None:
    model = yolov8((*SIZE, 3), 2, **NARROW, seed=1)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "pictures.npy", pictures())
    code = """
import sys
sys.modules["keras_cv"] = None
import keras, numpy
model = keras.saving.load_model("model.keras", safe_mode=True)
numpy.save("answers.npy", model(numpy.load("pictures.npy")))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True, timeout=120)
    assert far(np.load(tmp_path / "answers.npy"), model(pictures())) <= 1e-5


def test_without_kerascv_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ModelError) as caught:
        yolov8((64, 64, 3), **NARROW)
    assert str(caught.value) == (
        "yolov8: implementation 'kerascv' needs the package 'keras_cv'; pip install 'leakdet_tf[kerascv]', or set "
        'implementation = "native" in [model]: the same network'
    )
    assert yolov8((64, 64, 3), **NARROW, implementation="native")


def test_under_another_backend_the_native_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ModelError) as caught:
        yolov8((64, 64, 3), **NARROW, implementation="kerascv")
    assert str(caught.value) == (
        "yolov8: implementation 'kerascv' is for the backend tensorflow, Keras is at work under jax; "
        'set implementation = "native" in [model]: the same network'
    )
