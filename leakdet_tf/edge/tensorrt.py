"""What a TensorRT engine is built from and known by, and how the one that was built on this device is opened.

A bundle of kind ``tensorrt`` holds ``model.onnx``, and for int8 ``calibration.npz``: pictures as the model takes them,
one array (N, h, w, C) by input name. An engine is good for one TensorRT version and one GPU, so no bundle holds one:
:mod:`leakdet_tf.edge.tensorrt_build` builds it, :mod:`leakdet_tf.edge.engines` keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import BundleError, did_you_mean
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.edge import engines
from leakdet_tf.edge.backends.cuda import Cuda
from leakdet_tf.edge.backends.protocol import Backend
from leakdet_tf.edge.backends.tensorrt import TensorRTBackend, library
from leakdet_tf.edge.bundle import GOLDEN, Bundle
from leakdet_tf.edge.calibration_set import CALIBRATION
from leakdet_tf.edge.engines import Key

KIND = "tensorrt"
"""The kind of a bundle that is run by TensorRT."""
FLAGS = {"float32": ("--noTF32",), "float16": ("--fp16",), "int8": ("--int8", "--fp16")}
"""By precision, what trtexec is told. int8 may fall back to float16 for layers that are faster so."""


@dataclass(frozen=True)
class Settings:
    """How an engine is built: ``precision`` is float32, float16 or int8; ``workspace_mib`` limits the memory that a
    layer may take for scratch, in MiB (None: all that the GPU has, which on a Jetson is the machine's)."""

    precision: str = "float16"
    workspace_mib: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in FLAGS:
            raise BundleError(f"unknown precision '{self.precision}'", remedy=did_you_mean(self.precision, FLAGS))
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise BundleError(f"workspace_mib must be at least 1, not {self.workspace_mib}")


def open_engine(bundle: Bundle, *, cache: str | Path | None = None) -> tuple[Backend, Bundle]:
    """The runtime of the engine that was built last for this bundle on this device, and the bundle with that engine's
    own golden answers, to be replayed at its tolerance.

    Raises:
        BundleError: none was built for this GPU and TensorRT, or it is damaged. Nothing else is run in its place.
        MissingExtraError: TensorRT or CUDA is not on this machine.
    """
    check_kind(bundle)
    key = key_of(bundle, Settings(), library())
    found = engines.current(engines.home(cache), key)
    if found is None:
        raise BundleError(
            f"{bundle.folder}: no engine has been built for {key.gpu} ({key.capability}) and TensorRT {key.tensorrt}",
            remedy=f"run on this device first: leakdet-tf engine {bundle.folder}",
        )
    told = {name: value for name, value in found.card.items() if name != "table"}
    card = {**bundle.card, "engine": {"precision": found.key.precision, "key": found.key.name, **told}}
    return TensorRTBackend(found.plan, bundle.contract), replace(bundle, golden=found.golden, card=card)


def check_kind(bundle: Bundle) -> None:
    """Raises BundleError where engines are not built from this bundle."""
    if bundle.card.get("kind") == KIND and bundle.model_file != "model.onnx":
        raise BundleError(
            f"{bundle.folder}: its card says '{KIND}', and it holds {bundle.model_file} instead of model.onnx",
            remedy="export it again",
        )
    if bundle.card.get("kind") != KIND:
        raise BundleError(
            f"{bundle.folder}: a bundle of kind '{bundle.card.get('kind')}', engines are built from '{KIND}'",
            remedy="export it so: leakdet-tf export RUN --set 'export.formats=[\"tensorrt\"]'",
        )


def key_of(bundle: Bundle, settings: Settings, trt: Any) -> Key:
    """What the bundle's engine depends on, on this device and with this ``tensorrt`` package."""
    sums, gpu = bundle.sums, Cuda().gpu()
    return Key(
        model_sha256=sha256_bytes(bundle.model),
        contract=bundle.contract.id,
        golden_sha256=sums.get(GOLDEN, ""),
        calibration_sha256=sums.get(CALIBRATION) if settings.precision == "int8" else None,
        precision=settings.precision,
        workspace_mib=settings.workspace_mib,
        gpu=gpu.name,
        capability=gpu.capability,
        multiprocessors=gpu.multiprocessors,
        tensorrt=str(trt.__version__),
    )
