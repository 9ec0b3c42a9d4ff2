"""The whole road on a small experiment: what a run folder holds, and how it ends when it is cut short."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError, LeakdetError, TrainingError
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.evaluate import evaluate
from leakdet_tf.jobs.export import export
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run.runs import create_run, open_model, program

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "gas_unet.toml"


def test_the_run_folder_holds_everything(run: Path) -> None:
    for name in (
        "experiment.toml",
        "environment.json",
        "data.json",
        "history.csv",
        "checkpoints/best.keras",
        "checkpoints/last.keras",
        "model.keras",
        "contract.json",
        "metrics.json",
        "report.png",
        "worst.png",
        "curves.png",
        "examples.png",
        "log.txt",
        "export/tflite_float32/model.tflite",
    ):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "tensorboard").rglob("events.out.*"))
    assert not [path for path in run.rglob(".*") if path.is_file()], "temporary files were left"


def test_the_resolved_experiment_loads_and_says_the_overrides(run: Path) -> None:
    experiment = load(run / "experiment.toml")
    assert experiment.train.epochs == 2
    assert experiment.model.arguments["encoder_options"] == {"width": 8}


def test_history_has_a_row_an_epoch_and_the_same_ratios_as_the_report_s_code(run: Path) -> None:
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        classes = [float(row[f"val_iou_{name}"]) for name in ("background", "gas", "machine")]
        assert float(row["val_mean_iou"]) == pytest.approx(np.nanmean(classes))


def test_data_json_counts_and_hashes_every_file(run: Path) -> None:
    data = json.loads((run / "data.json").read_text())
    assert {name: part["pictures"] for name, part in data.items()} == {"train": 16, "val": 6, "test": 6}
    assert all(part["rendered"] == part["pictures"] for part in data.values())
    digests = [part["sha256"] for part in data.values()]
    assert len(set(digests)) == 3


def test_validation_figure_of_the_best_epoch_is_reproduced_from_the_saved_model(run: Path) -> None:
    """The rendered pictures have the model's size, so the report on val must equal Keras's own count."""
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    best = max(float(row["val_mean_iou"]) for row in rows)
    again = evaluate(str(run), data=None, split="val", experiment=None, overrides=(), out=None, log=lambda line: None)
    assert again.report["metrics"]["mean_iou"]["value"] == pytest.approx(best, abs=1e-6)


def test_keras_and_bundle_get_the_same_report_but_for_their_kind(run: Path, bundle: Path, tmp_path: Path) -> None:
    reports = [
        evaluate(
            str(model),
            data=None,
            split="test",
            experiment=None,
            overrides=(),
            out=str(tmp_path / name),
            log=lambda line: None,
        ).report
        for name, model in (("keras", run), ("tflite", bundle))
    ]
    assert reports[0]["rendered"] == reports[0]["pictures"] == 6
    kinds = [report.pop("kind") for report in reports]
    assert kinds == ["keras", "tflite_float32"]
    assert reports[0] == reports[1]
    assert reports[0]["metrics"] == json.loads((run / "metrics.json").read_text())["metrics"]


def test_evaluate_on_a_folder_of_its_own_layout(run: Path, tmp_path: Path) -> None:
    source = Path(load(run / "experiment.toml").data.root)
    shutil.copytree(source / "val", tmp_path / "mine")
    found = evaluate(
        str(run),
        data=str(tmp_path / "mine"),
        split="test",
        experiment=None,
        overrides=(),
        out=None,
        log=lambda line: None,
    )
    assert found.report["pictures"] == 6
    assert all(run in path.parents for path in found.files)
    assert (run / "metrics.json") not in found.files, "a run's own report must not be overwritten"


def test_a_bundle_away_from_its_run_asks_for_the_experiment(own_bundle: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakdetError, match="--experiment"):
        evaluate(
            str(own_bundle), data=None, split="test", experiment=None, overrides=(), out=None, log=lambda line: None
        )
    found = evaluate(
        str(own_bundle),
        data=None,
        split="test",
        experiment=str(run / "experiment.toml"),
        overrides=(),
        out=str(tmp_path / "out"),
        log=lambda line: None,
    )
    assert found.report["kind"] == "tflite_float32"


def test_export_again_replaces_the_bundle(run: Path, overrides: list[str], tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    made = export(str(copy), overrides=["export.golden=1"], log=lambda line: None)
    assert [path.folder for path in made] == [copy / "export" / "tflite_float32"]
    assert len(Predictor(made[0].folder).card["golden"]) == 2


def test_weights_of_another_run_are_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.copyfile(copy / "checkpoints" / "last.keras", copy / "model.keras")
    contract = Contract.load(copy / "contract.json")
    import dataclasses

    dataclasses.replace(contract, weights_sha256="0" * 64).save(copy / "contract.json")
    with pytest.raises(LeakdetError, match="not those of its contract"):
        open_model(copy)


def test_an_unfinished_run_can_be_used_and_says_so(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "model.keras"))
    contract = Contract.load(copy / "contract.json")
    import dataclasses

    dataclasses.replace(contract, weights_sha256="").save(copy / "contract.json")
    opened = open_model(copy)
    assert "did not finish" in opened.note
    assert "best.keras" in opened.note
    with pytest.raises(LeakdetError, match="did not finish"):
        export(str(copy), overrides=(), log=lambda line: None)


def test_what_to_type_next_works_without_an_activated_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("leakdet-tf", "tensorboard"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "leakdet-tf"), "fit"])
    monkeypatch.setenv("PATH", "")
    assert program() == str(tmp_path / "leakdet-tf")
    assert program("tensorboard") == str(tmp_path / "tensorboard")
    (tmp_path / "leakdet-tf").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "leakdet-tf"


def test_neither_run_nor_bundle(tmp_path: Path) -> None:
    with pytest.raises(LeakdetError, match="neither a run nor a bundle"):
        open_model(tmp_path)


def test_run_folders_are_never_shared(tmp_path: Path) -> None:
    folders = {create_run(str(tmp_path), "x") for _ in range(5)}
    assert len(folders) == 5


def test_runs_that_cannot_be_made_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(DataError, match="cannot be made"):
        create_run(str(tmp_path / "runs"), "x")


def test_nan_stops_with_one_line_and_keeps_the_run(overrides: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(TrainingError) as caught:
        fit(
            str(EXPERIMENT),
            [*overrides, f"runs={tmp_path}", "train.learning_rate=1e38"],
            log=lines.append,
        )
    text = str(caught.value)
    assert "\n" not in text
    assert "epoch" in text
    assert "learning_rate" in text
    (folder,) = (tmp_path / "gas_unet").iterdir()
    assert (folder / "experiment.toml").is_file()


def test_one_folder_with_a_grouped_split_is_divided_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / "one" / "images").mkdir(parents=True)
    (tmp_path / "one" / "masks").mkdir()
    generator = np.random.default_rng(0)
    for group in range(8):
        for view in range(2):
            image = generator.integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "one" / "images" / f"site{group}-{view}.png")
            Image.fromarray(image // 100).save(tmp_path / "one" / "masks" / f"site{group}-{view}.png")
    (tmp_path / "one.toml").write_text(
        EXPERIMENT.read_text().replace('root = "data/gas"', f'root = "{tmp_path / "one"}"').split("[data.synth]")[0]
        + "[data.split]\ntrain = 0.5\nval = 0.25\ntest = 0.25\ngroup = '(site\\d+)-'\n"
        + '[model]\nfactory = "few_layers:few_layers"\n'
        + "[train]\nepochs = 1\n[export]\nformats = []\n"
    )
    done = fit(
        str(tmp_path / "one.toml"),
        ["data.inputs.image.size=[64, 64]", f"runs={tmp_path / 'runs'}"],
        log=lambda line: None,
    )
    splits = json.loads((done.folder / "split.json").read_text())["splits"]
    sites = [{name.split("-")[0] for name in splits[part]} for part in ("train", "val", "test")]
    assert [len(part) for part in sites] == [4, 2, 2]
    assert not (sites[0] & sites[1] or sites[0] & sites[2] or sites[1] & sites[2])
    again = fit(
        str(tmp_path / "one.toml"),
        [
            "data.inputs.image.size=[64, 64]",
            f"runs={tmp_path / 'runs'}",
            f"data.split.manifest={done.folder / 'split.json'}",
        ],
        log=lambda line: None,
    )
    assert json.loads((again.folder / "split.json").read_text())["splits"] == splits


def start(overrides: list[str], runs: Path) -> subprocess.Popen[str]:
    sets = [part for value in [*overrides, f"runs={runs}", "train.epochs=500"] for part in ("--set", value)]
    command = [sys.executable, "-m", "leakdet_tf.cli", "fit", str(EXPERIMENT), *sets]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )


def wait_for_epoch(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            return
    pytest.fail(f"training ended early: {process.stderr.read() if process.stderr else ''}")


def test_ctrl_c_leaves_a_usable_run(overrides: list[str], run: Path, tmp_path: Path) -> None:
    process = start(overrides, tmp_path)
    wait_for_epoch(process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "leakdet-tf evaluate" in out
    (folder,) = (tmp_path / "gas_unet").iterdir()
    assert out.rstrip().endswith(f"--resume {folder}")
    opened = open_model(folder)
    assert opened.note == ""
    assert (folder / "curves.png").is_file()
    assert (folder / "examples.png").is_file()
    assert opened.predictor.predict(np.zeros((64, 64, 3), np.uint8)).size == (64, 64)


def test_kill_9_leaves_a_run_that_can_be_used(overrides: list[str], run: Path, tmp_path: Path) -> None:
    process = start(overrides, tmp_path)
    wait_for_epoch(process)
    time.sleep(0.2)
    process.kill()
    process.communicate(timeout=60)
    (folder,) = (tmp_path / "gas_unet").iterdir()
    opened = open_model(folder)
    assert "did not finish" in opened.note
    assert opened.predictor.predict(np.zeros((64, 64, 3), np.uint8)).size == (64, 64)
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert len(rows) >= 2


def test_a_segmenter_is_not_calibrated(run: Path) -> None:
    from leakdet_tf.jobs.calibrate import calibrate_run

    with pytest.raises(LeakdetError, match="to segment has nothing to calibrate"):
        calibrate_run(str(run), overrides=[], threshold=0.5, log=print)
