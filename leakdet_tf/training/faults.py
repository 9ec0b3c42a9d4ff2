"""Faults of training that are no NaN: a loss that explodes, and a batch for which the memory is too small."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from leakdet_tf.core.errors import TrainingError

IN_A_ROW = 10
"""Steps one after the other whose loss is above the limit before training is stopped."""
_SAYS = re.compile(r"ResourceExhausted|RESOURCE_EXHAUSTED|out of memory|OutOfMemory|can't allocate memory", re.I)
_EPSILON = 2.0**-23  # of float32, in which Keras keeps its mean
Logs = dict[str, float] | None


class Explosion(keras.callbacks.Callback):
    """Stops training whose loss is finite but absurd: weights with batch norms seldom become NaN, they wander off.

    What is absurd is told by the first step of the stage, whose loss is that of the weights it began with. One batch
    may be hard, so :data:`IN_A_ROW` steps must be above ``limit`` times that, or times 1 where it is smaller.
    ``first_loss`` is that loss, ``above`` how many of the last steps were above.

    Args:
        limit: how many times; 0 never stops.
        remedy: for the message.

    Raises:
        TrainingError: after the last of those steps.
    """

    def __init__(self, limit: float, remedy: str) -> None:
        super().__init__()
        self._limit, self._remedy = limit, remedy
        self._epoch, self._steps, self._sum = 0, 0, 0.0
        self._before = (0, 0.0)
        self.first_loss: float | None = None
        self.above = 0

    def begin(self, first_loss: float | None = None, above: int = 0, *, steps: int = 0, loss: float = 0.0) -> None:
        """A stage begins, which has its own first step; or goes on where a checkpoint was written, after ``steps`` of
        an epoch whose mean loss is ``loss``."""
        self.first_loss, self.above, self._before = first_loss, above, (steps, steps * loss)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Keras begins its mean again."""
        self._epoch, (self._steps, self._sum) = epoch + 1, self._before
        self._before = (0, 0.0)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Judge the loss since the last call, which Keras gives as the epoch's mean so far."""
        steps = batch + 1
        total = float((logs or {})["loss"]) * steps
        loss = (total - self._sum) / (steps - self._steps)
        self._steps, self._sum = steps, total
        if self.first_loss is None:
            self.first_loss = loss
        most = self._limit * max(1.0, self.first_loss)
        unsure = 4 * _EPSILON * abs(total)  # after one huge loss the mean's last digits are as large as the next ones
        self.above = 0 if not self._limit or loss <= most + unsure else self.above + 1
        if self.above >= IN_A_ROW:
            raise TrainingError(
                f"epoch {self._epoch}, step {steps}: the loss is {loss:.3g}, and was above {most:.3g} "
                f"(train.loss_limit = {self._limit:g} times its first value) for {IN_A_ROW} steps",
                remedy=self._remedy,
            )


@contextmanager
def plain_training_errors(batch_size: int) -> Iterator[None]:
    """Turn what TensorFlow, JAX, torch and NumPy raise when memory is too small into one line; and TensorFlow's word
    for a layer that cannot be trained deterministically on a GPU.

    Memory that Linux promised and does not have ends the process by a kill -9 instead, which ``--resume`` heals.

    Raises:
        TrainingError: with half the batch size, or ``train.deterministic = false``, as the remedy.
    """
    try:
        yield
    except _kinds() as error:
        text = " ".join(str(error).split())
        if "determinis" in text:
            raise TrainingError(
                f"the model has a layer without a deterministic kernel ({text[:200]})",
                remedy="set train.deterministic = false",
            ) from error
        if type(error) is not MemoryError and not _SAYS.search(f"{type(error).__name__} {text}"):
            raise
        smaller = f"try train.batch_size = {batch_size // 2}" if batch_size > 1 else "use a smaller data.inputs size"
        raise TrainingError(
            f"train.batch_size = {batch_size} did not fit into memory", remedy=f"{smaller}, or a smaller model"
        ) from error


def _kinds() -> tuple[type[Exception], ...]:
    # torch's and JAX's are RuntimeErrors, of which not all are about memory; TensorFlow has kinds of its own.
    tensorflow = sys.modules.get("tensorflow")
    own = (tensorflow.errors.ResourceExhaustedError, tensorflow.errors.UnimplementedError) if tensorflow else ()
    return (MemoryError, RuntimeError, *own)
