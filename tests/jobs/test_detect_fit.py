"""A detector down the whole road: YOLO's text files in, report, threshold, bundles, answers out."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.analysis.detect.answers import load_boxes
from leakdet_tf.cli import main
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError, LeakdetError, ModelError
from leakdet_tf.core.images import decode
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.calibrate import calibrate_run
from leakdet_tf.jobs.compare import compare_runs
from leakdet_tf.jobs.evaluate import evaluate
from leakdet_tf.jobs.explain import explain
from leakdet_tf.jobs.export import export
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.predict import predict

TEXT = """
name = "squares"
[task]
kind = "detect"
classes = ["square"]
[data]
root = "{root}"
labels = "yolo"
[data.inputs.image]
size = [64, 64]
fit = "letterbox"
pad = 114
[data.augment]
brightness = 0.0
contrast = 0.0
mosaic = 0.5
mosaic_close = 9
[model]
factory = "few_layers:few_grids"
[train]
epochs = 12
batch_size = 8
learning_rate = 5e-3
patience = 0
[evaluate]
resamples = 100
[export]
formats = ["tflite_float32", "onnx_float32"]
max_changed = 0.0
pictures = 6
"""
COUNTS = {"train": 128, "val": 8, "test": 8}


def picture(seed: int) -> tuple[Image.Image, str]:
    """Dark noise, 48x64 px, and on three of four a bright square; with the text that says where it is."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (48, 64, 3))
    if seed % 4 == 0:
        return Image.fromarray(pixels.astype(np.uint8)), ""
    side, left, top = (int(random.integers(low, high)) for low, high in ((14, 22), (1, 40), (1, 24)))
    pixels[top : top + side, left : left + side] = random.integers(200, 255, (side, side, 3))
    middle = (left + side / 2) / 64, (top + side / 2) / 48
    line = f"0 {middle[0]:.6f} {middle[1]:.6f} {side / 64:.6f} {side / 48:.6f}\n"
    return Image.fromarray(pixels.astype(np.uint8)), line


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, text files and the experiment."""
    folder = tmp_path_factory.mktemp("squares")
    for split, count in COUNTS.items():
        for kind in ("images", "labels"):
            (folder / "data" / split / kind).mkdir(parents=True)
        for number in range(count):
            image, text = picture(len(split) * 1000 + number)
            image.save(folder / "data" / split / "images" / f"{split}{number}.png")
            (folder / "data" / split / "labels" / f"{split}{number}.txt").write_text(text)
    (folder / "squares.toml").write_text(TEXT.format(root=folder / "data"))
    return folder


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def run(home: Path, told: list[str]) -> Path:
    """The finished run's folder."""
    sys.path.insert(0, str(Path(__file__).parent))
    return fit(str(home / "squares.toml"), [f"runs={home / 'runs'}"], log=told.append).folder


def content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_run_has_learned_and_holds_its_evidence(run: Path, told: list[str]) -> None:
    for name in ("metrics.json", "boxes.npz", "pr.png", "curves.png", "examples.png", "threshold.json", "history.csv"):
        assert (run / name).stat().st_size > 0
    found = content(run / "metrics.json")
    assert found["metrics"]["map50"]["value"] > 0.5
    assert found["contract"] == Contract.load(run / "contract.json").id
    assert found["empty_pictures"] == 2
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) / 2
    best = max(float(row["val_map"]) for row in rows)
    assert any("val mAP" in line and f"{best:.4f}" in line for line in told)


def test_the_threshold_is_that_of_the_best_f1_and_its_contract_names_the_one_before(run: Path) -> None:
    contract, kept = Contract.load(run / "contract.json"), content(run / "threshold.json")
    assert contract.threshold == kept["threshold"] == round(kept["best"]["threshold"], 6) != 0.25
    before = Contract.load(run / f"contract-{contract.parent}.json")
    assert (before.id, before.threshold, before.weights_sha256) == (contract.parent, 0.25, contract.weights_sha256)


@pytest.mark.parametrize("form", ["tflite_float32", "onnx_float32"])
def test_a_bundle_finds_the_square_in_the_picture_s_own_pixels(run: Path, home: Path, form: str) -> None:
    predictor = Predictor(run / "export" / form)
    hits = 0
    for number in (1, 2, 3):
        image = home / "data" / "test" / "images" / f"test{number}.png"
        _, x, y, width, height = map(
            float, image.parent.with_name("labels").joinpath(f"test{number}.txt").read_text().split()
        )
        truth = np.array([(x - width / 2) * 64, (y - height / 2) * 48, (x + width / 2) * 64, (y + height / 2) * 48])
        answer = predictor.predict(image)
        assert answer.size == (48, 64)
        hits += any(np.abs(box - truth).max() < 6 for box in answer.boxes)
        assert predictor.draw(image, answer).shape == (48, 64, 3)
    assert hits >= 2


def test_the_bundles_are_measured_like_the_model(run: Path, home: Path, tmp_path: Path) -> None:
    whole = content(run / "metrics.json")["metrics"]["map50"]["value"]
    for form in ("tflite_float32", "onnx_float32"):
        done = evaluate(
            str(run / "export" / form),
            data=None, split="test", experiment=None, overrides=[], out=str(tmp_path / form), log=lambda line: None,
        )  # fmt: skip
        assert done.report["metrics"]["map50"]["value"] == pytest.approx(whole, abs=0.02)
        answers = load_boxes(tmp_path / form / "boxes.npz")
        assert len(answers.ids) == COUNTS["test"]
    folders, lines = [str(run), str(tmp_path / "tflite_float32"), str(tmp_path / "onnx_float32")], list[str]()
    found = compare_runs(folders, metric="", out=str(tmp_path / "compared"), log=lines.append).report
    assert [pair["holds"] for pair in found["pairs"]] == [False] * 3
    assert found["runs"][0]["metrics"]["map50"]["value"] == whole
    assert "mAP .5" in lines[0]
    assert "AP .5 square" in (tmp_path / "compared" / "comparison.md").read_text()
    with pytest.raises(ConfigError, match="mean_iou"):
        compare_runs(folders, metric="mean_iou", out=str(tmp_path / "no"), log=print)


def test_predict_writes_a_line_for_each_picture_and_each_box(run: Path, home: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    bundle, frames = run / "export" / "tflite_float32", home / "data" / "test" / "images"
    done = predict(str(bundle), [str(frames)], out=str(tmp_path), threads=1, log=lines.append)
    assert (done.answered, done.refused) == (COUNTS["test"], 0)
    with done.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "boxes.csv").open(newline="") as file:
        boxes = list(csv.DictReader(file))
    assert len(rows) == COUNTS["test"]
    assert sum(int(row["boxes_square"]) for row in rows) == len(boxes) > 0
    for row in rows:
        own = [float(box["score"]) for box in boxes if box["picture"] == row["picture"]]
        assert row["best_score"] == (f"{max(own):.4f}" if own else "")
        assert decode(row["overlay"]).shape == (48, 64, 3)
    assert {box["class"] for box in boxes} == {"square"}
    assert all(0 <= float(box["x1"]) < float(box["x2"]) <= 64 for box in boxes)


def test_the_file_may_decode_and_suppress_itself(run: Path, home: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    changes = ["export.outputs=final", 'export.formats=["tflite_float32"]', "export.max_changed=0.2"]
    (made,) = export(str(own), overrides=changes, log=lambda line: None)
    plain, other = Predictor(run / "export" / "tflite_float32"), Predictor(made.folder)
    assert other.contract.outputs == "final"
    for path in sorted((home / "data" / "test" / "images").iterdir()):
        ours, theirs = plain.predict(path), other.predict(path)
        assert np.allclose(ours.boxes, theirs.boxes, atol=0.05)
        assert np.allclose(ours.scores, theirs.scores, atol=1e-3)
    # held to the model with the same threshold: the boxes below it, which the file has cut off, are not points lost
    assert abs(content(made.folder / "card.json")["gate"]["drop"]) < 1e-6


def test_calibrate_takes_the_user_s_threshold(run: Path, tmp_path: Path) -> None:
    own, lines = shutil.copytree(run, tmp_path / "run"), list[str]()
    calibrate_run(str(own), overrides=[], threshold=0.6, log=lines.append)
    assert Contract.load(own / "contract.json").threshold == 0.6
    assert "as asked for" in lines[-1]
    calibrate_run(str(own), overrides=[], threshold=None, log=lines.append)
    assert Contract.load(own / "contract.json") == Contract.load(run / "contract.json")
    with pytest.raises(LeakdetError, match="is a bundle"):
        calibrate_run(str(own / "export" / "tflite_float32"), overrides=[], threshold=None, log=print)


def test_what_is_not_for_detectors_says_so(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="explain takes classifiers and segmenters"):
        explain(str(run), [], split="test", masks=False, layer=None, target=None, out=str(tmp_path), log=print)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0.5 0.5 0.2\n", "train1.txt"),
        ("0 0.5 0.5 nan 0.2\n", "train1.txt"),
        ("0 0.9 0.5 0.6 0.2\n", "train1.txt"),
        ("7 0.5 0.5 0.2 0.2\n", "train1.txt"),
    ],
)
def test_a_bad_box_stops_fit_before_a_run_is_made(home: Path, tmp_path: Path, text: str, said: str) -> None:
    data = shutil.copytree(home / "data", tmp_path / "data")
    (data / "train" / "labels" / "train1.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        fit(str(home / "squares.toml"), [f"data.root={data}", f"runs={tmp_path / 'runs'}"], log=lambda line: None)
    assert not (tmp_path / "runs").exists()


def test_a_size_that_the_grids_do_not_divide_is_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(home / "squares.toml"), "--set", "data.inputs.image.size=[60,64]"]) == 2
    assert "multiples of 32" in capsys.readouterr().err


def test_the_losses_of_a_detector_cannot_be_changed(home: Path) -> None:
    from leakdet_tf.config.loading import load

    with pytest.raises(ConfigError, match=r"train\.loss: to detect it cannot be changed"):
        load(str(home / "squares.toml"), ['train.loss=["dice"]'])
