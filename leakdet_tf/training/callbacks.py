"""What watches a run while it trains: faults, best and last model, the history file, the progress lines."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import keras

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.core.files import whole_file, write_text
from leakdet_tf.training.progress import Bar

Logs = dict[str, float] | None


class InterruptedTraining(Exception):
    """Ctrl-C was pressed once: the step is finished and nothing more should be started."""


class Interrupt:
    """Whether Ctrl-C was pressed. The first press sets it, the second raises KeyboardInterrupt where it hits."""

    def __init__(self) -> None:
        self.pressed = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT while the block runs; outside the main thread Python allows no handlers and nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _press(self, number: int, frame: Any) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True


class Watch(keras.callbacks.Callback):
    """Stops training at a loss that is not finite, and after the step in which Ctrl-C was pressed."""

    def __init__(self, interrupt: Interrupt, remedy: str) -> None:
        super().__init__()
        self._interrupt = interrupt
        self._remedy = remedy
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch for messages."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Check loss and Ctrl-C."""
        self._check(f"step {batch + 1}", logs)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """The same while validating: the epoch's last step can spoil the weights after its own loss was fine."""
        self._check(f"validation step {batch + 1}", logs)

    def _check(self, place: str, logs: Logs) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingError(f"epoch {self._epoch}, {place}: the loss is {loss}", remedy=self._remedy)
        if self._interrupt.pressed:
            raise InterruptedTraining


class Keeper(keras.callbacks.Callback):
    """Writes the best and the last model, and stops when the monitored figure no longer gets better.

    Args:
        served: the model to write (not the one that Keras fits, which ends in logits).
        folder: takes ``best.keras`` and ``last.keras``.
        monitor: log key whose largest value is best.
        patience: epochs without a better value before training stops; 0 never stops.
    """

    def __init__(self, served: Any, folder: Path, *, monitor: str, patience: int) -> None:
        super().__init__()
        self._served, self._folder, self._monitor, self._patience = served, folder, monitor, patience
        self.best_value, self.best_epoch, self.epochs, self.stopped_early = -math.inf, 0, 0, False

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save, and decide whether to go on. A figure that is NaN is never the best."""
        self.epochs = epoch + 1
        value = float((logs or {})[self._monitor])
        save_model(self._served, self._folder / "last.keras")
        if value > self.best_value:
            self.best_value, self.best_epoch = value, self.epochs
            save_model(self._served, self._folder / "best.keras")
        elif self._patience and self.epochs - self.best_epoch >= self._patience:
            self.stopped_early = True
            self.model.stop_training = True


def save_model(model: Any, path: Path) -> None:
    """Write a ``.keras`` file, whole or not at all.

    Raises:
        TrainingError: the disk is full or not writable.
    """
    with _writing(path), whole_file(path) as temporary:
        model.save(temporary)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def _unwritable(path: Path, reason: str) -> TrainingError:
    return TrainingError(f"{path}: cannot be written ({reason})", remedy="free disk space or set runs to another disk")


class History(keras.callbacks.Callback):
    """``history.csv``: one row an epoch, the whole file rewritten so that it is never half a row.

    Raises:
        TrainingError: at an epoch's end, when the disk is full or not writable.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the epoch's figures."""
        self.rows.append({"epoch": epoch + 1, **{key: float(value) for key, value in (logs or {}).items()}})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with _writing(self._path):
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

    def __init__(self, epochs: int, pictures: int, batch_size: int, log: Callable[[str], None]) -> None:
        super().__init__()
        self._epochs, self._pictures, self._batch_size, self._log = epochs, pictures, batch_size, log
        self._bar: Bar | None = None
        self._rate = 0.0
        self._start = monotonic()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start the clock."""
        self._start = monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Open the epoch's bar."""
        self._bar = Bar(f"epoch {epoch + 1}/{self._epochs}", self._pictures, final_line=False)
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
        """Say the epoch's figures."""
        logs = logs or {}
        left = (monotonic() - self._start) / (epoch + 1) * (self._epochs - epoch - 1)
        self._log(
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  val_loss {logs['val_loss']:.4f}  "
            f"val mean IoU {logs['val_mean_iou']:.4f}  {self._rate:.1f} pictures/s  at most {left:.0f} s left"
        )

    def close(self) -> None:
        """Close the bar; also when training ends by an error."""
        if self._bar:
            self._rate = self._bar.rate
            self._bar.__exit__(None, None, None)
            self._bar = None
