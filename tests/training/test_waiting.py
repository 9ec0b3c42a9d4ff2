"""The share of an epoch in which training waits for data, on streams that are slow or not."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from leakdet_tf.training.waiting import Waiting

Job = Any


def slowed(stream: Any, seconds: float) -> Any:
    """The stream, each of whose batches takes so long."""

    def give(batch: Any) -> Any:
        def late(array: np.ndarray) -> np.ndarray:
            time.sleep(seconds)
            return array

        weights = tf.numpy_function(late, [batch.weights], tf.float32)
        weights.set_shape(batch.weights.shape)
        return batch._replace(weights=weights)

    return stream.map(give)


def test_batches_stay_as_they_are(job: Job) -> None:
    stream = job.stream(2)
    timed = Waiting().timed(stream)
    assert timed.element_spec == stream.element_spec  # static shapes too
    for one, other in zip(timed.as_numpy_iterator(), stream.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(one.inputs["image"], other.inputs["image"])
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_array_equal(one.weights, other.weights)


def test_only_standing_still_counts(job: Job) -> None:
    """A consumer that is slower than the stream finds each batch ready but the first; one that is faster never."""
    stream = slowed(job.stream(3), 0.05).prefetch(2)
    patient, hasty = Waiting(), Waiting()
    for _ in patient.timed(stream):
        time.sleep(0.15)
    for _ in hasty.timed(stream):
        pass
    assert hasty._waited > 9 * 0.05 * 0.7
    assert patient._waited < hasty._waited


def test_a_slow_stream_is_told_and_leaves_the_history_alone(job: Job) -> None:
    lines: list[str] = []
    job.log = lines.append
    job.change_stream = lambda stream: slowed(stream, 0.5)
    outcome = job.run(epochs=2)
    (share,) = re.findall(r"waiting for data (\d+) %", lines[1])
    assert 50 < int(share) <= 100
    assert not [key for row in outcome.rows for key in row if "waiting" in key], "a time is never the same twice"


def test_the_weights_are_those_without_the_clock(
    job: Job, make_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run(epochs=2)
    other = make_job(tmp_path / "other")
    monkeypatch.setattr(Waiting, "timed", lambda self, stream: stream)
    other.run(epochs=2)
    for one, two in zip(job.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
