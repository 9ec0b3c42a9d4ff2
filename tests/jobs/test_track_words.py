"""What is told to MLflow: names of parameters and figures that it takes, and the signature of a model."""

from __future__ import annotations

import json
from pathlib import Path

from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.jobs.run.track import described, figures, parameters

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
CONTRACT = Contract("segment", {"image": ImageSpec(32, 48)}, classes_of(["background", "gas"]))


def test_parameters_have_names_that_mlflow_takes() -> None:
    told = parameters(load(EXPERIMENT, ['task.colors={"gas" = "#ff0000"}', 'data.values={"0-3" = "background"}']))
    assert told["task.colors.gas"] == "#ff0000"
    assert told["data.values.0-3"] == "background"
    assert "leakdet_tf" in told


def test_figures_are_named_by_their_path() -> None:
    found = figures({"iou": {"gas/smoke": {"value": 0.5, "low": 0.25, "high": None}}, "pictures": 3, "ok": True})
    assert found == {"test/iou/gas_smoke": 0.5, "test/iou/gas_smoke_low": 0.25, "test/pictures": 3}


def test_the_signature_says_pixels_in_and_float_out() -> None:
    said = described(CONTRACT, "abc")["signature"]
    (given,), (answer,) = json.loads(said["inputs"]), json.loads(said["outputs"])
    assert given["name"] == "image"
    assert given["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 32, 48, 3]}
    assert answer["tensor-spec"] == {"dtype": "float32", "shape": [-1, 32, 48, 2]}
