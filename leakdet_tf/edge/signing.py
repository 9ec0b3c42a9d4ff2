"""A certificate over a bundle's files, signed by its maker's key: see :mod:`~leakdet_tf.edge.trust`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from leakdet_tf.core.errors import BundleError, LeakdetError
from leakdet_tf.core.files import json_text, write_together
from leakdet_tf.edge.bundle import CARD, CONTRACT, open_bundle
from leakdet_tf.edge.keys import Key, fingerprint, private_key
from leakdet_tf.edge.reading import TEXT_BYTES, read_file
from leakdet_tf.edge.trust import CERTIFICATE, FORMAT, SIGNATURE


def sign(folder: Path, key: Key, *, replace: bool = False) -> str:
    """Write a bundle's ``certificate.json`` and ``certificate.sig``; gives the key's :func:`fingerprint`.

    What is signed has been opened first as any bundle is, so all its files are those of ``SHA256SUMS``; the model is
    not run, as nobody has vouched for it yet. The key's own older certificate is replaced. An error leaves the older
    one; a kill between the two renames leaves one that is refused until the bundle is signed again.

    Args:
        folder: a finished bundle.
        key: the private key; where it is encrypted, :data:`~leakdet_tf.edge.keys.PASSPHRASE` names its passphrase.
        replace: replace another key's certificate too, or one that does not say whose it is.

    Raises:
        LeakdetError: the key is none of Ed25519, cannot be read, or the files cannot be written.
        BundleError: the folder is no bundle, its files are not those of ``SHA256SUMS``, or it is another key's.
        MissingExtraError: the ``cryptography`` package is absent.
    """
    private = private_key(key)
    own = fingerprint(private.public_key())
    opened = open_bundle(folder)
    certificate = {
        "what": "leakdet_tf bundle",
        "format": FORMAT,
        "contract": opened.contract.id,
        "contract_sha256": opened.sums[CONTRACT],
        "card_sha256": opened.sums[CARD],
        "files": dict(sorted(opened.sums.items())),
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
