"""Faults that end training in one line: a loss that explodes, too little memory; and Ctrl-C while validating."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.training import callbacks
from leakdet_tf.training.checkpoint import found, newest, of_epoch
from leakdet_tf.training.faults import IN_A_ROW, Explosion, plain_training_errors

Job = Any


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    assert str(caught.value).isprintable()
    return str(caught.value)


def stepped(watch: Explosion, *epochs: list[float]) -> None:
    """Give it the steps' losses as Keras does: the mean of the epoch so far, in float32."""
    for number, losses in enumerate(epochs):
        watch.on_epoch_begin(number)
        for step in range(len(losses)):
            watch.on_train_batch_end(step, {"loss": float(np.mean(losses[: step + 1], dtype=np.float32))})


def test_a_loss_that_stays_absurd_is_told() -> None:
    with pytest.raises(TrainingError, match=r"^epoch 2, step 12: the loss is 301, and was above 300 ") as caught:
        stepped(Explosion(100, "lower it"), [3.0, 2.0], [1.0, 299.0, *[301.0] * 20])
    assert one_line(caught).endswith("for 10 steps; lower it")
    with pytest.raises(TrainingError, match="epoch 3, step 4"):  # epochs of few steps
        stepped(Explosion(100, ""), [0.01] + [1e6] * 2, [1e6] * 4, [1e6] * 4)


@pytest.mark.parametrize(
    "epochs",
    [
        [[1.0, *[1e9, *[0.5] * 3] * 20]],  # hard batches, after each of which it is as before
        [[0.02, *[90.0] * 40]],  # of a first loss that is small, 1 counts
        [[50.0, *[4000.0] * 40]],
        [[2.0, *[1e9] * (IN_A_ROW - 1)], [1.0] * 3, [1e9] * (IN_A_ROW - 1)],
    ],
)
def test_a_loss_that_is_high_now_and_then_is_none(epochs: list[list[float]]) -> None:
    stepped(Explosion(100, ""), *epochs)


def test_it_can_be_turned_off() -> None:
    stepped(Explosion(0, ""), [1.0, *[1e12] * 40])


def test_a_resumed_one_judges_as_the_unbroken(job: Job, make_job: Callable[..., Job]) -> None:
    """By the first loss of all, not by the resumed epoch's; and steps that were above count on."""
    job.break_off(2)
    with pytest.raises(KeyboardInterrupt):
        job.run(epochs=3)
    start = newest(job.folder / "checkpoints", log=pytest.fail)
    assert start is not None
    assert (start.state.epoch, start.state.above) == (1, 0)
    assert start.state.first_loss is not None
    strict = replace(start, state=replace(start.state, first_loss=1e-9, above=IN_A_ROW - 1))
    again = make_job(job.folder)
    with pytest.raises(TrainingError, match=r"^epoch 2, step 1: the loss is .*, and was above 0\.0001 "):
        again.run(start=strict, epochs=3, loss_limit=1e-4)
    fresh = make_job(job.folder.with_name("staged"))
    fresh.run(stage=[{"epochs": 1, "train": ["all"]}] * 2)
    ends = [of_epoch(fresh.folder / "checkpoints", epoch) for epoch in (1, 2)]
    assert ends[0] is not None and ends[1] is not None
    assert ends[0].state.first_loss != ends[1].state.first_loss, "a stage has its own"


def test_training_that_explodes_stops_and_keeps_what_was_written(job: Job) -> None:
    """The weights wander off by a million a step, and no loss of theirs is NaN."""
    settings = {"epochs": 9, "batch_size": 4, "learning_rate": 1e6, "loss": ["cross_entropy"]}
    with pytest.raises(TrainingError, match=r"the loss is [\d.e+]+, and was above 100 ") as caught:
        job.run(**settings)
    assert "lower train.learning_rate (now 1e+06), or set train.loss_limit = 0" in one_line(caught)
    assert found(job.folder / "checkpoints")


@pytest.mark.parametrize(("batch_size", "advice"), [(4, "try train.batch_size = 2, or"), (1, "a smaller data.inputs")])
def test_too_little_memory_is_one_line(batch_size: int, advice: str, job: Job) -> None:
    """16 TiB are asked of TensorFlow, which no machine has."""

    def greedy(number: Any, batch: Any) -> Any:
        more = tf.random.stateless_uniform(tf.constant([2**42], tf.int64), [1, number])
        return batch._replace(weights=batch.weights + 0 * tf.reduce_sum(more))

    job.change_stream = lambda stream: stream.enumerate().map(greedy)
    with pytest.raises(TrainingError, match=rf"^train\.batch_size = {batch_size} did not fit into memory; ") as caught:
        job.run(batch_size=batch_size)
    assert advice in one_line(caught)


class OutOfMemoryError(RuntimeError):
    """As torch's: CUDA out of memory."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("Tried to allocate 20.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes."),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nwith shape[9,9]"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_library_s_word_for_it_is_known(error: Exception) -> None:
    with (
        pytest.raises(TrainingError, match=r"did not fit into memory; try train\.batch_size = 8,"),
        plain_training_errors(16),
    ):
        raise error


def test_other_errors_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="shapes"), plain_training_errors(16):
        raise RuntimeError("shapes do not match")
    with pytest.raises(tf.errors.InvalidArgumentError), plain_training_errors(16):
        raise tf.errors.InvalidArgumentError(None, None, "no")
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as under another backend
    with pytest.raises(TrainingError), plain_training_errors(16):
        raise MemoryError


def test_a_layer_without_a_deterministic_kernel_is_one_line() -> None:
    said = "Deterministic GPU implementation of\nSomeGrad not available: determinism is asked for"
    with (
        pytest.raises(TrainingError, match=r"SomeGrad .*set train\.deterministic = false") as caught,
        plain_training_errors(8),
    ):
        raise tf.errors.UnimplementedError(None, None, said)
    one_line(caught)


def while_validating(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> Callable[[], int]:
    """Send a signal in the second epoch's first validation step; gives how many such steps were seen."""
    real, seen = callbacks.Watch.on_test_batch_end, SimpleNamespace(count=0)

    def hooked(watch: Any, batch: int, logs: Any = None) -> None:
        seen.count += 1
        for _ in range(times if seen.count == 3 else 0):
            os.kill(os.getpid(), number)
        real(watch, batch, logs)

    monkeypatch.setattr(callbacks.Watch, "on_test_batch_end", hooked)
    return lambda: int(seen.count)


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_while_validating_ends_after_the_step(
    number: int, reason: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = while_validating(monkeypatch, number, 1)
    outcome = job.run(epochs=3)  # two steps of validation an epoch
    assert (outcome.reason, outcome.epochs, outcome.steps, seen()) == (reason, 1, 3, 3)
    assert [path.name for path in found(job.folder / "checkpoints")] == ["epoch-0001-step-000003", "epoch-0001"]


def test_ctrl_c_twice_while_validating_leaves_at_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = while_validating(monkeypatch, signal.SIGINT, 2)
    with pytest.raises(KeyboardInterrupt):
        job.run(epochs=3)
    assert seen() == 3
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in found(job.folder / "checkpoints")] == ["epoch-0001"]
