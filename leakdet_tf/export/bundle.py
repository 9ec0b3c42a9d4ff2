"""Making a bundle: converted, compared, sealed, tried as the device will, and only then given its name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from leakdet_tf import __version__
from leakdet_tf.config.schema import Export
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError, LeakdetError
from leakdet_tf.core.files import sha256_bytes, sha256_file, sync_folder, write_bytes, write_json, write_text
from leakdet_tf.core.images import Pixels
from leakdet_tf.edge.backends import open_backend
from leakdet_tf.edge.bundle import CARD, CONTRACT, GOLDEN, SUMS, golden_bytes
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.export import onnx, tflite
from leakdet_tf.export.parity import Parity, compare, unit_of

GOLDEN_TOLERANCE = 1e-3
"""For float32: other CPUs add in another order; a wrong kernel or another model is off by far more."""


@dataclass(frozen=True)
class Format:
    """How a model's file of one format is called and made, and what the card says of it.

    ``convert`` takes the ``.keras`` file, the path of the contract and that of the result.
    """

    file: str
    convert: Callable[[Path, Path, Path], None]
    facts: dict[str, Any] = field(default_factory=dict)


FORMATS = {
    "tflite_float32": Format(tflite.FILE, tflite.convert),
    "onnx_float32": Format(onnx.FILE, onnx.convert, {"opset": onnx.OPSET}),
}
"""The formats by their names in ``export.formats``."""


@dataclass(frozen=True)
class Exported:
    """A finished bundle: its folder, the size of its model file in bytes, and how it compares.

    ``unit`` says what the decisions are that were compared: pixels, decisions, anchors or boxes.
    """

    folder: Path
    model_bytes: int
    parity: Parity
    unit: str


def require(formats: Iterable[str]) -> None:
    """Raise ExportError, with the line to type, when a format needs packages that are not installed."""
    if "onnx_float32" in formats:
        onnx.require()


def make_bundle(
    model: Path,
    contract: Contract,
    reference: Predictor,
    frames: Sequence[dict[str, Pixels]],
    folder: Path,
    settings: Export,
    facts: dict[str, Any],
    form: str = "tflite_float32",
) -> Exported:
    """Convert ``model`` and seal it as a bundle at ``folder``, replacing an older one there.

    Args:
        model: the ``.keras`` file.
        contract: what its pixels and scores mean; copied into the bundle. Where ``settings.outputs`` is another than
            the contract's, the bundle's is a contract of its own, which names this one as its parent.
        reference: the same model under Keras.
        frames: original validation pictures, raw pixels by input name; the first ``settings.golden`` become golden.
        folder: the bundle's place; its parent must be writable.
        settings: the experiment's ``[export]``.
        facts: what else the card should hold: data hashes, metrics.
        form: one of :data:`FORMATS`.

    Raises:
        ExportError: conversion failed, or more decisions changed than ``settings.max_changed`` allows, or there was
            nothing to compare. Nothing is left behind, and an older bundle stays as it was.
    """
    if not frames:
        raise ExportError("there are no validation pictures to compare the exported file on", remedy="add some to val")
    kind = FORMATS[form]
    if settings.outputs != contract.outputs:
        contract = replace(contract, outputs=settings.outputs, parent=contract.id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        contract.save(work / CONTRACT)
        kind.convert(model, work / CONTRACT, work / kind.file)
        content = (work / kind.file).read_bytes()
        exported = Predictor.over(open_backend(kind.file, content, contract, threads=os.cpu_count()), contract)
        parity = compare(reference, exported, frames)
        _check(parity, settings, form, contract)
        kept = _telling(frames, exported)[: settings.golden]
        write_bytes(work / GOLDEN, golden_bytes([exported.golden(images) for images in kept]))
        card = {
            "format": 1,
            "leakdet_tf": __version__,
            "kind": form,
            "contract": contract.id,
            "weights_sha256": contract.weights_sha256,
            "model": {"file": kind.file, "sha256": sha256_bytes(content), "bytes": len(content), **kind.facts},
            "golden": {"frames": len(kept), "tolerance": GOLDEN_TOLERANCE},
            "parity": {**parity.to_dict(), "limit": settings.max_changed},
            **facts,
        }
        write_json(work / CARD, card)
        names = sorted(path.name for path in work.iterdir())
        write_text(work / SUMS, "".join(f"{sha256_file(work / name)}  {name}\n" for name in names))
        Predictor(work)
        _swap(work, folder)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error})", remedy="free disk space or check rights") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported(folder, len(content), parity, unit_of(contract))


def _telling(frames: Sequence[dict[str, Pixels]], exported: Predictor) -> list[dict[str, Pixels]]:
    # golden frames without a box would show nothing: of final boxes, frames that have some come first
    if exported.contract.outputs != "final":
        return list(frames)
    return sorted(frames, key=lambda images: not any(answer.any() for answer in exported.outputs(images).values()))


def _check(parity: Parity, settings: Export, name: str, contract: Contract) -> None:
    unit = unit_of(contract)
    if not parity.decisions:
        raise ExportError(
            f"{name}: on {parity.pictures} validation pictures the model finds no {unit} to compare",
            remedy='train it further, lower its threshold, or set export.outputs = "decoded"',
        )
    if not parity.changed_share <= settings.max_changed:
        raise ExportError(
            f"{name}: {parity.changed} of {parity.decisions} validation {unit} are decided otherwise than by the Keras "
            f"model ({parity.changed_share:.2g}, limit {settings.max_changed:.2g}; outputs differ by up to "
            f"{parity.max_difference:.2g})",
            remedy="nothing was exported; find the layer that differs, or raise export.max_changed",
        )


def _swap(work: Path, folder: Path) -> None:
    work.chmod(0o755)
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    try:
        work.rename(folder)
    except OSError as error:
        if old.exists():
            old.rename(folder)
        raise LeakdetError(f"{folder}: cannot be replaced ({error})", remedy="is another export running?") from error
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(folder.parent)
