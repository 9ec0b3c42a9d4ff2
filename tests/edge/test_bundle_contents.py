"""Files that are listed rightly and hold what they should not: one line at load, and no other exception."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge import Predictor, open_bundle
from leakdet_tf.edge.backends.litert import LiteRTBackend
from leakdet_tf.edge.bundle import MOST_TOLERANCE
from leakdet_tf.edge.calibration_set import parse_pictures
from leakdet_tf.formats.bundle import FORMATS

Seal = Callable[[Path], None]
WATCH = Path(__file__).parents[2] / "tflite" / "watch.py"


def archive(dtype: str = "'|u1'", **how: Any) -> bytes:
    """An ``.npz`` of one array, whose picture is read as zeros; ``dtype`` as the array's header has it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **how) as file:
        content = io.BytesIO()
        np.save(content, np.zeros((32, 48, 3), np.uint8))
        file.writestr("0/image/image.npy", content.getvalue().replace(b"'|u1'", dtype.encode().ljust(5)))
    return stream.getvalue()


def changed(data: bytes, local: int, central: int, value: int) -> bytes:
    """Two bytes of a member's header, and of its entry in the table at the end, made another."""
    found = bytearray(data)
    for start, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        struct.pack_into("<H", found, data.index(start) + offset, value)
    return bytes(found)


def corrupt(data: bytes) -> bytes:
    """The compressed bytes of the only member made 0xff."""
    start, end = 30 + len("0/image/image.npy"), data.index(b"PK\1\2")
    return data[:start] + b"\xff" * (end - start) + data[end:]


def arrays(**given: Any) -> bytes:
    """An ``.npz`` as NumPy writes it."""
    stream = io.BytesIO()
    np.savez(stream, **given)
    return stream.getvalue()


def deep(number: int = 100_000) -> bytes:
    return b"[" * number + b"]" * number


PICTURE = np.zeros((32, 48, 3), np.uint8)
ANSWER = np.zeros((32, 48, 3), np.float32)
ARCHIVES = {
    "corrupt": corrupt(archive(compression=zipfile.ZIP_DEFLATED)),
    "bzip2": archive(compression=zipfile.ZIP_BZIP2),
    "lzma": archive(compression=zipfile.ZIP_LZMA),
    "unknown compression": changed(archive(), 8, 10, 77),
    "encrypted": changed(archive(), 6, 8, 1),
    "one array": np.lib.format.magic(1, 0) + b"\x76\0" + b" " * 117 + b"\n",
    "no dtype": archive("()"),
    "half a field": archive("('',)"),
    "empty": b"",
    "no archive": b"rubbish",
    "pickled": arrays(**{"0/image/image": np.array([{"a": 1}], dtype=object)}),
}
FRAMES = {
    "no frame": arrays(),
    "no image": arrays(**{"0/output/output": ANSWER}),
    "another input": arrays(**{"0/image/thermal": PICTURE, "0/output/output": ANSWER}),
    "one too many": arrays(**{"0/image/image": PICTURE, "0/image/b": PICTURE, "0/output/output": ANSWER}),
    "no output": arrays(**{"0/image/image": PICTURE}),
    "another output": arrays(**{"0/image/image": PICTURE, "0/output/b": ANSWER}),
    "float pixels": arrays(**{"0/image/image": ANSWER, "0/output/output": ANSWER}),
    "16 bit": arrays(**{"0/image/image": PICTURE.astype(np.uint16), "0/output/output": ANSWER}),
    "text": arrays(**{"0/image/image": PICTURE, "0/output/output": np.array(["a"])}),
    "integers": arrays(**{"0/image/image": PICTURE, "0/output/output": PICTURE}),
    "flat": arrays(**{"0/image/image": PICTURE[0], "0/output/output": ANSWER}),
    "nothing in it": arrays(**{"0/image/image": PICTURE[:0], "0/output/output": ANSWER}),
    "odd key": arrays(**{"0/pixels/image": PICTURE, "0/output/output": ANSWER}),
    "no number": arrays(**{"a/image/image": PICTURE, "0/output/output": ANSWER}),
    "short key": arrays(**{"0": PICTURE}),
}


def refused(folder: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        Predictor(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_golden_frames_that_no_archive_gives_are_one_line(own_small: Path, seal: Seal, content: bytes) -> None:
    (own_small / "golden.npz").write_bytes(content)
    seal(own_small)
    refused(own_small, "golden frames cannot be read")


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_so_are_calibration_pictures(small_bundle: Path, content: bytes) -> None:
    with pytest.raises(BundleError, match=r"x\.npz: calibration pictures cannot be read"):
        parse_pictures(content, Contract.load(small_bundle / "contract.json"), where="x.npz")


def test_members_that_would_fill_the_memory_are_not_unpacked(
    own_small: Path, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leakdet_tf.edge.reading.FILE_BYTES", 1000)
    (own_small / "golden.npz").write_bytes(archive(compression=zipfile.ZIP_DEFLATED))
    seal(own_small)
    refused(own_small, r"golden frames cannot be read \(over 1000 bytes\)")


@pytest.mark.parametrize("content", FRAMES.values(), ids=FRAMES.keys())
def test_golden_frames_that_are_not_the_contract_s_are_one_line(own_small: Path, seal: Seal, content: bytes) -> None:
    (own_small / "golden.npz").write_bytes(content)
    seal(own_small)
    refused(own_small, "golden frame")


@pytest.mark.parametrize("content", [deep(), b'{"golden": ' + deep() + b"}", b"[]", b"3", b"\xff", b'{"golden": 3}'])
def test_a_card_that_is_none_is_one_line(own_small: Path, seal: Seal, content: bytes) -> None:
    (own_small / "card.json").write_bytes(content)
    seal(own_small)
    refused(own_small, r"card\.json: malformed")


@pytest.mark.parametrize(
    "value", ["Infinity", "-Infinity", "NaN", "1e9", "0.11", "-1e-9", "true", "null", '"0"', "[]", "1" + "0" * 400]
)
def test_a_tolerance_that_no_format_has_is_refused(own_small: Path, seal: Seal, value: str) -> None:
    (own_small / "card.json").write_text(f'{{"golden": {{"tolerance": {value}}}}}')
    seal(own_small)
    with pytest.raises(BundleError, match=r"card\.json: golden\.tolerance must be from 0 to 0\.1, is "):
        open_bundle(own_small)


def test_the_largest_tolerance_is_that_of_the_formats() -> None:
    assert max(form.tolerance for form in FORMATS.values()) == MOST_TOLERANCE


CLASSES = [{"name": name, "color": "#00ff00"} for name in "abcd"]
CONTRACTS = {
    "a class more": {"classes": CLASSES},
    "a class less": {"classes": CLASSES[:2]},
    "classify": {"task": "classify"},
    "detect": {"task": "detect", "activation": "linear"},
    "detect final": {"task": "detect", "activation": "linear", "outputs": "final"},
}


@pytest.mark.parametrize("change", CONTRACTS.values(), ids=CONTRACTS.keys())
def test_a_contract_that_does_not_tell_what_the_file_answers_is_refused_at_load(
    own_small: Path, seal: Seal, change: dict[str, Any]
) -> None:
    contract = json.loads((own_small / "contract.json").read_bytes())
    (own_small / "contract.json").write_text(json.dumps(contract | change))
    seal(own_small)
    with pytest.raises(BundleError, match=r"contract\.json does not tell what model\.tflite answers") as caught:
        Predictor(own_small)
    assert str(own_small) in str(caught.value)


def test_what_litert_cannot_compute_is_one_line(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = Contract.load(small_bundle / "contract.json")
    backend = LiteRTBackend((small_bundle / "model.tflite").read_bytes(), contract, name="x/model.tflite")
    picture = {"image": PICTURE}
    assert backend.run(picture)
    for call, error in (
        ("set_tensor", ValueError("no such tensor")),
        ("invoke", RuntimeError("node 3 failed to prepare")),
        ("get_tensor", ValueError("tensor data is null")),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(backend._interpreter, call, fail)
            with pytest.raises(BundleError, match=rf"^x/model\.tflite: the runtime cannot compute it \({error}\)"):
                backend.run(picture)
    monkeypatch.setattr(backend._interpreter, "get_tensor", lambda _: np.float32(3))
    with pytest.raises(BundleError, match="cannot compute it"):
        backend.run(picture)


def test_names_that_litert_cannot_read_are_one_line(own_small: Path, seal: Seal) -> None:
    content = (own_small / "model.tflite").read_bytes()
    (own_small / "model.tflite").write_bytes(content.replace(b"serving_default", b"\xff" * 15))
    seal(own_small)
    refused(own_small, r"model\.tflite: the runtime refuses it")


def test_watch_ends_with_the_status_that_is_not_started_again(own_small: Path, seal: Seal) -> None:
    (own_small / "golden.npz").write_bytes(ARCHIVES["corrupt"])
    seal(own_small)
    done = subprocess.run(
        [sys.executable, str(WATCH), str(own_small), str(own_small)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"watch: {own_small / 'golden.npz'}: golden frames cannot be read")


def test_a_bundle_like_these_but_whole_is_opened(own_small: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(own_small, tmp_path / "other"))
    assert Predictor(other).predict(PICTURE).size == (32, 48)
