"""A classifier down the whole road: class folders in, report, calibration, bundle, answers and matrix out."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.analysis.classify.calibration import Abstain
from leakdet_tf.analysis.classify.figures import risk_coverage
from leakdet_tf.analysis.classify.scores import load_scores
from leakdet_tf.cli import main
from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError, LeakdetError, ModelError
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.calibrate import calibrate_run
from leakdet_tf.jobs.evaluate import evaluate, matrix
from leakdet_tf.jobs.export import export
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.predict import predict

TEXT = """
name = "tones"
[task]
kind = "classify"
classes = ["dark", "bright"]
[data]
root = "{root}"
labels = "folders"
values = {{night = "dark", day = "bright", other = "ignore"}}
[data.inputs.image]
size = [32, 32]
[data.augment]
brightness = 0.0
contrast = 0.0
[model]
factory = "resnet_classifier"
encoder = "resnet18_v1"
encoder_options = {{width = 4}}
[train]
batch_size = 8
learning_rate = 3e-3
patience = 0
[[train.stage]]
epochs = 1
train = ["head"]
[[train.stage]]
epochs = 5
train = ["all"]
[evaluate]
resamples = 100
max_risk = 0.2
"""
COUNTS = {"train": 16, "val": 10, "test": 6}
LOWEST = {"night": 20, "day": 170, "other": 170}
DUSK = {"night": 105, "day": 85}
"""The same of the last two validation pictures of each class: nearly alike, and the darker ones are called day."""


def picture(low: int, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(low, low + 60, (40, 48, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in class folders, four of them at dusk, and the experiment file."""
    folder = tmp_path_factory.mktemp("tones")
    for split, count in COUNTS.items():
        for tone in ("night", "day", "other"):
            place = folder / "data" / split / tone
            place.mkdir(parents=True)
            for number in range(count):
                low = DUSK[tone] if split == "val" and tone in DUSK and number >= count - 2 else LOWEST[tone]
                picture(low, len(split) * 1000 + (tone == "day") * 100 + number).save(place / f"{split}{number}.png")
    (folder / "tones.toml").write_text(TEXT.format(root=folder / "data"))
    return folder


@pytest.fixture(scope="module")
def tones(home: Path) -> tuple[Path, list[str]]:
    """A finished run, and what it said."""
    lines: list[str] = []
    done = fit(str(home / "tones.toml"), [f"runs={home / 'runs'}"], log=lines.append)
    return done.folder, lines


def test_the_run_tells_stages_sources_and_calibration(tones: tuple[Path, list[str]]) -> None:
    folder, lines = tones
    told = "\n".join(lines)
    assert "stage 1 of 2: head (" in told
    assert "stage 2 of 2: all (" in told
    assert "epoch 6/6" in told
    assert "calibrated on 20 validation pictures" in told
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert {"val_accuracy", "val_mean_f1", "val_f1_bright"} <= set(rows[0])
    data = json.loads((folder / "data.json").read_text())
    assert data["train"]["sources"]["data"]["pixels"] == {"dark": 16, "bright": 16}
    assert all("other" not in key for key in data["train"]["files"])
    for name in ("curves.png", "examples.png", "confusion.png", "reliability.png", "risk.png"):
        assert (folder / name).stat().st_size > 1000


def test_the_report_agrees_with_the_scores_that_were_kept(tones: tuple[Path, list[str]]) -> None:
    folder, _ = tones
    found = json.loads((folder / "metrics.json").read_text())
    answers = load_scores(folder / "scores.npz")
    right = (answers.scores.argmax(1) == answers.truth.argmax(1)).mean()
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert found["pictures"] == len(answers.ids) == 12
    assert found["truth"] == {"dark": 6, "bright": 6}
    assert right > 0.9  # black and white: if this is not learned, training does nothing


def test_the_calibrated_contract_names_its_parent_and_reaches_the_bundle(tones: tuple[Path, list[str]]) -> None:
    """The pictures at dusk are hard to tell: the temperature moves."""
    folder, _ = tones
    contract = Contract.load(folder / "contract.json")
    kept = json.loads((folder / "calibration.json").read_text())
    assert contract.temperature != 1.0
    assert contract.parent is not None
    assert (kept["contract"], kept["parent"]) == (contract.id, contract.parent)
    assert kept["temperature"]["used"] == contract.temperature
    parent = Contract.load(folder / f"contract-{contract.parent}.json")
    assert (parent.id, parent.temperature, parent.abstain, parent.parent) == (contract.parent, 1.0, 0.0, None)
    bundle = json.loads((folder / "export" / "tflite_float32" / "contract.json").read_text())
    assert bundle["temperature"] == contract.temperature  # abstain stands there only where a threshold was found
    assert Contract.load(folder / "export" / "tflite_float32" / "contract.json") == contract


def test_the_threshold_that_was_chosen_reaches_the_bundle_and_its_answers(
    home: Path, tones: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copytree(tones[0], tmp_path / "own"))
    chosen = Abstain(0.9999, 0.2, 0.95, 14, 0.7, 0.0, 0.19)
    monkeypatch.setattr("leakdet_tf.analysis.classify.calibration.choose_abstain", lambda *_, **__: chosen)
    lines: list[str] = []
    calibrate_run(str(own), overrides=[], threshold=None, log=lines.append)
    assert "answers below 1.000 are unsure" in "\n".join(lines)
    assert json.loads((own / "calibration.json").read_text())["abstain"]["threshold"] == 0.9999
    bundle = export(str(own), overrides=[], log=lines.append)[0].folder
    assert Contract.load(bundle / "contract.json").abstain == Contract.load(own / "contract.json").abstain == 0.9999
    assert Predictor(bundle).predict(home / "data" / "val" / "day" / "val9.png").labels == ()


def test_the_report_marks_the_threshold_of_the_contract(
    tones: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tones[0], []

    def spy(curves: object, title: str, abstain: dict[str, object]) -> object:
        seen.append(abstain["threshold"])
        return risk_coverage(curves, title, abstain)  # type: ignore[arg-type]

    monkeypatch.setattr("leakdet_tf.jobs.tasks.classify.risk_coverage", spy)
    evaluate(str(folder), data=None, split="val", experiment=None, overrides=[], out=str(tmp_path), log=print)
    assert seen == [Contract.load(folder / "contract.json").abstain]
    assert (tmp_path / "risk.png").is_file()


def test_a_bundle_answers_and_is_measured_as_the_model(home: Path, tones: tuple[Path, list[str]]) -> None:
    folder, _ = tones
    bundle = folder / "export" / "tflite_float32"
    answer = Predictor(bundle).predict(home / "data" / "test" / "day" / "test0.png")
    assert (answer.size, answer.classes) == ((40, 48), ("dark", "bright"))
    assert answer.labels in (("bright",), ())
    lines: list[str] = []
    done = evaluate(
        str(bundle), data=None, split="test", experiment=None, overrides=[], out=str(home / "eval"), log=lines.append
    )
    ours = json.loads((folder / "metrics.json").read_text())
    assert done.report["confusion"] == ours["confusion"]
    assert done.report["contract"] == ours["contract"]


def test_predict_writes_answers_without_masks(home: Path, tones: tuple[Path, list[str]]) -> None:
    out = home / "predictions"
    done = predict(str(tones[0]), [str(home / "data" / "test" / "night")], out=str(out), threads=None, log=print)
    rows = list(csv.DictReader(done.table.read_text().splitlines()))
    assert len(rows) == done.answered == 6
    assert {row["answer"] for row in rows} <= {"dark", "unsure"}
    assert all(abs(float(row["score_dark"]) + float(row["score_bright"]) - 1) < 1e-3 for row in rows)
    assert Path(rows[0]["overlay"]).is_file()
    assert not (out / "masks").exists()


def test_calibrating_anew_replaces_and_keeps_the_same_parent(tones: tuple[Path, list[str]]) -> None:
    folder, _ = tones
    before = Contract.load(folder / "contract.json")
    lines: list[str] = []
    calibrate_run(str(folder), overrides=["evaluate.max_risk=0.001"], threshold=None, log=lines.append)
    strict = Contract.load(folder / "contract.json")
    assert "warning: no answer is called unsure" in "\n".join(lines)
    assert strict.abstain == 0.0
    calibrate_run(str(folder), overrides=[], threshold=None, log=lines.append)
    assert Contract.load(folder / "contract.json") == before
    assert len(export(str(folder), overrides=[], log=lines.append)) == 1
    with pytest.raises(LeakdetError, match="is a bundle"):
        calibrate_run(str(folder / "export" / "tflite_float32"), overrides=[], threshold=None, log=print)


def test_calibrating_on_few_groups_is_warned_of(
    tones: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copytree(tones[0], tmp_path / "own"))
    lines: list[str] = []
    calibrate_run(str(own), overrides=[], threshold=None, log=lines.append)
    assert not [line for line in lines if "groups" in line], "20 pictures, each a group of its own, will do"
    monkeypatch.setattr("leakdet_tf.jobs.tasks.classify._FEW", 21)
    calibrate_run(str(own), overrides=[], threshold=None, log=lines.append)
    assert [line for line in lines if line.startswith("warning: these pictures are of 20 groups")]


def test_a_matrix_of_models_sets_and_strangers(home: Path, tones: tuple[Path, list[str]]) -> None:
    folder, _ = tones
    elsewhere = home / "elsewhere"
    for tone in ("night", "day"):
        (elsewhere / tone).mkdir(parents=True)
        for number in range(3):
            picture(LOWEST[tone], 900 + number).save(elsewhere / tone / f"{number}.png")
    lines: list[str] = []
    found, files = matrix(
        [str(folder)],
        tests=[f"elsewhere={elsewhere}"],
        strangers=[f"grey={home / 'data' / 'test' / 'other'}"],
        out=str(home / "matrix"),
        log=lines.append,
    )
    (model,) = found["models"]  # type: ignore[misc]
    assert set(model["tests"]) == {"tones", "elsewhere"}
    assert model["tests"]["elsewhere"]["pictures"] == 6
    assert model["strangers"]["grey"]["pictures"] == 6
    assert "elsewhere" in "\n".join(lines)
    assert [file.name for file in files if file.is_file()] == ["matrix.json", "matrix.md", "matrix.png"]
    with pytest.raises(ConfigError, match="not NAME=PLACE"):
        matrix([str(folder)], tests=["elsewhere"], strangers=[], out=str(home / "m"), log=print)
    with pytest.raises(DataError, match="holds no picture"):
        matrix([str(folder)], tests=[], strangers=[f"none={home / 'nowhere'}"], out=str(home / "m"), log=print)
    (home / "broken").mkdir()
    for number in range(3):
        (home / "broken" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"--strangers bad: none of its 3 pictures can be read; replace them"):
        matrix([str(folder)], tests=[], strangers=[f"bad={home / 'broken'}"], out=str(home / "m"), log=lines.append)
    assert not (home / "m").exists()


def test_rendered_pictures_are_told(home: Path, tones: tuple[Path, list[str]], tmp_path: Path) -> None:
    """The test part again, with a manifest beside it that says that somebody rendered it."""
    drawn = tmp_path / "drawn"
    shutil.copytree(home / "data" / "test", drawn / "test")
    files = [str(path.relative_to(drawn)) for tone in ("night", "day") for path in (drawn / "test" / tone).iterdir()]
    manifest = [{"generator": "x", "pictures": [{"file": file} for file in some]} for some in (files, files[:5])]
    (drawn / "manifest.json").write_text(json.dumps(manifest[0]))
    shutil.copytree(drawn, tmp_path / "mixed")
    (tmp_path / "mixed" / "manifest.json").write_text(json.dumps(manifest[1]))
    said: dict[str, list[str]] = {"real": [], "drawn": [], "mixed": [], "matrix": []}
    for name, data, rendered in (("real", None, 0), ("drawn", str(drawn), 12), ("mixed", str(tmp_path / "mixed"), 5)):
        done = evaluate(
            str(tones[0]),
            data=data,
            split="test",
            experiment=None,
            overrides=[],
            out=str(tmp_path / name),
            log=said[name].append,
        )
        written = json.loads((tmp_path / name / "metrics.json").read_text())
        assert done.report["rendered"] == written["rendered"] == rendered
    assert "12 of 12 pictures are rendered: the figures are not those of photographs" in said["drawn"]
    mixture = "5 of 12 pictures are rendered: the figures are not those of photographs, nor those of rendered pictures"
    assert f"{mixture} alone" in said["mixed"]
    assert "rendered" not in "\n".join(said["real"])
    found, _ = matrix(
        [str(tones[0])], tests=[f"drawn={drawn}"], strangers=[], out=str(tmp_path / "m"), log=said["matrix"].append
    )
    assert [part["rendered"] for part in found["tests"].values()] == [0, 12]  # type: ignore[attr-defined]
    assert "drawn (12, rendered)" in "\n".join(said["matrix"])
    assert "drawn (12, rendered)" in (tmp_path / "m" / "matrix.md").read_text()


def test_matrix_options_alone_are_refused(tones: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tones[0]), "--strangers", "a=b"]) == 2
    assert "belong to --matrix" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--data", "photos"),
        ("--split", "test"),
        ("--source", "photos"),
        ("--experiment", "tones.toml"),
        ("--set", "evaluate.resamples=200"),
    ],
)
def test_options_of_one_model_are_refused_with_matrix(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "runs/none", "--matrix", option, value, "--out", str(tmp_path / "out")]) == 2
    assert (
        f"{option}: not with --matrix, which takes each run's own; further test sets: --test NAME=PLACE"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (["data.labels=", 'data.values={0 = "dark"}'], "data.labels: missing"),
        (["data.labels="], "'night' is neither a mask value"),
        (['train.loss=["dice"]'], "train.loss: 'dice' is for masks"),
        (["train.class_weights=pixels"], "train.class_weights: 'pixels' is not counted to classify"),
        (["task.kind=segment"], "data.labels: says what whole pictures are"),
    ],
)
def test_settings_of_the_other_task_are_refused(home: Path, overrides: list[str], shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(home / "tones.toml", overrides)
    assert shown in str(caught.value)


def test_a_model_of_the_other_task_is_refused(home: Path) -> None:
    with pytest.raises(ModelError, match=r"its output is \(32, 32, 2\), expected \(2,\) to classify"):
        fit(
            str(home / "tones.toml"),
            [
                "model.factory=unet",
                "model.encoder=resnet18",
                "model.encoder_options={width = 4}",
                f"runs={home / 'no'}",
            ],
            log=print,
        )
    assert not (home / "no").exists()


def test_a_stage_without_layers_is_refused(home: Path) -> None:
    with pytest.raises(ModelError, match="has no layers 'haed'"):
        fit(
            str(home / "tones.toml"),
            ['train.stage=[{epochs = 1, train = ["haed"]}]', f"runs={home / 'other'}"],
            log=print,
        )
