"""What writes checkpoints while a run trains, and what goes on within the epoch of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.training.callbacks import History, Keeper, Pace, writing
from leakdet_tf.training.checkpoint import AS_BEGUN, Checkpoint, Snapshot, State, copied, take, write
from leakdet_tf.training.faults import Explosion

Logs = dict[str, float] | None


class Saver(keras.callbacks.Callback):
    """Writes a checkpoint at the end of epochs, and within them if asked; it stands last, so that what it says was done
    has been done.

    Until one is due, the newest epoch and the best are kept in memory: :meth:`flush` writes them when training ends.

    Args:
        served: the model whose variables are kept; the optimizer is that of the model that Keras fits.
        folder: the run's ``checkpoints``.
        keeper: knows stage, epoch and best model, and whether it is time.
        history: knows the rows.
        identity: digests of what the run was started with, by name.
        pace: is told when they are written; says how many stay, and after how many steps of an epoch one is due.
        explosion: knows the stage's first loss.

    Raises:
        TrainingError: when the disk is full or not writable. Earlier checkpoints stay.
    """

    def __init__(
        self,
        served: Any,
        folder: Path,
        keeper: Keeper,
        history: History,
        identity: Mapping[str, str],
        pace: Pace,
        explosion: Explosion,
    ) -> None:
        super().__init__()
        self._served, self._folder, self._identity = served, folder, identity
        self._keeper, self._history, self._pace, self._explosion = keeper, history, pace, explosion
        self._best: Snapshot | None = None
        self._newest: Snapshot | None = None
        self._counts: Sequence[Any] = ()
        self._sums: list[Any] | None = None
        self._there = (0, 0)  # epochs and steps of the newest checkpoint within an epoch

    def begin(self, counts: Sequence[Any], start: Checkpoint | None = None) -> None:
        """A stage begins, or goes on at ``start``; in its epochs Keras adds up ``counts``, variables of its metrics."""
        self._counts, self._sums = counts, None
        if start is not None:
            self._there = (start.state.epoch, start.state.step)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Keras begins to add up again."""
        self._sums = None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Write it if so many steps were made."""
        if self._pace.steps and (batch + 1) % self._pace.steps == 0:
            self.save(batch + 1)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Keras resets what it added up right after this call."""
        self._sums = self._added()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write it, or keep it in memory."""
        keeper = self._keeper
        self._newest = self._snapshot(self._state())
        if keeper.best_epoch == keeper.epochs:
            self._best = self._newest
        if keeper.due:
            self._write(self._newest)

    def on_train_end(self, logs: Logs = None) -> None:
        """A stage is over; the next has an optimizer of its own."""
        self.flush()

    def save(self, step: int) -> None:
        """Write where training stands after ``step`` steps of its epoch, if it is not there; of 0, only what is in
        memory alone."""
        moment = (self._keeper.epochs, step)
        if not step or moment == self._there:
            self.flush()
            return
        here = self._snapshot(self._state(step, self._added() if self._sums is None else self._sums))
        if self._newest is not None:
            self.flush()
            here.restore(self._served, self.model.optimizer)
        with writing(self._folder):
            write(self._folder, here, keep=self._pace.keep)
        self._there = moment

    def flush(self) -> None:
        """Write what is in memory alone; the model then stands where its last whole epoch ended."""
        if self._newest is not None:
            self._newest.restore(self._served, self.model.optimizer)
            self._keeper.write()
            self._write(self._newest)

    def _state(self, step: int = 0, sums: Sequence[Any] | None = None) -> State:
        keeper = self._keeper
        return State(
            epoch=keeper.epochs,
            stage=keeper.stage,
            begun=keeper.begun,
            stopped_early=keeper.stopped_early,
            best_value=keeper.best_value,
            best_loss=keeper.best_loss,
            best_epoch=keeper.best_epoch,
            best_sha256=keeper.best_sha256,
            rows=list(self._history.rows),
            identity=self._identity,
            first_loss=self._explosion.first_loss,
            above=self._explosion.above,
            step=step,
            sums=sums or [],
        )

    def _snapshot(self, state: State) -> Snapshot:
        self._sync()
        return take(state, self._served, self.model.optimizer)

    def _added(self) -> list[Any]:
        self._sync()
        return [copied(variable).tolist() for variable in self._counts]

    def _sync(self) -> None:
        # Within an epoch JAX's values are not in the variables.
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()

    def _write(self, snapshot: Snapshot) -> None:
        with writing(self._folder):
            if self._best is not None and self._best is not snapshot:
                write(self._folder, self._best, keep=self._pace.keep)
            write(self._folder, snapshot, keep=self._pace.keep)
        self._best = self._newest = None
        self._pace.begin(snapshot.state.epoch)


class Within(keras.callbacks.CallbackList):
    """The callbacks of an epoch of which some steps were made before: they count on from there.

    Args:
        callbacks: as ``fit`` takes them.
        model: what Keras fits.
        start: the checkpoint.
        counts: the variables that its ``sums`` are of.
    """

    def __init__(self, callbacks: Sequence[Any], model: Any, start: Checkpoint, counts: Sequence[Any]) -> None:
        super().__init__(list(callbacks), add_history=True, model=model)
        self._start, self._counts = start, counts

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Keras has just reset what the epoch added up."""
        sums = [np.asarray(value) for value in self._start.state.sums]
        if [value.shape for value in sums] != [tuple(variable.shape) for variable in self._counts]:
            raise TrainingError(
                f"{self._start.place}: is of another task or number of classes than the experiment's",
                remedy=AS_BEGUN,
            )
        for variable, value in zip(self._counts, sums, strict=True):
            variable.assign(value)
        super().on_epoch_begin(epoch, logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Keras resets them right after this call, but not those of a metric that no batch has gone through yet."""
        super().on_test_begin(logs)
        for variable in self._counts:
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Counted from the epoch's own beginning."""
        super().on_train_batch_begin(batch + self._start.state.step, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """So too."""
        super().on_train_batch_end(batch + self._start.state.step, logs)


def finish_epoch(
    trained: Any,
    stream: Any,
    validation: Any,
    *,
    steps: int,
    start: Checkpoint,
    callbacks: Sequence[Any],
    counts: Sequence[Any],
) -> None:
    """Make what is left of an epoch's ``steps`` after a checkpoint within it, and what comes at an epoch's end.

    Args:
        trained: what Keras fits, restored from the checkpoint.
        stream: the batches that are left, at least.
        validation: batches.
        steps: an epoch's.
        start: the checkpoint.
        callbacks: as ``fit`` takes them.
        counts: the variables that the checkpoint's ``sums`` are of.
    """
    epoch, left = start.state.epoch, steps - start.state.step
    within = Within(callbacks, trained, start, counts)
    if left:
        trained.fit(
            stream,
            validation_data=validation,
            initial_epoch=epoch,
            epochs=epoch + 1,
            steps_per_epoch=left,
            callbacks=within,
            shuffle=False,
            verbose=0,
        )
        return
    # Keras fits at least a step: the end of an epoch as its ``fit`` makes it.
    within.on_train_begin()
    within.on_epoch_begin(epoch)
    loss = trained.metrics[0]
    logs = {loss.name: loss.result()}
    found = trained.evaluate(validation, callbacks=within, return_dict=True, verbose=0)
    within.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in found.items()})
    within.on_train_end()
