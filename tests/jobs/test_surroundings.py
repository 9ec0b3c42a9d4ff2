"""What fails around a training: the disk is full whatever is being written, or a picture vanishes in mid-epoch."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leakdet_tf.cli import main
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run.resume import is_finished
from leakdet_tf.jobs.run.runs import logger

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
WRITTEN = (
    "experiment.toml",
    "data.json",
    "contract.json",
    "last.keras",
    "best.keras",
    "history.csv",
    "weights.npz",
    "model.keras",
    "curves.png",
    "examples.png",
    "metrics.json",
    "report.png",
    "model.tflite",
    "finished.json",
)
"""Files of a run in the order in which they are written."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Overrides for a run of seconds."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        from few_layers import OVERRIDES

        own = ["train.epochs=2", "evaluate.resamples=100"]
        yield [*OVERRIDES, *own, f"data.root={folder / 'data'}", f"runs={folder / 'runs'}"]


@pytest.fixture(scope="module")
def whole(small: list[str]) -> str:
    """The weights of a run that nothing disturbed."""
    return served(fit(EXPERIMENT, small, log=lambda line: None).folder)


def served(run: Path) -> str | None:
    assert is_finished(run)
    return Contract.load(run / "contract.json").weights_sha256


def test_a_full_disk_is_one_line_whatever_is_written_and_costs_nothing_once_there_is_room(
    small: list[str],
    whole: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The disk is full at one file after the other; each time there is room again, and the run is resumed."""
    sets = [part for one in [*small, f"runs={tmp_path}"] for part in ("--set", one)]
    real, full = os.fsync, ""

    def fsync(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name.endswith(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    trained = []
    for full in WRITTEN:
        again = ["--resume", str(tmp_path / "gas_unet")] if list(tmp_path.glob("*/*")) else []
        assert main(["fit", EXPERIMENT, *sets, *again]) == 2, full
        said, errors = capsys.readouterr()
        line = next(one for one in errors.splitlines() if one.startswith("leakdet-tf: "))
        assert errors.splitlines()[-1] == line, full
        assert "No space left on device" in line, full
        assert full in line or full == "weights.npz", line
        assert str(tmp_path) in line
        trained += [int(one.split("/")[0].removeprefix("epoch ")) for one in said.splitlines() if "  val_loss " in one]
    monkeypatch.undo()
    folder = fit(EXPERIMENT, [*small, f"runs={tmp_path}"], log=lambda line: None, resume=str(tmp_path / "gas_unet"))
    assert served(folder.folder) == whole
    assert len(list((tmp_path / "gas_unet").iterdir())) == 1
    assert not list(folder.folder.rglob(".*"))
    assert max(trained.count(1), trained.count(2)) <= 4, "an epoch whose checkpoint was there was trained again"


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        logger(tmp_path / "log.txt", print)("a line")
    assert caught.value.filename == str(tmp_path / "log.txt")


def vanishing(picture: Path, place: Path, lines: list[str]) -> Callable[[str], None]:
    """A log that takes a picture away when the first epoch ends."""

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 1/"):
            shutil.move(picture, place)

    return log


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_picture_that_vanishes_in_mid_epoch(part: str, small: list[str], whole: str, tmp_path: Path) -> None:
    """Training has read it. Who asks for it afterwards names it; put back, the run goes on without training again."""
    data = Path(next(one for one in small if one.startswith("data.root=")).removeprefix("data.root="))
    mine = Path(shutil.copytree(data, tmp_path / "data"))
    own = [*small, "export.formats=[]", f"data.root={mine}", f"runs={tmp_path / 'runs'}"]
    picture, lines = sorted((mine / part / "images").iterdir())[0], list[str]()
    log = vanishing(picture, tmp_path / "away", lines)
    if part == "train":
        assert served(fit(EXPERIMENT, own, log=log).folder) == whole
        return
    with pytest.raises(LeakdetError, match=picture.name) as caught:
        fit(EXPERIMENT, own, log=log)
    assert str(caught.value).isprintable()
    assert [line for line in lines if line.startswith("epoch 2/")]
    with pytest.raises(LeakdetError, match=picture.stem):
        fit(EXPERIMENT, own, log=log, resume=str(tmp_path / "runs" / "gas_unet"))
    shutil.move(tmp_path / "away", picture)
    lines.clear()
    run = fit(EXPERIMENT, own, log=lines.append, resume=str(tmp_path / "runs" / "gas_unet")).folder
    assert served(run) == whole
    assert not [line for line in lines if line.startswith("epoch ")]
