"""Training that ends within an epoch goes on after the last step that it made, as if it had not ended."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.training.best import lost_best
from leakdet_tf.training.callbacks import Watch
from leakdet_tf.training.checkpoint import found, newest, write
from leakdet_tf.training.faults import IN_A_ROW, Explosion
from leakdet_tf.training.loop import Outcome

Job = Any
STEPS = 3  # an epoch of the job's ten pictures
STAGED = {
    "batch_size": 4,
    "schedule": "cosine",
    "warmup": 2,
    "weight_decay": 0.01,
    "stage": [{"epochs": 1, "train": ["head"], "warmup": 0}, {"epochs": 3, "train": ["all"]}],
}
LONG = {
    "epochs": 4,
    "accumulate": 2,
    "checkpoint_every": 4,
    "checkpoint_steps": 2,
}
"""Whole epochs stay in memory; only what is written within them is on the disk."""
EXACT = keras.backend.backend() == "tensorflow"
"""Which other backends do not promise."""


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, make_job: Callable[..., Job], make_layered: Callable[[int], Any]
) -> tuple[Job, Outcome]:
    """A staged training that nothing stopped: one epoch and three."""
    job = make_job(tmp_path_factory.mktemp("whole"), make_layered(0))
    return job, job.run(**STAGED)


def bits(model: Any) -> list[bytes]:
    return [keras.ops.convert_to_numpy(variable).tobytes() for variable in model.variables]


def at(
    monkeypatch: pytest.MonkeyPatch, hook: str, turn: int, act: Callable[[], None], owner: type[Any] = Explosion
) -> None:
    """Act when a callback's hook is called for the ``turn``-th time, counted from 1."""
    calls, real = 0, getattr(owner, hook)

    def call(self: Any, *given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == turn:
            act()
        real(self, *given, **named)

    monkeypatch.setattr(owner, hook, call)


def stop(number: int = signal.SIGTERM) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def same_end(job: Job, outcome: Outcome, whole: tuple[Job, Outcome]) -> None:
    if not EXACT:
        assert (outcome.reason, outcome.epochs, outcome.steps) == (whole[1].reason, whole[1].epochs, 0)
        assert [[*row] for row in outcome.rows] == [[*row] for row in whole[1].rows]
        return
    assert outcome == whole[1]
    assert bits(job.model) == bits(whole[0].model)
    texts = [(one.folder / "history.csv").read_bytes() for one in (job, whole[0])]
    assert texts[0] == texts[1]
    ends = [newest(one.folder / "checkpoints", log=pytest.fail) for one in (job, whole[0])]
    assert ends[0] is not None and ends[1] is not None
    assert ends[0].state == ends[1].state
    assert [a.tobytes() for a in ends[0].optimizer] == [a.tobytes() for a in ends[1].optimizer]


@pytest.mark.parametrize(
    ("hook", "turn", "epoch", "step"),
    [
        ("on_train_batch_end", 1, 0, 1),
        ("on_train_batch_end", STEPS, 0, STEPS),
        ("on_train_batch_end", STEPS + 2, 1, 2),
        ("on_train_batch_end", 2 * STEPS + 1, 2, 1),
        ("on_test_batch_end", 3, 1, STEPS),
        ("on_test_batch_end", 8, 3, STEPS),
    ],
)
def test_told_to_end_it_keeps_its_steps_and_goes_on_after_them(
    hook: str,
    turn: int,
    epoch: int,
    step: int,
    whole: tuple[Job, Outcome],
    make_job: Callable[..., Job],
    make_layered: Callable[[int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_job(tmp_path / "run", make_layered(0))
    at(monkeypatch, hook, turn, stop(), Watch)
    ended = job.run(**STAGED)
    assert (ended.reason, ended.epochs, ended.steps) == ("terminated", epoch, step)
    start = newest(job.folder / "checkpoints", log=pytest.fail)
    assert start is not None
    assert start.folder.name == f"epoch-{epoch:04d}-step-{step:06d}"
    assert (start.state.epoch, start.state.step, len(start.state.rows)) == (epoch, step, epoch)
    again = make_job(job.folder, make_layered(99))
    same_end(again, again.run(start=start, **STAGED), whole)
    assert not list(job.folder.rglob(".*"))


def test_it_may_end_in_every_step(
    make_job: Callable[..., Job], make_layered: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And before it has made one more."""
    unbroken = make_job(tmp_path / "whole", make_layered(0))
    wanted = (unbroken, unbroken.run(epochs=2))
    folder, start, made = tmp_path / "run", None, []
    at(monkeypatch, "on_epoch_begin", 3, stop(), Watch)
    for _ in range(20):
        with monkeypatch.context() as patch:
            at(patch, "on_train_batch_end", 1, stop(), Watch)
            job = make_job(folder, make_layered(0 if start is None else 99))
            outcome = job.run(start=start, epochs=2)
        if outcome.reason != "terminated":
            break
        start = newest(folder / "checkpoints", log=pytest.fail)
        assert start is not None
        made.append((outcome.epochs, outcome.steps))
        assert made[-1] == (start.state.epoch, start.state.step)
    assert made == [(0, 1), (0, 2), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    same_end(job, outcome, wanted)


@pytest.mark.parametrize(
    ("again", "keys"),
    [("on_epoch_begin", {}), ("on_test_batch_end", {}), ("on_test_batch_end", {"checkpoint_steps": 1})],
)
def test_one_that_is_there_is_not_written_again(
    again: str, keys: dict[str, int], job: Job, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the old one's end and the new one's name would lose both, and a SLURM job took it for progress."""
    written: list[tuple[int, int]] = []

    def count(folder: Path, snapshot: Any, **named: Any) -> Path:
        written.append((snapshot.state.epoch, snapshot.state.step))
        return write(folder, snapshot, **named)

    monkeypatch.setattr("leakdet_tf.training.saver.write", count)
    for hook in ("on_test_batch_end", again):
        with monkeypatch.context() as patch:
            at(patch, hook, 1, stop(), Watch)
            start = newest(job.folder / "checkpoints", log=pytest.fail)
            outcome = make_job(job.folder).run(start=start, epochs=1, **keys)
        assert (outcome.reason, outcome.epochs, outcome.steps) == ("terminated", 0, STEPS)
    assert written == [(0, step) for step in range(1 if keys else STEPS, STEPS + 1)]


def test_ctrl_c_keeps_its_steps_too(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "on_train_batch_end", STEPS + 1, stop(signal.SIGINT))
    outcome = job.run(epochs=3)
    assert (outcome.reason, outcome.epochs, outcome.steps) == ("interrupted", 1, 1)
    assert [path.name for path in found(job.folder / "checkpoints")] == ["epoch-0001-step-000001", "epoch-0001"]
    assert (job.folder / "checkpoints" / "best.keras").is_file()


def test_a_kill_costs_no_more_than_the_steps_since_the_last_checkpoint(
    make_job: Callable[..., Job], make_layered: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the third epoch's third step: two epochs were in memory when a checkpoint within the third was written."""

    def leave() -> None:
        raise KeyboardInterrupt

    unbroken = make_job(tmp_path / "whole", make_layered(0))
    wanted = (unbroken, unbroken.run(**LONG))
    names = [path.name for path in found(unbroken.folder / "checkpoints")]
    assert names[:3] == ["epoch-0004", "epoch-0003-step-000002", "epoch-0003"]
    at(monkeypatch, "on_train_batch_end", 2 * STEPS + 3, leave)
    job = make_job(tmp_path / "run", make_layered(0))
    with pytest.raises(KeyboardInterrupt):
        job.run(**LONG)
    start = newest(job.folder / "checkpoints", log=pytest.fail)
    assert start is not None
    assert start.folder.name == "epoch-0002-step-000002"
    assert [row["epoch"] for row in start.state.rows] == [1, 2]
    again = make_job(job.folder, make_layered(99))
    same_end(again, again.run(start=start, **LONG), wanted)


@pytest.mark.parametrize("turn", [STEPS + 1, 2 * STEPS])
def test_patience_may_end_in_an_epoch_that_goes_on(
    turn: int,
    make_job: Callable[..., Job],
    make_layered: Callable[[int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a step size of nearly nothing the second epoch ends the first stage; one change spans epochs."""
    stages = [{"epochs": 3, "train": ["head"]}, {"epochs": 1, "train": ["all"]}]
    keys: dict[str, Any] = {"stage": stages, "patience": 1, "learning_rate": 1e-12, "accumulate": 2, "keep": 1}
    unbroken = make_job(tmp_path / "whole", make_layered(0))
    wanted = (unbroken, unbroken.run(**keys))
    assert (wanted[1].reason, wanted[1].epochs, wanted[1].best_epoch) == ("early", 3, 1)
    job = make_job(tmp_path / "run", make_layered(0))
    with monkeypatch.context() as patch:
        at(patch, "on_train_batch_end", turn, stop(), Watch)
        job.run(checkpoint_every=9, **keys)
    start = newest(job.folder / "checkpoints", log=pytest.fail)
    assert start is not None
    assert (start.state.epoch, start.state.step) == (1, turn - STEPS)
    again = make_job(job.folder, make_layered(99))
    same_end(again, again.run(start=start, **keys), wanted)


def test_a_damaged_one_means_the_one_before(
    whole: tuple[Job, Outcome],
    make_job: Callable[..., Job],
    make_layered: Callable[[int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_job(tmp_path / "run", make_layered(0))
    at(monkeypatch, "on_train_batch_end", STEPS + 2, stop())
    job.run(**STAGED)
    file = job.folder / "checkpoints" / "epoch-0001-step-000002" / "optimizer.npz"
    file.write_bytes(file.read_bytes()[:-1])
    said: list[str] = []
    start = newest(job.folder / "checkpoints", log=said.append)
    assert start is not None
    assert start.folder.name == "epoch-0001"
    assert said == ["checkpoint epoch-0001-step-000002: optimizer.npz not as SHA256SUMS says; passed over"]
    again = make_job(job.folder, make_layered(99))
    same_end(again, again.run(start=start, **STAGED), whole)


def test_one_whose_best_model_is_lost_means_the_one_before(
    job: Job, make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its epoch's checkpoint is damaged, and a kill in the next epoch's end left that epoch's ``best.keras``."""
    unbroken = make_job(tmp_path / "whole")
    wanted = (unbroken, unbroken.run(epochs=3))
    at(monkeypatch, "on_train_batch_end", 2 * STEPS + 1, stop())
    assert job.run(epochs=3).best_epoch == 2
    place = job.folder / "checkpoints"
    (place / "epoch-0002" / "weights.npz").write_bytes(b"")
    at_step = newest(place, log=pytest.fail)
    assert at_step is not None
    assert not lost_best(at_step, place / "best.keras")
    job.model.save(place / "best.keras")
    said: list[str] = []
    start = newest(place, log=said.append, lacks=lambda one: lost_best(one, place / "best.keras"))
    assert start is not None
    assert start.folder.name == "epoch-0001"
    lost = "the model of epoch 2, the best, is lost: in its checkpoint and in best.keras"
    assert said[0] == f"checkpoint epoch-0002-step-000001: {lost}; passed over"
    again = make_job(job.folder)
    same_end(again, again.run(start=start, epochs=3), wanted)


def test_sums_of_another_task_are_one_line(job: Job, make_job: Callable[..., Job]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at(patch, "on_train_batch_end", 2, stop())
        job.run(epochs=2)
    start = newest(job.folder / "checkpoints", log=pytest.fail)
    assert start is not None
    start.state.sums.pop()  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="epoch-0000-step-000002: is of another task") as caught:
        make_job(job.folder).run(epochs=2, start=start)
    assert "\n" not in str(caught.value)


def test_a_full_disk_within_an_epoch_is_one_line(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("leakdet_tf.training.saver.write", full)
    with pytest.raises(TrainingError, match=r"checkpoints: cannot be written \(No space left on device\)"):
        job.run(epochs=2, checkpoint_steps=1)


def test_an_explosion_is_counted_over_the_break() -> None:
    """The mean that Keras gives covers the steps before it too."""
    explosion = Explosion(10.0, "lower it")
    explosion.begin(1.0, IN_A_ROW - 1, steps=3, loss=2.0)
    explosion.on_epoch_begin(1)
    explosion.on_train_batch_end(3, {"loss": (3 * 2.0 + 5.0) / 4})
    assert explosion.above == 0  # 5 is below 10 times 1
    explosion.on_epoch_begin(2)
    with pytest.raises(TrainingError, match=r"epoch 3, step 10: the loss is 30\b"):
        for step in range(IN_A_ROW):
            explosion.on_train_batch_end(step, {"loss": 30.0})


def test_what_is_written_within_an_epoch_is_of_that_step(job: Job) -> None:
    """Under JAX the values are not in the variables then."""
    job.run(epochs=1, checkpoint_steps=1, keep=9)
    for step in range(1, STEPS + 1):
        name = f"epoch-0000-step-{step:06d}"
        shutil.copytree(job.folder / "checkpoints" / name, job.folder / f"only-{step}" / name)
        one = newest(job.folder / f"only-{step}", log=pytest.fail)
        assert one is not None
        assert int(one.optimizer[0]) == step
        assert one.state.sums[1] > 0
