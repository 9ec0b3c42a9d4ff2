"""The loop trains a detector: figures of whole validation passes, stages, resuming."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import TrainingError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import Batch
from leakdet_tf.core.tasks.detect import BINS, VOID, anchors_of
from leakdet_tf.models.initialize import draw_weights
from leakdet_tf.models.runtime import load_model
from leakdet_tf.training.checkpoint import Checkpoint, newest
from leakdet_tf.training.loop import Account, Feed, Outcome, train

SIZE = (64, 64)
CONTRACT = Contract("detect", {"image": ImageSpec(*SIZE)}, classes_of(["hot"]), "linear")
BATCH = 2


def batches(count: int, *, seed: int) -> list[Batch]:
    """Grey pictures with a bright square each; the last batch is filled up with a picture of weight 0."""
    random = np.random.default_rng(seed)
    total = -(-count // BATCH) * BATCH
    images = random.integers(60, 100, (total, *SIZE, 3), dtype=np.uint8)
    targets = np.full((total, 3, 6), VOID, np.float32)
    weights = np.ones(total, np.float32)
    for image, rows in list(zip(images, targets, strict=True))[:count]:
        x, y, side = random.integers(4, 24, 3)
        image[y : y + side + 10, x : x + side + 10] += 120
        rows[0] = [x, y, x + side + 10, y + side + 10, 0, 0]
    weights[count:] = 0
    parts = range(0, total, BATCH)
    found = [(images[i : i + BATCH], targets[i : i + BATCH], weights[i : i + BATCH]) for i in parts]
    return [Batch({"image": image}, target, weight / weight.mean()) for image, target, weight in found]


def stream(given: list[Batch], epochs: int) -> Any:
    import tensorflow as tf

    columns = zip(*((batch.inputs["image"], batch.targets, batch.weights) for batch in given), strict=True)
    kept = tf.data.Dataset.from_tensor_slices(tuple(np.stack(column) for column in columns)).repeat(epochs)
    return kept.map(lambda image, target, weight: Batch({"image": image}, target, weight))


def narrow() -> Any:
    """Three grids from one convolution each: traced in a second."""
    image = keras.Input((*SIZE, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(8, 8, 8, activation="relu", name="encoder_conv")(x)
    grids = []
    for number in (1, 2, 3):
        grid = keras.layers.Conv2D(4 * BINS + 1, 1, name=f"head_{number}_conv")(x)
        grids.append(keras.layers.Reshape((-1, 4 * BINS + 1))(grid))
        x = keras.layers.AveragePooling2D(2)(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(keras.layers.Concatenate(axis=1)(grids))
    model = keras.Model(image, keras.layers.Activation("linear", dtype="float32", name="outputs")(logits), name="tiny")
    draw_weights(model, 0)
    return model


class Scores:
    """A score that remembers what it was given: the larger the sum of all class logits, the better."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, outputs: Iterable[np.ndarray]) -> dict[str, float]:
        self.seen.append(np.stack(list(outputs)))
        return {"map50": 0.5, "map": float(self.seen[-1][..., 4 * BINS :].mean())}


def run(folder: Path, model: Any, score: Any, *, start: Checkpoint | None = None, **keys: Any) -> Outcome:
    settings = Train.model_validate({"epochs": 2, "batch_size": BATCH, "learning_rate": 2e-3, "patience": 0} | keys)
    given = batches(6, seed=0)
    return train(
        model,
        CONTRACT,
        settings,
        Feed(
            training=lambda first, end, step: stream(given, end - first),
            validation=stream(batches(3, seed=1), 1),
            pictures=6,
            steps=3,
            score=score,
        ),
        Account(folder, lambda line: None),
        start=start,
    )


def answered(model: Any, images: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Scores, Outcome]:
    folder, model, score = tmp_path_factory.mktemp("detect"), narrow(), Scores()
    return folder, model, score, run(folder, model, score, epochs=3)


def test_the_score_takes_each_real_picture_once_an_epoch(learnt: tuple[Path, Any, Scores, Outcome]) -> None:
    _, model, score, _ = learnt
    assert [seen.shape for seen in score.seen] == [(3, anchors_of(SIZE), 4 * BINS + 1)] * 3
    images = np.concatenate([batch.inputs["image"] for batch in batches(3, seed=1)])[:3]
    np.testing.assert_allclose(score.seen[-1], answered(model, images), atol=1e-4)


def test_its_figures_decide_and_are_kept(learnt: tuple[Path, Any, Scores, Outcome]) -> None:
    folder, _, score, outcome = learnt
    values = [float(seen[..., 4 * BINS :].mean()) for seen in score.seen]
    assert [row["val_map"] for row in outcome.rows] == pytest.approx(values)
    assert outcome.best_value == max(values)
    assert outcome.best_epoch == 1 + values.index(max(values))
    with (folder / "history.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [list(row) for row in rows] == [["epoch", "loss", "val_loss", "val_map50", "val_map"]] * 3
    assert outcome.rows[-1]["loss"] < outcome.rows[0]["loss"]


def test_the_saved_model_answers_as_the_trained_one(learnt: tuple[Path, Any, Scores, Outcome]) -> None:
    folder, model, _, _ = learnt
    saved = load_model(folder / "checkpoints" / "last.keras", None)
    images = batches(2, seed=3)[0].inputs["image"]
    np.testing.assert_array_equal(answered(saved, images), answered(model, images))


def test_resumed_it_is_the_same_run(learnt: tuple[Path, Any, Scores, Outcome], tmp_path: Path) -> None:
    _, whole, _, outcome = learnt
    run(tmp_path, narrow(), Scores(), epochs=2)
    checkpoint = newest(tmp_path / "checkpoints", log=print)
    assert checkpoint is not None
    model = narrow()
    resumed = run(tmp_path, model, Scores(), start=checkpoint, epochs=3)
    assert resumed.rows[-1]["loss"] == pytest.approx(outcome.rows[-1]["loss"], rel=1e-5)
    for one, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_stage_trains_the_head_alone(tmp_path: Path) -> None:
    model = narrow()
    before = {v.path: np.array(v) for v in model.weights}
    run(tmp_path, model, Scores(), stage=[{"epochs": 1, "train": ["head"]}])
    changed = {v.path for v in model.weights if not np.array_equal(before[v.path], np.array(v))}
    assert changed
    assert all(path.startswith("head_") for path in changed)


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    model = narrow()
    bias = model.get_layer("head_2_conv").bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(TrainingError, match="the loss is nan"):
        run(tmp_path, model, Scores())


def test_without_a_score_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to detect, training takes a score"):
        run(tmp_path, narrow(), None)
