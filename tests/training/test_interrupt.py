"""SIGTERM and SIGUSR1: training ends after its step and its epoch's checkpoint, anything else at once."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from leakdet_tf.training import interrupt
from leakdet_tf.training.checkpoint import found
from leakdet_tf.training.interrupt import AGAIN, Interrupt, leaving_at_once

Job = Any


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_termination_ends_after_the_epoch_s_checkpoint(number: int, job: Job) -> None:
    before = signal.getsignal(number)

    def log(line: str) -> None:
        if line.startswith("epoch 1/"):  # the checkpoint of this epoch is yet to be written
            os.kill(os.getpid(), number)

    job.log = log
    outcome = job.run(epochs=5)
    assert (outcome.reason, outcome.epochs) == ("terminated", 1)
    assert [path.name for path in found(job.folder / "checkpoints")] == ["epoch-0001"]
    assert signal.getsignal(number) == before


def test_a_second_termination_leaves_at_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_ONE_REQUEST", 0)

    def log(line: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    job.log = log
    with pytest.raises(SystemExit) as caught:
        job.run(epochs=2)
    assert caught.value.code == AGAIN
    assert not found(job.folder / "checkpoints")


def test_a_termination_that_comes_twice_at_once_is_one() -> None:
    listener = Interrupt()
    with listener.listening():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
    assert listener.terminated
    assert not listener.pressed


def test_outside_of_training_a_termination_leaves_at_once() -> None:
    with pytest.raises(SystemExit) as caught, leaving_at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")
    assert caught.value.code == AGAIN
