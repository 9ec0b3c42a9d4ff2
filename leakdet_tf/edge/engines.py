"""Where a device keeps the engines that it has built, and how it knows that one is still the right one.

An engine belongs to one TensorRT version and one GPU (NVIDIA says so of both), and it is machine code: what is opened
here has the key of this model on this device, and the bytes that were written, and nobody but this user and root may
write it. A folder holds

    KEY.json      the whole key, the engine's card, and the SHA-256 of the two files below; its own SHA-256 is in it
    SHA.plan      the serialized engine, as trtexec --loadEngine takes it
    SHA.npz       golden frames with this engine's own answers
    SLOT.current  the KEY that was built or asked for last, for one model on one device

The JSON is written last and each file whole or not at all, so a build that is killed leaves nothing that is looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import BundleError
from leakdet_tf.core.files import sha256_bytes, write_bytes, write_json, write_text
from leakdet_tf.edge.bundle import GoldenFrame, golden_bytes, read_golden
from leakdet_tf.edge.reading import TEXT_BYTES, read_file

FORMAT = 1
VARIABLE = "LEAKDET_CACHE"
"""The environment variable that names the folder to keep engines in."""
_REMEDY = "build it again on this device: leakdet-tf engine BUNDLE --anew"
_DIGITS = 32  # of the SHA-256 in names
_MODE = 0o600
_LOCK = "lock"


@dataclass(frozen=True)
class Key:
    """All that an engine depends on. Two engines of one key are interchangeable."""

    model_sha256: str
    contract: str
    golden_sha256: str
    calibration_sha256: str | None
    precision: str
    workspace_mib: int | None
    gpu: str
    capability: str
    multiprocessors: int
    tensorrt: str

    @property
    def name(self) -> str:
        """The key as a file's name."""
        return _digest(asdict(self))[:_DIGITS]

    @property
    def slot(self) -> str:
        """The same for all engines of one model on one device, whatever their precision and settings."""
        return replace(self, calibration_sha256=None, precision="", workspace_mib=None).name


@dataclass(frozen=True, eq=False)
class Engine:
    """An engine whose bytes are those that were built here."""

    key: Key
    path: Path
    plan: bytes = field(repr=False)
    golden: list[GoldenFrame] = field(repr=False)
    card: dict[str, Any]


def home(cache: str | Path | None = None) -> Path:
    """The folder of engines: ``cache``, or ``LEAKDET_CACHE``, or the user's cache folder, with ``engines`` in it."""
    if cache is None:
        fallback = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = os.environ.get(VARIABLE) or Path(fallback) / "leakdet_tf"
    return Path(cache) / "engines"


def find(folder: Path, key: Key) -> Engine | None:
    """The engine of this key, or None where there is none.

    Raises:
        BundleError: there is one, but it is damaged or of another key; or it or the folder is another user's, or others
            may write it.
    """
    return _read(folder, key.name, lambda found: found == key)


def current(folder: Path, key: Key) -> Engine | None:
    """The engine that was built or asked for last for this key's model and device, whatever its precision.

    Raises:
        BundleError: as of :func:`find`.
    """
    path = folder / f"{key.slot}.current"
    try:
        name = read_file(path, TEXT_BYTES, check=_private).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error})", remedy=_REMEDY) from error
    if len(name) != _DIGITS or not set(name) <= set("0123456789abcdef"):
        raise BundleError(f"{path}: damaged", remedy=_REMEDY)
    return _read(folder, name, lambda found: found.slot == key.slot)


def choose(folder: Path, key: Key) -> None:
    """Make this key's engine the one that :func:`current` gives."""
    write_text(folder / f"{key.slot}.current", key.name + "\n", mode=_MODE)


def store(folder: Path, key: Key, plan: bytes, golden: list[GoldenFrame], card: dict[str, Any]) -> Engine:
    """Keep an engine, in place of an older one of the same key, and :func:`choose` it. Call it within :func:`lock`."""
    answers = golden_bytes(golden)
    files = {f"{sha256_bytes(plan)}.plan": plan, f"{sha256_bytes(answers)}.npz": answers}
    for name, content in files.items():
        write_bytes(folder / name, content, mode=_MODE)
    told = {"format": FORMAT, "key": asdict(key), "files": list(files), "card": card}
    write_json(folder / f"{key.name}.json", told | {"sha256": _digest(told)}, mode=_MODE)
    choose(folder, key)
    _sweep(folder)
    return Engine(key, folder / next(iter(files)), plan, golden, card)


@contextmanager
def lock(folder: Path, log: Callable[[str], object]) -> Iterator[None]:
    """Hold the folder's lock: builds that ran at once would disturb the timings by which TensorRT chooses kernels.

    The system takes the lock back when a process dies. What a killed one left is removed.
    """
    import fcntl

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _private(folder, folder.stat())
    try:
        (folder / _LOCK).touch(_MODE)
        held = (folder / _LOCK).open("w")
    except OSError as error:
        raise BundleError(
            f"{folder / _LOCK}: cannot be written ({error.strerror})",
            remedy=f"build as the user whose folder it is, or name another by {VARIABLE}",
        ) from error
    with held as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another build is running here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        for left in folder.glob(".*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def _read(folder: Path, name: str, right: Callable[[Key], bool]) -> Engine | None:
    path = folder / f"{name}.json"
    try:
        data = read_file(path, check=_private)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", remedy=_REMEDY) from error
    _private(folder, folder.stat())
    try:
        told = json.loads(data)
        whole = told.pop("sha256") == _digest(told) and told["format"] == FORMAT
        key, card = Key(**told["key"]), dict(told["card"])
        plan_name, golden_name = told["files"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: damaged ({error})", remedy=_REMEDY) from error
    if not whole or key.name != name or not right(key):
        raise BundleError(f"{path}: damaged, or of another engine", remedy=_REMEDY)
    plan = _content(folder / plan_name)
    golden = read_golden(_content(folder / golden_name), where=str(folder / golden_name))
    return Engine(key, folder / plan_name, plan, golden, card)


def _content(path: Path) -> bytes:
    try:
        data = read_file(path, check=_private)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", remedy=_REMEDY) from error
    if sha256_bytes(data) != path.stem:
        raise BundleError(f"{path}: its SHA-256 is not the one in its name: changed or damaged", remedy=_REMEDY)
    return data


def _private(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise BundleError(
            f"{path}: belongs to user {status.st_uid}, and an engine is machine code",
            remedy=f"build it as the user who runs it; {VARIABLE} names the folder of engines",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BundleError(f"{path}: others may write it, and an engine is machine code", remedy=f"chmod go-w {path}")


def _sweep(folder: Path) -> None:
    # engines that no key leads to any more
    wanted: set[str] = set()
    for path in folder.glob("*.json"):
        try:
            wanted.update(json.loads(path.read_bytes())["files"])
        except (ValueError, KeyError, TypeError):
            path.unlink()  # find says so and builds again
    for path in (*folder.glob("*.plan"), *folder.glob("*.npz")):
        if path.name not in wanted:
            path.unlink()


def _digest(value: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())
