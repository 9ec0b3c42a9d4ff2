"""Run folders: made by ``fit``, opened by every command that takes RUN_OR_BUNDLE."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError, LeakdetError
from leakdet_tf.core.files import host, lives, own_mark, sync_folder
from leakdet_tf.core.version import __version__
from leakdet_tf.edge import machine
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.edge.sums import SUMS
from leakdet_tf.jobs.run import backend

EXPERIMENT = "experiment.toml"
MODEL = "model.keras"
_CHECKPOINTS = "checkpoints"
_PACKAGES = (
    "tensorflow",
    "keras",
    "jax",
    "torch",
    "keras-cv",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "pydantic",
    "ai-edge-litert",
    "onnxruntime",
    "tf2onnx",
)
_THREADS = ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Opened:
    """A model ready to answer, from a run or a bundle.

    ``kind`` names its format; ``experiment`` is the file of the run that it came from, None for a bundle that was
    carried away from its run; ``note`` says what the user should know about the choice of model, or is empty.
    """

    predictor: Predictor
    kind: str
    folder: Path
    experiment: Path | None
    note: str = ""


def say(line: str) -> None:
    """Tell the user a line, where nobody else takes it."""
    sys.stdout.write(f"{line}\n")


def create_run(runs: str, name: str) -> Path:
    """Make and return ``<runs>/<name>/<date-time>``, whole or not at all; a folder that exists is never used again.

    What a process of this machine left that was killed before its folder had a name is removed.

    Raises:
        DataError: the folder cannot be made.
    """
    parent = Path(runs) / name
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        _sweep(parent)
        building = parent / f".{stamp}.{own_mark()}.{uuid4().hex}"
        (building / _CHECKPOINTS).mkdir(parents=True)
        try:
            for number in range(1, 1000):
                folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
                if not _renamed(building, folder):
                    continue
                sync_folder(parent)
                sync_folder(parent.parent)
                return folder
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{parent}: cannot be made ({error.strerror})", remedy="set runs to a folder that can be written"
        ) from error
    raise DataError(f"{parent}: too many runs in this second", remedy="try again")


def _sweep(parent: Path) -> None:
    # Folders without a name hold nothing but an empty one, so that only empty ones are removed. Of another machine that
    # shares the disk nobody can tell whether its processes run.
    unnamed = re.compile(rf"\.\d{{8}}-\d{{6}}\.{re.escape(host())}-(\d+)\.[0-9a-f]{{32}}")
    for path in parent.glob(".*"):
        match = unnamed.fullmatch(path.name)
        if match and not lives(int(match[1])):
            for empty in (path / _CHECKPOINTS, path):
                with suppress(OSError):  # it has none yet, holds something, or somebody else sweeps
                    empty.rmdir()


def _renamed(building: Path, folder: Path) -> bool:
    # Whether it was; not onto a folder that is there.
    if folder.exists():
        return False
    try:
        building.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    return True


def check_run(runs: str, name: str) -> None:
    """Check that :func:`create_run` can make a folder, before the work whose results are to go there.

    Raises:
        DataError: it cannot.
    """
    parent = Path(runs) / name
    there = next(path for path in (parent, *parent.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written" if there.is_dir() else "is no folder"
        raise DataError(f"{parent}: cannot be made ({there} {why})", remedy="set runs to a folder that can be written")


def program(name: str = "leakdet-tf") -> str:
    """How the user can call a program of this environment: by name when PATH has it, else by its path."""
    beside = Path(sys.argv[0]).with_name(name)
    return name if shutil.which(name) or not beside.is_file() else str(beside)


def environment() -> dict[str, Any]:
    """What the run ran on: versions, machine, command."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "leakdet_tf": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "cpu": machine.facts()["cpu"],
        "cores": machine.cores(),
        "threads": {name: os.environ.get(name, "not set") for name in _THREADS},
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def logger(path: Path, echo: Log) -> Log:
    """A function that writes a line to the run's log file and to ``echo``."""

    def log(line: str) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now().isoformat(timespec='seconds')}  {line}\n")
        except OSError as error:  # a full disk names no file
            error.filename = str(path)
            raise
        echo(line)

    return log


def open_model(path: str | Path, *, threads: int | None = None, trusted: str | None = None) -> Opened:
    """Open a run's Keras model, or a bundle's exported one.

    With ``trusted``, a public key in PEM, only a bundle that it has signed.

    Raises:
        LeakdetError: neither a run nor a bundle, or it cannot be used, or is not what ``trusted`` has signed.
    """
    folder = Path(path)
    if (folder / SUMS).is_file():
        predictor = Predictor(folder, threads=threads, trusted=trusted)
        return Opened(predictor, str(predictor.card.get("kind", "bundle")), folder, _experiment_above(folder))
    if not (folder / EXPERIMENT).is_file():
        raise LeakdetError(
            f"{folder}: neither a run nor a bundle", remedy="give a folder under runs/, or an export in one"
        )
    if trusted is not None:
        raise LeakdetError(
            f"{folder}: a run, and only bundles are signed", remedy="give an export in it, or leave --trusted out"
        )
    model, note = _model_file(folder)
    backend.start(backend.to_open(folder / EXPERIMENT))
    from leakdet_tf.models.runtime import KerasBackend, load_model

    contract = Contract.load(folder / CONTRACT)
    predictor = Predictor.over(KerasBackend(load_model(model, contract), contract), contract)
    return Opened(predictor, "keras", folder, folder / EXPERIMENT, note)


def _model_file(folder: Path) -> tuple[Path, str]:
    if (folder / MODEL).is_file():
        return folder / MODEL, ""
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.keras"
        if path.is_file():
            return path, f"note: this run did not finish; using {path}"
    raise LeakdetError(
        f"{folder}: holds no model yet", remedy="its training ended before the first epoch: run fit again"
    )


def _experiment_above(bundle: Path) -> Path | None:
    # <run>/export/<format>
    path = bundle.resolve().parent.parent / EXPERIMENT
    return path if path.is_file() else None
