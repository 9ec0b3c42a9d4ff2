"""Keys of Ed25519 (RFC 8032) in PEM: the one file that needs the ``cryptography`` package."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from leakdet_tf.core.errors import LeakdetError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSPHRASE = "LEAKDET_KEY_PASSPHRASE"
"""The environment variable with the passphrase of a private key that is encrypted."""
_NEW = "make one: openssl genpkey -algorithm ed25519 -out maker.key"
_OF = "take its public half: openssl pkey -in maker.key -pubout -out maker.pub"

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
