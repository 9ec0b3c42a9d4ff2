"""Where weights live while Keras fits differs by backend: callbacks must see those of the step that was finished.

`make test` runs this under TensorFlow, `make test-backends` under the others.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.train import Train
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.models.runtime import load_model
from leakdet_tf.training import label_losses, losses
from leakdet_tf.training.callbacks import Lines
from leakdet_tf.training.checkpoint import newest
from leakdet_tf.training.loop import compiled
from leakdet_tf.training.losses import Scheme, one_of

Job = Any
STEPS = 3  # an epoch of the job's ten pictures


def weights(model: Any) -> list[np.ndarray]:
    # copies: under torch an array shows the weight itself, which goes on learning
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def near(ones: list[np.ndarray], others: list[np.ndarray]) -> bool:
    """Whether they are of the same step; a step of the job moves most weights by .01."""
    return all(np.allclose(one, other, atol=1e-4) for one, other in zip(ones, others, strict=True))


def stepped(job: Job, number: int) -> list[np.ndarray]:
    """The weights of the job's model after so many steps and nothing else."""
    trained, _ = compiled(job.model, job.contract, Train(learning_rate=1e-2))
    trained.fit(job.stream(2), epochs=1, steps_per_epoch=number, shuffle=False, verbose=0)
    return weights(job.model)


def test_at_an_epochs_end_files_hold_what_was_learnt(job: Job, make_job: Callable[..., Job], tmp_path: Path) -> None:
    seen: list[list[np.ndarray]] = []
    job.log = lambda line: seen.append(weights(job.model))
    job.run(epochs=2)
    assert near(seen[0], stepped(make_job(tmp_path / "other"), STEPS))
    assert not near(seen[0], seen[1])
    for path in ("last.keras", "best.keras"):
        kept = weights(load_model(job.folder / "checkpoints" / path, job.contract))
        assert any(near(kept, one) for one in (seen if path == "best.keras" else seen[1:]))
    checkpoint = newest(job.folder / "checkpoints", log=print)
    assert checkpoint is not None
    for kept, now in zip(checkpoint.weights, seen[1], strict=True):
        np.testing.assert_array_equal(kept, now)
    counted, rate, *moments = checkpoint.optimizer
    assert counted == 2 * STEPS
    assert rate == np.float32(1e-2)
    assert all(np.any(moment) for moment in moments)


@pytest.mark.parametrize(
    ("event", "turn", "steps"),
    [("on_train_batch_begin", 2, 2), ("on_train_batch_begin", 5, 5), ("on_test_begin", 1, 3), ("on_epoch_end", 1, 3)],
)
def test_stopped_it_leaves_the_weights_of_the_last_finished_step(
    job: Job,
    make_job: Callable[..., Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    event: str,
    turn: int,
    steps: int,
) -> None:
    expected = stepped(make_job(tmp_path / "other"), steps)
    turns, original = [], getattr(Lines, event)

    def press(lines: Lines, *arguments: Any, **keys: Any) -> None:
        original(lines, *arguments, **keys)
        turns.append(event)
        if len(turns) == turn:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Lines, event, press)
    assert job.run(epochs=3).reason == "interrupted"
    assert near(weights(job.model), expected)


def test_labels_beyond_the_count_are_none() -> None:
    found = one_of(keras.ops.convert_to_tensor(np.array([[0, 2, IGNORE]], np.int32)), 3)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), [[[1, 0, 0], [0, 0, 1], [0, 0, 0]]])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
def test_the_loss_of_masks_is_numpys(activation: str) -> None:
    random = np.random.default_rng(3)
    masks = random.integers(0, 3, (2, 4, 5)).astype(np.int32)
    masks[:, 0] = IGNORE
    logits = random.normal(0, 1, (2, 4, 5, 3)).astype(np.float32)
    check(losses.cross_entropy, masks, logits, activation)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_loss_of_labels_is_numpys(activation: str) -> None:
    random = np.random.default_rng(4)
    hot = np.eye(3)[random.integers(0, 3, 4)].astype(np.int32)
    check(label_losses.cross_entropy, hot, random.normal(0, 1, (4, 3)).astype(np.float32), activation)


def check(loss: Any, targets: np.ndarray, logits: np.ndarray, activation: str) -> None:
    scheme = Scheme(activation, Labelling(3), np.array([0.5, 1.0, 1.5], np.float32))
    value = loss(*map(keras.ops.convert_to_tensor, (targets, logits)), scheme)
    by_hand = in_numpy(targets, logits, activation, scheme.weights)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(value), by_hand, rtol=1e-5)


def in_numpy(targets: np.ndarray, logits: np.ndarray, activation: str, weights: np.ndarray) -> np.ndarray:
    """Weighted cross-entropy of masks or of whole pictures' labels, one value a picture."""
    z = logits.astype(np.float64)
    masks = targets.ndim == 3
    hot = np.where(targets[..., None] == np.arange(3), 1.0, 0.0) if masks else targets.astype(np.float64)
    if activation == "sigmoid":
        p = 1 / (1 + np.exp(-z))
        each = -(hot * np.log(p) + (1 - hot) * np.log(1 - p))
        if not masks:
            return np.asarray((each * weights).sum(-1) / weights.sum())
        values = each.mean(-1)
    else:
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True) if activation == "softmax" else np.clip(z, 1e-7, 1)
        values = -np.log((p * hot).sum(-1), out=np.zeros(p.shape[:-1]), where=hot.any(-1))
    pixels = hot @ weights
    if not masks:
        return np.asarray(values * pixels)
    return np.asarray((values * pixels).sum((1, 2)) / pixels.sum((1, 2)))
