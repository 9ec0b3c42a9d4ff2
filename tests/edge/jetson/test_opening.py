"""Predictor opens engines for bundles of kind tensorrt, and nothing in their place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.errors import BundleError, MissingExtraError
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends.tensorrt import TensorRTBackend
from leakdet_tf.edge.tensorrt import Settings
from leakdet_tf.edge.tensorrt_build import build


def test_predictor_runs_the_engine_and_replays_its_own_answers(device: Any, bundle: Path) -> None:
    with pytest.raises(BundleError, match="no engine has been built"):
        Predictor(bundle)
    device.world.noise["float16"] = 5e-3
    build(bundle)
    predictor = Predictor(bundle)
    assert isinstance(predictor.backend, TensorRTBackend)
    assert predictor.card["engine"]["precision"] == "float16"
    assert predictor.predict(np.zeros((24, 48, 3), np.uint8)).labels.shape == (24, 48)
    device.world.noise["float16"] = 0.1
    with pytest.raises(BundleError, match="golden frame 0 is answered otherwise"):
        Predictor(bundle)


def test_a_card_of_this_kind_beside_another_file_is_told_as_that(device: Any, bundle: Path) -> None:
    (bundle / "model.onnx").rename(bundle / "model.tflite")
    device.make.seal(bundle)
    says = r"its card says 'tensorrt', and it holds model\.tflite instead of model\.onnx; export it again"
    for act in (build, Predictor):
        with pytest.raises(BundleError, match=says):
            act(bundle)


def test_predictor_does_not_fall_back_without_tensorrt(device: Any, bundle: Path, monkeypatch: Any) -> None:
    build(bundle, Settings("float32"))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match="TensorRT cannot be imported"):
        Predictor(bundle)
