"""``fit`` with its pictures on the disk: the same weights, also when it is resumed otherwise; faults are one line."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.cli import main
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError
from leakdet_tf.data import cache as room
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run.resume import is_finished

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
KEPT = "decoded pictures are kept on the disk: "


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Overrides for a run of seconds."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        from few_layers import OVERRIDES

        own = ["train.epochs=2", "evaluate.resamples=100", "export.formats=[]"]
        yield [*OVERRIDES, *own, f"data.root={folder / 'data'}", f"runs={folder / 'runs'}"]


@pytest.fixture(scope="module")
def whole(small: list[str]) -> str:
    """The weights of a run whose pictures are in memory."""
    lines: list[str] = []
    found = served(fit(EXPERIMENT, [*small, "data.cache=memory"], log=lines.append).folder)
    assert not [line for line in lines if KEPT in line]
    return found


def served(run: Path) -> str:
    assert is_finished(run)
    digest = Contract.load(run / "contract.json").weights_sha256
    assert digest
    return digest


def handles(folder: Path) -> list[Path]:
    """This process's open files in a folder that have no name any more."""
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    said = {path: str(path.readlink()) for path in links}
    return [path for path, name in said.items() if name.startswith(str(folder)) and name.endswith("(deleted)")]


def ending(lines: list[str], act: Callable[[], Any]) -> Callable[[str], None]:
    """A log that acts when the first epoch's line comes."""

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 1/"):
            act()

    return log


@pytest.mark.parametrize("where", ["disk", "auto"])
def test_the_weights_are_those_from_memory(
    where: str, small: list[str], whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "auto":
        monkeypatch.setattr(room, "free_bytes", lambda: 4096)
    run = fit(EXPERIMENT, [*small, f"runs={tmp_path}", f"data.cache={where}"], log=lambda line: None).folder
    assert served(run) == whole
    said = [line for line in (run / "log.txt").read_text().splitlines() if KEPT in line]
    assert len(said) == 1
    assert said[0].endswith(f"{KEPT}0 MiB in {tmp_path}")
    assert ("12 pictures take 0 MiB of memory at the model's size, 0 MiB are free: " in said[0]) == (where == "auto")
    assert [path.name for path in tmp_path.iterdir()] == ["gas_unet"]
    assert not list(run.rglob(".*"))
    if Path("/proc/self/fd").is_dir():
        assert not [path for path in handles(tmp_path) if path.stat().st_blocks], "its room is held after the run"


@pytest.mark.parametrize(("before", "after"), [("memory", "disk"), ("disk", "memory")])
def test_a_run_may_be_resumed_from_elsewhere(
    before: str, after: str, small: list[str], whole: str, tmp_path: Path
) -> None:
    mine, lines = [*small, f"runs={tmp_path}"], list[str]()
    log = ending(lines, lambda: os.kill(os.getpid(), signal.SIGTERM))
    done = fit(EXPERIMENT, [*mine, f"data.cache={before}"], log=log)
    assert done.terminated
    lines.clear()
    again = fit(EXPERIMENT, [*mine, f"data.cache={after}"], log=lines.append, resume=str(done.folder))
    assert "resumed from checkpoint epoch-0001: 1 epoch done" in lines
    assert any(KEPT in line for line in lines) == (after == "disk")
    assert served(again.folder) == whole


def test_a_full_disk_is_one_line_before_any_picture_is_read(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: Path) -> Any:
        return real(folder)._replace(free=1000)

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", full)
    sets = [part for one in [*small, f"runs={tmp_path / 'runs'}", "data.cache=disk"] for part in ("--set", one)]
    assert main(["fit", EXPERIMENT, *sets]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith(
        f"leakdet-tf: {tmp_path / 'runs'}: decoded pictures take 0 MiB of disk, 0 MiB are free"
    )
    assert "No space left on device" in errors[-1]
    assert not [line for line in errors if line.startswith("reading ")]
    assert not list((tmp_path / "runs").iterdir())


def test_a_disk_that_fails_in_mid_epoch_costs_that_epoch(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, read = list[bool](), os.preadv

    def preadv(handle: int, into: Any, offset: int) -> int:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(handle, into, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    mine = [*small, f"runs={tmp_path}", "data.cache=disk", "train.epochs=60"]  # more than what is made ahead
    with pytest.raises(DataError, match="Input/output error; check the disk; fit --resume goes on") as caught:
        fit(EXPERIMENT, mine, log=ending([], lambda: failing.append(True)))
    assert str(caught.value).startswith(f"{tmp_path}: ") and str(caught.value).isprintable()
    assert list((tmp_path / "gas_unet").glob("*/checkpoints/epoch-*"))
