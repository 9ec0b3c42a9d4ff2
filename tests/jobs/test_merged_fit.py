"""Training on merged sources, from another run's weights: what each gives, and what was not taken over, is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from leakdet_tf.analysis.segment.counts import load_counts
from leakdet_tf.core.errors import ConfigError, LeakdetError
from leakdet_tf.jobs.evaluate import evaluate
from leakdet_tf.jobs.fit import fit

ROOT = Path(__file__).parents[2]
PAPER = str(ROOT / "experiments" / "paper" / "gas_unet_softmax.toml")
SETTINGS = [
    "data.inputs.image.size=[64, 64]",
    "model.encoder_options={width = 8}",
    "model.decoder_filters=[16, 16, 8, 8, 4]",
    "train.epochs=1",
    "train.class_weights=pixels",
    "export.formats=[]",
]
COUNTS = "{train = 12, val = 4, test = 4}"


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, run: Path) -> tuple[Path, list[str]]:
    """A run on two small rendered sources, begun from the session's run, and what it said."""
    folder = tmp_path_factory.mktemp("merged")
    overrides = [*SETTINGS, f"runs={folder / 'runs'}", f"model.weights={run.parent}"]
    for number in (0, 1):
        overrides += [f"data.source.{number}.root={folder / str(number)}"]
        overrides += [f"data.source.{number}.synth.counts={COUNTS}", f"data.source.{number}.synth.size=[64, 64]"]
    overrides.append("data.source.1.weight=0.5")
    lines: list[str] = []
    return fit(PAPER, overrides, log=lines.append).folder, lines


def test_each_source_s_part_is_told_and_kept(merged: tuple[Path, list[str]]) -> None:
    folder, lines = merged
    said = [line for line in lines if line.startswith("source ")]
    assert said[0].startswith("source infrared: 12 training pictures, 66.7% of an epoch; ")
    assert said[1].startswith("source smoke: 12 training pictures, 33.3% of an epoch; ")
    assert "background|machine" in said[1]
    assert "background|machine" not in said[0]
    kept = json.loads((folder / "data.json").read_text())["train"]["sources"]
    assert kept["smoke"]["pixels"].keys() <= {"gas", "background|machine"}
    assert sum(kept["smoke"]["pixels"].values()) == 12 * 64 * 64
    assert any("up to 1 epochs of 18" in line for line in lines)


def test_the_report_has_the_set_as_a_label_and_each_source(merged: tuple[Path, list[str]]) -> None:
    folder, _ = merged
    found = json.loads((folder / "metrics.json").read_text())
    assert found["labels"] == ["background", "gas", "machine", "background|machine"]
    assert len(found["confusion"]) == 4
    assert set(found["metrics"]["iou"]) == set(found["labels"])
    assert set(found["sources"]) == {"infrared", "smoke"}
    assert found["sources"]["smoke"]["iou"]["machine"] is None
    table = load_counts(folder / "counts.npz")
    assert table.counts.shape == (8, 4, 3)
    assert table.counts.sum(0).tolist() == found["confusion"]
    assert [name.split("/")[0] for name in table.ids] == ["infrared"] * 4 + ["smoke"] * 4


def test_weights_came_from_the_newest_run_and_what_did_not_is_named(merged: tuple[Path, list[str]], run: Path) -> None:
    folder, lines = merged
    start = json.loads((folder / "start.json").read_text())["run"]
    assert Path(start["file"]) == run / "model.keras"
    assert start["loaded"] == start["total"]
    assert start["missing"] == []
    assert f"weights: {start['loaded']} of {start['total']} taken from {run / 'model.keras'}" in lines


def test_one_source_is_measured_alone(merged: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = merged
    plain = {"split": "test", "experiment": None, "overrides": (), "log": lambda line: None}
    done = evaluate(str(folder), data=None, source="infrared", out=str(tmp_path / "a"), **plain)  # type: ignore[arg-type]
    whole = load_counts(folder / "counts.npz").counts[:4].sum(0)
    np.testing.assert_array_equal(done.report["confusion"], whole)
    with pytest.raises(ConfigError, match="--source gas: there is none of that name"):
        evaluate(str(folder), data=None, source="gas", out=str(tmp_path / "b"), **plain)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="add --source infrared or smoke"):
        evaluate(str(folder), data=str(tmp_path), out=str(tmp_path / "c"), **plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ("nowhere", "model.weights: nowhere: no such run or file"),
        ("{tmp}", "holds no finished run"),
        ("{tmp}/notes.txt", "is not a .keras file"),
        ("{tmp}/bad.keras", "cannot be loaded"),
    ],
)
def test_a_wrong_start_is_one_line(overrides: list[str], tmp_path: Path, weights: str, text: str) -> None:
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "bad.keras").write_bytes(b"no model")
    given = weights.format(tmp=tmp_path)
    with pytest.raises(LeakdetError, match=text.replace(".", r"\.")) as caught:
        fit(str(ROOT / "experiments" / "gas_unet.toml"), [*overrides, f"model.weights={given}"], log=print)
    assert str(caught.value).isprintable()


def test_a_damaged_run_is_not_started_from(run: Path, overrides: list[str], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    data = bytearray((copy / "model.keras").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.keras").write_bytes(bytes(data))
    with pytest.raises(LeakdetError, match=r"model\.keras"):
        fit(str(ROOT / "experiments" / "gas_unet.toml"), [*overrides, f"model.weights={copy}"], log=print)
