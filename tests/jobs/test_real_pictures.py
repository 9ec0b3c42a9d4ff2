"""The road on pictures that nobody here drew; sizes and masks are the data sets' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leakdet_tf.config.loading import load
from leakdet_tf.data.readers import find_items, find_splits, read, truth_tables
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.evaluate import evaluate
from leakdet_tf.jobs.fit import fit

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "smoke_unet.toml"
pytestmark = pytest.mark.data


def test_gas_smoke_pairs_up_and_holds_both_classes(shared: Path) -> None:
    experiment = load(EXPERIMENT, [f"data.root={shared / 'data' / 'gas_smoke'}"])
    parts = find_splits(experiment.data)
    assert {name: len(items) for name, items in parts.items()} == {"train": 839, "val": 240, "test": 120}
    table = truth_tables(experiment.data, experiment.task.classes)["data"]
    shares = [float((read(item, table).sample.truth == 1).mean()) for item in parts["test"]]
    assert 0.15 < float(np.median(shares)) < 0.35


def test_real_smoke_is_read_with_the_same_ranges(shared: Path) -> None:
    experiment = load(EXPERIMENT)
    items = find_items(shared / "data" / "real_smoke", experiment.data.sources[0], experiment.data.inputs)
    assert len(items) == 17
    table = truth_tables(experiment.data, experiment.task.classes)["data"]
    for item in items:
        assert set(np.unique(read(item, table).sample.truth)) == {0, 1}


def test_a_narrow_model_learns_smoke_and_its_bundle_agrees_on_real_photographs(shared: Path, tmp_path: Path) -> None:
    done = fit(
        str(EXPERIMENT),
        [
            f"data.root={shared / 'data' / 'gas_smoke'}",
            f"runs={tmp_path / 'runs'}",
            "data.inputs.image.size=[64, 64]",
            "model.encoder_options={width = 8}",
            "model.decoder_filters=[32, 16, 16, 8, 8]",
            "train.epochs=4",
            "train.learning_rate=0.003",
            "export.pictures=32",
        ],
        log=lambda line: None,
    )
    reports = [
        evaluate(
            str(model),
            data=str(shared / "data" / "real_smoke"),
            split="test",
            experiment=None,
            overrides=(),
            out=str(tmp_path / model.name),
            log=lambda line: None,
        ).report
        for model in (done.folder, done.bundles[0])
    ]
    assert reports[0]["pictures"] == 17
    assert reports[0]["confusion"] == reports[1]["confusion"]
    own = evaluate(
        str(done.folder), data=None, split="test", experiment=None, overrides=(), out=None, log=lambda line: None
    )
    always = {"background": 0.75, "smoke": 0.25}  # what a constant answer reaches at most, about
    assert own.report["metrics"]["iou"]["smoke"]["value"] > always["smoke"] + 0.05
    answer = Predictor(done.bundles[0]).predict(
        next(iter(sorted((shared / "data" / "real_smoke" / "images").iterdir())))
    )
    assert answer.size == (256, 256)
