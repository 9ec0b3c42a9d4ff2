"""``SHA256SUMS`` is taken in one form alone, and nothing in a bundle's folder is read that is no regular file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge import Predictor, open_bundle, reading
from leakdet_tf.edge.bundle import open_again
from leakdet_tf.edge.calibration_set import read_pictures
from leakdet_tf.edge.sums import read_sums, sums_text

PUBLIC = Ed25519PrivateKey.from_private_bytes(b"\1" * 32).public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def passed(folder: Path, changes: list[bytes]) -> list[bytes]:
    """Which of these contents of ``SHA256SUMS`` open the bundle."""
    taken = []
    for content in changes:
        (folder / "SHA256SUMS").write_bytes(content)
        try:
            open_bundle(folder)
        except BundleError as error:
            assert "\n" not in str(error)
        else:
            taken.append(content)
    return taken


def test_every_flipped_bit_of_the_sums_is_refused(own_small: Path) -> None:
    whole = (own_small / "SHA256SUMS").read_bytes()
    flips = []
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        flips.append(bytes(data))
    assert passed(own_small, flips) == []
    assert passed(own_small, [whole]) == [whole]


def test_every_truncation_of_the_sums_is_refused(own_small: Path) -> None:
    whole = (own_small / "SHA256SUMS").read_bytes()
    assert passed(own_small, [whole[:size] for size in range(len(whole))]) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text + b"0" * 64 + text[64 : text.index(b"\n") + 1],
        lambda text: b"0" * 64 + text[64 : text.index(b"\n") + 1] + text,
        lambda text: text + text,
        lambda text: text + b"\n",
        lambda text: b"\n" + text,
        lambda text: text + b"\0",
        lambda text: text.upper(),
        lambda text: text.replace(b"  ", b" *"),
        lambda text: b"\xef\xbb\xbf" + text,
    ],
    ids=["CRLF", "contradicted", "contradicting", "twice", "blank", "blank first", "nul", "upper", "star", "mark"],
)
def test_another_text_of_the_same_sums_is_refused(own_small: Path, change: Callable[[bytes], bytes]) -> None:
    assert passed(own_small, [change((own_small / "SHA256SUMS").read_bytes())]) == []


def test_the_text_is_what_the_sums_give(small_bundle: Path) -> None:
    assert sums_text(read_sums(small_bundle)) == (small_bundle / "SHA256SUMS").read_text()


FILES = ["SHA256SUMS", "model.tflite", "contract.json", "golden.npz", "card.json"]
OPEN = """
import sys
from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge import open_bundle
try:
    open_bundle(sys.argv[1], trusted=sys.argv[2].encode() or None)
except BundleError as error:
    print(error)
"""


def put(path: Path, kind: str) -> None:
    """Something at ``path`` that is no file."""
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


def refused(folder: Path, name: str, key: bytes = b"") -> str:
    """The one line by which a process of its own refuses the bundle, as it would hang where the test fails."""
    call = [sys.executable, "-c", OPEN, str(folder), key.decode()]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    (line,) = done.stdout.splitlines()
    assert name in line
    return line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind", ["fifo", "zero", "folder"])
def test_what_is_no_file_is_refused_by_name_and_not_waited_for(own_small: Path, tmp_path: Path, kind: str) -> None:
    for name in FILES:
        other = Path(shutil.copytree(own_small, tmp_path / f"without_{name}"))
        put(other / name, kind)
        line = refused(other, name)
        assert str(other) in line
        assert ("Is a directory" if kind == "folder" else "not a regular file") in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("name", ["certificate.json", "certificate.sig", "SHA256SUMS"])
def test_so_it_is_before_a_signature_is_checked(own_small: Path, name: str) -> None:
    (own_small / "certificate.json").write_text("{}")
    (own_small / "certificate.sig").write_bytes(bytes(64))
    put(own_small / name, "fifo")
    assert "not a regular file" in refused(own_small, name, PEM)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_so_it_is_of_calibration_pictures(own_small: Path) -> None:
    put(own_small / "calibration.npz", "fifo")
    with pytest.raises(BundleError, match=r"calibration\.npz: not a regular file"):
        read_pictures(own_small / "calibration.npz", "0" * 64, open_bundle(own_small).contract)


def test_a_link_to_a_file_is_a_file(own_small: Path, tmp_path: Path) -> None:
    (own_small / "model.tflite").rename(tmp_path / "elsewhere")
    (own_small / "model.tflite").symlink_to(tmp_path / "elsewhere")
    assert open_bundle(own_small).model


def test_files_have_a_largest_size(own_small: Path) -> None:
    whole = (own_small / "SHA256SUMS").read_bytes()
    (own_small / "SHA256SUMS").write_bytes(whole + b"x" * reading.TEXT_BYTES)
    with pytest.raises(BundleError, match=f"SHA256SUMS: has {len(whole) + 1_000_000} bytes, the limit is 1000000"):
        open_bundle(own_small)
    (own_small / "SHA256SUMS").write_bytes(whole)
    with (own_small / "golden.npz").open("ab") as file:
        file.truncate(reading.FILE_BYTES + 1)  # holds no byte more than before: the rest is a hole
    with pytest.raises(BundleError, match=r"golden\.npz: has 2000000001 bytes"):
        Predictor(own_small)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_100_gb_is_refused_unread(own_small: Path, name: str) -> None:
    with (own_small / name).open("ab") as file:
        file.truncate(100_000_000_000)
    with pytest.raises(BundleError, match=f"{name}: has 100000000000 bytes, the limit is .*; is this the right file"):
        open_bundle(own_small)


def test_the_files_have_a_largest_size_together(own_small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(own_small / name).stat().st_size for name in read_sums(own_small)]
    monkeypatch.setattr("leakdet_tf.edge.bundle.BUNDLE_BYTES", sum(sizes))
    assert open_bundle(own_small).model
    monkeypatch.setattr("leakdet_tf.edge.bundle.BUNDLE_BYTES", sum(sizes) - 1)
    last = list(read_sums(own_small))[-1]
    with pytest.raises(BundleError, match=f"{last}: with it the bundle has {sum(sizes)} bytes, the limit is"):
        open_bundle(own_small)


def test_what_was_opened_is_opened_again_and_nothing_else(own_small: Path, seal: Callable[[Path], None]) -> None:
    opened = open_bundle(own_small)
    assert open_again(own_small, opened.digest).model == opened.model
    (own_small / "card.json").write_text((own_small / "card.json").read_text() + " ")
    with pytest.raises(BundleError, match=r"card\.json: its SHA-256 is not the one"):
        open_again(own_small, opened.digest)
    seal(own_small)
    with pytest.raises(BundleError, match="changed while it was opened"):
        open_again(own_small, opened.digest)
