"""``leakdet-tf compare`` on run folders: what is written, what runs are called, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from leakdet_tf.analysis.segment.counts import PerPicture, save_counts
from leakdet_tf.cli.compare import command
from leakdet_tf.config.loading import flatten
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.files import sha256_bytes, write_json, write_text
from leakdet_tf.jobs.compare import compare_runs

IDS = tuple(f"p{number:02d}" for number in range(20))
CLASSES = ("background", "gas")


def evaluation(folder: Path, seed: int = 0, *, experiment: str = "gas", kind: str = "keras", ids: Any = IDS) -> Path:
    """A folder as evaluate leaves it, with made-up counts."""
    random = np.random.default_rng(seed)
    right = np.clip(
        np.random.default_rng(9).integers(40, 90, (len(ids), 2)) + random.integers(-5, 6, (len(ids), 2)), 0, 99
    )
    counts = np.zeros((len(ids), 2, 2), np.int64)
    for index in range(2):
        counts[:, index, index], counts[:, index, 1 - index] = right[:, index], 100 - right[:, index]
    edges = np.full((len(ids), 2, 4), 50, np.int64)
    save_counts(folder / "counts.npz", PerPicture(tuple(ids), counts, edges, np.eye(2, dtype=np.bool_), CLASSES))
    report = {
        "kind": kind,
        "experiment": experiment,
        "weights_sha256": str(seed),
        "data": "data/gas",
        "split": "test",
        "ids_sha256": sha256_bytes("\n".join(ids).encode()),
        "classes": list(CLASSES),
        "confusion": counts.sum(0).tolist(),
    }
    write_json(folder / "metrics.json", report)
    return folder


def run(folder: Path, seed: int = 0, *, name: str = "gas", activation: str = "relu", **more: Any) -> Path:
    text = f'name = "{name}"\nruns = "{folder}"\nseed = 1\n[model]\nactivation = "{activation}"\nencoder = "resnet18"\n'
    write_text(folder / "experiment.toml", text)
    return evaluation(folder, seed, experiment=name, **more)


def compared(tmp_path: Path, *folders: Path, metric: str = "mean_iou") -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    done = compare_runs([str(f) for f in folders], metric=metric, out=str(tmp_path / "out"), log=said.append)
    return done.report, said


def test_three_files_and_a_table_are_made(tmp_path: Path) -> None:
    one = run(tmp_path / "a" / "1", 1, name="relu")
    two = run(tmp_path / "b" / "1", 2, name="gelu", activation="gelu")
    out = tmp_path / "out"
    done = CliRunner().invoke(command, [str(one), str(two), "--out", str(out), "--metric", "iou:gas"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "comparison.md", "comparison.png"]
    assert f"written: {out / 'comparison.json'}" in done.output
    found = json.loads((out / "comparison.json").read_text())
    assert found["metric"] == "iou:gas"
    assert [one["settings"] for one in found["runs"]] == [{"model.activation": "relu"}, {"model.activation": "gelu"}]
    page = (out / "comparison.md").read_text()
    assert "| run | model.activation | mean IoU |" in page
    assert "relu − gelu" in page
    assert "IoU of gas" in done.output


def test_one_run_is_only_shown(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(run(tmp_path / "a")), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "mean IoU" in done.output
    assert "pair" not in done.output
    assert not (tmp_path / "out").exists()


def test_no_run_at_all_is_a_usage_error() -> None:
    assert CliRunner().invoke(command, []).exit_code == 2


def test_a_run_against_itself(tmp_path: Path) -> None:
    folder = run(tmp_path / "gas" / "1")
    found, said = compared(tmp_path, folder, folder)
    assert [one["name"] for one in found["runs"]] == ["gas", "gas (2)"]
    assert (found["pairs"][0]["value"], found["pairs"][0]["p"]) == (0, 1)
    assert any("does not hold" in line for line in said)


def test_a_run_twice_beside_another_is_called_by_its_folder_and_a_number(tmp_path: Path) -> None:
    folders = [run(tmp_path / "gas" / day, seed) for seed, day in enumerate(("monday", "tuesday"))]
    found, _ = compared(tmp_path, folders[0], folders[1], folders[0])
    assert [one["name"] for one in found["runs"]] == ["monday", "tuesday", "monday (2)"]


def test_a_file_in_place_of_a_folder_asks_for_the_folder(tmp_path: Path) -> None:
    folder = run(tmp_path / "gas" / "1")
    with pytest.raises(DataError, match=r"holds no metrics\.json; give a run's folder"):
        compared(tmp_path, folder, folder / "metrics.json")


def test_runs_of_one_experiment_are_called_by_their_folders(tmp_path: Path) -> None:
    folders = [run(tmp_path / "gas" / day, seed) for seed, day in enumerate(("monday", "tuesday"))]
    other = run(tmp_path / "else", 5, name="other")
    found, _ = compared(tmp_path, *folders, other)
    assert [one["name"] for one in found["runs"]] == ["monday", "tuesday", "other"]
    same = [run(tmp_path / place / "monday", seed) for seed, place in enumerate("xy")]
    found, _ = compared(tmp_path, *same)
    assert [one["name"] for one in found["runs"]] == ["x/monday", "y/monday"]


def test_an_export_is_compared_with_its_run(tmp_path: Path) -> None:
    folder = run(tmp_path / "gas")
    exported = evaluation(folder / "export" / "tflite_float32-evaluation", 3, kind="tflite_float32")
    elsewhere = evaluation(folder / "evaluation" / "keras-data-test", 3)
    found, _ = compared(tmp_path, folder, exported)
    assert [one["settings"] for one in found["runs"]] == [{"kind": "keras"}, {"kind": "tflite_float32"}]
    found, _ = compared(tmp_path, folder, elsewhere)
    assert [one["settings"] for one in found["runs"]] == [{}, {}]


def test_an_evaluation_without_an_experiment_has_no_settings_but_its_kind(tmp_path: Path) -> None:
    found, _ = compared(tmp_path, evaluation(tmp_path / "p" / "q" / "r" / "s"), run(tmp_path / "a", 1))
    assert [one["settings"] for one in found["runs"]] == [{}, {}]  # of the same kind, and nothing else is known of one


def test_tables_are_flattened() -> None:
    nested = {"a": {"b": [1, 2]}, "c": [{"d": 1}, {"d": 2}], "e": [], "f": {}}
    assert flatten(nested) == {"a.b": [1, 2], "c.0.d": 1, "c.1.d": 2, "e": []}


def refused(tmp_path: Path, *folders: Path, metric: str = "mean_iou") -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        compared(tmp_path, *folders, metric=metric)
    assert not (tmp_path / "out").exists()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert caught.value.remedy
    return text


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path) -> None:
    one = run(tmp_path / "one")
    assert "holds no metrics.json" in refused(tmp_path, one, tmp_path)
    assert "unknown" in refused(tmp_path, one, metric="mean")
    fewer = run(tmp_path / "fewer", ids=IDS[:-1])
    text = refused(tmp_path, one, fewer)
    assert str(one) in text
    assert str(fewer) in text
    assert "other pictures (20 and 19)" in text

    two = run(tmp_path / "two")
    (two / "counts.npz").unlink()
    assert "counts.npz: missing; run evaluate again" in refused(tmp_path, one, two)
    (two / "counts.npz").write_bytes(b"PK")
    assert "run evaluate again" in refused(tmp_path, one, two)
    shutil.copy(run(tmp_path / "three", 7) / "counts.npz", two)
    assert "not of one evaluation; run evaluate again" in refused(tmp_path, one, two)
    for text in ("{", "[]"):
        (two / "metrics.json").write_text(text)
        assert "run evaluate again" in refused(tmp_path, one, two)
    three = tmp_path / "three"
    (three / "experiment.toml").write_text("name = ")
    assert "experiment.toml: cannot be read" in refused(tmp_path, one, three)
