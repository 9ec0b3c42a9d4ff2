"""Making a bundle: converted, compared, measured, sealed, tried as the device will, and only then given its name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from leakdet_tf.config.schema import Export
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError, LeakdetError
from leakdet_tf.core.files import sha256_bytes, sha256_file, sync_folder, write_bytes, write_json, write_text
from leakdet_tf.core.images import Pixels
from leakdet_tf.core.version import __version__
from leakdet_tf.edge import signing
from leakdet_tf.edge.backends import open_backend
from leakdet_tf.edge.benchmark import answer
from leakdet_tf.edge.bundle import CARD, CONTRACT, GOLDEN, golden_bytes, open_bundle
from leakdet_tf.edge.calibration_set import CALIBRATION
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.edge.sums import SUMS
from leakdet_tf.formats import onnx, tensorrt, tflite
from leakdet_tf.formats.child import Layer
from leakdet_tf.formats.parity import Parity, compare, unit_of
from leakdet_tf.formats.quantize import Found, hold

_RUNS = 15  # of which the middle latency is told; 3 more come before


class Converter(Protocol):
    """Makes the file ``out`` of a ``.keras`` file and a contract's path."""

    def __call__(
        self,
        model: Path,
        contract: Path,
        out: Path,
        *,
        calibration: Path | None = None,
        keep: Sequence[str] = (),
        memory: Path | None = None,
        rank: bool = False,
    ) -> list[Layer]:
        """With ``rank`` the layers that were quantized, most sensitive first; those of ``keep`` stay in float.

        Of the same model and pictures, ``memory`` is a folder for what a later call can begin from.
        """
        ...


@dataclass(frozen=True)
class Format:
    """How a model's file of one format is called and made, and what it must hold.

    ``exact`` ones decide as the Keras model does; others may lose a bounded part of its accuracy. ``tolerance`` is that
    of the golden frames on another machine: other CPUs add in another order, and integer kernels round otherwise, while
    a wrong kernel or another model is off by far more. ``calibrated`` ones need pictures to choose ranges by; those of
    ``on_device`` go with the bundle, for the device to choose them.
    """

    file: str
    convert: Converter
    exact: bool
    tolerance: float
    calibrated: bool = False
    on_device: bool = False


_TFLITE = {form: partial(tflite.convert, form=form) for form in tflite.FORMS}
_ONNX = {form: partial(onnx.convert, form=form) for form in onnx.FORMS}
FORMATS = {
    "tflite_float32": Format(tflite.FILE, _TFLITE["tflite_float32"], exact=True, tolerance=1e-3),
    "tflite_float16": Format(tflite.FILE, _TFLITE["tflite_float16"], exact=False, tolerance=1e-2),
    "tflite_dynamic": Format(tflite.FILE, _TFLITE["tflite_dynamic"], exact=False, tolerance=0.1),
    "tflite_int8": Format(tflite.FILE, _TFLITE["tflite_int8"], exact=False, tolerance=0.1, calibrated=True),
    "onnx_float32": Format(onnx.FILE, _ONNX["onnx_float32"], exact=True, tolerance=1e-3),
    "onnx_int8": Format(onnx.FILE, _ONNX["onnx_int8"], exact=False, tolerance=0.1, calibrated=True),
    "tensorrt": Format(onnx.FILE, tensorrt.convert, exact=True, tolerance=1e-3, calibrated=True, on_device=True),
}
"""The formats by their names in ``export.formats``."""


_OLD = "old-"


@dataclass(frozen=True)
class Metric:
    """The task's own figure on validation pictures, with its interval; bounds are None where it has none."""

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Calibration:
    """Training pictures as the model takes them: an ``.npz`` of one array (N, h, w, C) by input name.

    ``pictures`` are those of the training split, ``frames`` by input the black and white ones that follow them:
    ``sha256`` in the card is that of all of them, which are those that were used.
    """

    path: Path
    pictures: int
    frames: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``card.json``."""
        found = {"split": "train", "pictures": self.pictures, "black_and_white": dict(self.frames)}
        return found | {"sha256": sha256_file(self.path)}


@dataclass(frozen=True)
class Evidence:
    """What an exported file is compared with and measured on.

    ``frames`` are original validation pictures, raw pixels by input name; ``reference`` is the model under Keras, and
    ``metric`` its figure; ``measure`` gives that of another runtime on the same pictures.
    """

    reference: Predictor
    frames: Sequence[dict[str, Pixels]]
    metric: Metric
    measure: Callable[[Predictor], Metric]
    calibration: Calibration | None = None


@dataclass(frozen=True, eq=False)
class _Tried:
    content: bytes
    predictor: Predictor
    parity: Parity
    metric: Metric
    drop: float
    p50_ms: float

    @property
    def changed(self) -> float:
        return self.parity.changed_share

    def told(self) -> dict[str, Any]:
        return {"bytes": len(self.content), "p50_ms": self.p50_ms, self.metric.name: self.metric.value}


@dataclass(frozen=True)
class Exported:
    """A finished bundle: its folder, the size of its model file in bytes, and how it compares.

    ``unit`` says what the decisions are that were compared: pixels, decisions, anchors or boxes. ``drop`` is how far
    ``metric`` lies below the Keras model's, ``p50_ms`` the model's middle latency here on one thread, ``kept_float``
    the layers that int8 keeps in float.
    """

    name: str
    folder: Path
    model_bytes: int
    parity: Parity
    unit: str
    metric: Metric
    drop: float
    p50_ms: float
    kept_float: tuple[str, ...]


def require(formats: Iterable[str]) -> None:
    """Raise ExportError, with the line to type, when a format needs packages that are not installed."""
    if any(FORMATS[name].file == onnx.FILE for name in formats):
        onnx.require()


def make_bundle(
    model: Path,
    contract: Contract,
    evidence: Evidence,
    folder: Path,
    settings: Export,
    facts: dict[str, Any],
    form: str = "tflite_float32",
    *,
    log: Callable[[str], object] = lambda line: None,
) -> Exported:
    """Convert ``model`` and seal it as a bundle at ``folder``, replacing an older one there.

    Args:
        model: the ``.keras`` file.
        contract: what its pixels and scores mean; copied into the bundle. Where ``settings.outputs`` is another than
            the contract's, the bundle's is a contract of its own, which names this one as its parent.
        evidence: what the file must live up to; the first ``settings.golden`` frames become golden.
        folder: the bundle's place; its parent must be writable.
        settings: the experiment's ``[export]``.
        facts: what else the card should hold: data hashes, metrics.
        form: one of :data:`FORMATS`.
        log: told, a line each, the tries of a format that may lose accuracy, and what TensorRT takes under a condition.

    Raises:
        ExportError: conversion failed; or of an exact format more decisions changed than ``settings.max_changed``
            allows, or one by more than rounding; or another's accuracy fell by more than ``settings.max_drop``, or more
            than ``settings.max_turned`` of its decisions are others; or there was nothing to compare. Nothing is left
            behind, and an older bundle stays as it was.
    """
    if not evidence.frames:
        raise ExportError("there are no validation pictures to compare the exported file on", remedy="add some to val")
    kind = FORMATS[form]
    if kind.calibrated and evidence.calibration is None:
        raise ExportError(f"{form}: there are no training pictures to calibrate on", remedy="add some to train")
    if settings.outputs != contract.outputs:
        contract = replace(contract, outputs=settings.outputs, parent=contract.id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        contract.save(work / CONTRACT)
        with tempfile.TemporaryDirectory() as memory:
            found = _made(model, contract, evidence, work, Path(memory), settings, form, log)
        tried: _Tried = found.tried
        limits = tensorrt.limits(tried.content) if kind.on_device else []
        for line in limits:
            log(f"{form}: under a condition: {line}")
        write_bytes(work / kind.file, tried.content)
        kept = _telling(evidence.frames, tried.predictor, settings.golden)
        write_bytes(work / GOLDEN, golden_bytes([tried.predictor.golden(images) for images in kept]))
        card = {
            "format": 1,
            "leakdet_tf": __version__,
            "kind": form,
            "contract": contract.id,
            "weights_sha256": contract.weights_sha256,
            "model": {
                "file": kind.file,
                "sha256": sha256_bytes(tried.content),
                "bytes": len(tried.content),
                **({"opset": onnx.OPSET} if kind.file == onnx.FILE else {}),
            },
            "golden": {"frames": len(kept), "tolerance": kind.tolerance},
            "parity": {**tried.parity.to_dict(), "limit": settings.max_changed if kind.exact else settings.max_turned},
            "gate": {
                "metric": asdict(tried.metric),
                "keras": asdict(evidence.metric),
                "drop": tried.drop,
                "max_drop": None if kind.exact else settings.max_drop,
                "latency_ms": {"p50": tried.p50_ms, "runs": _RUNS, "threads": 1},
                "steps": list(found.steps),
            },
            **({"calibration": evidence.calibration.to_dict()} if kind.calibrated and evidence.calibration else {}),
            **({"kept_float": list(found.kept)} if kind.calibrated and not kind.on_device else {}),
            **({"limits": limits} if kind.on_device else {}),
            **facts,
        }
        if kind.on_device and evidence.calibration:
            shutil.copyfile(evidence.calibration.path, work / CALIBRATION)
        write_json(work / CARD, card)
        names = sorted(path.name for path in work.iterdir())
        write_text(work / SUMS, "".join(f"{sha256_file(work / name)}  {name}\n" for name in names))
        if settings.key:
            signing.sign(work, settings.key)
        sealed = open_bundle(work)
        # an engine can only be built on its device: here its graph answers by onnxruntime
        Predictor(replace(sealed, card=card | {"kind": "onnx_float32"}) if kind.on_device else sealed)
        _swap(work, folder)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error})", remedy="free disk space or check rights") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size, unit = len(tried.content), unit_of(contract, exact=kind.exact)
    return Exported(form, folder, size, tried.parity, unit, tried.metric, tried.drop, tried.p50_ms, found.kept)


def _made(
    model: Path,
    contract: Contract,
    evidence: Evidence,
    work: Path,
    memory: Path,
    settings: Export,
    form: str,
    log: Callable[[str], object],
) -> Found:
    kind = FORMATS[form]
    out = work / kind.file
    calibration = evidence.calibration.path if kind.calibrated and evidence.calibration else None

    def convert(keep: Sequence[str] = (), *, rank: bool = False) -> list[Layer]:
        return kind.convert(model, work / CONTRACT, out, calibration=calibration, keep=keep, memory=memory, rank=rank)

    def attempt(keep: tuple[str, ...]) -> _Tried:
        convert(keep)
        content = out.read_bytes()
        exported = Predictor.over(open_backend(kind.file, content, contract, threads=os.cpu_count()), contract)
        parity = compare(evidence.reference, exported, evidence.frames, exact=kind.exact)
        _check(parity, settings, form, contract)
        metric = evidence.measure(exported)
        p50 = _p50_ms(Predictor.over(open_backend(kind.file, content, contract, threads=1), contract), evidence.frames)
        return _Tried(content, exported, parity, metric, evidence.metric.value - metric.value, p50)

    if kind.exact:
        return Found(attempt(()), (), ())
    limits = {"limit": settings.max_drop, "changed": settings.max_turned, "most": settings.max_float}
    return hold(attempt, lambda: convert(rank=True) if kind.calibrated else [], **limits, name=form, log=log)


def _p50_ms(predictor: Predictor, frames: Sequence[dict[str, Pixels]]) -> float:
    return float(np.median([invoke for invoke, _ in answer(predictor, frames[:1], 3 + _RUNS)][3:]))


def _telling(frames: Sequence[dict[str, Pixels]], exported: Predictor, number: int) -> list[dict[str, Pixels]]:
    # golden frames without a box would show nothing: of final boxes, frames that have some come first
    if exported.contract.outputs == "final":
        empty = [not any(answer.any() for answer in exported.outputs(images).values()) for images in frames]
        return [frames[place] for place in sorted(range(len(frames)), key=empty.__getitem__)[:number]]
    return [frames[place] for place in range(min(number, len(frames)))]


def _check(parity: Parity, settings: Export, name: str, contract: Contract) -> None:
    exact = FORMATS[name].exact
    unit = unit_of(contract, exact=exact)
    if not parity.decisions:
        raise ExportError(
            f"{name}: on {parity.pictures} validation pictures the model finds no {unit} to compare",
            remedy='train it further, lower its threshold, or set export.outputs = "decoded"'
            if exact
            else "train it further or lower its threshold",
        )
    if not exact:
        return
    if not parity.changed_share <= settings.max_changed:
        raise ExportError(
            f"{name}: {parity.changed} of {parity.decisions} validation {unit} are decided otherwise than by the Keras "
            f"model ({parity.changed_share:.2g}, limit {settings.max_changed:.2g}; outputs differ by up to "
            f"{parity.max_difference:.2g})",
            remedy="nothing was exported; find the layer that differs, or raise export.max_changed",
        )
    # Rounding cannot turn a decision that was clearer than twice its size. Of final boxes margins are scores and
    # differences are pixels, which cannot be compared.
    if contract.outputs != "final" and not parity.max_margin <= 2 * parity.max_difference:
        raise ExportError(
            f"{name}: a decision that the Keras model takes with a margin of {parity.max_margin:.2g} is another in the "
            f"file, though outputs differ by {parity.max_difference:.2g} at most",
            remedy="nothing was exported; this is no rounding: report it with the model",
        )


def tidy(parent: Path) -> None:
    """Put right what a killed process left beside the bundles in ``parent``, where nobody else may be at work.

    A bundle that was about to be replaced comes back; what was half made goes.
    """
    for left in parent.glob(".*.*"):
        name, _, what = left.name.removeprefix(".").partition(".")
        if name not in FORMATS:
            continue
        if what.startswith(_OLD) and not (parent / name).exists():
            left.rename(parent / name)
        else:
            shutil.rmtree(left)


def _swap(work: Path, folder: Path) -> None:
    work.chmod(0o755)
    old = folder.with_name(f".{folder.name}.{_OLD}{os.getpid()}")
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
