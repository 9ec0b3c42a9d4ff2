"""Rows on the disk: as a NumPy array gives them, and nothing is left of their file whatever happens."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.errors import DataError
from leakdet_tf.data.store import Store, Stored, file_system, size_text
from tests.disks import MOUNTS, WHY, mounted

SHAPE = (9, 4, 5, 3)
PLENTY = 1 << 60
HOLDER = """
import sys
from pathlib import Path
from leakdet_tf.data.store import Store
rows = Store(Path(sys.argv[1]), 1 << 20).rows((4, 1 << 18), "uint8")
rows[2] = 7
print("held", flush=True)
sys.stdin.read()
"""
WRITER = """
import shutil, sys
from pathlib import Path
from leakdet_tf.core.errors import DataError
from leakdet_tf.data.store import Store
real = shutil.disk_usage
shutil.disk_usage = lambda folder, told=[]: real(folder) if told else told.append(1) or real("/")._replace(free=1 << 60)
try:
    rows = Store(Path(sys.argv[1]), int(sys.argv[2])).rows((1, int(sys.argv[2])), "uint8")
    rows[0] = 1
    print("written", rows[0].sum())
except DataError as error:
    print(error)
"""


def one_line(caught: pytest.ExceptionInfo[DataError]) -> str:
    assert str(caught.value).isprintable()
    return str(caught.value)


def numbers(dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, SHAPE, endpoint=True).astype(dtype)


def stored(folder: Path, array: np.ndarray) -> Stored:
    rows = Store(folder, array.nbytes).rows(array.shape, array.dtype)
    for place in reversed(range(len(array))):
        rows[place] = array[place]
    return rows


KEYS: list[Any] = [
    0,
    -1,
    np.int64(3),
    slice(2, 7, 2),
    slice(None),
    [4, 4, 0],
    [],
    np.array([8, 0, 8]),
    np.array([[1, 2], [3, -1]]),
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_rows_are_taken_as_from_an_array(dtype: str, tmp_path: Path) -> None:
    array = numbers().astype(dtype) if dtype == "float32" else numbers(dtype)
    rows = stored(tmp_path, array)
    assert (rows.shape, rows.dtype, len(rows)) == (array.shape, array.dtype, len(array))
    for key in KEYS:
        found = rows[key]
        assert found.dtype == array.dtype and found.flags.writeable
        np.testing.assert_array_equal(found, array[key])
    for one, other in zip(rows, array, strict=True):
        np.testing.assert_array_equal(one, other)
    for beyond in (9, -10, [0, 9]):
        with pytest.raises(IndexError):
            rows[beyond]
    with pytest.raises(IndexError):
        rows[9] = 0


def test_what_is_taken_is_a_copy_and_what_is_put_is_cast_as_in_an_array(tmp_path: Path) -> None:
    rows = stored(tmp_path, numbers())
    rows[1][:] = 0
    np.testing.assert_array_equal(rows[1], numbers()[1])
    rows[1] = 7
    assert (rows[1] == 7).all()
    rows[1] = np.full((4, 5, 1), 300, np.int64) - 100
    assert (rows[1] == 200).all()
    with pytest.raises(ValueError, match="broadcast"):
        rows[1] = np.zeros((5, 5, 3))
    np.testing.assert_array_equal(rows[0], numbers()[0])
    np.testing.assert_array_equal(rows[2], numbers()[2])


def test_it_does_not_become_an_array_unasked(tmp_path: Path) -> None:
    rows = stored(tmp_path, numbers())
    for whole in (np.asarray, np.unique, lambda one: np.zeros(SHAPE) + one):
        with pytest.raises(TypeError, match="rows on the disk"):
            whole(rows)


def test_parts_of_one_store_lie_side_by_side(tmp_path: Path) -> None:
    wide, narrow = numbers("uint16"), numbers(seed=1)[..., 0]
    store = Store(tmp_path, wide.nbytes + narrow.nbytes)
    first, second = store.rows(wide.shape, wide.dtype), store.rows(narrow.shape, "uint8")
    for place in range(9):
        second[place], first[place] = narrow[place], wide[place]
    np.testing.assert_array_equal(first[:], wide)
    np.testing.assert_array_equal(second[:], narrow)
    store.flush()
    with pytest.raises(ValueError, match="of rows in a store of"):
        store.rows((1,), "uint8")


@pytest.mark.parametrize("absent", [[], ["preadv", "pwrite", "posix_fallocate"]])
def test_threads_read_and_write_at_once(absent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a system knows no reading at a place (Windows) and no reserving (macOS)."""
    for name in absent:
        monkeypatch.delattr(os, name)
    array = np.random.default_rng(0).integers(0, 256, (300, 64, 64), dtype=np.uint8)
    rows = Store(tmp_path, array.nbytes).rows(array.shape, array.dtype)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda place: rows.__setitem__(place, array[place]), range(300)))
        orders = [np.random.default_rng(seed).permutation(300) for seed in range(16)]
        for order, found in zip(orders, pool.map(rows.__getitem__, orders), strict=True):
            np.testing.assert_array_equal(found, array[order])


def test_a_disk_that_takes_and_gives_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: write(handle, data[:7], offset))
    monkeypatch.setattr(os, "preadv", lambda handle, into, offset: read(handle, [into[0][:11]], offset))
    np.testing.assert_array_equal(stored(tmp_path, numbers())[:], numbers())


def test_two_at_once_in_one_folder_are_apart_and_have_no_names(tmp_path: Path) -> None:
    first, second = (stored(tmp_path / "runs", numbers(seed=seed)) for seed in (1, 2))
    np.testing.assert_array_equal(first[:], numbers(seed=1))
    np.testing.assert_array_equal(second[:], numbers(seed=2))
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc, to see files that have no name")
def test_the_file_goes_with_its_last_rows_and_its_room_before_if_asked(tmp_path: Path) -> None:
    def handles() -> list[Path]:
        links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [path for path in links if str(path.readlink()).startswith(str(tmp_path))]

    rows = stored(tmp_path, numbers())
    (handle,) = handles()
    assert handle.stat().st_blocks * 512 >= numbers().nbytes
    rows.store.release()
    assert handle.stat().st_blocks == 0
    with pytest.raises(DataError, match="Input/output error"):
        rows[0]
    del rows
    gc.collect()
    assert not handles()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kill_leaves_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert not list(tmp_path.iterdir())
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert not list(tmp_path.iterdir())


def test_more_than_the_disk_holds_is_said_at_once(tmp_path: Path) -> None:
    """And before anything is taken from others."""
    with pytest.raises(DataError, match=r"decoded pictures take 1073741824\.0 GiB of disk, .* are free") as caught:
        Store(tmp_path, PLENTY)
    assert one_line(caught).startswith(f"{tmp_path}: ")
    assert "another disk" in one_line(caught)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_room_that_is_promised_and_not_given(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(DataError, match="of disk") as caught:
        Store(tmp_path, 1000)
    assert os.strerror(code) in one_line(caught)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_that_cannot_reserve_is_used_without(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    np.testing.assert_array_equal(stored(tmp_path, numbers())[:], numbers())


def test_a_disk_that_does_not_tell_its_room_is_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network disks say that they have 0 bytes in all."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(stored(tmp_path, numbers())[:], numbers())


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_fills_up_meanwhile(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rows = stored(tmp_path, numbers())
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(DataError, match="No space left on device; free some room") as caught:
        rows.__setitem__(0, 1) if call == "pwrite" else rows.store.flush()
    assert one_line(caught).startswith(f"{tmp_path}: ")


def test_a_disk_that_fails_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    rows = stored(tmp_path, numbers())
    monkeypatch.setattr(os, "preadv", refuse)
    with pytest.raises(DataError, match="Input/output error; check the disk") as caught:
        rows[3]
    assert rows.store.failure is caught.value
    assert one_line(caught).startswith(f"{tmp_path}: ")


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(DataError, match="cannot be written there") as caught:
        Store(tmp_path / "runs", 10)
    assert one_line(caught).startswith(f"{tmp_path / 'runs'}: ")


@pytest.mark.skipif(not MOUNTS, reason=WHY)
@pytest.mark.parametrize(
    ("options", "size", "said"),
    [
        ("size=1m", 1 << 19, "written"),
        ("size=1m", 1 << 21, "decoded pictures take 2 MiB of disk, 1 MiB are free (No space left on device)"),
        ("size=1m,ro", 1, "decoded pictures cannot be written there (Read-only file system)"),
    ],
)
def test_a_real_disk_that_is_small_or_may_only_be_read(options: str, size: int, said: str, tmp_path: Path) -> None:
    """``disk_usage`` is not asked first, so that it is the kernel that refuses."""
    command = [*mounted(tmp_path, options), sys.executable, "-c", WRITER]
    done = subprocess.run([*command, str(tmp_path), str(size)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(said if said == "written" else f"{tmp_path}: {said}; ")


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    lines = ["sda / ext4 rw 0 0", "t /dev/shm tmpfs rw 0 0", r"b /mnt/a\040b xfs rw 0 0", r"c /mnt/a\040b ramfs rw 0 0"]
    mounts.write_text("\n".join(lines) + "\n")
    asked = {"/dev/shm/runs": "tmpfs", "/dev/shmall": "ext4", "/mnt/a b/c": "ramfs", "/mnt": "ext4", "/": "ext4"}
    assert {place: file_system(Path(place), mounts) for place in asked} == asked
    assert file_system(tmp_path, tmp_path / "absent") == ""


def test_sizes_in_words() -> None:
    assert [size_text(size) for size in (60 << 20, 1 << 30, 13_207_024_435)] == ["60 MiB", "1.0 GiB", "12.3 GiB"]
