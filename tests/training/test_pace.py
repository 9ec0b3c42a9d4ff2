"""Checkpoints now and then: what is in memory alone goes to the disk whenever training ends other than by a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.models.runtime import load_model, weights_sha256
from leakdet_tf.training import callbacks
from leakdet_tf.training.callbacks import Pace
from leakdet_tf.training.checkpoint import found, newest, of_epoch

Job = Any
STAGES = [{"epochs": 3, "train": ["all"]}, {"epochs": 4, "train": ["all"]}]


def epochs_of(job: Job) -> list[int]:
    """Of the checkpoints that are there, the newest first."""
    return [int(place.name.rpartition("-")[2]) for place in found(job.folder / "checkpoints")]


def whole(job: Job, outcome: Any) -> None:
    """The last epoch's checkpoint, last.keras and best.keras are of what the outcome says."""
    end = of_epoch(job.folder / "checkpoints", outcome.epochs)
    assert end is not None
    assert (end.state.epoch, end.state.best_epoch) == (outcome.epochs, outcome.best_epoch)
    last, best = (load_model(job.folder / "checkpoints" / f"{name}.keras", None) for name in ("last", "best"))
    for variable, array in zip(last.variables, end.weights, strict=True):
        np.testing.assert_array_equal(np.array(variable), array)
    assert weights_sha256(best) == outcome.best_sha256 == end.state.best_sha256
    assert of_epoch(job.folder / "checkpoints", outcome.best_epoch)


def bests(job: Job, monkeypatch: pytest.MonkeyPatch, *epochs: int) -> None:
    """Make the given epochs the best so far, and the others not."""
    value = iter(range(1, 100))
    real = callbacks.Keeper.on_epoch_end

    def judged(keeper: Any, epoch: int, logs: Any = None) -> None:
        real(keeper, epoch, {**logs, "val_mean_iou": next(value) if epoch + 1 in epochs else -1.0})

    monkeypatch.setattr(callbacks.Keeper, "on_epoch_end", judged)


def test_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(callbacks, "monotonic", lambda: now)
    pace = Pace(epochs=2, seconds=30)
    pace.begin(4)
    assert not pace.is_due(6)
    now += 30
    assert not pace.is_due(5)
    assert pace.is_due(6)
    pace.begin(6)
    assert not pace.is_due(8)
    assert Pace().is_due(1)


def test_each_epoch_is_written_when_nothing_is_said(job: Job) -> None:
    seen: list[list[int]] = []
    job.log = lambda line: seen.append(epochs_of(job))  # before the epoch's own
    outcome = job.run(epochs=3)
    assert seen == [[], [1], [2, 1]]
    whole(job, outcome)


def test_every_second_epoch_the_end_of_a_stage_and_the_best(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    bests(job, monkeypatch, 1, 5)
    seen: dict[str, list[int]] = {}
    job.log = lambda line: seen.setdefault(line.split("  ")[0], epochs_of(job))
    outcome = job.run(stage=STAGES, checkpoint_every=2, keep=1)
    assert [seen[f"epoch {epoch}/7"] for epoch in range(1, 8)] == [[], [], [2, 1], [3, 1], [3, 1], [5], [5]]
    assert epochs_of(job) == [7, 5]
    assert outcome.best_epoch == 5
    whole(job, outcome)


def test_seconds_hold_it_back(job: Job) -> None:
    seen: list[list[int]] = []
    job.log = lambda line: seen.append(epochs_of(job))
    outcome = job.run(epochs=3, checkpoint_seconds=3600)
    assert seen == [[], [], []]
    assert 3 in epochs_of(job)
    whole(job, outcome)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_loses_no_whole_epoch(number: int, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    bests(job, monkeypatch, 1, 2)
    real, seen = callbacks.Watch.on_train_batch_end, []

    def hooked(watch: Any, batch: int, logs: Any = None) -> None:
        seen.append(batch)
        if len(seen) == 11:  # of three an epoch
            os.kill(os.getpid(), number)
        real(watch, batch, logs)

    monkeypatch.setattr(callbacks.Watch, "on_train_batch_end", hooked)
    outcome = job.run(epochs=9, checkpoint_every=9)
    assert (outcome.epochs, outcome.steps, outcome.best_epoch, len(outcome.rows)) == (3, 2, 2, 3)
    within, *ends = [place.name for place in found(job.folder / "checkpoints")]
    assert (within, ends) == ("epoch-0003-step-000002", ["epoch-0003", "epoch-0002"])
    whole(job, outcome)


def test_nor_does_a_loss_that_is_no_number(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = callbacks.Watch.on_train_batch_end, []

    def hooked(watch: Any, batch: int, logs: Any = None) -> None:
        seen.append(batch)
        real(watch, batch, {"loss": float("nan")} if len(seen) == 8 else logs)

    monkeypatch.setattr(callbacks.Watch, "on_train_batch_end", hooked)
    with pytest.raises(TrainingError, match="epoch 3, step 2: the loss is nan"):
        job.run(epochs=9, checkpoint_every=9)
    assert epochs_of(job)[0] == 2
    assert load_model(job.folder / "checkpoints" / "best.keras", None)


@pytest.mark.parametrize("kind", [tf.errors.InvalidArgumentError, ValueError])
def test_nor_does_any_other_error(kind: type[Exception], job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow's, as of a disk whose batches cannot be read, and one of somebody's own code."""
    real, seen = callbacks.Watch.on_train_batch_end, []

    def hooked(watch: Any, batch: int, logs: Any = None) -> None:
        seen.append(batch)
        if kind is ValueError and len(seen) == 8:
            raise ValueError
        real(watch, batch, logs)

    def read(number: Any, batch: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(number, tf.constant(7, tf.int64))]):
            return tf.nest.map_structure(tf.identity, batch)

    monkeypatch.setattr(callbacks.Watch, "on_train_batch_end", hooked)
    if kind is not ValueError:
        job.change_stream = lambda stream: stream.enumerate().map(read)
    with pytest.raises(kind):
        job.run(epochs=9, checkpoint_every=9)
    assert epochs_of(job)[0] == 2
    assert newest(job.folder / "checkpoints", log=pytest.fail) is not None
    assert load_model(job.folder / "checkpoints" / "best.keras", None)


def test_a_kill_loses_what_was_in_memory_and_no_more(job: Job, make_job: Callable[..., Job], tmp_path: Path) -> None:
    """Ctrl-C twice writes nothing, as a kill; what is resumed ends as the unbroken training."""
    wanted = make_job(tmp_path / "whole")
    settings = {"epochs": 6, "checkpoint_every": 2, "learning_rate": 1e-2}
    unbroken = wanted.run(**settings)
    job.break_off(4)
    with pytest.raises(KeyboardInterrupt):
        job.run(**settings)
    assert epochs_of(job)[0] == 2
    again = make_job(job.folder)
    outcome = again.run(start=newest(job.folder / "checkpoints", log=pytest.fail), **settings)
    assert outcome == unbroken
    assert weights_sha256(again.model) == weights_sha256(wanted.model)
    whole(again, outcome)
