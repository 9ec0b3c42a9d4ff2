"""Whose bundle it is: a certificate over its files, signed with Ed25519 (RFC 8032) by a key that only the maker has.

``certificate.json`` says which files a bundle is made of, by their SHA-256; ``certificate.sig`` holds the 64 bytes of
the signature of that file's bytes as they stand. ``openssl`` makes the keys, and checks a certificate without us:

    openssl genpkey -algorithm ed25519 -out maker.key
    openssl pkey -in maker.key -pubout -out maker.pub
    openssl pkeyutl -verify -pubin -inkey maker.pub -rawin -in certificate.json -sigfile certificate.sig
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge.keys import Key, fingerprint, public_key, verified
from leakdet_tf.edge.reading import TEXT_BYTES, read_file
from leakdet_tf.edge.sums import SUMS

CERTIFICATE = "certificate.json"
SIGNATURE = "certificate.sig"
FORMAT = 1
_COPY = "copy the bundle again, or have it signed by the key that this device trusts"


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


def _part(folder: Path, name: str) -> bytes:
    try:
        return read_file(folder / name, TEXT_BYTES)
    except OSError as error:
        raise BundleError(
            f"{folder}: not signed ({name} {error.strerror}), and only signed bundles are trusted here", remedy=_COPY
        ) from error
