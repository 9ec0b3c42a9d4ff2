"""Only what the trusted key has signed is opened, and nothing else is parsed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from leakdet_tf.core.errors import BundleError, LeakdetError, MissingExtraError
from leakdet_tf.edge import Predictor, keys, open_bundle, signing, trust

FILES = ["model.tflite", "contract.json", "golden.npz", "card.json", "SHA256SUMS", "certificate.json"]


def pem(key: Any, passphrase: bytes = b"") -> bytes:
    """A private key's text."""
    locked = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))


def public(key: Any) -> bytes:
    """The text of a private key's public half."""
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))


@pytest.fixture
def signed(own_small: Path, tmp_path: Path) -> Path:
    (tmp_path / "maker.key").write_bytes(pem(KEY))
    (tmp_path / "maker.pub").write_bytes(public(KEY))
    signing.sign(own_small, tmp_path / "maker.key")
    return own_small


@pytest.fixture
def no_parser(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any parser that is reached fails the test: json, NumPy's archive reader and the runtime."""

    def reached(*_: object, **__: object) -> None:
        pytest.fail("a parser saw what the key has not signed")

    monkeypatch.setattr("json.loads", reached)
    monkeypatch.setattr("leakdet_tf.edge.bundle.np.load", reached)
    monkeypatch.setattr("leakdet_tf.edge.predictor.open_backend", reached)


@pytest.fixture
def only_the_certificate(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``no_parser``, but the certificate, whose signature is right, may be read."""

    def reached(*_: object, **__: object) -> None:
        pytest.fail("a parser saw what the key has not signed")

    monkeypatch.setattr("leakdet_tf.edge.bundle.Contract.from_bytes", reached)
    monkeypatch.setattr("leakdet_tf.edge.bundle.np.load", reached)
    monkeypatch.setattr("leakdet_tf.edge.predictor.open_backend", reached)


def refused(folder: Path, match: str, key: str | Path | bytes | None = None) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        Predictor(folder, trusted=public(KEY) if key is None else key)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_signed_bundle_answers_for_a_key_by_path_text_or_bytes(signed: Path, tmp_path: Path) -> None:
    for key in (tmp_path / "maker.pub", str(tmp_path / "maker.pub"), public(KEY)):
        assert Predictor(signed, trusted=key).contract.task == "segment"
    assert Predictor(signed).contract.task == "segment", "who trusts nobody in particular takes it too"


def test_the_certificate_says_what_was_signed_and_by_whom(signed: Path) -> None:
    certificate = json.loads((signed / "certificate.json").read_bytes())
    sums = {name: hashlib.sha256((signed / name).read_bytes()).hexdigest() for name in FILES[:4]}
    assert certificate["files"] == sums
    assert certificate["contract"] == open_bundle(signed).contract.id
    assert certificate["contract_sha256"] == sums["contract.json"]
    assert certificate["card_sha256"] == sums["card.json"]
    assert certificate["key"] == keys.fingerprint(KEY.public_key())
    assert certificate["signed"].endswith("+00:00")
    assert len((signed / "certificate.sig").read_bytes()) == 64
    assert "certificate" not in (signed / "SHA256SUMS").read_text()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the program openssl")
def test_openssl_makes_the_keys_and_checks_the_certificate(own_small: Path, tmp_path: Path) -> None:
    lines = [line.strip() for line in (trust.__doc__ or "").splitlines() if line.startswith("    openssl")]
    assert len(lines) == 3
    for line in lines[:2]:
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    signing.sign(own_small, tmp_path / "maker.key")
    for name in ("certificate.json", "certificate.sig"):
        shutil.copy(own_small / name, tmp_path)
    done = subprocess.run(lines[2].split(), cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Success" in done.stdout
    Predictor(own_small, trusted=tmp_path / "maker.pub")
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", "maker.pub", "-outform", "DER"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    certificate = json.loads((own_small / "certificate.json").read_bytes())
    assert certificate["key"] == hashlib.sha256(der.stdout).hexdigest()


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize("missing", ["certificate.json", "certificate.sig"])
def test_an_unsigned_bundle_is_refused(signed: Path, missing: str) -> None:
    (signed / missing).unlink()
    refused(signed, f"not signed .*{missing}")


@pytest.mark.usefixtures("no_parser")
def test_a_bundle_signed_by_another_key_is_refused(signed: Path) -> None:
    refused(signed, "not signed by the trusted key", public(OTHER))


@pytest.mark.parametrize("name", [*FILES, "certificate.sig"])
@pytest.mark.parametrize("place", [0.0, 0.37, 0.93])
def test_one_flipped_bit_is_refused_before_parsing(
    signed: Path, name: str, place: float, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("no_parser" if "certificate" in name else "only_the_certificate")
    data = bytearray((signed / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (signed / name).write_bytes(data)
    with pytest.raises(BundleError):
        Predictor(signed, trusted=public(KEY))


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(signed: Path, size: int) -> None:
    (signed / "certificate.sig").write_bytes(((signed / "certificate.sig").read_bytes() * 2)[:size])
    refused(signed, "not signed by the trusted key")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_signed_bundle_is_refused(
    signed: Path, name: str, tmp_path: Path, only_the_certificate: None
) -> None:
    """Both bundles are the trusted key's: certificate and signature, or any one file, taken from the other."""
    other = Path(shutil.copytree(signed, tmp_path / "other"))
    for item in FILES[:4]:
        (other / item).write_bytes((other / item).read_bytes() + b" ")
    sums = {item: hashlib.sha256((other / item).read_bytes()).hexdigest() for item in FILES[:4]}
    (other / "SHA256SUMS").write_text("".join(f"{digest}  {item}\n" for item, digest in sums.items()))
    content = json.dumps({"what": "leakdet_tf bundle", "format": 1, "files": sums}).encode()
    (other / "certificate.json").write_bytes(content)
    (other / "certificate.sig").write_bytes(KEY.sign(content))
    shutil.copy(other / name, signed)
    if name == "certificate.json":
        shutil.copy(other / "certificate.sig", signed)
    refused(signed, name if name in FILES[:4] else "certifies another card.json")


@pytest.mark.usefixtures("only_the_certificate")
@pytest.mark.parametrize("name", FILES[:4])
def test_a_file_changed_together_with_its_sum_is_refused(signed: Path, name: str, seal: Callable[[Path], None]) -> None:
    (signed / name).write_bytes((signed / name).read_bytes() + b" ")
    seal(signed)
    refused(signed, f"certifies another {name}")


@pytest.mark.usefixtures("only_the_certificate")
def test_a_file_more_or_less_than_was_signed_is_refused(signed: Path, seal: Callable[[Path], None]) -> None:
    (signed / "calibration.npz").write_bytes(b"more")
    seal(signed)
    refused(signed, r"certifies another calibration\.npz")
    (signed / "calibration.npz").unlink()
    lines = (signed / "SHA256SUMS").read_text().splitlines()
    (signed / "SHA256SUMS").write_text("".join(f"{line}\n" for line in lines if "card.json" not in line))
    refused(signed, r"certifies another ca")


@pytest.mark.parametrize(
    "content",
    [b"{}", b"[]", b"\xff", b'{"what": "leakdet_tf bundle", "format": 1, "files": 3}', b"[" * 100_000],
    ids=["empty", "list", "bytes", "files", "deep"],
)
def test_signed_rubbish_is_no_certificate(signed: Path, content: bytes) -> None:
    (signed / "certificate.json").write_bytes(content)
    (signed / "certificate.sig").write_bytes(KEY.sign(content))
    refused(signed, "signed, but no certificate")


@pytest.mark.parametrize(("key", "value"), [("format", 2), ("format", True), ("what", "a letter")])
def test_certificates_of_another_kind_are_refused(signed: Path, key: str, value: object) -> None:
    certificate = json.loads((signed / "certificate.json").read_bytes())
    content = json.dumps({**certificate, key: value}).encode()
    (signed / "certificate.json").write_bytes(content)
    (signed / "certificate.sig").write_bytes(KEY.sign(content))
    refused(signed, "this version reads 1")


def test_what_is_damaged_is_not_signed(own_small: Path) -> None:
    (own_small / "card.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="SHA-256"):
        signing.sign(own_small, pem(KEY))
    assert not (own_small / "certificate.json").exists()


def test_signing_again_replaces_the_certificate_another_key_s_only_if_asked(signed: Path) -> None:
    signing.sign(signed, pem(KEY))
    Predictor(signed, trusted=public(KEY))
    with pytest.raises(BundleError, match=r"certificate\.json: signed by the key .* already, not by"):
        signing.sign(signed, pem(OTHER))
    signing.sign(signed, pem(OTHER), replace=True)
    Predictor(signed, trusted=public(OTHER))
    refused(signed, "not signed by the trusted key")


RSA = generate_private_key(public_exponent=65537, key_size=2048)
WRONG_PRIVATE = {
    "rubbish": (b"rubbish", "not a private key in PEM"),
    "empty": (b"", "not a private key in PEM"),
    "cut": (pem(KEY)[:60], "not a private key in PEM"),
    "RSA": (pem(RSA), "a key of RSA, Ed25519 is wanted"),
    "public": (public(KEY), "a public key, which cannot sign"),
    "encrypted": (pem(KEY, b"secret"), "needs its passphrase; set LEAKDET_KEY_PASSPHRASE"),
}
WRONG_PUBLIC = {
    "rubbish": (b"rubbish", "not a public key in PEM"),
    "empty": (b"", "not a public key in PEM"),
    "RSA": (public(RSA), "a key of RSA, Ed25519 is wanted"),
    "private": (pem(KEY), "a private key, which a device must not hold"),
    "encrypted": (pem(KEY, b"secret"), "a private key, which a device must not hold"),
}


@pytest.mark.parametrize(("content", "says"), WRONG_PRIVATE.values(), ids=WRONG_PRIVATE.keys())
def test_a_wrong_signing_key_is_one_line_that_names_it(
    own_small: Path, tmp_path: Path, content: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(keys.PASSPHRASE, raising=False)
    (tmp_path / "maker.key").write_bytes(content)
    with pytest.raises(LeakdetError, match=says) as caught:
        signing.sign(own_small, tmp_path / "maker.key")
    assert str(caught.value).startswith(str(tmp_path / "maker.key"))
    assert "\n" not in str(caught.value)
    assert not (own_small / "certificate.json").exists()


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize(("content", "says"), WRONG_PUBLIC.values(), ids=WRONG_PUBLIC.keys())
def test_a_wrong_trusted_key_is_one_line_and_opens_nothing(signed: Path, content: bytes, says: str) -> None:
    with pytest.raises(LeakdetError, match=says) as caught:
        Predictor(signed, trusted=content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["absent.pub", "", "a\0b"])
def test_a_key_that_cannot_be_read_is_named(signed: Path, place: str) -> None:
    with pytest.raises(LeakdetError, match="the key cannot be read"):
        Predictor(signed, trusted=place)


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(
    own_small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(keys.PASSPHRASE, "wrong")
    with pytest.raises(LeakdetError, match="is not its passphrase"):
        signing.sign(own_small, pem(KEY, b"secret"))
    monkeypatch.setenv(keys.PASSPHRASE, "secret")
    signing.sign(own_small, pem(KEY, b"secret"))
    signing.sign(own_small, pem(KEY))
    Predictor(own_small, trusted=public(KEY))


def test_without_the_package_one_line_says_what_to_type(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    for act in (lambda: Predictor(signed, trusted=public(KEY)), lambda: signing.sign(signed, pem(KEY))):
        with pytest.raises(
            MissingExtraError, match=r"need the package cryptography .*; pip install 'leakdet_tf\[sign\]'$"
        ):
            act()
    assert Predictor(signed).contract.task == "segment"


def test_who_asks_for_no_signature_loads_no_cryptography(signed: Path) -> None:
    code = (
        "import sys\n"
        "from leakdet_tf.edge import Predictor\n"
        f"Predictor({str(signed)!r})\n"
        "print('cryptography' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.data
def test_the_oracle_s_vectors() -> None:
    """Every signature of the published vectors is taken or refused as they say, by the function that we call."""
    named = os.environ.get("LEAKDET_SHARED", "")
    path = Path(named) / "oracles" / "ed25519_test.json"
    if not named or not path.is_file():
        pytest.skip("needs oracles/ed25519_test.json in the folder that LEAKDET_SHARED names")
    tried = 0
    for group in json.loads(path.read_bytes())["testGroups"]:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"]))
        public = keys.public_key(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        for vector in group["tests"]:
            found = keys.verified(public, bytes.fromhex(vector["msg"]), bytes.fromhex(vector["sig"]))
            assert found == (vector["result"] == "valid"), vector["tcId"]
            tried += 1
    assert tried == 151
