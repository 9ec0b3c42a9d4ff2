"""A fourth task, a number a picture, added from outside the package: trained, evaluated, exported, and predicted by."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, ContractError, ModelError
from leakdet_tf.core.registry import task_module, task_path
from leakdet_tf.core.tasks.protocol import Task
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.calibrate import calibrate_run
from leakdet_tf.jobs.compare import compare_runs
from leakdet_tf.jobs.data_show import show
from leakdet_tf.jobs.evaluate import evaluate
from leakdet_tf.jobs.explain import explain
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.predict import predict

OUTSIDE = Path(__file__).parents[1] / "outside"
TEXT = """
name = "share"
[task]
kind = "share"
classes = ["background", "gas"]
[data]
root = "{root}"
values = {{0 = "background", 1 = "gas"}}
[data.inputs.image]
size = [32, 32]
[model]
factory = "share_task.models:few_numbers"
[train]
epochs = 40
batch_size = 8
learning_rate = 1e-2
patience = 0
[evaluate]
resamples = 100
[export]
formats = ["tflite_float32", "tflite_int8", "onnx_float32"]
max_changed = 0.5
pictures = 6
"""


@pytest.fixture(scope="module")
def outside() -> pytest.MonkeyPatch:
    """The folder of the other package on the path, as if it were installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(OUTSIDE))
        task_module.cache_clear()
        yield patch
    task_module.cache_clear()


@pytest.fixture(scope="module")
def experiment(outside: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark pictures, of which a bright part, its own share of each, is gas."""
    home = tmp_path_factory.mktemp("share")
    for split, count in (("train", 32), ("val", 8), ("test", 8)):
        for folder in ("images", "masks"):
            (home / "data" / split / folder).mkdir(parents=True)
        for number in range(count):
            random = np.random.default_rng([len(split), number])
            mask = np.zeros((32, 32), np.uint8)
            mask[:, : int(random.integers(0, 33))] = 1
            mask = random.permutation(mask.ravel()).reshape(mask.shape)
            pixels = (40 + 160 * mask[..., None] + random.integers(0, 20, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(home / "data" / split / "images" / f"{number:03}.png")
            Image.fromarray(mask).save(home / "data" / split / "masks" / f"{number:03}.png")
    (home / "share.toml").write_text(TEXT.format(root=home / "data"), encoding="utf-8")
    return home / "share.toml"


@pytest.fixture(scope="module")
def share_run(experiment: Path) -> Path:
    """The folder of its run."""
    return fit(str(experiment), [f"runs={experiment.parent / 'runs'}"], log=lambda line: None).folder


def test_it_trains_and_reports(share_run: Path) -> None:
    report = json.loads((share_run / "metrics.json").read_text())
    assert report["task"] == "share"
    assert report["metrics"]["closeness"]["value"] > 0.9
    assert {"curves.png", "examples.png", "model.keras"} <= {path.name for path in share_run.iterdir()}
    with (share_run / "history.csv").open() as file:
        assert {"closeness", "val_closeness"} <= set(next(csv.DictReader(file)))
    assert "threshold" not in Contract.load(share_run / "contract.json").to_dict()


@pytest.mark.parametrize("kind", ["tflite_float32", "tflite_int8", "onnx_float32"])
def test_it_is_exported_and_predicts(share_run: Path, experiment: Path, kind: str) -> None:
    assert "closeness" in (share_run / "export" / kind / "card.json").read_text()
    predictor = Predictor(share_run / "export" / kind)
    for number in range(4):
        mask = np.asarray(Image.open(experiment.parent / f"data/test/masks/{number:03}.png"))
        found = predictor.predict(experiment.parent / f"data/test/images/{number:03}.png")
        assert found.share == pytest.approx(mask.mean(), abs=0.2)
        assert found.total_ms > 0


def test_commands_take_it(share_run: Path, experiment: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    done = evaluate(
        str(share_run / "export" / "tflite_float32"),
        data=None,
        split="val",
        experiment=None,
        overrides=(),
        out=str(tmp_path / "val"),
        log=lines.append,
    )
    assert done.report["split"] == "val"
    predicted = predict(
        str(share_run),
        [str(experiment.parent / "data/test/images")],
        out=str(tmp_path / "out"),
        threads=None,
        log=print,
    )
    with predicted.table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == predicted.answered == 8
    assert list(rows[0])[:4] == ["picture", "width", "height", "share"]
    assert Path(rows[0]["overlay"]).is_file()
    assert show(str(experiment), number=2, out=str(tmp_path / "shown.png")).is_file()


def test_what_it_cannot_do_is_said_in_a_line(share_run: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="a model to share has nothing to calibrate"):
        calibrate_run(str(share_run), overrides=(), threshold=None, log=print)
    with pytest.raises(Exception, match="no test for models to share"):
        compare_runs([str(share_run)], metric="", out=str(tmp_path), log=print)
    with pytest.raises(ModelError, match="is a model to share"):
        explain(str(share_run), [], split="test", out=str(tmp_path), log=print)


def test_without_its_package_it_is_refused_by_name(share_run: Path, experiment: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [path for path in sys.path if path != str(OUTSIDE)])
        assert task_path("share") is None
        with pytest.raises(ContractError, match=r"unknown task 'share'.*install the task.s package"):
            Contract.load(share_run / "contract.json")
        with pytest.raises(ConfigError, match=r"task.kind: there is no such task; write one of segment, classify"):
            load(experiment)


def test_a_module_that_lacks_something_is_named(outside: pytest.MonkeyPatch) -> None:
    class More(Task):
        def wanted(self) -> int: ...

    with pytest.raises(ModelError, match=r"task 'share': share_task\.core lacks wanted"):
        task_module("share", "core", More)
