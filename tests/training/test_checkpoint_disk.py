"""Checkpoints on a disk that is full: what was there before stays, and nothing half written is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.training import checkpoint as room
from leakdet_tf.training.checkpoint import found, newest
from tests.disks import MOUNTS, WHY, mounted

Job = Any
WRITER = """
import sys
from pathlib import Path
import numpy as np
from leakdet_tf.training.checkpoint import Snapshot, State, found, newest, write

def sized(epoch, size):
    state = State(epoch, 1, 0, False, 0.5, 0.5, epoch, "", [], {})
    return Snapshot(state, [np.ones(size, np.uint8)], [np.zeros(1)], {})

folder = Path(sys.argv[1])
write(folder, sized(1, 100_000), keep=1)
for size in (2_000_000, 925_000):  # the second by its last bytes
    try:
        write(folder, sized(2, size), keep=1)
    except OSError as error:
        print(error.strerror)
print(newest(folder, log=print).state.epoch, [path.name for path in folder.iterdir()])
write(folder, sized(2, 100_000), keep=1)
print([path.name for path in found(folder)])
"""


def test_a_full_disk_is_one_line_and_keeps_what_was_there(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = np.savez, []

    def full(path: Path, **arrays: Any) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, **arrays)

    monkeypatch.setattr(room.np, "savez", full)
    with pytest.raises(TrainingError, match="No space left") as caught:
        job.run(epochs=2)
    assert str(caught.value).isprintable()
    assert "checkpoints" in str(caught.value)
    assert [path.name for path in found(job.folder / "checkpoints")] == ["epoch-0001"]
    assert newest(job.folder / "checkpoints", log=pytest.fail) is not None
    assert not list((job.folder / "checkpoints").glob(".*"))


@pytest.mark.skipif(not MOUNTS, reason=WHY)
def test_a_real_disk_that_is_full(tmp_path: Path) -> None:
    command = [*mounted(tmp_path, "size=1m"), sys.executable, "-c", WRITER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    full = os.strerror(errno.ENOSPC)
    assert done.stdout.splitlines() == [full, full, "1 ['epoch-0001']", "['epoch-0002']"]
