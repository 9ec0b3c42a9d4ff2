"""``SHA256SUMS``: one line a file, ``<hex digest>  <name>``, as ``sha256sum -c`` reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from leakdet_tf.core.errors import BundleError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.edge.reading import TEXT_BYTES, read_file

SUMS = "SHA256SUMS"
_AGAIN = "copy the bundle again, or export it again"


def read_sums(folder: Path) -> dict[str, str]:
    """Hex SHA-256 by name of file, as the folder's ``SHA256SUMS`` says.

    Raises:
        BundleError: there is none, or it is not the text that :func:`sums_text` gives for what it lists: a line is
            malformed or not ended, or a name stands there twice.
    """
    path = folder / SUMS
    try:
        text = read_file(path, TEXT_BYTES).decode("ascii")
    except OSError as error:
        raise BundleError(
            f"{folder}: not a bundle ({SUMS} {error.strerror})", remedy="give the folder of an export"
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: malformed", remedy=_AGAIN) from error
    sums: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9._-]*)", line)
        if not match:
            raise BundleError(f"{path}: malformed line {line[:80]!r}", remedy=_AGAIN)
        sums[match[2]] = match[1]
    if sums_text(sums) != text:
        raise BundleError(f"{path}: malformed: a name stands there twice, or its end is missing", remedy=_AGAIN)
    return sums


def sums_text(sums: Mapping[str, str]) -> str:
    """The text of a ``SHA256SUMS`` for hex digests by name of file, in their order."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def digest_of(sums: Mapping[str, str]) -> str:
    """Hex SHA-256 of the text of ``sums``, and so of all the files."""
    return sha256_bytes(sums_text(sums).encode("ascii"))
