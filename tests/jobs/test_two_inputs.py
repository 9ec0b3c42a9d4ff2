"""A model of two cameras, colour and 16-bit heat, goes the whole road: fit, measure, export, answer, time, explain."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.cli import main
from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, ContractError, DataError, LeakdetError
from leakdet_tf.data.readers import find_splits
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.evaluate import evaluate, matrix
from leakdet_tf.jobs.explain import explain
from leakdet_tf.jobs.export import calibration_of
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.predict import Predicted, predict

SIZE = (48, 64)
FORMATS = ("tflite_float32", "tflite_int8", "onnx_float32")
EXPERIMENT = """
name = "pairs"
runs = "RUNS"
[task]
kind = "KIND"
classes = ["background", "leak"]
[data]
root = "ROOT"
TRUTH
[data.inputs.rgb]
folder = "visual"
size = [32, 32]
[data.inputs.thermal]
folder = "thermal"
size = [32, 32]
channels = 1
dtype = "uint16"
[model]
factory = "few_layers:FACTORY"
[train]
epochs = 10
batch_size = 4
patience = 0
learning_rate = 2e-2
[export]
formats = FORMATS
pictures = 4
calibration = 6
max_drop = 1.0
max_turned = 1.0
"""
TRUTH = {"segment": 'values = {0 = "background", 255 = "leak"}', "classify": 'labels = "folders"'}


def put(path: Path, pixels: Any) -> None:
    """A picture, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pair(seed: int, *, wet: bool = True) -> tuple[Any, Any, Any]:
    """Colour, heat and mask: what leaks is warm, and looks like everything else."""
    random = np.random.default_rng(seed)
    mask = np.zeros(SIZE, np.uint8)
    top, left = random.integers(4, 20), random.integers(4, 28)
    mask[top : top + 20, left : left + 28] = 255 * wet
    heat = random.integers(9000, 12000, SIZE) + 40000 * (mask > 0)
    return random.integers(60, 200, (*SIZE, 3), dtype=np.uint8), heat.astype(np.uint16), mask


def experiment(home: Path, kind: str, formats: tuple[str, ...]) -> Path:
    """The file; its pictures are there already."""
    told = {"KIND": kind, "RUNS": home / "runs", "ROOT": home / "data", "TRUTH": TRUTH[kind]}
    told |= {"FACTORY": "few_pairs" if kind == "segment" else "few_pair_labels", "FORMATS": json.dumps(formats)}
    text = EXPERIMENT
    for key in ("FACTORY", "FORMATS", "KIND", "RUNS", "ROOT", "TRUTH"):
        text = text.replace(key, str(told[key]))
    (home / f"{kind}.toml").write_text(text)
    return home / f"{kind}.toml"


def quiet(line: str) -> None:
    """Takes a line."""


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """``few_layers:few_pairs`` and its like can be named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in ``data/<split>/visual``, ``thermal`` and ``masks``, and the experiment file. Read only."""
    folder = tmp_path_factory.mktemp("pairs")
    for number, (split, count) in enumerate((("train", 12), ("val", 4), ("test", 4))):
        for place in range(count):
            colour, heat, mask = pair(100 * number + place)
            put(folder / "data" / split / "visual" / f"{place:02d}.png", colour)
            put(folder / "data" / split / "thermal" / f"{place:02d}.tif", heat)
            put(folder / "data" / split / "masks" / f"{place:02d}.png", mask)
    experiment(folder, "segment", FORMATS)
    return folder


@pytest.fixture(scope="module")
def run(home: Path, toys: None) -> Path:
    """A finished run with its bundles. Read only."""
    return fit(str(home / "segment.toml"), [], log=quiet).folder


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """A bundle that was carried away from its run."""
    return Path(shutil.copytree(run / "export" / "onnx_float32", tmp_path / "carried"))


def test_it_learns_what_only_the_second_input_shows(run: Path) -> None:
    found = json.loads((run / "metrics.json").read_text())
    assert found["metrics"]["mean_iou"]["value"] > 0.8
    assert sorted(path.name for path in (run / "export").iterdir() if path.is_dir()) == sorted(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_a_bundle_is_measured_as_its_run_is(run: Path, form: str, tmp_path: Path) -> None:
    asked = {"data": None, "split": "test", "experiment": None, "overrides": [], "log": quiet}
    kept = json.loads((run / "metrics.json").read_text())["metrics"]["mean_iou"]["value"]
    done = evaluate(str(run / "export" / form), **asked, out=str(tmp_path))  # type: ignore[arg-type]
    assert done.report["metrics"]["mean_iou"]["value"] == pytest.approx(kept, abs=1e-4 if "float32" in form else 0.1)


def test_a_run_is_measured_by_names_not_by_the_order_of_its_inputs(run: Path, home: Path, tmp_path: Path) -> None:
    head, rgb, rest = (home / "segment.toml").read_text().partition("[data.inputs.rgb]")
    first, thermal, rest = rest.partition("[data.inputs.thermal]")
    second, model, rest = rest.partition("[model]")
    turned = tmp_path / "turned.toml"
    turned.write_text(head + thermal + second + rgb + first + model + rest)
    asked = {"data": None, "split": "test", "overrides": [], "log": quiet}
    done = evaluate(str(run), **asked, experiment=str(turned), out=str(tmp_path))  # type: ignore[arg-type]
    assert done.report["metrics"] == json.loads((run / "metrics.json").read_text())["metrics"]
    turned.write_text(head + rgb + first + model + rest)
    with pytest.raises(ContractError, match=r"the model takes \['rgb', 'thermal'\], got \['rgb'\]; give a picture"):
        evaluate(str(run), **asked, experiment=str(turned), out=str(tmp_path))  # type: ignore[arg-type]


def test_calibration_pictures_hold_both_inputs(run: Path, tmp_path: Path) -> None:
    settings = load(run / "experiment.toml")
    contract = Contract.load(run / "contract.json")
    made = calibration_of(contract, settings, find_splits(settings.data)["train"], tmp_path / "kept.npz")
    assert made.to_dict()["black_and_white"] == {"rgb": 2, "thermal": 0}
    with np.load(made.path) as kept:
        assert {name: (kept[name].shape, kept[name].dtype) for name in kept.files} == {
            "rgb": ((8, 32, 32, 3), np.uint8),
            "thermal": ((8, 32, 32, 1), np.uint16),
        }


@pytest.mark.parametrize("form", FORMATS)
def test_a_pair_of_frames_is_answered(run: Path, form: str) -> None:
    predictor = Predictor(run / "export" / form)
    colour, heat, mask = pair(5)
    frame = {"thermal": heat, "rgb": colour[..., ::-1]}  # in any order
    answer = predictor.predict(frame, bgr=True)
    assert answer.labels.shape == SIZE
    assert (answer.labels == (mask > 0)).mean() > 0.9
    drawn = predictor.draw(frame, answer, bgr=True)
    np.testing.assert_array_equal(drawn[answer.labels == 0], frame["rgb"][answer.labels == 0])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"thermal": None}, r"the model takes \['rgb', 'thermal'\], got \['rgb'\]; give a picture for each: \{'rgb': "),
        ({"heat": np.uint16}, r"got \['heat', 'rgb', 'thermal'\]"),
        ({"thermal": np.uint8}, r"thermal: has uint8 pixels, the model takes uint16; set dtype"),
        ({"rgb": np.float32}, r"rgb: a frame is uint8 or uint16 \(H, W\) or \(H, W, C\), got float32 \(48, 64, 1\)"),
    ],
)
def test_a_frame_that_is_not_what_the_model_takes_is_named(run: Path, wrong: dict[str, Any], told: str) -> None:
    colour, heat, _ = pair(5)
    given = {"rgb": colour, "thermal": heat}
    given |= {name: np.zeros(SIZE, dtype) for name, dtype in wrong.items() if dtype is not None}
    frame = {name: pixels for name, pixels in given.items() if wrong.get(name, True) is not None}
    with pytest.raises(ContractError, match=told) as error:
        Predictor(run / "export" / "onnx_float32").predict(frame)
    assert "\n" not in str(error.value)


def test_a_lone_frame_is_refused(run: Path) -> None:
    with pytest.raises(ContractError, match=r"got \['rgb'\]; give a picture for each"):
        Predictor(run / "export" / "onnx_float32").predict(pair(5)[0])


def answered(model: Path, *sources: Path, out: Path, told: list[str] | None = None, **keys: Any) -> Predicted:
    """``predict``, its lines kept in ``told`` or refused."""
    log = pytest.fail if told is None else told.append
    return predict(str(model), [str(path) for path in sources], out=str(out), threads=1, log=log, **keys)


@pytest.mark.parametrize("model", ["", "export/tflite_float32"])
def test_predict_finds_partners_in_the_folders_of_the_experiment(
    run: Path, home: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visual = home / "data" / "test" / "visual"
    done = answered(run / model, visual, out=tmp_path)
    assert (done.answered, done.refused) == (4, 0)
    predictor = Predictor(run / "export" / "tflite_float32")
    for row in csv.DictReader(done.table.read_text().splitlines()):
        path = Path(row["picture"])
        frame: Any = {"rgb": path, "thermal": visual.with_name("thermal") / f"{path.stem}.tif"}
        labels = predictor.predict(frame).labels
        assert path.parent == visual
        assert (np.asarray(Image.open(row["mask"])) == labels).mean() > 0.999
    monkeypatch.chdir(visual)
    assert answered(run / model, Path("00.png"), out=tmp_path).answered == 1


def test_a_bundle_outside_its_run_is_told_where_the_other_pictures_are(
    alone: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour, heat, _ = pair(7)
    put(tmp_path / "left" / "day" / "one.jpg", colour)
    put(tmp_path / "right" / "day" / "one.tif", heat)
    put(tmp_path / "right" / "two.png", heat)
    assert main(["predict", str(alone), ".", "--input", "thermal"]) == 2
    assert "thermal is not of the form NAME=FOLDER" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"takes rgb and thermal together, .*outside its run; add --input thermal=FOLD"):
        answered(alone, tmp_path / "left", out=tmp_path / "out")
    asked = ["predict", str(alone), str(tmp_path / "left"), "--out", str(tmp_path / "out")]
    assert main([*asked, "--input", f"thermal={tmp_path / 'right'}"]) == 0
    assert "1 answered, 0 refused" in capsys.readouterr().out
    put(tmp_path / "left" / "three.jpg", colour)
    assert main([*asked, "--input", f"thermal={tmp_path / 'right'}"]) == 1
    lines = capsys.readouterr()
    assert lines.err == f"{tmp_path}/left/three.jpg: has no partner in {tmp_path}/right (thermal)\n"
    assert "1 answered, 1 refused" in lines.out


def test_pictures_without_a_partner_are_named_and_the_rest_go_on(run: Path, home: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(home / "data" / "test", tmp_path / "test"))
    (data / "thermal" / "01.tif").unlink()
    told: list[str] = []
    done = answered(run, data / "visual", out=tmp_path / "out", told=told)
    assert (done.answered, done.refused) == (3, 1)
    assert told == [f"{data}/visual/01.png: has no partner in {data}/thermal (thermal)"]
    shown = explain(str(run), [str(data / "visual")], out=str(tmp_path / "seen"), log=told.append)
    assert (shown.explained, shown.refused) == (3, 1)
    with pytest.raises(DataError, match=r"01\.png: has no partner in .*thermal .*; pictures and masks need equal stem"):
        evaluate(
            str(run), data=str(data), split="test", experiment=None, overrides=[], out=str(tmp_path), log=told.append
        )
    shutil.rmtree(data / "thermal")
    with pytest.raises(DataError, match="none of 4 pictures has a partner for each of thermal; pictures taken"):
        answered(run, data / "visual", out=tmp_path / "out", told=told)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ("termal=.", ConfigError, "the model has no such input; did you mean 'thermal'"),
        ("rgb=.", ConfigError, "rgb is the first input; give its pictures as PICTURE"),
        ("thermal=absent", DataError, "--input thermal=absent: no such folder"),
        ("", DataError, "it lies in no folder 'visual' of the experiment; add --input thermal=FOLDER"),
        ("twice", DataError, r"00\.tif: 00\.png has the same stem; rename or remove one"),
    ],
)
def test_what_is_not_known_of_partners_is_one_line(
    run: Path, home: Path, given: str, error: type[LeakdetError], told: str, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(home / "data" / "test", tmp_path / "test"))
    place = (data / "visual").rename(data / "colour") if not given else data / "visual"
    if given == "twice":
        put(data / "thermal" / "00.png", pair(1)[1])
        given = ""
    with pytest.raises(error, match=told):
        answered(run, place, out=tmp_path / "out", inputs=dict([given.split("=")] if given else []))


def test_bundles_are_timed(run: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles = [str(run / "export" / form) for form in ("tflite_int8", "onnx_float32")]
    asked = ["benchmark", *bundles, "--threads", "1", "--runs", "3", "--warm-up", "1"]
    assert main([*asked, "--json", str(tmp_path / "times.json")]) == 0
    report = json.loads((tmp_path / "times.json").read_text())
    assert [one["inputs"] for one in report["bundles"]] == [{"rgb": [32, 32, 3], "thermal": [32, 32, 1]}] * 2
    assert report["failed"] == []


def test_heat_lies_over_the_first_input(run: Path, home: Path, tmp_path: Path) -> None:
    done = explain(str(run), [], split="test", target="leak", out=str(tmp_path / "split"), log=quiet)
    assert (done.explained, done.refused) == (4, 0)
    assert done.pointing is not None
    assert done.pointing["pointing"]["hits"] >= 3, "what is warm is looked at"
    visual = home / "data" / "test" / "visual"
    shown = explain(str(run), [str(visual)], masks=True, target="leak", out=str(tmp_path / "shown"), log=quiet)
    assert shown.pointing == done.pointing
    (row, *_) = csv.DictReader(done.files[0].read_text().splitlines())
    overlay, colour = np.asarray(Image.open(row["overlay"])), np.asarray(Image.open(visual / "00.png"))
    grey = colour.astype(float).mean(-1)
    cold = np.ptp(overlay.astype(int), axis=-1) <= 4
    assert Path(row["picture"]) == visual / "00.png"
    assert np.corrcoef(overlay[cold].mean(-1), grey[cold])[0, 1] > 0.7, "cold places show the colour picture in grey"


def test_pictures_are_checked_and_shown(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = str(home / "segment.toml")
    assert main(["data", "check", asked, "--out", str(tmp_path)]) == 0, capsys.readouterr()
    assert main(["data", "show", asked, "--number", "2", "--versions", "2", "--out", str(tmp_path / "seen.png")]) == 0
    assert (tmp_path / "seen.png").is_file()
    assert main(["data", "show", asked, "--alone", "--number", "1", "--out", str(tmp_path / "alone.png")]) == 0


def test_a_wrong_picture_of_the_second_input_is_found(home: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(home / "data", tmp_path / "data"))
    put(data / "val" / "thermal" / "00.tif", np.zeros(SIZE, np.uint8))
    asked = ["data", "check", str(home / "segment.toml"), "--set", f"data.root={data}", "--out", str(tmp_path / "out")]
    assert main(asked) == 1
    told = (tmp_path / "out" / "findings.csv").read_text()
    assert "has uint8 pixels, data.inputs.thermal uint16" in told
    assert "thermal/00.tif" in told


def test_steps_are_taken_on_noise(home: Path, toys: None) -> None:
    from leakdet_tf.jobs.run.throughput import stepper

    stepper(load(home / "segment.toml"))(2)


def test_a_classifier_of_two_inputs(toys: None, tmp_path: Path) -> None:
    for number, (split, count) in enumerate((("train", 8), ("val", 4), ("test", 4))):
        for place in range(count):
            for word in ("background", "leak"):
                colour, heat, _ = pair(1000 * number + 10 * place + (word == "leak"), wet=word == "leak")
                put(tmp_path / "data" / split / word / "visual" / f"{place}.png", colour)
                put(tmp_path / "data" / split / word / "thermal" / f"{place}.tif", heat)
    run = fit(str(experiment(tmp_path, "classify", FORMATS[:1])), ["train.epochs=2"], log=quiet).folder
    bundle = run / "export" / "tflite_float32"
    again = evaluate(
        str(bundle), data=None, split="test", experiment=None, overrides=[], out=str(tmp_path / "again"), log=quiet
    )
    assert again.report["metrics"]["accuracy"] == json.loads((run / "metrics.json").read_text())["metrics"]["accuracy"]
    visual = tmp_path / "data" / "test" / "leak" / "visual"
    done = answered(bundle, visual, out=tmp_path / "out")
    for row in csv.DictReader(done.table.read_text().splitlines()):
        path = Path(row["picture"])
        frame: Any = {"rgb": path, "thermal": visual.with_name("thermal") / f"{path.stem}.tif"}
        assert float(row["score_leak"]) == pytest.approx(Predictor(bundle).predict(frame).scores[1], abs=1e-3)
    shown = explain(str(run), [], split="test", out=str(tmp_path / "seen"), log=quiet)
    assert shown.explained == 8
    strangers = f"strange={visual}"
    found, _ = matrix([str(bundle)], tests=[], strangers=[strangers], out=str(tmp_path / "matrix"), log=quiet)
    assert "strange" in json.dumps(found)
