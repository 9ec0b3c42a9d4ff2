"""Both formats of one run, by the command's own function and through its child processes."""

from __future__ import annotations

import csv
import shutil
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError
from leakdet_tf.edge import Predictor
from leakdet_tf.export import onnx
from leakdet_tf.jobs.export import export
from leakdet_tf.jobs.predict import predict

BOTH = ["export.formats=['tflite_float32', 'onnx_float32']"]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def own(run: Path, lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, exported anew in both formats."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("runs") / "own"))
    shutil.rmtree(folder / "export")
    made = export(str(folder), overrides=BOTH, log=lines.append)
    assert [one.folder for one in made] == [folder / "export" / name for name in ("tflite_float32", "onnx_float32")]
    return folder


def test_a_line_tells_each_format_s_size_and_parity(own: Path, lines: list[str]) -> None:
    for name, file in (("tflite_float32", "model.tflite"), ("onnx_float32", "model.onnx")):
        (line,) = [line for line in lines if line.startswith(f"{name}: ")]
        size = (own / "export" / name / file).stat().st_size
        assert f"{size / 1e6:.1f} MB; 0 of {6 * 64 * 64} validation pixels decided otherwise (limit 1e-05)" in line
        assert "outputs within " in line


def test_both_bundles_share_the_run_s_contract_and_answer_alike(own: Path) -> None:
    predictors = [Predictor(own / "export" / name) for name in ("tflite_float32", "onnx_float32")]
    assert [one.card["kind"] for one in predictors] == ["tflite_float32", "onnx_float32"]
    assert predictors[0].contract == predictors[1].contract == Contract.load(own / "contract.json")
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    first, second = (one.predict(picture) for one in predictors)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-5)


def test_predict_takes_an_onnx_bundle(own: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "frame.png")
    folder = own / "export" / "onnx_float32"
    done = predict(str(folder), [str(tmp_path / "frame.png")], out=str(tmp_path / "out"), threads=1, log=print)
    (row,) = csv.DictReader(done.table.read_text(encoding="utf-8").splitlines())
    assert row["model"] == Contract.load(folder / "contract.json").id
    mask = np.asarray(Image.open(row["mask"]))
    np.testing.assert_array_equal(mask, Predictor(folder).predict(picture).labels)


def test_a_missing_extra_is_told_before_anything_is_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "own"))
    shutil.rmtree(folder / "export")
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "tf2onnx" else found(name))
    with pytest.raises(ExportError, match=r"pip install 'leakdet_tf\[onnx\]'"):
        export(str(folder), overrides=BOTH, log=lambda _: None)
    assert not (folder / "export").exists()


def test_a_model_that_cannot_be_converted_to_onnx_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes((run / "model.keras").read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"model\.keras: conversion to ONNX failed") as caught:
        onnx.convert(tmp_path / "model.keras", run / "contract.json", tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()
