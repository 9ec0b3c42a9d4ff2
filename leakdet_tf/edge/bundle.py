"""A bundle on disk: read once, hashed before anything parses it."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import Pixels
from leakdet_tf.edge.reading import BUNDLE_BYTES, FILE_BYTES, read_arrays, read_file
from leakdet_tf.edge.sums import SUMS, digest_of, read_sums
from leakdet_tf.edge.trust import check

CONTRACT = "contract.json"
GOLDEN = "golden.npz"
CARD = "card.json"
MODELS = ("model.tflite", "model.onnx")
MOST_TOLERANCE = 0.1
"""The largest tolerance of golden frames that a card may state, which is the largest of any format."""
_JSON_BYTES = 16_000_000
_PIXELS, _OUTPUTS = (np.uint8, np.uint16), (np.float32,)
_AGAIN = "copy the bundle again, or export it again"


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

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the text of ``sums``, and so of all the files."""
        return digest_of(self.sums)


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
        check(folder, sums, trusted)
    return _read_files(folder, sums)


def open_again(folder: str | Path, digest: str) -> Bundle:
    """In another process, the bundle that one has opened there: its files are those of :attr:`Bundle.digest`.

    Raises:
        BundleError: they are others by now, which is found before any parser but that of ``SHA256SUMS`` sees them; or
            as of :func:`open_bundle`.
    """
    folder = Path(folder)
    sums = read_sums(folder)
    if digest_of(sums) != digest:
        raise BundleError(f"{folder}: changed while it was opened", remedy="try again")
    return _read_files(folder, sums)


def _read_files(folder: Path, sums: dict[str, str]) -> Bundle:
    models = [name for name in MODELS if name in sums]
    missing = [name for name in (CONTRACT, GOLDEN, CARD) if name not in sums]
    if missing or len(models) != 1:
        wanted = missing[0] if missing else " or ".join(MODELS)
        raise BundleError(f"{folder / SUMS}: does not list {wanted}", remedy=_AGAIN)
    held = 0

    def bounded(path: Path, status: os.stat_result) -> None:
        nonlocal held
        held += status.st_size
        if held > BUNDLE_BYTES:
            raise BundleError(
                f"{path}: with it the bundle has {held} bytes, the limit is {BUNDLE_BYTES}",
                remedy="is this the right folder?",
            )

    content = {name: _read_checked(folder / name, digest, bounded) for name, digest in sums.items()}
    try:
        card = json.loads(content[CARD])
        tolerance = card["golden"]["tolerance"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{folder / CARD}: malformed ({error})", remedy=_AGAIN) from error
    if type(tolerance) not in (int, float) or not 0 <= tolerance <= MOST_TOLERANCE:
        raise BundleError(
            f"{folder / CARD}: golden.tolerance must be from 0 to {MOST_TOLERANCE:g}, is {repr(tolerance)[:40]}",
            remedy="export it again",
        )
    contract = Contract.from_bytes(content[CONTRACT], where=str(folder / CONTRACT))
    golden = read_golden(content[GOLDEN], where=str(folder / GOLDEN))
    for number, frame in enumerate(golden):
        if set(frame.images) != set(contract.inputs):
            raise BundleError(
                f"{folder / GOLDEN}: golden frame {number} has pictures {sorted(frame.images)}, "
                f"the contract says {sorted(contract.inputs)}",
                remedy=_AGAIN,
            )
    return Bundle(folder, models[0], content[models[0]], contract, card, golden, sums)


def _read_checked(path: Path, digest: str, bounded: Callable[[Path, os.stat_result], object]) -> bytes:
    try:
        data = read_file(path, _JSON_BYTES if path.suffix == ".json" else FILE_BYTES, check=bounded)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", remedy=_AGAIN) from error
    if sha256_bytes(data) != digest:
        raise BundleError(f"{path}: its SHA-256 is not the one in {SUMS}: changed or damaged", remedy=_AGAIN)
    return data


def read_golden(data: bytes, *, where: str) -> list[GoldenFrame]:
    """Golden frames from the bytes of an ``.npz`` with keys ``<frame>/image/<input>`` and ``<frame>/output/<name>``.

    Raises:
        BundleError: there is none, or an array is not what :class:`GoldenFrame` says.
    """
    frames: dict[int, GoldenFrame] = {}
    for key, array in read_arrays(data, where=f"{where}: golden frames", remedy=_AGAIN).items():
        match = re.fullmatch(r"([0-9]{1,9})/(image|output)/(.+)", key)
        if not match:
            raise BundleError(f"{where}: golden frames cannot be read (key {key[:80]!r})", remedy=_AGAIN)
        frame = frames.setdefault(int(match[1]), GoldenFrame({}, {}))
        if array.dtype not in (_PIXELS if match[2] == "image" else _OUTPUTS):
            raise BundleError(f"{where}: golden frames cannot be read ('{key}' is {array.dtype})", remedy=_AGAIN)
        (frame.images if match[2] == "image" else frame.outputs)[match[3]] = array
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
