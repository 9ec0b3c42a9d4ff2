"""Every registered encoder and every head goes the whole road: built, trained, saved, exported, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.registry import names
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.fit import fit

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
ROADS = [f"model.encoder={name}" for name in names("encoder")] + ["model.activation=sigmoid", "model.activation=linear"]


@pytest.mark.slow
@pytest.mark.parametrize("override", ROADS)
def test_the_whole_road(override: str, overrides: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    road = [override, "model.encoder_options={alpha = 0.35}"] if "=mobilenet" in override else [override]
    done = fit(EXPERIMENT, [*overrides, f"runs={tmp_path}", "train.epochs=1", *road], log=lines.append)
    predictor = Predictor(done.bundles[0])
    assert predictor.card["parity"]["changed_share"] <= 1e-5
    if "activation" in override:
        assert predictor.contract.activation == override.split("=")[1]


QUICK = {
    "unet": "the session's run",
    "resnet_classifier": "test_classify_fit.py",
    "mobilenet_classifier": "test_mobilenet_classifier_is_trained",
    "yolov8": "test_yolov8_is_trained_and_exported",
    "segmentation_models": "test_segmentation_models_is_trained_and_exported, which is slow",
}
"""The test that walks the road of each family."""


def test_every_family_is_walked_by_a_test(run: Path) -> None:
    """A new family needs a road of its own."""
    from leakdet_tf.config.loading import load

    assert load(run / "experiment.toml").model.factory == "unet"
    assert set(QUICK) == set(names("model"))
    beside = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py")}
    assert 'factory = "resnet_classifier"' in beside["test_classify_fit.py"]


def test_mobilenet_classifier_is_trained(tmp_path: Path) -> None:
    """Its files are made and compared in tests/models, and of a training in the slow roads above."""
    overrides = [
        f"runs={tmp_path / 'runs'}",
        f"data.root={tmp_path / 'data'}",
        "train.epochs=1",
        "evaluate.resamples=100",
    ]
    overrides += ["data.synth.counts={train = 16, val = 8, test = 8}", "data.synth.size=[32, 32]"]
    overrides += ["data.inputs.image.size=[32, 32]", "train.batch_size=8", "export.formats=[]"]
    overrides += ["model.factory=mobilenet_classifier", "model.encoder=mobilenet_v2"]
    overrides += ["model.encoder_options={alpha = 0.35}"]
    done = fit(str(Path(EXPERIMENT).with_name("leak_rendered.toml")), overrides, log=lambda line: None)
    assert Contract.load(done.folder / "contract.json").class_names == ("no_leak", "oil_leak", "water_leak")
    assert json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))["pictures"] == 8


def test_yolov8_is_trained_and_exported(tmp_path: Path) -> None:
    overrides = [
        f"runs={tmp_path / 'runs'}",
        f"data.root={tmp_path / 'data'}",
        "train.epochs=1",
        "train.batch_size=8",
        "evaluate.resamples=100",
    ]
    overrides += ["data.synth.counts={train = 8, val = 4, test = 4}", "data.synth.size=[64, 64]"]
    overrides += ["data.inputs.image.size=[64, 64]", "model.implementation=native", "export.max_changed=0.0"]
    overrides += ["model.channels=[8, 8, 16, 16]", "model.depths=[1, 1, 1, 1]"]
    done = fit(str(Path(EXPERIMENT).with_name("hotspot_yolov8.toml")), overrides, log=lambda line: None)
    predictor = Predictor(done.bundles[0])
    assert predictor.contract.class_names == ("hotspot",)
    assert predictor.card["parity"]["decisions"] == 4 * (8 * 8 + 4 * 4 + 2 * 2)


@pytest.mark.slow
def test_segmentation_models_is_trained_and_exported(tmp_path: Path) -> None:
    pytest.importorskip(
        "efficientnet", reason="segmentation-models is not installed; runs again after: pip install 'leakdet_tf[sm]'"
    )
    overrides = [f"runs={tmp_path / 'runs'}", f"data.root={tmp_path / 'data'}", "train.epochs=1", "export.pictures=2"]
    overrides += ["data.synth.counts={train = 8, val = 2, test = 2}", "data.synth.size=[32, 32]"]
    overrides += ["data.inputs.image.size=[32, 32]", "train.batch_size=4", "evaluate.resamples=100"]
    narrow = "options = {decoder_filters = [8, 8, 8, 4, 4]}"
    overrides += [f'model={{factory = "segmentation_models", architecture = "linknet", {narrow}}}']
    done = fit(EXPERIMENT, overrides, log=lambda line: None)
    assert Predictor(done.bundles[0]).card["parity"]["changed_share"] <= 1e-5
