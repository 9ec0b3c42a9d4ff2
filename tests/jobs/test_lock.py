"""The lock of a run: what is there whole, what is not a lock, and disks without locks of the kernel's."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.core.errors import DataError, TrainingError
from leakdet_tf.core.files import host, own_mark
from leakdet_tf.jobs import fit as fit_room
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run import resume as room
from leakdet_tf.jobs.run import runs
from leakdet_tf.jobs.run.resume import FINISHED, LOCK, drop_dead_lock, find_run, locked, note_on_kill
from leakdet_tf.jobs.run.runs import check_run, create_run

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
HERE = platform.node()


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no locks of the kernel's."""
    monkeypatch.setattr(room, "_flock", lambda handle: None)


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", f'{{"host": "{HERE}"}}', f'{{"host": "{HERE}", "pid": "one"}}'],
)
@pytest.mark.usefixtures("without_flock")
def test_what_tells_no_process_is_one_line_with_a_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(text)
    with (
        pytest.raises(TrainingError, match=rf"is at work in this run; .*delete {tmp_path}") as caught,
        locked(tmp_path),
    ):
        pytest.fail("somebody may just be writing it")
    assert str(caught.value).isprintable()
    assert (tmp_path / LOCK).read_text() == text


@pytest.mark.parametrize("text", [f'{{"host": "{HERE}"}}', f'{{"host": "{HERE}", "pid": "one"}}', "\udcff"])
def test_where_the_kernel_tells_that_nobody_holds_it_it_is_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_bytes(text.encode(errors="surrogateescape"))
    with locked(tmp_path) as killed:
        assert not killed
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.usefixtures("without_flock")
def test_a_number_that_another_process_has_by_now_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"pid": os.getppid(), "host": HERE, "job": ""}))
    with (
        pytest.raises(TrainingError, match=rf"if it is no fit of this run, or gone, delete {tmp_path}"),
        locked(tmp_path),
    ):
        pass
    (tmp_path / LOCK).write_text(json.dumps({"pid": 2**70, "host": HERE, "job": ""}))
    with locked(tmp_path):
        pass


@pytest.mark.usefixtures("without_flock")
def test_of_two_at_once_one_makes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other comes while it is still empty."""
    real, refused = room._holder, []

    def held(handle: int) -> dict[str, Any]:
        if not refused:
            refused.append(True)
            with pytest.raises(TrainingError, match="at work"), locked(tmp_path):
                pytest.fail("both are in")
        return real(handle)

    monkeypatch.setattr(room, "_holder", held)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_another_s_lock_is_not_removed(tmp_path: Path) -> None:
    """Somebody deleted ours as the remedy says, and began."""
    with locked(tmp_path):
        (tmp_path / "other").write_text("{}")
        (tmp_path / "other").rename(tmp_path / LOCK)
    assert (tmp_path / LOCK).read_text() == "{}"


def test_the_process_that_was_killed_is_told(tmp_path: Path) -> None:
    pid = dead()
    (tmp_path / LOCK).write_text(json.dumps({"pid": pid, "host": HERE, "job": ""}))
    with locked(tmp_path) as killed:
        assert killed == pid
    with locked(tmp_path) as killed:
        assert not killed
    said = note_on_kill(pid, 8)
    assert said.isprintable()
    assert f"process {pid} was killed" in said
    assert said.endswith("begin a new run with train.batch_size = 4")
    assert note_on_kill(1, 1).endswith("a smaller data.inputs size")


def test_a_finished_run_that_may_not_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / FINISHED).write_text("{}")
    (tmp_path / LOCK).write_text(json.dumps({"pid": dead(), "host": HERE, "job": ""}))

    def read_only(*_: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    drop_dead_lock(tmp_path)
    lines: list[str] = []
    fit(EXPERIMENT, [], log=lines.append, resume=str(tmp_path))
    assert lines == [f"{tmp_path}: finished already, nothing is left to do"]


def test_a_run_folder_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs.shutil, "rmtree", lambda *_, **__: None)  # nothing happens after a kill
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            create_run(str(tmp_path), "x")
    (left,) = (tmp_path / "x").iterdir()
    assert left.name.startswith(".")
    synced: list[Path] = []
    monkeypatch.setattr(runs, "sync_folder", synced.append)
    folder = create_run(str(tmp_path), "x")
    assert (folder / "checkpoints").is_dir()
    assert synced == [tmp_path / "x", tmp_path]
    assert find_run(str(tmp_path / "x")) == folder
    assert len(list((tmp_path / "x").iterdir())) == 2


def test_what_a_killed_process_left_without_a_name_is_swept(tmp_path: Path) -> None:
    """Only of this machine, of processes that are dead, and only what holds nothing."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from leakdet_tf.jobs.run.runs import create_run\n"
        "Path.rename = lambda *_: os._exit(9)\n"
        "create_run(sys.argv[1], 'x')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 9
    (left,) = (tmp_path / "x").iterdir()
    assert f".{host()}-" in left.name
    end = left.name[-32:]
    kept = {
        "at work": f".20260102-030405.{own_mark()}.{end}",
        "elsewhere": f".20260102-030405.{host()}2-{dead()}.{end}",
        "of an older version": f".20260102-030405.{end}",
        "not ours": f".20260102.{host()}-{dead()}",
        "holds something": f".20260102-030405.{host()}-{dead()}.{end}",
    }
    for name in kept.values():
        (tmp_path / "x" / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "x" / kept["holds something"] / "checkpoints" / "last.keras").touch()
    begun = f".20260102-030406.{host()}-{dead()}.{end}"
    (tmp_path / "x" / begun).mkdir()
    folder = create_run(str(tmp_path), "x")
    assert {path.name for path in (tmp_path / "x").iterdir()} == {folder.name, *kept.values()}
    assert (tmp_path / "x" / kept["holds something"] / "checkpoints" / "last.keras").is_file()


def test_a_folder_that_is_there_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = create_run(str(tmp_path), "x")
    stamp = first.name[:15]

    class Now:
        @staticmethod
        def now() -> Now:
            return Now()

        def strftime(self, form: str) -> str:
            return stamp

    monkeypatch.setattr(runs, "datetime", Now)
    (tmp_path / "x" / f"{stamp}-2").mkdir()
    assert create_run(str(tmp_path), "x").name == f"{stamp}-3"
    monkeypatch.setattr(Path, "exists", lambda path: False)  # made between the question and the renaming
    assert create_run(str(tmp_path), "x").name in (f"{stamp}-2", f"{stamp}-4")
    assert not [path for path in (tmp_path / "x").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("way", ["file", "right"])
def test_runs_that_cannot_be_written_are_told_before_any_work(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_room, "_fit", lambda *_: pytest.fail("it went on"))
    place = tmp_path / "runs"
    if way == "file":
        place.write_text("")
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(DataError, match=rf"^{place}/gas_unet: cannot be made .*; set runs to a folder"):
        fit(EXPERIMENT, [f"runs={place}"], log=lambda line: None)
    assert way == "file" or not place.exists()


def test_a_mistyped_root_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_room, "_fit", lambda *_: pytest.fail("it went on"))
    text = Path(EXPERIMENT).read_text().split("[data.synth]")[0]
    (tmp_path / "own.toml").write_text(f'{text}\n[model]\nfactory = "unet"\n')
    with pytest.raises(DataError, match=rf"^{tmp_path}/dtaa: no such folder; set data.root"):
        fit(str(tmp_path / "own.toml"), [f"data.root={tmp_path}/dtaa", f"runs={tmp_path}/runs"], log=pytest.fail)
    assert not (tmp_path / "runs").exists()


def test_a_place_that_is_yet_to_be_made_is_none_to_complain_of(tmp_path: Path) -> None:
    check_run(str(tmp_path / "a" / "b"), "x")
    assert not list(tmp_path.iterdir())
