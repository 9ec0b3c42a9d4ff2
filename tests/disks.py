"""Small disks of a child process's own, for what happens when one is full or may not be written."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path


def mounted(place: Path, options: str) -> list[str]:
    """What to put before a command, so that it finds an empty disk at ``place``; nobody else does."""
    return ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"', str(place)]


def _can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    with tempfile.TemporaryDirectory() as place:
        return not subprocess.run(
            [*mounted(Path(place), "size=1m"), "true"], capture_output=True, check=False
        ).returncode


MOUNTS = _can_mount()
WHY = "needs a kernel that lets this user mount a disk of its own (unshare -rm)"
