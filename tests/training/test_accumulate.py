"""``train.accumulate``: several steps make one change of the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.train import Train
from leakdet_tf.core.errors import TrainingError
from leakdet_tf.data.cache import Cache
from leakdet_tf.training import loop
from leakdet_tf.training.checkpoint import newest
from leakdet_tf.training.loop import PerChange, adam, step_size

Job = Any
SCHEDULED = {"epochs": 3, "schedule": "cosine", "warmup": 2, "weight_decay": 0.01}


def weights(model: Any) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.get_weights()]


def farthest(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def test_small_batches_equal_one_large(
    make_job: Callable[..., Job], make_blobs: Callable[..., Cache], tmp_path: Path
) -> None:
    """16 pictures: two batches of 8, or eight of 2 of which four make a change. The tiny model has no batch norm."""
    found = {}
    for name, settings in {
        "large": {"batch_size": 8},
        "small": {"batch_size": 2, "accumulate": 4},
        "alone": {"batch_size": 2},
    }.items():
        job = make_job(tmp_path / name, train_cache=make_blobs(16, seed=0))
        start = weights(job.model)
        job.run(**SCHEDULED, **settings)
        found[name] = weights(job.model)
    moved = farthest(found["large"], start)
    assert moved > 0.01
    assert farthest(found["small"], found["large"]) < 1e-3 * moved
    assert farthest(found["alone"], found["large"]) > 0.1 * moved


def test_the_schedule_counts_changes_not_steps() -> None:
    settings = Train(schedule="cosine", warmup=2, accumulate=4)
    optimizer = adam(settings, 40)
    changes = step_size(settings, 10)
    variable = keras.Variable(np.zeros(3, np.float32))
    optimizer.build([variable])
    for step in range(40):
        assert float(optimizer.learning_rate) == pytest.approx(float(changes(step // 4)), rel=1e-6)
        before = np.array(variable)
        optimizer.apply([keras.ops.ones(3)], [variable])
        assert (np.array(variable) != before).all() == (step % 4 == 3)
    assert int(optimizer.iterations) == 10


def test_one_step_a_change_is_plain_adam() -> None:
    optimizer = adam(Train(schedule="cosine"), 10)
    assert optimizer.gradient_accumulation_steps is None
    assert not isinstance(optimizer._learning_rate, PerChange)


def test_a_change_may_span_two_epochs(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(loop, "adam", lambda *given: made.append(adam(*given)) or made[-1])
    job.run(epochs=3, batch_size=4, accumulate=2)  # 10 pictures: 3 steps an epoch
    assert int(made[0]._iterations) == 9
    assert int(made[0].iterations) == 4


def test_resuming_within_a_change_is_exact(job: Job, make_job: Callable[..., Job], tmp_path: Path) -> None:
    """After the first epoch's three steps one gradient is pending."""
    settings = {"epochs": 4, "batch_size": 4, "accumulate": 2, "schedule": "cosine", "warmup": 1}
    job.run(**settings)
    broken = make_job(tmp_path / "broken")
    broken.break_off(2)
    with pytest.raises(KeyboardInterrupt):
        broken.run(**settings)
    start = newest(broken.folder / "checkpoints", log=lambda line: None)
    assert start is not None
    assert start.state.epoch == 1
    pending = [a for a, name in zip(start.optimizer, start.names["optimizer.npz"], strict=True) if "accumul" in name]
    assert pending
    assert any(array.any() for array in pending)
    again = make_job(broken.folder)
    for variable in again.model.variables:
        variable.assign(keras.ops.zeros_like(variable))
    again.run(start=start, **settings)
    for one, other in zip(weights(again.model), weights(job.model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_more_than_all_steps_is_refused(job: Job) -> None:
    with pytest.raises(TrainingError, match=r"train\.accumulate: 7 steps make one change .* there are 6 in all"):
        job.run(epochs=2, batch_size=4, accumulate=7)
