"""What watches a run while it trains: faults, best and last model, checkpoints, history file, progress lines."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import keras

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.core.files import whole_file, write_text
from leakdet_tf.models.runtime import weights_sha256
from leakdet_tf.training.checkpoint import KEPT, Arrays, State, copied
from leakdet_tf.training.interrupt import Interrupt, InterruptedTraining
from leakdet_tf.training.progress import Bar

Logs = dict[str, float] | None


class Watch(keras.callbacks.Callback):
    """Stops training at a loss that is not finite, and after the step in which Ctrl-C was pressed or SIGTERM came.

    ``steps`` of an epoch are done; between epochs it is 0.
    """

    def __init__(self, interrupt: Interrupt, remedy: str) -> None:
        super().__init__()
        self._interrupt = interrupt
        self._remedy = remedy
        self._epoch = 0
        self.steps = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch for messages; begin none after Ctrl-C or SIGTERM."""
        self._epoch = epoch + 1
        self._heed()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Check loss, Ctrl-C and SIGTERM."""
        self.steps = batch + 1
        self._check(f"step {batch + 1}", logs)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """The same while validating: the epoch's last step can spoil the weights after its own loss was fine."""
        self._check(f"validation step {batch + 1}", logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """None is left of it."""
        self.steps = 0

    def _check(self, place: str, logs: Logs) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingError(f"epoch {self._epoch}, {place}: the loss is {loss}", remedy=self._remedy)
        self._heed()

    def _heed(self) -> None:
        if self._interrupt.pressed or self._interrupt.terminated:
            raise InterruptedTraining


@dataclass
class Pace:
    """How often best model, last model and checkpoint go from memory to the disk: at an epoch's end when at least so
    many epochs and seconds have gone by since they did. Within an epoch a checkpoint comes after every ``steps``; 0 is
    never. ``keep`` of them stay."""

    epochs: int = 1
    seconds: float = 0
    keep: int = KEPT
    steps: int = 0
    _epoch: int = 0
    _moment: float = -math.inf

    def is_due(self, epoch: int) -> bool:
        """Whether they go there after this epoch."""
        return epoch - self._epoch >= self.epochs and monotonic() - self._moment >= self.seconds

    def begin(self, epoch: int) -> None:
        """Count from here: they are on the disk, or training begins."""
        self._epoch, self._moment = epoch, monotonic()


class Keeper(keras.callbacks.Callback):
    """Writes the best and the last model, and stops when the monitored figure no longer gets better.

    Args:
        served: the model to write (not the one that Keras fits, which ends in logits).
        folder: takes ``best.keras`` and ``last.keras``.
        monitor: log key whose largest value is best; of equal values the one with the smaller validation loss.
        patience: epochs of a stage without a better value before it stops; 0 never stops.
        pace: when they are written; until then the best is kept in memory.
    """

    def __init__(self, served: Any, folder: Path, *, monitor: str, patience: int, pace: Pace | None = None) -> None:
        super().__init__()
        self._served, self._folder, self._monitor, self._patience = served, folder, monitor, patience
        self._pace = pace or Pace()
        self._best: Arrays | None = None  # what best.keras lacks
        self.due = False
        self.best_value, self.best_epoch, self.epochs, self.stopped_early = -math.inf, 0, 0, False
        self.best_loss, self.best_sha256 = math.inf, ""
        self.stage, self.begun = 0, 0

    def begin(self, stage: int) -> None:
        """A stage begins, counted from 1: it has its own patience."""
        self.stage, self.begun, self.stopped_early = stage, self.epochs, False

    def restore(self, state: State) -> None:
        """Stand where a checkpoint was written, inside its stage."""
        self.best_value, self.best_epoch, self.epochs = state.best_value, state.best_epoch, state.epoch
        self.best_loss, self.best_sha256 = state.best_loss, state.best_sha256
        self.stage, self.begun, self.stopped_early = state.stage, state.begun, state.stopped_early

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save, and decide whether to go on. A figure that is NaN is never the best."""
        self.epochs = epoch + 1
        value, loss = float((logs or {})[self._monitor]), float((logs or {})["val_loss"])
        self.due = self._pace.is_due(self.epochs)
        better = value > self.best_value or (value == self.best_value and loss < self.best_loss)
        if better:
            self.best_value, self.best_epoch, self.best_loss = value, self.epochs, loss
            self.best_sha256 = weights_sha256(self._served)
            self._best = [copied(variable) for variable in self._served.variables]
        if self.due:
            self.write()
        if better:
            return
        if self._patience and self.epochs - max(self.best_epoch, self.begun) >= self._patience:
            self.stopped_early = True
            self.model.stop_training = True

    def write(self) -> None:
        """``last.keras`` of the weights as they are, and ``best.keras`` if it is not the best's yet."""
        save_model(self._served, self._folder / "last.keras")
        if self._best is None:
            return
        now = [copied(variable) for variable in self._served.variables]
        try:
            _assign(self._served, self._best)
            save_model(self._served, self._folder / "best.keras")
        finally:
            _assign(self._served, now)
        self._best = None


def _assign(model: Any, arrays: Arrays) -> None:
    for variable, array in zip(model.variables, arrays, strict=True):
        variable.assign(array)


def save_model(model: Any, path: Path) -> None:
    """Write a ``.keras`` file, whole or not at all. Layers that a stage froze are written as ones that learn.

    Raises:
        TrainingError: the disk is full or not writable.
    """
    frozen = [layer for layer in model.layers if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    try:
        with writing(path), whole_file(path) as temporary:
            model.save(temporary)
    finally:
        for layer in frozen:
            layer.trainable = False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file or folder that a full disk, or one that cannot be written, kept from being written.

    Raises:
        TrainingError: that.
    """
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def _unwritable(path: Path, reason: str) -> TrainingError:
    return TrainingError(f"{path}: cannot be written ({reason})", remedy="free disk space or set runs to another disk")


class History(keras.callbacks.Callback):
    """``history.csv``: one row an epoch, the whole file rewritten so that it is never half a row.

    Args:
        path: the file.
        tell: takes each epoch's row after it was written.

    Raises:
        TrainingError: at an epoch's end, when the disk is full or not writable.
    """

    def __init__(self, path: Path, tell: Callable[[Mapping[str, float]], None] | None = None) -> None:
        super().__init__()
        self._path, self._tell = path, tell
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the epoch's figures."""
        self.rows.append({"epoch": epoch + 1, **{key: float(value) for key, value in (logs or {}).items()}})
        self.write()
        if self._tell:
            self._tell(self.rows[-1])

    def restore(self, state: State) -> None:
        """Take a checkpoint's rows; the file loses what was written after it."""
        self.rows = [dict(row) for row in state.rows]
        if self.rows:
            self.write()
        else:
            self._path.unlink(missing_ok=True)

    def write(self) -> None:
        """The rows so far, in place of what the file held."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with writing(self._path):
            write_text(self._path, text.getvalue())


class Board(keras.callbacks.TensorBoard):
    """TensorBoard's files of each epoch's figures.

    Raises:
        TrainingError: the disk is full or not writable; TensorFlow's own error is several lines of its inner parts.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), write_graph=False)
        self._folder = folder

    def on_train_begin(self, logs: Logs = None) -> None:
        """Guarded."""
        with self._guard():
            super().on_train_begin(logs)

    def on_test_end(self, logs: Logs = None) -> None:
        """Guarded."""
        with self._guard():
            super().on_test_end(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Guarded."""
        with self._guard():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Logs = None) -> None:
        """Guarded."""
        with self._guard():
            super().on_train_end(logs)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        from tensorflow.errors import OpError

        try:
            yield
        except (OpError, OSError) as error:
            full = os.strerror(errno.ENOSPC)
            reason = full if full in str(error) else " ".join(str(error).split())[:200]
            raise _unwritable(self._folder, reason) from error


class Lines(keras.callbacks.Callback):
    """A bar for each epoch's pictures, and one line with its figures, its rate and the time left."""

    def __init__(
        self, epochs: int, pictures: int, batch_size: int, log: Callable[[str], None], *, monitor: str, called: str
    ) -> None:
        super().__init__()
        self._monitor, self._called = monitor, called
        self._epochs, self._pictures, self._batch_size, self._log = epochs, pictures, batch_size, log
        self._bar: Bar | None = None
        self._rate = 0.0
        self._start, self._first, self._before = monotonic(), -1.0, 0

    def begin(self, steps: int) -> None:
        """Training goes on after so many steps of an epoch."""
        self._before = min(self._pictures, steps * self._batch_size)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start the clock; a stage has its own, for its steps may take more or less time."""
        self._start, self._first = monotonic(), -1.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Open the epoch's bar."""
        self._first = epoch + self._before / self._pictures if self._first < 0 else self._first
        self._bar = Bar(f"epoch {epoch + 1}/{self._epochs}", self._pictures, final_line=False, done=self._before)
        self._before = 0
        self._bar.__enter__()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Advance by a batch."""
        if self._bar:
            done = min(self._pictures, (batch + 1) * self._batch_size)
            self._bar.update(done, f"loss {float((logs or {})['loss']):.4f}")

    def on_test_begin(self, logs: Logs = None) -> None:
        """The training part is over: validation does not count into its rate."""
        self.close()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Say the epoch's figures; those of time only if it made a step."""
        logs = logs or {}
        pace, made = "", epoch + 1 - self._first
        if made > 0:
            left = (monotonic() - self._start) / made * (self._epochs - epoch - 1)
            pace = (
                f"  {self._rate:.1f} pictures/s  waiting for data {100 * logs['waiting']:.0f} %  "
                f"at most {left:.0f} s left"
            )
        self._log(
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  val_loss {logs['val_loss']:.4f}  "
            f"val {self._called} {logs[self._monitor]:.4f}{pace}"
        )

    def close(self) -> None:
        """Close the bar; also when training ends by an error."""
        if self._bar:
            self._rate = self._bar.rate
            self._bar.__exit__(None, None, None)
            self._bar = None
