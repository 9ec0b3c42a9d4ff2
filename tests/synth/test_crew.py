"""Worker processes: the same bytes as without them, errors in one line, and nobody left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import leakdet_tf
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.synth.folder import crew
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import render_folder

ASKED: dict[str, Any] = {"generator": "gas", "counts": {"train": 9, "test": 4}, "size": (32, 48), "seed": 5}

GENERATORS = """
import os
from leakdet_tf.core.errors import ConfigError
from leakdet_tf.synth.gas.generator import render

def refuses(seed, size):
    raise ConfigError("no such plant", remedy="draw another")

def breaks(seed, size):
    print("printed text must not come between")
    raise ValueError("no scene")

def killed(seed, size):
    os.kill(os.getpid(), 9)

def leaves(seed, size):
    os._exit(7)

def talks(seed, size, *, count=1):
    print("hello\\n" * count)
    os.write(1, b"raw")
    return render(seed, size)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own on this process's path only; returns a folder for data."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_crew.py").write_text(GENERATORS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def _fill(root: Path, *, workers: int | None = None, **changes: Any) -> list[int]:
    return list(render_folder(root, Request(**(ASKED | changes)), workers=workers))


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _children() -> set[int]:
    done = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return {int(line.split()[0]) for line in done.stdout.splitlines() if "leakdet_tf.synth.folder.worker" in line}


@pytest.mark.parametrize("changes", [{}, {"clip": 3, "options": {"look": "visible"}}])
def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path, changes: dict[str, Any]) -> None:
    for workers in (1, 2, 3):
        assert _fill(tmp_path / str(workers), workers=workers, **changes) == list(range(1, 14))
    one = _bytes(tmp_path / "1")
    assert len(one) == 27
    assert _bytes(tmp_path / "2") == one
    assert _bytes(tmp_path / "3") == one


def test_few_pictures_are_rendered_here_and_many_by_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = crew._Worker

    def counted(request: Request) -> crew._Worker:
        started.append(request)
        return real(request)

    monkeypatch.setattr(crew, "_Worker", counted)
    monkeypatch.setattr(crew, "cores", lambda: 3)
    _fill(tmp_path / "few")
    assert started == []
    _fill(tmp_path / "many", counts={"train": crew.FEW})
    assert len(started) == 3
    assert crew.cores() == 3
    assert not _children()


def test_what_a_generator_prints_does_not_come_between(own: Path) -> None:
    _fill(own / "gas", generator="own_crew:talks", workers=2, options={"count": 5000})
    _fill(own / "plain")
    manifests = [json.loads((own / name / "manifest.json").read_text(encoding="utf-8")) for name in ("gas", "plain")]
    hashes = [[one["sha256"] for one in manifest["pictures"]] for manifest in manifests]
    assert hashes[0] == hashes[1]


def test_a_refusal_in_a_worker_is_the_same_error_here(own: Path) -> None:
    for workers in (1, 2):
        with pytest.raises(ConfigError) as caught:
            _fill(own / "gas", generator="own_crew:refuses", workers=workers)
        assert str(caught.value) == "no such plant; draw another"
    assert list(own.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shown"), [("breaks", "ValueError: no scene"), ("leaves", "its worker ended with status 7")]
)
def test_a_crash_in_a_worker_is_one_line(own: Path, name: str, shown: str) -> None:
    with pytest.raises(DataError, match=shown) as caught:
        _fill(own / "gas", generator=f"own_crew:{name}", workers=2)
    assert f"own_crew:{name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--workers 1" in caught.value.remedy
    assert list(own.iterdir()) == []
    assert not _children()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_a_killed_worker_points_to_memory_not_to_the_generator(own: Path) -> None:
    with pytest.raises(DataError, match=r"killed \(signal 9\)") as caught:
        _fill(own / "gas", generator="own_crew:killed", workers=2)
    assert "fewer --workers" in caught.value.remedy
    assert list(own.iterdir()) == []
    assert not _children()


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_stopping_ends_the_workers_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    running = render_folder(tmp_path / "gas", Request(**(ASKED | {"counts": {"train": 500}})), workers=2)
    assert next(running) == 1
    assert len(_children()) == 2
    if how == "close":
        running.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            running.throw(KeyboardInterrupt())
    assert not _children()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from leakdet_tf.synth.folder.writer import render_folder\n"
        "from leakdet_tf.synth.folder.request import Request\n"
        f"for done in render_folder(Path({str(tmp_path / 'gas')!r}),"
        " Request('gas', {'train': 99999}, (32, 32), 1), workers=2):\n    print(done, flush=True)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(leakdet_tf.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
        )
        workers = [int(word) for word in listed.stdout.split()]
        process.kill()
        process.wait()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")
