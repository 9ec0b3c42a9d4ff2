"""Both formats of one run, by the command's own function and through its child processes."""

from __future__ import annotations

import csv
import hashlib
import shutil
from dataclasses import replace
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError, ExportError, LeakdetError
from leakdet_tf.data.readers import find_splits
from leakdet_tf.edge import Predictor
from leakdet_tf.formats import onnx
from leakdet_tf.formats.bundle import Metric
from leakdet_tf.formats.calibration_set import read
from leakdet_tf.jobs.export import calibration_of, drawn_from, export, metric_of
from leakdet_tf.jobs.predict import predict
from leakdet_tf.jobs.run.data import samples
from leakdet_tf.jobs.run.resume import locked
from leakdet_tf.jobs.run.runs import open_model

BOTH = ["export.formats=['tflite_float32', 'onnx_float32']"]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def own(lean_run: Path, lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, exported anew in both formats."""
    folder = Path(shutil.copytree(lean_run, tmp_path_factory.mktemp("runs") / "own"))
    shutil.rmtree(folder / "export")
    made = export(str(folder), overrides=BOTH, log=lines.append)
    assert [one.folder for one in made] == [folder / "export" / name for name in ("tflite_float32", "onnx_float32")]
    return folder


def test_a_table_tells_each_format_s_size_parity_and_figure(own: Path, lines: list[str]) -> None:
    (head,) = [line for line in lines if "outputs within" in line]
    assert all(name in head for name in ("MB", "p50 ms", "changed", "mean_iou", "points lost"))
    (keras,) = [line for line in lines if line.startswith("keras ")]
    for name, file in (("tflite_float32", "model.tflite"), ("onnx_float32", "model.onnx")):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert f" {(own / 'export' / name / file).stat().st_size / 1e6:.2f} " in line
        assert f"0 of {6 * 64 * 64} pixels" in line
        card = Predictor(own / "export" / name).card
        figure = card["gate"]["metric"]
        assert figure["name"] == "mean_iou"
        assert f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]" in line
        assert f"{card['gate']['keras']['value']:.4f}" in keras
        assert card["gate"]["drop"] == pytest.approx(0, abs=1e-6)


def test_calibration_pictures_are_training_ones_and_black_and_white(own: Path) -> None:
    opened = open_model(own)
    settings = load(own / "experiment.toml", ["export.calibration=5"])
    items = find_splits(settings.data)["train"]
    made = calibration_of(opened.predictor.contract, settings, items, own / "calibration.npz")
    (pictures,) = np.load(made.path).values()
    assert pictures.shape == (7, 64, 64, 3)
    assert pictures.dtype == np.uint8
    assert (pictures[-2] == 0).all()
    assert (pictures[-1] == 255).all()
    prepared = [
        opened.predictor.contract.prepare(sample.images)[0]["image"].tobytes() for sample in samples(settings, items)
    ]
    places = [prepared.index(one.tobytes()) for one in pictures[:5]]
    assert len(set(places)) == 5
    assert made.to_dict() == {
        "split": "train", "pictures": 5, "black_and_white": {"image": 2},
        "sha256": hashlib.sha256(made.path.read_bytes()).hexdigest(),
    }  # fmt: skip
    again = calibration_of(opened.predictor.contract, settings, items, own / "again.npz")
    np.testing.assert_array_equal(next(iter(np.load(again.path).values())), pictures)


@pytest.mark.parametrize("names", [["image", "thermal"], ["thermal"]])
def test_16_bit_pictures_are_never_flat_and_the_file_is_what_is_used(
    names: list[str], own: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_for = tiny("two inputs")
    inputs = {name: made_for.contract.inputs[name] for name in names}
    predictor = Predictor.over(made_for.reference.backend, replace(made_for.contract, inputs=inputs))
    frames = [{name: images[name] for name in names} for images in made_for.frames]
    monkeypatch.setattr("leakdet_tf.jobs.export.samples", lambda _, drawn: [SimpleNamespace(images=f) for f in frames])
    items: Any = [1, 2, 3]
    made = calibration_of(predictor.contract, load(own / "experiment.toml"), items, tmp_path / "x.npz")
    both = "image" in names
    assert made.to_dict()["black_and_white"] == ({"image": 2, "thermal": 0} if both else {"thermal": 0})
    used = read(made.path, predictor.contract)
    with np.load(made.path) as stored:
        for name in names:
            np.testing.assert_array_equal(used[name], stored[name])
            assert len(used[name]) == (5 if both else 3)
    assert np.ptp(used["thermal"], axis=(1, 2, 3)).min() > 1000
    if both:
        assert [one.min() for one in used["image"][-2:]] == [0, 255]


def test_pictures_are_drawn_from_all_over_a_split() -> None:
    items: Any = list(range(300))
    drawn: Any = drawn_from(items, 60, seed=4)
    assert len(set(drawn)) == 60
    assert drawn == sorted(drawn) == drawn_from(items, 60, seed=4) != drawn_from(items, 60, seed=5)
    assert max(np.bincount(np.array(drawn) // 100)) < 35, "no third of the split has more than its share"
    assert drawn_from(items[:5], 60, seed=4) == items[:5]


def losing(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Files that this backend runs are found 2 points worse than they are."""
    right = metric_of

    def falling(predictor: Predictor, *rest: Any) -> Metric:
        found = right(predictor, *rest)
        return replace(found, value=found.value - 0.02 * (type(predictor.backend).__name__ == backend))

    monkeypatch.setattr("leakdet_tf.jobs.export.metric_of", falling)


def test_a_reduced_format_that_loses_too_much_is_refused_and_the_others_are_made(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "own"))
    shutil.rmtree(folder / "export")
    losing(monkeypatch, "LiteRTBackend")
    lines: list[str] = []
    both = ["export.formats=['tflite_float16', 'onnx_float32']", "export.max_drop=0.005"]
    with pytest.raises(ExportError, match=r"tflite_float16: \d\.\d\d points .*limits 0\.5,.*\(tflite_float16 refused"):
        export(str(folder), overrides=both, log=lines.append)
    assert [path.name for path in (folder / "export").iterdir()] == ["onnx_float32"]
    Predictor(folder / "export" / "onnx_float32")
    (line,) = [line for line in lines if line.startswith("tflite_float16 ")]
    assert line.split() == ["tflite_float16", "refused"]


def test_a_bundle_for_tensorrt_waits_for_its_engine(own: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "own"))
    (made,) = export(str(folder), overrides=["export.formats=['tensorrt']", "export.calibration=3"], log=lambda _: None)
    names = {path.name for path in made.folder.iterdir()}
    assert names == {"model.onnx", "contract.json", "golden.npz", "card.json", "calibration.npz", "SHA256SUMS"}
    assert np.load(made.folder / "calibration.npz")["image"].shape == (5, 64, 64, 3)
    with pytest.raises(LeakdetError) as caught:
        Predictor(made.folder)
    assert "tensorrt" in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_signed_bundles_are_trusted_by_their_key_alone(own: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    (tmp_path / "maker.key").write_bytes(
        keys[0].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    first, second = (
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        for key in keys
    )
    folder = Path(shutil.copytree(own, tmp_path / "own"))
    (made,) = export(str(folder), overrides=[f"export.key={tmp_path / 'maker.key'}"], log=lambda _: None)
    Predictor(made.folder, trusted=first)
    with pytest.raises(BundleError, match="not signed by the trusted key"):
        Predictor(made.folder, trusted=second)
    with pytest.raises(LeakdetError, match="absent"):
        export(str(folder), overrides=[f"export.key={tmp_path / 'absent.key'}"], log=lambda _: None)


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
    lean_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(lean_run, tmp_path / "own"))
    shutil.rmtree(folder / "export")
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "tf2onnx" else found(name))
    with pytest.raises(ExportError, match=r"pip install 'leakdet_tf\[onnx\]'"):
        export(str(folder), overrides=BOTH, log=lambda _: None)
    assert not (folder / "export").exists()


def test_a_model_that_cannot_be_converted_to_onnx_is_one_line(lean_run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes((lean_run / "model.keras").read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"model\.keras: conversion to ONNX failed") as caught:
        onnx.convert(tmp_path / "model.keras", lean_run / "contract.json", tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_what_a_killed_export_left_is_put_right(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losing(monkeypatch, "OnnxBackend")
    folder = Path(shutil.copytree(own, tmp_path / "own"))
    there = folder / "export"
    (there / ".tflite_int8.abc123").mkdir()
    (there / ".onnx_float32.old-17").mkdir()
    (there / "tflite_float32").rename(there / ".tflite_float32.old-17")  # killed while it was replaced
    with pytest.raises(ExportError, match="onnx_int8"):
        export(str(folder), overrides=["export.formats=['onnx_int8']", "export.max_drop=0.005"], log=lambda _: None)
    assert sorted(path.name for path in there.iterdir()) == ["onnx_float32", "tflite_float32"]
    assert Predictor(there / "tflite_float32").card["kind"] == "tflite_float32"


def test_a_run_at_which_somebody_is_at_work_is_left_alone(own: Path) -> None:
    with locked(own), pytest.raises(LeakdetError, match="is at work in this run"):
        export(str(own), overrides=BOTH, log=lambda _: None)
