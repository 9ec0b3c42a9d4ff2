"""How much of an epoch training waits for its batches."""

from __future__ import annotations

from time import monotonic
from typing import Any

import keras
import tensorflow as tf

Dataset = Any
Logs = dict[str, float] | None


class Waiting(keras.callbacks.Callback):
    """Puts ``waiting`` into an epoch's figures: the share of its training time in which the next batch was not there.

    A TensorFlow step asks for its batch inside its graph, where Python sees nothing of it. So the stream itself looks
    at the clock when it is asked and when it gives, behind its prefetching: what lies ready takes no time. Batches and
    their order stay as they are. The time of validation does not count. It stands behind the history and the
    checkpoint's rows, which are the same from run to run, and before who tells the line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waited, self._trained, self._begun = 0.0, 0.0, 0.0

    def timed(self, stream: Dataset) -> Dataset:
        """The stream to train on, with a clock at its end."""

        def give(asked: Any, batch: Any, given: Any) -> Any:
            tf.numpy_function(self._add, [given - asked], [])
            return batch

        # A zip asks its parts one after the other, in its consumer's thread.
        clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
        timed = tf.data.Dataset.zip((clock, stream, clock)).map(give)
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # its thread would wait while the model computes
        return timed.with_options(options)

    def _add(self, seconds: Any) -> None:
        self._waited += float(seconds)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock."""
        self._waited, self._trained, self._begun = 0.0, 0.0, monotonic()

    def on_test_begin(self, logs: Logs = None) -> None:
        """The training part of the epoch is over."""
        self._trained = monotonic() - self._begun

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Tell the share."""
        if logs is not None:
            whole = self._trained or monotonic() - self._begun
            logs["waiting"] = min(1.0, max(0.0, self._waited / max(whole, 1e-9)))
