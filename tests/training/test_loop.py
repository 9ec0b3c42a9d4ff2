"""The loop: it learns, keeps the best epoch, stops when it should, and leaves good files whatever happens."""

from __future__ import annotations

import csv
import errno
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from leakdet_tf.core.confusion_matrix import confusion, ratios
from leakdet_tf.core.errors import ModelError, TrainingError
from leakdet_tf.data.cache import Cache
from leakdet_tf.models import unet
from leakdet_tf.models.runtime import load_model
from leakdet_tf.training import callbacks as room
from leakdet_tf.training.callbacks import Lines, save_model
from leakdet_tf.training.loop import Outcome, logits_model

Job = Any


@pytest.fixture(scope="module")
def learnt(
    tmp_path_factory: pytest.TempPathFactory, make_job: Callable[..., Job], make_blobs: Callable[..., Cache]
) -> tuple[Job, Outcome, list[str]]:
    """A narrow U-Net after four epochs on 24 discs, and the lines that it logged."""
    model = unet((32, 32, 1), 2, encoder_options={"width": 8}, decoder_filters=(16, 16, 8, 8, 4), seed=0)
    lines: list[str] = []
    job = make_job(tmp_path_factory.mktemp("loop"), model, make_blobs(24, seed=0), make_blobs(8, seed=1), lines.append)
    return job, job.run(epochs=4, learning_rate=3e-3), lines


def rows(job: Job) -> list[dict[str, float]]:
    text = (job.folder / "history.csv").read_text(encoding="utf-8").splitlines()
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(text)]


def mean_iou(model: Any, cache: Cache) -> float:
    decided = model(cache.inputs["image"], training=False).numpy().argmax(-1).astype(np.uint8)
    return float(ratios(confusion(cache.targets, decided, 2))["mean_iou"])


def weights(model: Any) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.get_weights()]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def checkpoint(job: Job, name: str = "last") -> Any:
    return load_model(job.folder / "checkpoints" / f"{name}.keras", job.contract)


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_unet_learns(learnt: tuple[Job, Outcome, list[str]]) -> None:
    _, outcome, _ = learnt
    assert (outcome.reason, outcome.epochs) == ("finished", 4)
    assert outcome.rows[-1]["loss"] < 0.7 * outcome.rows[0]["loss"]
    assert outcome.rows[-1]["mean_iou"] > 0.6 > outcome.rows[0]["mean_iou"]


def test_best_and_last_are_what_they_say(learnt: tuple[Job, Outcome, list[str]]) -> None:
    job, outcome, _ = learnt
    figures = [row["val_mean_iou"] for row in outcome.rows]
    assert outcome.best_value == max(figures)
    assert outcome.best_epoch == 1 + figures.index(max(figures))
    assert mean_iou(checkpoint(job, "best"), job.val_cache) == pytest.approx(max(figures), abs=2e-4)
    assert mean_iou(checkpoint(job, "last"), job.val_cache) == pytest.approx(figures[-1], abs=2e-4)
    assert same(weights(checkpoint(job, "last")), weights(job.model))
    bests = [1 + figures.index(max(figures[:epoch])) for epoch in (2, 3, 4)]
    there = {path.name for path in (job.folder / "checkpoints").iterdir()}
    assert there == {"best.keras", "last.keras", *(f"epoch-{epoch:04d}" for epoch in (2, 3, 4, *bests))}


def test_the_history_file_holds_the_rows(learnt: tuple[Job, Outcome, list[str]]) -> None:
    job, outcome, _ = learnt
    assert rows(job) == outcome.rows
    assert [row["epoch"] for row in outcome.rows] == [1, 2, 3, 4]
    names = ("background", "disc")
    assert set(outcome.rows[0]) == {"epoch"} | {
        f"{prefix}{key}" for prefix in ("", "val_") for key in ("loss", "mean_iou", *(f"iou_{n}" for n in names))
    }


def test_a_line_an_epoch_and_tensorboard_files(learnt: tuple[Job, Outcome, list[str]]) -> None:
    job, outcome, lines = learnt
    assert [line.split("  ")[0] for line in lines] == [f"epoch {i}/4" for i in range(1, 5)]
    assert f"val mean IoU {outcome.rows[2]['val_mean_iou']:.4f}" in lines[2]
    assert all("pictures/s" in line and "s left" in line for line in lines)
    assert all(re.search(r"waiting for data \d+ %", line) for line in lines)
    assert {path.parent.name for path in job.folder.rglob("events*")} == {"train", "validation"}


@pytest.mark.parametrize(("patience", "reason", "epochs"), [(2, "early", 3), (0, "finished", 6)])
def test_training_stops_when_nothing_gets_better(job: Job, patience: int, reason: str, epochs: int) -> None:
    outcome = job.run(epochs=6, patience=patience, learning_rate=1e-12)
    assert (outcome.reason, outcome.epochs, outcome.best_epoch) == (reason, epochs, 1)
    assert len(rows(job)) == epochs


def test_a_figure_that_is_nan_is_never_best(job: Job) -> None:
    job.val_cache.targets[:] = 255
    outcome = job.run(epochs=4, patience=2)
    assert (outcome.reason, outcome.epochs, outcome.best_epoch) == ("early", 2, 0)
    assert not (job.folder / "checkpoints" / "best.keras").exists()
    assert checkpoint(job)


def poisoned(at: int) -> Callable[[Any], Any]:
    """A change to the stream: the weights of batch ``at``, counted from 0 over all epochs, are NaN."""

    def change(stream: Any) -> Any:
        def spoil(number: Any, batch: Any) -> Any:
            return batch._replace(weights=tf.where(tf.equal(number, at), batch.weights * np.nan, batch.weights))

        return stream.enumerate().map(spoil)

    return change


def test_a_loss_that_is_not_finite_ends_training_and_keeps_what_was_written(job: Job) -> None:
    job.change_stream = poisoned(4)
    kept: list[list[np.ndarray]] = []
    job.log = lambda line: kept.append(weights(job.model))
    with pytest.raises(TrainingError) as caught:
        job.run(epochs=3)
    text = one_line(caught)
    assert text.startswith("epoch 2, step 2: the loss is nan; lower train.learning_rate (now 0.01)")
    assert str(job.folder / "checkpoints") in text
    assert len(rows(job)) == len(kept) == 1
    assert same(weights(checkpoint(job, "last")), kept[0])
    assert same(weights(checkpoint(job, "best")), kept[0])


@pytest.mark.parametrize(("batch_size", "place"), [(4, "epoch 1, step 2"), (16, "epoch 1, validation step 1")])
def test_an_absurd_learning_rate_is_told_before_its_model_is_kept(job: Job, batch_size: int, place: str) -> None:
    with pytest.raises(TrainingError) as caught:
        job.run(learning_rate=1e30, batch_size=batch_size)
    assert one_line(caught).startswith(f"{place}: the loss is ")
    assert not (job.folder / "checkpoints").exists()


class Press:
    """Presses Ctrl-C, from this thread or another, when a callback of the progress lines comes to its turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, event: str, turn: int, times: int = 1, *, thread: bool = False):
        original = getattr(Lines, event)
        self.seen = 0

        def hooked(lines: Lines, *arguments: Any, **keys: Any) -> None:
            original(lines, *arguments, **keys)
            self.seen += 1
            for _ in range(times if self.seen == turn else 0):
                if thread:
                    worker = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
                    worker.start()
                    worker.join()
                else:
                    os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Lines, event, hooked)


@pytest.mark.parametrize(
    ("event", "turn", "epochs", "thread"),
    [
        ("on_train_batch_end", 2, 0, False),  # in the first epoch
        ("on_train_batch_end", 5, 1, True),  # in the second, from another thread
        ("on_test_begin", 2, 1, False),  # while the second epoch is validated
        ("on_epoch_end", 1, 1, False),  # between epochs
    ],
)
def test_ctrl_c_ends_training_in_order(
    job: Job, monkeypatch: pytest.MonkeyPatch, event: str, turn: int, epochs: int, thread: bool
) -> None:
    before = signal.getsignal(signal.SIGINT)
    Press(monkeypatch, event, turn, thread=thread)
    outcome = job.run(epochs=3)
    assert (outcome.reason, outcome.epochs, len(outcome.rows)) == ("interrupted", epochs, epochs)
    assert signal.getsignal(signal.SIGINT) is before
    assert (job.folder / "checkpoints" / "last.keras").exists() == (epochs > 0)
    if epochs:
        assert checkpoint(job)
        assert len(rows(job)) == epochs


def test_ctrl_c_twice_ends_at_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    Press(monkeypatch, "on_train_batch_end", 4, times=2)
    with pytest.raises(KeyboardInterrupt):
        job.run(epochs=3)
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoint(job, "best")


def test_training_in_another_thread_leaves_signals_alone(job: Job) -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[Any] = []
    job.log = lambda line: found.append(signal.getsignal(signal.SIGINT))
    worker = threading.Thread(target=lambda: found.append(job.run(epochs=1)))
    worker.start()
    worker.join()
    assert found[0] is before
    assert found[1].reason == "finished"


def full_disk(*arguments: Any, **keys: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/.17.last.keras")


def test_a_full_disk_is_one_line_and_keeps_the_old_checkpoint(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    path = job.folder / "checkpoints" / "last.keras"
    kept: list[bytes] = []

    def half_then_full(target: Path, *arguments: Any, **keys: Any) -> None:
        target.write_bytes(b"PK half a file")
        full_disk()

    def epoch_is_over(line: str) -> None:
        kept.append(path.read_bytes())
        monkeypatch.setattr(job.model, "save", half_then_full)

    job.log = epoch_is_over
    with pytest.raises(TrainingError) as caught:
        job.run(epochs=3)
    assert one_line(caught) == (
        f"{path}: cannot be written (No space left on device); free disk space or set runs to another disk"
    )
    assert [path.read_bytes()] == kept
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.keras", "epoch-0001", "last.keras"]
    assert len(rows(job)) == 1


def test_a_full_disk_at_the_history_file_is_one_line(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "write_text", full_disk)
    with pytest.raises(TrainingError, match="No space left on device") as caught:
        job.run()
    assert one_line(caught).startswith(f"{job.folder / 'history.csv'}: cannot be written")
    assert checkpoint(job)


def test_a_folder_that_is_a_file_is_one_line(job: Job, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("", encoding="utf-8")
    with pytest.raises(TrainingError, match="cannot be written"):
        save_model(job.model, tmp_path / "occupied" / "last.keras")


def test_the_same_seed_starts_the_same_run(job: Job, make_job: Callable[..., Job], tmp_path: Path) -> None:
    other = make_job(tmp_path / "other")
    assert same(weights(job.model), weights(other.model))
    for one, two in zip(job.stream(1), other.stream(1), strict=True):
        np.testing.assert_array_equal(one.inputs["image"], two.inputs["image"])
        np.testing.assert_array_equal(one.targets, two.targets)
    keras.utils.set_random_seed(1)
    first = job.run(epochs=1)
    keras.utils.set_random_seed(2)
    second = other.run(epochs=1)
    assert first.rows[0]["loss"] == pytest.approx(second.rows[0]["loss"], rel=1e-5)
    for a, b in zip(weights(job.model), weights(other.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_model_without_logits_is_refused(job: Job, make_tiny: Callable[..., Any]) -> None:
    job.model = make_tiny(last="scores")
    with pytest.raises(ModelError, match="model 'tiny' has no layer named 'logits'"):
        job.run()


def test_logits_in_the_wrong_place_are_refused() -> None:
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(2, 1, name="logits")(image)
    model = keras.Model(image, keras.layers.UpSampling2D(2)(x), name="odd")
    with pytest.raises(ModelError, match=r"layer 'logits' is \(8, 8, 2\), its output \(16, 16, 2\)"):
        logits_model(model)


def test_tensorboard_files_that_cannot_be_written_are_one_line(job: Job) -> None:
    job.folder.mkdir()
    board = job.folder / "tensorboard"
    board.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(TrainingError) as caught:
        job.run()
    assert one_line(caught).startswith(f"{board}: cannot be written (")
