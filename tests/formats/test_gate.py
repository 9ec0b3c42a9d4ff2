"""Files that are wrong on purpose do not pass, in any format: the mistakes that exporters are known for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.schema import Export
from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.core.tasks import task_of
from leakdet_tf.edge import Predictor, open_bundle
from leakdet_tf.formats.bundle import FORMATS, Evidence, Metric, make_bundle

Get = Callable[[str], Any]
SETTINGS = Export(max_drop=0.05, max_turned=1.0, max_float=0.0, golden=1)


def swapped(model: Any) -> Any:
    """Takes blue for red."""
    wrong = keras.models.clone_model(model)
    wrong.set_weights(model.get_weights())
    first = next(layer for layer in wrong.layers if isinstance(layer, keras.layers.Conv2D))
    kernel, bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], bias])
    return wrong


def resized(model: Any) -> Any:
    """Enlarges smoothly where the model repeats pixels."""

    def other(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.UpSampling2D):
            config["interpolation"] = "bilinear"
        return type(layer).from_config(config)

    wrong = keras.models.clone_model(model, clone_function=other)
    wrong.set_weights(model.get_weights())
    return wrong


def unfrozen(model: Any) -> Any:
    """Normalizes by the picture it is shown instead of what training has seen."""
    inputs = keras.Input(model.input_shape[1:], dtype="uint8", name=model.inputs[0].name)
    return keras.Model(inputs, model(inputs, training=True))


def agreement(own: Any) -> Callable[[Predictor], Metric]:
    """Share of pixels that are decided as by the model itself: a figure that can fall."""
    task = task_of(own.contract)

    def measure(predictor: Predictor) -> Metric:
        shares = []
        for images in own.frames:
            first, second = (next(iter(one.outputs(images).values())) for one in (own.reference, predictor))
            shares.append(np.mean(task.decisions(first, own.contract) == task.decisions(second, own.contract)))
        return Metric("agreement", float(np.mean(shares)), None, None)

    return measure


@pytest.fixture
def export(tiny: Get, at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    own = tiny("segment")
    evidence = Evidence(
        own.reference, own.frames, Metric("agreement", 1.0, None, None), agreement(own), own.calibration()
    )

    def made(form: str, change: Callable[[Any], Any] | None) -> Path:
        kind = FORMATS[form]

        def convert(model: Path, contract: Path, out: Path, **rest: Any) -> Any:
            if change is not None:
                loaded = keras.saving.load_model(model, compile=False)
                model = tmp_path / "wrong.keras"
                change(loaded).save(model)
            return kind.convert(model, contract, out, **rest)

        monkeypatch.setitem(FORMATS, form, replace(kind, convert=convert))
        make_bundle(own.file, own.contract, evidence, tmp_path / "export" / form, SETTINGS, {}, form)
        return tmp_path / "export" / form

    return made


FROZEN_AGAIN = ("onnx_float32", "onnx_int8", "tensorrt")
"""ONNX's converter undoes it."""


@pytest.mark.parametrize(
    ("form", "change"),
    [
        (form, change)
        for form in FORMATS
        for change in (swapped, resized, unfrozen)
        if not (change is unfrozen and form in FROZEN_AGAIN)
    ],
)
def test_a_wrong_file_fails_and_leaves_nothing(
    form: str, change: Callable[[Any], Any], export: Any, tmp_path: Path
) -> None:
    with pytest.raises(LeakdetError, match=r"decided otherwise|points below the Keras model|training=True") as caught:
        export(form, change)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "export").iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_file_unchanged_passes(form: str, export: Any) -> None:
    card = open_bundle(export(form, None)).card
    gate = card["gate"]
    assert gate["metric"]["name"] == gate["keras"]["name"] == "agreement"
    assert gate["drop"] == pytest.approx(gate["keras"]["value"] - gate["metric"]["value"])
    assert gate["drop"] <= 0.05
    assert gate["latency_ms"]["p50"] > 0
    assert (gate["max_drop"] is None) == FORMATS[form].exact
    assert ("calibration" in card) == FORMATS[form].calibrated
