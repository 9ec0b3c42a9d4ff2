"""Whose bundle it is: a certificate over its files, signed with Ed25519 (RFC 8032) by a key that only the maker has.

``certificate.json`` says which files a bundle is made of, by their SHA-256; ``certificate.sig`` holds the 64 bytes of
the signature of that file's bytes as they stand. ``openssl`` makes the keys, and checks a certificate without us:

    openssl genpkey -algorithm ed25519 -out maker.key
    openssl pkey -in maker.key -pubout -out maker.pub
    openssl pkeyutl -verify -pubin -inkey maker.pub -rawin -in certificate.json -sigfile certificate.sig
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakdet_tf.core.errors import BundleError, LeakdetError, MissingExtraError
from leakdet_tf.core.files import json_text, write_together
from leakdet_tf.edge.bundle import CARD, CONTRACT, SUMS, open_bundle, read_sums
from leakdet_tf.edge.reading import TEXT_BYTES, read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

CERTIFICATE = "certificate.json"
SIGNATURE = "certificate.sig"
PASSPHRASE = "LEAKDET_KEY_PASSPHRASE"
"""The environment variable with the passphrase of a private key that is encrypted."""
FORMAT = 1
_NEW = "make one: openssl genpkey -algorithm ed25519 -out maker.key"
_OF = "take its public half: openssl pkey -in maker.key -pubout -out maker.pub"
_COPY = "copy the bundle again, or have it signed by the key that this device trusts"

Key = str | Path | bytes
"""A key in PEM: its file, or its text as bytes."""


def require() -> None:
    """Raise MissingExtraError, with the line to type, where signatures can be neither made nor checked."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"signatures need the package cryptography ({error})", remedy="pip install 'leakdet_tf[sign]'"
        ) from error


def sign(folder: Path, key: Key, *, replace: bool = False) -> str:
    """Write a bundle's ``certificate.json`` and ``certificate.sig``; gives the key's :func:`fingerprint`.

    What is signed has been opened first as any bundle is, so all its files are those of ``SHA256SUMS``; the model is
    not run, as nobody has vouched for it yet. The key's own older certificate is replaced. An error leaves the older
    one; a kill between the two renames leaves one that is refused until the bundle is signed again.

    Args:
        folder: a finished bundle.
        key: the private key; where it is encrypted, :data:`PASSPHRASE` names its passphrase.
        replace: replace another key's certificate too, or one that does not say whose it is.

    Raises:
        LeakdetError: the key is none of Ed25519, cannot be read, or the files cannot be written.
        BundleError: the folder is no bundle, its files are not those of ``SHA256SUMS``, or it is another key's.
        MissingExtraError: the ``cryptography`` package is absent.
    """
    private = private_key(key)
    own = fingerprint(private.public_key())
    sums = read_sums(folder)
    contract = open_bundle(folder).contract
    certificate = {
        "what": "leakdet_tf bundle",
        "format": FORMAT,
        "contract": contract.id,
        "contract_sha256": sums[CONTRACT],
        "card_sha256": sums[CARD],
        "files": dict(sorted(sums.items())),
        "key": own,
        "signed": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    data = json_text(certificate).encode()
    try:
        if not replace:
            _refuse_others(folder, own)
        write_together({folder / SIGNATURE: private.sign(data), folder / CERTIFICATE: data})
    except OSError as error:
        raise LeakdetError(f"{folder}: cannot be signed ({error})", remedy="free disk space or check rights") from error
    return own


def _refuse_others(folder: Path, own: str) -> None:
    # The certificate there may be anybody's and say anything: it is only asked whose it claims to be.
    try:
        data = read_file(folder / CERTIFICATE, TEXT_BYTES)
    except FileNotFoundError:
        return
    try:
        named = json.loads(data)["key"]
    except (ValueError, KeyError, TypeError, RecursionError):
        named = None
    if named != own:
        whose = f"signed by the key {named[:16]!r}" if isinstance(named, str) else "a certificate that names no key"
        raise BundleError(
            f"{folder / CERTIFICATE}: {whose} already, not by {own[:16]}",
            remedy="sign with --replace to put this key's in its place",
        )


def check(folder: Path, sums: Mapping[str, str], trusted: Key) -> dict[str, Any]:
    """The certificate of the bundle that is made of ``sums``; it is parsed after its signature has been verified.

    Args:
        folder: the bundle.
        sums: SHA-256 by name of file, which the caller holds the files to.
        trusted: the public key.

    Raises:
        BundleError: there is no certificate, its signature is not the key's, or it is of other files.
        LeakdetError: ``trusted`` is no public key of Ed25519.
        MissingExtraError: the ``cryptography`` package is absent.
    """
    public = public_key(trusted)
    path = folder / CERTIFICATE
    data, signature = _part(folder, CERTIFICATE), _part(folder, SIGNATURE)
    if not verified(public, data, signature):
        raise BundleError(
            f"{path}: not signed by the trusted key {fingerprint(public)[:16]}, or changed since", remedy=_COPY
        )
    try:
        certificate: dict[str, Any] = json.loads(data)
        what, found, files = certificate["what"], certificate["format"], dict(certificate["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: signed, but no certificate ({error})", remedy=_COPY) from error
    if what != "leakdet_tf bundle" or type(found) is not int or found != FORMAT:
        raise BundleError(
            f"{path}: certificate of {what!r}, format {found!r}; this version reads {FORMAT}",
            remedy="update leakdet_tf",
        )
    if odd := sorted(name for name in {*files, *sums} if files.get(name) != sums.get(name)):
        raise BundleError(f"{path}: certifies another {odd[0]} than {SUMS} lists", remedy=_COPY)
    return certificate


def verified(public: Ed25519PublicKey, data: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is the key's of ``data``."""
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def fingerprint(public: Ed25519PublicKey) -> str:
    """Hex SHA-256 of a key's DER, as ``openssl pkey -pubin -in maker.pub -outform DER | sha256sum`` prints it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def public_key(key: Key) -> Ed25519PublicKey:
    """A public key from its PEM.

    Raises:
        LeakdetError: it cannot be read, or is no public key of Ed25519.
        MissingExtraError: the ``cryptography`` package is absent.
    """
    require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data, name = _pem(key)
    if b"PRIVATE KEY-----" in data:
        raise LeakdetError(f"{name}: a private key, which a device must not hold", remedy=_OF)
    try:
        public = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise LeakdetError(f"{name}: not a public key in PEM", remedy=_OF) from error
    if not isinstance(public, Ed25519PublicKey):
        raise LeakdetError(f"{name}: {_kind(public)}, Ed25519 is wanted", remedy=_NEW)
    return public


def private_key(key: Key) -> Ed25519PrivateKey:
    """A private key from its PEM; export reads it before its long work, so that a wrong one is told at once.

    Raises:
        LeakdetError: it cannot be read, is no private key of Ed25519, or its passphrase is missing or wrong.
        MissingExtraError: the ``cryptography`` package is absent.
    """
    require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data, name = _pem(key)
    if b"PUBLIC KEY-----" in data:
        raise LeakdetError(f"{name}: a public key, which cannot sign", remedy="give the private one")
    try:
        try:
            private = load_pem_private_key(data, password=None)
        except TypeError as error:  # encrypted: asked for first without, as a passphrase of a plain key is an error too
            given = os.environ.get(PASSPHRASE, "")
            if not given:
                raise LeakdetError(
                    f"{name}: is encrypted and needs its passphrase", remedy=f"set {PASSPHRASE} in the environment"
                ) from error
            private = load_pem_private_key(data, password=given.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        locked = f", or {PASSPHRASE} is not its passphrase" if os.environ.get(PASSPHRASE) else ""
        raise LeakdetError(f"{name}: not a private key in PEM{locked}", remedy=_NEW) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise LeakdetError(f"{name}: {_kind(private)}, Ed25519 is wanted", remedy=_NEW)
    return private


def _pem(key: Key) -> tuple[bytes, str]:
    if isinstance(key, bytes):
        return key, "the key"
    try:
        return Path(key).read_bytes(), str(key)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LeakdetError(f"{key}: the key cannot be read ({reason})", remedy="check path and rights") from error


def _kind(key: object) -> str:
    # the library's classes are called RSAPrivateKey, EllipticCurvePublicKey and so on
    name = type(key).__name__.lstrip("_")
    for end in ("PrivateKey", "PublicKey"):
        name = name.removesuffix(end)
    return f"a key of {name}"


def _part(folder: Path, name: str) -> bytes:
    try:
        return read_file(folder / name, TEXT_BYTES)
    except OSError as error:
        raise BundleError(
            f"{folder}: not signed ({name} {error.strerror}), and only signed bundles are trusted here", remedy=_COPY
        ) from error
