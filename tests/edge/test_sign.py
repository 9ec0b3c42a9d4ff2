"""``leakdet-tf sign``: a bundle that was made elsewhere gets its certificate, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from leakdet_tf.cli import main
from leakdet_tf.core import files
from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.edge import Predictor, open_bundle, signing
from leakdet_tf.edge.keys import fingerprint, public_key
from leakdet_tf.formats.bundle import FORMATS
from tests.disks import MOUNTS, WHY

CERTIFICATE = ("certificate.json", "certificate.sig")


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Files of two makers' private and public keys."""
    found = {}
    for number, name in enumerate(("maker", "other"), start=1):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        texts = {
            "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "pub": key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        }
        for kind, text in texts.items():
            found[f"{name}.{kind}"] = tmp_path / f"{name}.{kind}"
            found[f"{name}.{kind}"].write_bytes(text)
    return found


def sign(folder: Path, key: Path, *more: str) -> int:
    return main(["sign", str(folder), "--key", str(key), *more])


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("leakdet-tf: ")
    return line


def certificate_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CERTIFICATE if (folder / name).exists()}


def test_what_it_has_signed_opens_for_the_key_and_it_says_which(
    own_small: Path, keys: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign(own_small, keys["maker.key"]) == 0
    own = fingerprint(public_key(keys["maker.pub"]))
    assert capsys.readouterr().out == f"{own_small}: signed by {own}\n"
    assert Predictor(own_small, trusted=keys["maker.pub"]).contract.task == "segment"
    with pytest.raises(LeakdetError, match="not signed by the trusted key"):
        Predictor(own_small, trusted=keys["other.pub"])


@pytest.mark.parametrize("kind", FORMATS)
def test_bundles_of_every_kind_are_signed(
    own_small: Path, keys: dict[str, Path], seal: Callable[[Path], None], kind: str
) -> None:
    form = FORMATS[kind]
    (own_small / "model.tflite").rename(own_small / form.file)
    card = json.loads((own_small / "card.json").read_text())
    (own_small / "card.json").write_text(json.dumps(card | {"kind": kind}))
    if form.on_device:
        (own_small / "calibration.npz").write_bytes(b"pictures")
    seal(own_small)
    assert sign(own_small, keys["maker.key"]) == 0
    opened = open_bundle(own_small, trusted=keys["maker.pub"])
    assert opened.card["kind"] == kind
    assert set(json.loads((own_small / "certificate.json").read_bytes())["files"]) == set(opened.sums)


def test_a_run_stands_for_all_that_it_exported(
    own_small: Path, keys: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for name in ("one", "two"):
        shutil.copytree(own_small, run / "export" / name)
    assert sign(run, keys["maker.key"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    for name in ("one", "two"):
        Predictor(run / "export" / name, trusted=keys["maker.pub"])


@pytest.mark.parametrize("name", ["model.tflite", "contract.json", "golden.npz", "card.json", "SHA256SUMS"])
def test_one_flipped_bit_is_not_signed(
    own_small: Path, keys: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((own_small / name).read_bytes())
    data[len(data) // 2] ^= 1
    (own_small / name).write_bytes(data)
    assert sign(own_small, keys["maker.key"]) == 2
    assert str(own_small) in line_of(capsys)
    assert not certificate_of(own_small)


def test_a_bundle_whose_contract_is_none_is_not_signed(
    own_small: Path, keys: dict[str, Path], seal: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (own_small / "contract.json").write_text("{}")
    seal(own_small)
    assert sign(own_small, keys["maker.key"]) == 2
    assert str(own_small / "contract.json") in line_of(capsys)
    assert not certificate_of(own_small)


def test_nothing_of_the_model_is_run(
    own_small: Path, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, seal: Callable[[Path], None]
) -> None:
    (own_small / "model.tflite").write_bytes(b"what would kill its parser")
    seal(own_small)
    monkeypatch.setattr("leakdet_tf.edge.predictor.open_backend", lambda *_, **__: pytest.fail("the model was opened"))
    assert sign(own_small, keys["maker.key"]) == 0


@pytest.mark.parametrize("key", ["maker.pub", "absent.key", "small/card.json"])
def test_a_wrong_key_is_one_line_before_any_bundle_is_read(
    own_small: Path, keys: dict[str, Path], tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_small / "SHA256SUMS").unlink()
    assert sign(own_small, tmp_path / key) == 2
    assert line_of(capsys).startswith(f"leakdet-tf: {tmp_path / key}: ")


def test_another_key_s_certificate_stays_unless_it_is_to_be_replaced(
    own_small: Path, keys: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign(own_small, keys["other.key"]) == 0
    before = certificate_of(own_small)
    theirs = fingerprint(public_key(keys["other.pub"]))
    assert sign(own_small, keys["maker.key"]) == 2
    line = line_of(capsys)
    assert f"signed by the key '{theirs[:16]}' already" in line
    assert "--replace" in line
    assert certificate_of(own_small) == before
    assert sign(own_small, keys["maker.key"], "--replace") == 0
    Predictor(own_small, trusted=keys["maker.pub"])
    assert sign(own_small, keys["maker.key"]) == 0, "its own it makes anew"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"key": 3}', b"\xff", b"[" * 100_000])
def test_a_certificate_that_is_none_is_not_lost_in_silence(
    own_small: Path, keys: dict[str, Path], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_small / "certificate.json").write_bytes(content)
    assert sign(own_small, keys["maker.key"]) == 2
    assert "a certificate that names no key already" in line_of(capsys)
    assert sign(own_small, keys["maker.key"], "--replace") == 0
    Predictor(own_small, trusted=keys["maker.pub"])


@pytest.mark.skipif(not MOUNTS, reason=WHY)
def test_a_folder_that_may_only_be_read_is_one_line(own_small: Path, keys: dict[str, Path]) -> None:
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    call = [sys.executable, "-m", "leakdet_tf.cli", "sign", str(own_small), "--key", str(keys["maker.key"])]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, str(own_small), *call], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"leakdet-tf: {own_small}: cannot be signed (")
    assert "Read-only" in line
    assert not certificate_of(own_small)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_is_broken_off_leaves_what_was_there(
    own_small: Path,
    keys: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    signed: bool,
    call: int,
    error: BaseException,
) -> None:
    if signed:
        signing.sign(own_small, keys["other.key"])
    before, there = certificate_of(own_small), sorted(path.name for path in own_small.iterdir())
    calls, fsync = [0], os.fsync

    def full(handle: int) -> Any:
        calls[0] += 1
        if calls[0] > call:
            raise error
        return fsync(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises((LeakdetError, KeyboardInterrupt)):
        signing.sign(own_small, keys["maker.key"], replace=True)
    monkeypatch.undo()
    assert certificate_of(own_small) == before
    assert sorted(path.name for path in own_small.iterdir()) == there
    if signed:
        Predictor(own_small, trusted=keys["other.pub"])


KILLED = """
import os, pathlib, sys
from leakdet_tf.edge import signing
done, replace = [], pathlib.Path.replace
def killed(self, target):
    if len(done) == int(sys.argv[3]):
        os._exit(9)
    done.append(target)
    return replace(self, target)
pathlib.Path.replace = killed
signing.sign(pathlib.Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_leaves_no_certificate_that_is_taken_and_signing_again_mends_it(
    own_small: Path, keys: dict[str, Path], renames: int
) -> None:
    call = [sys.executable, "-c", KILLED, str(own_small), str(keys["maker.key"]), str(renames)]
    assert subprocess.run(call, check=False).returncode == 9
    assert len(certificate_of(own_small)) == renames
    with pytest.raises(LeakdetError, match="not signed"):
        Predictor(own_small, trusted=keys["maker.pub"])
    assert sign(own_small, keys["maker.key"]) == 0
    Predictor(own_small, trusted=keys["maker.pub"])


def test_signing_needs_no_training_packages(own_small: Path, keys: dict[str, Path]) -> None:
    code = (
        "import sys\n"
        "from leakdet_tf.cli import main\n"
        "status = main(['sign', sys.argv[1], '--key', sys.argv[2]])\n"
        "heavy = {'tensorflow', 'keras', 'pydantic', 'rich', 'matplotlib', 'onnx', 'ai_edge_litert'}\n"
        "sys.exit(9 if heavy & set(sys.modules) else status)\n"
    )
    call = [sys.executable, "-c", code, str(own_small), str(keys["maker.key"])]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
