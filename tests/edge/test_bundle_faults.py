"""A bundle that is not exactly what was exported is refused before anything parses it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from leakdet_tf.core.errors import BundleError, LeakdetError
from leakdet_tf.edge import Predictor, open_bundle
from leakdet_tf.edge.bundle import read_golden

FILES = ["model.tflite", "contract.json", "golden.npz", "card.json", "SHA256SUMS"]


def reseal(folder: Path) -> None:
    names = [name for name in FILES if name != "SHA256SUMS"]
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any parser that is reached fails the test: json, NumPy's archive reader and the runtime."""

    def reached(*_: object, **__: object) -> None:
        pytest.fail("a parser saw unchecked bytes")

    monkeypatch.setattr("leakdet_tf.edge.bundle.json.loads", reached)
    monkeypatch.setattr("leakdet_tf.edge.bundle.np.load", reached)
    monkeypatch.setattr("leakdet_tf.edge.predictor.open_backend", reached)
    monkeypatch.setattr("leakdet_tf.core.contract.json.loads", reached)


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.37, 0.93])
def test_one_flipped_bit_is_refused_before_parsing(own_bundle: Path, name: str, place: float) -> None:
    path = own_bundle / name
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        Predictor(own_bundle)
    assert str(own_bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_bundle_is_refused_before_parsing(
    own_bundle: Path, small_bundle: Path, name: str, request: pytest.FixtureRequest
) -> None:
    Predictor(small_bundle)
    other = (small_bundle / name).read_bytes()
    assert other != (own_bundle / name).read_bytes()
    (own_bundle / name).write_bytes(other)
    request.getfixturevalue("no_parser")
    with pytest.raises(BundleError, match="SHA-256 is not the one"):
        Predictor(own_bundle)


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_truncated_file_is_refused_before_parsing(own_bundle: Path, name: str, keep: float) -> None:
    path = own_bundle / name
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(BundleError):
        Predictor(own_bundle)


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        Predictor(own_bundle)


def test_a_folder_that_is_no_bundle_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        Predictor(tmp_path)
    with pytest.raises(BundleError, match="not a bundle"):
        Predictor(tmp_path / "absent")


def test_a_sums_file_cannot_name_files_outside(own_bundle: Path) -> None:
    sums = own_bundle / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  ../secret\n")
    with pytest.raises(BundleError, match="malformed line"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("shift", [0.01, np.nan], ids=["another model", "nan"])
def test_resealed_golden_answers_of_another_model_or_of_nan_are_refused(own_bundle: Path, shift: float) -> None:
    with np.load(own_bundle / "golden.npz") as archive:
        arrays = dict(archive)
    key = next(name for name in arrays if "/output/" in name)
    arrays[key] = arrays[key] + np.float32(shift)
    np.savez(own_bundle / "golden.npz", **arrays)
    reseal(own_bundle)
    with pytest.raises(BundleError, match="golden frame 0 is answered otherwise"):
        Predictor(own_bundle)


def test_a_contract_of_another_size_is_refused(own_bundle: Path) -> None:
    path = own_bundle / "contract.json"
    contract = json.loads(path.read_text())
    contract["inputs"]["image"]["height"] = 96
    path.write_text(json.dumps(contract))
    reseal(own_bundle)
    with pytest.raises(BundleError, match="input 'image' is uint8"):
        Predictor(own_bundle)


def test_a_contract_with_another_input_name_is_refused(own_bundle: Path) -> None:
    path = own_bundle / "contract.json"
    contract = json.loads(path.read_text())
    contract["inputs"] = {"thermal": contract["inputs"]["image"]}
    path.write_text(json.dumps(contract))
    reseal(own_bundle)
    with pytest.raises(BundleError, match="thermal"):
        Predictor(own_bundle)


@pytest.mark.parametrize("name", ["contract.json", "card.json", "golden.npz"])
def test_a_resealed_file_of_rubbish_is_refused_by_name(own_bundle: Path, name: str) -> None:
    (own_bundle / name).write_bytes(b"\x00rubbish")
    reseal(own_bundle)
    with pytest.raises(LeakdetError, match=name):
        Predictor(own_bundle)


def test_a_resealed_model_of_rubbish_is_refused(own_bundle: Path) -> None:
    (own_bundle / "model.tflite").write_bytes(b"rubbish" * 100)
    reseal(own_bundle)
    with pytest.raises(BundleError, match=r"model\.tflite"):
        Predictor(own_bundle)


def test_golden_archives_never_unpickle() -> None:
    import io

    stream = io.BytesIO()
    np.savez(stream, **{"0/image/image": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(BundleError, match="golden frames cannot be read"):
        read_golden(stream.getvalue(), where="golden.npz")
