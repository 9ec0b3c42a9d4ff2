"""How a file reaches the disk whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut (no-op on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def host() -> str:
    """This machine's name in letters that a file's name may hold; machines that share a disk have different ones."""
    return re.sub(r"[^A-Za-z0-9._]", "_", platform.node())[-64:]


def own_mark() -> str:
    """``HOST-PID``: ends the name of what only this process may touch, on a disk that other machines share too."""
    return f"{host()}-{os.getpid()}"


def lives(pid: int) -> bool:
    """Whether a process of that number runs on this machine. Windows cannot be asked (signal 0 is Ctrl-C): it does."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def left_by_the_dead(folder: Path, prefix: str) -> list[Path]:
    """What is called ``prefix`` and an :func:`own_mark` of a process of this machine that no longer runs; what bears
    this one's number counts too, as it is from before."""
    ours = f"{prefix}{host()}-"
    named = [(path, path.name.removeprefix(ours)) for path in folder.iterdir() if path.name.startswith(ours)]
    return [path for path, pid in named if pid.isdecimal() and (int(pid) == os.getpid() or not lives(int(pid)))]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on any error it is removed.

    The temporary name keeps the suffix, because savers such as Keras choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:  # a full disk names no file, other errors the temporary one
        if error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Its permissions are those of ``mode`` that the process's umask leaves.
    """
    with whole_file(path) as temporary:
        temporary.touch(mode)
        temporary.write_bytes(data)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files, the first of which is replaced when all are on the disk: an error before leaves the old.

    No disk renames two files at once: a process that is killed between the renames leaves the last of them new.
    """
    with ExitStack() as stack:
        for path, data in files.items():
            temporary = stack.enter_context(whole_file(path))
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


def write_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """UTF-8 text through :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"), mode=mode)


def write_json(path: Path, value: Any, *, mode: int = 0o666) -> None:
    """:func:`json_text` through :func:`write_bytes`."""
    write_text(path, json_text(value), mode=mode)


def json_text(value: Any) -> str:
    """Indented JSON with a final newline. NaN and infinity are refused: they are not JSON."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
