"""A bundle on disk: read once, hashed before anything parses it.

``SHA256SUMS`` has one line a file, ``<hex digest>  <name>``, as ``sha256sum -c`` reads it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import Pixels

SUMS = "SHA256SUMS"
CONTRACT = "contract.json"
GOLDEN = "golden.npz"
CARD = "card.json"
MODELS = ("model.tflite", "model.onnx")
_AGAIN = "copy the bundle again, or export it anew"


@dataclass(frozen=True, eq=False)
class GoldenFrame:
    """One original frame, uint8 or uint16 (H, W, C) by input name, and the raw outputs of this bundle's own file."""

    images: dict[str, Pixels]
    outputs: dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything in a bundle's folder, as bytes that have been checked against ``SHA256SUMS``, which ``sums`` holds."""

    folder: Path
    model_file: str
    model: bytes = field(repr=False)
    contract: Contract
    card: dict[str, Any]
    golden: list[GoldenFrame]
    sums: dict[str, str]

    @property
    def golden_tolerance(self) -> float:
        """Largest allowed difference of a replayed output, as :func:`~leakdet_tf.edge.golden.gap` tells it."""
        return float(self.card["golden"]["tolerance"])


def open_bundle(folder: str | Path, *, trusted: str | Path | bytes | None = None) -> Bundle:
    """Read a bundle's folder; every byte is hashed before any parser but that of ``SHA256SUMS`` sees it.

    Args:
        folder: an export's folder.
        trusted: the public key, in PEM, whose certificate of these files is asked for: see
            :mod:`~leakdet_tf.edge.trust`. With None any bundle that is whole is taken.

    Raises:
        BundleError: not a bundle, a file is missing or changed, or the card or golden frames are malformed; with
            ``trusted`` also what that key did not sign.
    """
    folder = Path(folder)
    sums = read_sums(folder)
    if trusted is not None:
        from leakdet_tf.edge.trust import check

        check(folder, sums, trusted)
    models = [name for name in MODELS if name in sums]
    missing = [name for name in (CONTRACT, GOLDEN, CARD) if name not in sums]
    if missing or len(models) != 1:
        wanted = missing[0] if missing else " or ".join(MODELS)
        raise BundleError(f"{folder / SUMS}: does not list {wanted}", remedy=_AGAIN)
    content = {name: _checked(folder / name, digest) for name, digest in sums.items()}
    try:
        card = json.loads(content[CARD])
        float(card["golden"]["tolerance"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / CARD}: malformed ({error})", remedy=_AGAIN) from error
    contract = Contract.from_bytes(content[CONTRACT], where=str(folder / CONTRACT))
    golden = read_golden(content[GOLDEN], where=str(folder / GOLDEN))
    return Bundle(folder, models[0], content[models[0]], contract, card, golden, sums)


def read_sums(folder: Path) -> dict[str, str]:
    """Hex SHA-256 by name of file, as the folder's ``SHA256SUMS`` says.

    Raises:
        BundleError: there is none, or a line of it is malformed.
    """
    path = folder / SUMS
    try:
        text = path.read_bytes().decode("ascii")
    except OSError as error:
        raise BundleError(
            f"{folder}: not a bundle ({SUMS} {error.strerror})", remedy="give the folder of an export"
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: malformed", remedy=_AGAIN) from error
    sums = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9._-]*)", line)
        if not match:
            raise BundleError(f"{path}: malformed line {line[:80]!r}", remedy=_AGAIN)
        sums[match[2]] = match[1]
    return sums


def _checked(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", remedy=_AGAIN) from error
    if sha256_bytes(data) != digest:
        raise BundleError(f"{path}: its SHA-256 is not the one in {SUMS}: changed or damaged", remedy=_AGAIN)
    return data


def read_golden(data: bytes, *, where: str) -> list[GoldenFrame]:
    """Golden frames from the bytes of an ``.npz`` with keys ``<frame>/image/<input>`` and ``<frame>/output/<name>``."""
    frames: dict[int, GoldenFrame] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for key in archive.files:
                number, kind, name = key.split("/", 2)
                frame = frames.setdefault(int(number), GoldenFrame({}, {}))
                (frame.images if kind == "image" else frame.outputs)[name] = archive[key]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{where}: malformed golden frames ({error})", remedy=_AGAIN) from error
    if not frames:
        raise BundleError(f"{where}: holds no golden frame", remedy=_AGAIN)
    return [frames[number] for number in sorted(frames)]


def golden_bytes(frames: list[GoldenFrame]) -> bytes:
    """The inverse of :func:`read_golden`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, frame in enumerate(frames):
        arrays |= {f"{number}/image/{name}": image for name, image in frame.images.items()}
        arrays |= {f"{number}/output/{name}": output for name, output in frame.outputs.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()
