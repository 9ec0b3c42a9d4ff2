"""Checkpoints: going on from one is as if training had never stopped, and a damaged one is never used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.train import Train
from leakdet_tf.core.errors import TrainingError
from leakdet_tf.data.pipeline import plain, steps
from leakdet_tf.models.runtime import load_model, weights_sha256
from leakdet_tf.training import checkpoint as room
from leakdet_tf.training.checkpoint import KEPT, SUMS, State, clean, found, newest, take, write
from leakdet_tf.training.loop import Account, Feed, Outcome, train

Job = Any
FILES = ("state.json", "weights.npz", "optimizer.npz", SUMS)
STAGED = {
    "batch_size": 4,
    "learning_rate": 1e-2,
    "patience": 0,
    "schedule": "cosine",
    "warmup": 2,
    "weight_decay": 0.01,
    "stage": [{"epochs": 1, "train": ["head"], "warmup": 0}, {"epochs": 3, "train": ["all"]}],
}


def run(job: Job, *, start: Any = None, settings: dict[str, Any] | None = None) -> Outcome:
    """As ``Job.run``, from a checkpoint."""
    train_settings = Train.model_validate(settings or STAGED)
    size = train_settings.batch_size
    return train(
        job.model,
        job.contract,
        train_settings,
        Feed(
            training=lambda first, end, step: job.stream(end, size, first, step),
            validation=plain(job.val_cache, batch_size=size),
            pictures=len(job.train_cache),
            steps=steps(len(job.train_cache), size),
        ),
        Account(job.folder, job.log, {"experiment.toml": "e" * 64}),
        start=start,
    )


def bits(model: Any) -> list[bytes]:
    return [keras.ops.convert_to_numpy(variable).tobytes() for variable in model.variables]


def quiet(line: str) -> None:
    pass


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, make_job: Callable[..., Job], make_layered: Callable[[int], Any]
) -> tuple[Job, Outcome, dict[int, Path]]:
    """A staged training, its outcome, and copies of its folder as a kill during epoch k would have left it."""
    parent = tmp_path_factory.mktemp("unbroken")
    job = make_job(parent / "run", make_layered(0))
    left: dict[int, Path] = {}

    def log(line: str) -> None:
        if line.startswith("epoch "):  # after best, last and history were written, before the checkpoint
            number = int(line.split()[1].split("/")[0])
            left[number] = Path(shutil.copytree(job.folder, parent / f"killed{number}"))

    job.log = log
    return job, run(job), left


@pytest.fixture
def two(tmp_path: Path, make_tiny: Callable[..., Any]) -> tuple[Path, Any, Any]:
    """A folder with two checkpoints, and their model and optimizer."""
    model = make_tiny()
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    for epoch in (1, 2):
        optimizer.iterations.assign(epoch)
        write(tmp_path, take(state(epoch), model, optimizer))
    return tmp_path, model, optimizer


def state(epoch: int, **parts: Any) -> State:
    rows = [{"epoch": number + 1, "loss": 1 / 3, "val_iou_none": float("nan")} for number in range(epoch)]
    values = {
        "stage": 1,
        "begun": 0,
        "stopped_early": False,
        "best_value": 0.1 + 0.2,
        "best_loss": float("inf"),
        "best_epoch": epoch,
        "best_sha256": "b" * 64,
        "rows": rows,
        "identity": {"train": "d" * 64},
    }
    return State(epoch=epoch, **(values | parts))


@pytest.mark.parametrize("epoch", [2, 3, 4])
def test_a_resumed_run_ends_bit_for_bit_as_the_unbroken_one(
    epoch: int,
    unbroken: tuple[Job, Outcome, dict[int, Path]],
    make_job: Callable[..., Job],
    make_layered: Callable[[int], Any],
    tmp_path: Path,
) -> None:
    whole, outcome, left = unbroken
    folder = Path(shutil.copytree(left[epoch], tmp_path / "run"))
    job = make_job(folder, make_layered(99))
    start = newest(folder / "checkpoints", log=quiet)
    assert start is not None
    assert start.state.epoch == epoch - 1
    assert (start.state.stage, start.state.begun) == ((1, 0) if epoch == 2 else (2, 1))
    assert run(job, start=start) == outcome
    assert bits(job.model) == bits(whole.model)
    assert (folder / "history.csv").read_bytes() == (whole.folder / "history.csv").read_bytes()
    ends = [newest(one / "checkpoints", log=quiet) for one in (folder, whole.folder)]
    assert ends[0] is not None and ends[1] is not None
    assert ends[0].state == ends[1].state
    assert [a.tobytes() for a in ends[0].optimizer] == [a.tobytes() for a in ends[1].optimizer]
    best = load_model(folder / "checkpoints" / "best.keras", None)
    assert weights_sha256(best) == outcome.best_sha256


def test_a_run_whose_training_was_over_trains_no_more(
    unbroken: tuple[Job, Outcome, dict[int, Path]],
    make_job: Callable[..., Job],
    make_layered: Callable[[int], Any],
    tmp_path: Path,
) -> None:
    whole, outcome, _ = unbroken
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    job = make_job(folder, make_layered(5))
    job.stream = lambda *_: pytest.fail("it asked for batches")
    assert run(job, start=newest(folder / "checkpoints", log=quiet)) == outcome
    assert bits(job.model) == bits(whole.model)


def test_patience_is_counted_on(make_job: Callable[..., Job], tmp_path: Path) -> None:
    """With a step size of nearly nothing no epoch is better than the first: patience ends with the third."""
    settings = {"epochs": 9, "batch_size": 4, "learning_rate": 1e-30, "patience": 2}
    job = make_job(tmp_path / "run")
    job.break_off(3)
    with pytest.raises(KeyboardInterrupt):
        run(job, settings=settings)
    again = make_job(tmp_path / "run")
    start = newest(tmp_path / "run" / "checkpoints", log=quiet)
    assert start is not None
    assert start.state.epoch == 2
    outcome = run(again, start=start, settings=settings)
    assert (outcome.reason, outcome.epochs, outcome.best_epoch) == ("early", 3, 1)
    over = newest(tmp_path / "run" / "checkpoints", log=quiet)
    assert over is not None
    assert run(make_job(tmp_path / "run"), start=over, settings=settings) == outcome


def test_the_newest_are_kept(unbroken: tuple[Job, Outcome, dict[int, Path]]) -> None:
    job, _, _ = unbroken
    folder = job.folder / "checkpoints"
    names = [path.name for path in found(folder)]
    assert names[:KEPT] == ["epoch-0004", "epoch-0003", "epoch-0002"]
    kept = [room.of_epoch(folder, epoch) for epoch in (4, 3, 2)]
    assert names[KEPT:] == (["epoch-0001"] if 1 in [one.state.best_epoch for one in kept if one] else [])
    assert not list((job.folder / "checkpoints").glob(".*"))


def test_the_bests_of_those_that_are_kept_stay_too(tmp_path: Path, make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    for epoch, best in enumerate((1, 2, 2, 2, 5, 5, 5), start=1):
        write(tmp_path, take(state(epoch, best_epoch=best), model, optimizer), keep=2)
        there = [int(place.name.rpartition("-")[2]) for place in found(tmp_path)]
        assert there == [[1], [2, 1], [3, 2], [4, 3, 2], [5, 4, 2], [6, 5], [7, 6, 5]][epoch - 1]
    (tmp_path / "epoch-0007" / "state.json").write_bytes(b"{")  # what it calls the best is not known
    write(tmp_path, take(state(8, best_epoch=8), model, optimizer), keep=2)
    assert [place.name for place in found(tmp_path)] == ["epoch-0008", "epoch-0007"]


def test_what_is_read_is_what_was_written(two: tuple[Path, Any, Any]) -> None:
    folder, model, _ = two
    read = newest(folder, log=quiet)
    assert read is not None
    assert read.folder.name == "epoch-0002"
    assert repr(read.state) == repr(state(2))  # NaN is not equal to itself
    assert isinstance(read.state.rows[0]["epoch"], int)
    assert [a.tobytes() for a in read.weights] == bits(model)
    assert int(read.optimizer[0]) == 2


def test_nothing_needs_pickle(two: tuple[Path, Any, Any]) -> None:
    for file in ("weights.npz", "optimizer.npz"):
        with np.load(two[0] / "epoch-0002" / file, allow_pickle=False) as archive:
            assert all(archive[key].dtype.kind in "fiu" for key in archive.files)


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("damage", [halved, flipped, lambda data: b"", None], ids=["cut", "bit", "empty", "absent"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_means_the_checkpoint_before(
    file: str, damage: Callable[[bytes], bytes] | None, two: tuple[Path, Any, Any]
) -> None:
    path = two[0] / "epoch-0002" / file
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    said: list[str] = []
    read = newest(two[0], log=said.append)
    assert read is not None
    assert read.state.epoch == 1
    assert len(said) == 1
    assert "epoch-0002" in said[0]
    assert file in said[0]


def test_no_bit_of_the_digests_can_change_unseen(two: tuple[Path, Any, Any]) -> None:
    path = two[0] / "epoch-0002" / SUMS
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 5):  # each bit of a byte comes in turn
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        read = newest(two[0], log=quiet)
        assert read is not None
        assert read.state.epoch == 1, place


def test_all_damaged_is_one_line(two: tuple[Path, Any, Any]) -> None:
    for place, file in (("epoch-0001", "state.json"), ("epoch-0002", "weights.npz")):
        path = two[0] / place / file
        path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(TrainingError, match="no checkpoint can be used") as caught:
        newest(two[0], log=quiet)
    text = one_line(caught)
    assert "epoch-0001: state.json" in text
    assert "epoch-0002: weights.npz" in text


def test_none_at_all(tmp_path: Path) -> None:
    assert newest(tmp_path / "checkpoints", log=quiet) is None


def test_a_damaged_one_is_replaced_by_its_epoch_done_again(two: tuple[Path, Any, Any]) -> None:
    folder, model, optimizer = two
    (folder / "epoch-0002" / "state.json").write_bytes(b"")
    write(folder, take(state(2), model, optimizer))
    read = newest(folder, log=pytest.fail)
    assert read is not None
    assert read.state.epoch == 2


@pytest.mark.parametrize(("keep", "damaged"), [(1, (5,)), (2, (5, 6))])
def test_what_was_just_written_stays_whatever_lay_damaged_after_it(
    keep: int, damaged: tuple[int, ...], two: tuple[Path, Any, Any]
) -> None:
    """Training went on from epoch 2, for those after it were damaged."""
    folder, model, optimizer = two
    for epoch in damaged:
        write(folder, take(state(epoch), model, optimizer), keep=9)
        (folder / f"epoch-{epoch:04d}" / "weights.npz").write_bytes(b"")
    read = newest(folder, log=quiet)
    assert read is not None
    assert read.state.epoch == 2
    write(folder, take(state(3, best_epoch=1), model, optimizer), keep=keep)
    left = {1: ["epoch-0003", "epoch-0001"], 2: ["epoch-0003", "epoch-0002", "epoch-0001"]}
    assert [place.name for place in found(folder)] == left[keep]  # the newest, and their best
    read = newest(folder, log=pytest.fail)
    assert read is not None
    assert read.state.epoch == 3


def test_a_kill_at_any_moment_of_writing_leaves_a_whole_one(
    two: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stops dead at each of its calls of the system in turn: nothing after it happens, no cleaning up."""
    folder, model, optimizer = two

    class Killed(BaseException):
        pass

    left = 0  # calls until the kill

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*given, **named)

        return call

    for calls in range(100):
        monkeypatch.undo()
        before = newest(folder, log=pytest.fail)
        assert before is not None
        for owner, name in (
            (os, "fsync"),
            (room.np, "savez"),
            (room.shutil, "rmtree"),
            (Path, "mkdir"),
            (Path, "write_text"),
            (Path, "rename"),
        ):
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
        left = calls
        epoch = before.state.epoch + 1
        try:
            write(folder, take(state(epoch), model, optimizer))
        except Killed:
            monkeypatch.undo()
            after = newest(folder, log=pytest.fail)
            assert after is not None
            assert after.state.epoch in (epoch - 1, epoch)
            clean(folder)
            assert not list(folder.glob(".*"))
            assert len(found(folder)) >= 2
        else:
            break
    monkeypatch.undo()
    assert calls > 10
    assert len(found(folder)) == KEPT


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    (folder / ".epoch-0003.77").mkdir(parents=True)
    (folder / ".epoch-0003.77" / "weights.npz").write_bytes(b"half")
    (folder / ".77.best.keras").write_bytes(b"half")
    (folder.parent / ".77.history.csv").write_bytes(b"half")
    (folder / "last.keras").write_bytes(b"whole")
    assert newest(folder, log=quiet) is None
    clean(folder)
    assert [path.name for path in folder.parent.rglob("*")] == ["checkpoints", "last.keras"]


def test_a_checkpoint_of_another_model_is_refused(
    two: tuple[Path, Any, Any], make_layered: Callable[[int], Any]
) -> None:
    read = newest(two[0], log=quiet)
    assert read is not None
    with pytest.raises(TrainingError, match="another model") as caught:
        read.restore(make_layered(0))
    assert "weights.npz" in one_line(caught)
    other = keras.optimizers.SGD(0.1)
    other.build(two[1].trainable_variables)
    with pytest.raises(TrainingError, match=r"optimizer\.npz"):
        read.restore(two[1], other)


def test_another_format_is_refused(two: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FORMAT", 2)
    with pytest.raises(TrainingError, match="reads format 2"):
        newest(two[0], log=quiet)
