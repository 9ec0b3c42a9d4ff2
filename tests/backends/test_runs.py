"""A whole run under each backend: trained, stopped, resumed, measured, explained, exported, opened elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.core.contract import Contract
from leakdet_tf.edge import Predictor

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "gas_unet.toml"
SETS = (
    "model={factory = 'few_layers:few_layers'}",
    "data.synth.counts={train = 8, val = 2, test = 2}",
    "data.synth.size=[32, 32]",
    "data.inputs.image.size=[32, 32]",
    "train.batch_size=4",
    "train.patience=0",
    "train.epochs=3",
    "evaluate.resamples=100",
    "export.pictures=2",
)
Call = Callable[..., Any]


def sets_of(backend: str, folder: Path) -> list[str]:
    return [*SETS, f"train.backend={backend}", f"runs={folder / 'runs'}", f"data.root={folder.parent / 'data'}"]


def fit(call: Call, backend: str, folder: Path, *more: str, status: int = 0) -> Any:
    overrides = [part for one in sets_of(backend, folder) for part in ("--set", one)]
    return call("-m", "leakdet_tf.cli", "fit", str(EXPERIMENT), *overrides, *more, status=status)


def run_of(folder: Path) -> Path:
    (run,) = (folder / "runs" / "gas_unet").iterdir()
    return run


@pytest.fixture(scope="module")
def whole(call: Call, other: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run, and what was printed."""
    folder = tmp_path_factory.mktemp(other) / "whole"
    lines = fit(call, other, folder).stdout
    return run_of(folder), lines


def test_it_is_trained_and_exported_by_tensorflow(whole: tuple[Path, str], other: str) -> None:
    run, lines = whole
    assert f"under {other}" in lines
    assert json.loads((run / "finished.json").read_text(encoding="utf-8"))["epochs"] == 3
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert list((run / "tensorboard").rglob("events*"))
    predictor = Predictor(run / "export" / "tflite_float32")
    assert predictor.card["parity"]["changed_share"] == 0
    assert predictor.card["parity"]["max_difference"] < 1e-4
    said = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert said["packages"][other] != "absent"


def test_stopped_by_a_signal_and_resumed_it_ends_in_the_same_weights(
    call: Call, whole: tuple[Path, str], other: str
) -> None:
    run, _ = whole
    folder = run.parents[2].parent / "stopped"
    script = folder.parent / "stop.py"
    script.write_text(STOP.format(sets=sets_of(other, folder), experiment=str(EXPERIMENT)), encoding="utf-8")
    call(str(script), status=75)
    stopped = run_of(folder)
    assert [path.name for path in (stopped / "checkpoints").glob("epoch-*")] == ["epoch-0001"]
    done = fit(call, other, folder, "--resume", str(stopped))
    assert "resumed from checkpoint epoch-0001" in done.stdout
    ones, others = (Contract.load(path / "contract.json").weights_sha256 for path in (run, stopped))
    assert ones == others


STOP = """import os, signal, sys
from leakdet_tf.jobs.fit import fit

def echo(line):
    if line.startswith("epoch 1/"):
        os.kill(os.getpid(), signal.SIGTERM)

sys.exit(75 if fit({experiment!r}, {sets!r}, log=echo).terminated else 1)
"""


def test_it_goes_on_under_no_other_backend(call: Call, whole: tuple[Path, str]) -> None:
    run, _ = whole
    (run / "finished.json").rename(run / "finished.away")
    try:
        done = fit(call, "tensorflow", run.parents[2], "--resume", str(run), status=2)
        assert "was started with train.backend" in done.stderr
    finally:
        (run / "finished.away").rename(run / "finished.json")


def test_it_is_measured_and_explained_under_its_own_backend_or_the_one_asked_for(
    call: Call, whole: tuple[Path, str], other: str, tmp_path: Path
) -> None:
    run, _ = whole
    means = []
    for backend in (None, "tensorflow"):
        out = tmp_path / str(backend)
        for command in ("evaluate", "explain"):
            call("-m", "leakdet_tf.cli", command, str(run), "--split", "test", "--out", str(out), backend=backend)
        means.append(json.loads((out / "metrics.json").read_text(encoding="utf-8"))["metrics"]["mean_iou"]["value"])
        assert list(out.rglob("sheet_01.png"))
    assert means[0] == pytest.approx(means[1], abs=1e-3)
    done = call("-c", f"from leakdet_tf.jobs.run.runs import open_model; open_model({str(run)!r}); {NAMED}")
    assert done.stdout.split() == [other]


NAMED = "import keras; print(keras.config.backend())"
