"""Helpers of the training room's tests: pictures with a bright disc, a tiny model, and a call of ``train``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.data import Augment
from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import IGNORE
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.pipeline import plain, steps, training
from leakdet_tf.models.initialize import draw_weights
from leakdet_tf.training.checkpoint import Checkpoint
from leakdet_tf.training.loop import Account, Feed, Outcome, train

SIZE = 32


def blobs(count: int, *, seed: int) -> Cache:
    """Grey pictures of 32x32 pixels with one brighter disc each; the disc's rim is ignored."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = random.integers(60, 100, (count, SIZE, SIZE, 1), dtype=np.uint8)
    targets = np.zeros((count, SIZE, SIZE), np.uint8)
    for image, target in zip(images, targets, strict=True):
        y, x = random.integers(8, SIZE - 8, 2)
        distance = np.hypot(rows - y, columns - x)
        target[distance < 7] = IGNORE
        target[distance < 6] = 1
        image[distance < 6.5] += 100
    return Cache(tuple(f"b{i:03d}" for i in range(count)), {"image": images}, targets, (("0" * 64,),) * count)


def tiny(*, seed: int = 0, last: str = "logits") -> Any:
    """A model of two convolutions that is traced in a second."""
    image = keras.Input((SIZE, SIZE, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(2, 1)(x)
    x = keras.layers.Activation("linear", dtype="float32", name=last)(x)
    model = keras.Model(
        image, keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x), name="tiny"
    )
    draw_weights(model, seed)
    return model


def layered(seed: int) -> Any:
    """A model with what is easily forgotten: statistics of a batch norm, random state of a dropout, a frozen part."""
    image = keras.Input((32, 32, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(8, 3, padding="same", name="encoder_conv")(x)
    x = keras.layers.BatchNormalization(name="encoder_norm")(x)
    x = keras.layers.Dropout(0.3, seed=seed, name="head_dropout")(keras.layers.ReLU()(x))
    x = keras.layers.Conv2D(2, 1, name="head_conv")(x)
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    model = keras.Model(image, keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x))
    draw_weights(model, seed)
    return model


@dataclass
class Job:
    """A call of ``train`` on a few discs; change its parts before :meth:`run`."""

    folder: Path
    model: Any = field(default_factory=tiny)
    train_cache: Cache = field(default_factory=lambda: blobs(10, seed=0))
    val_cache: Cache = field(default_factory=lambda: blobs(5, seed=1))
    log: Callable[[str], None] = lambda line: None
    change_stream: Callable[[Any], Any] = lambda stream: stream

    @property
    def contract(self) -> Contract:
        return Contract("segment", {"image": ImageSpec(SIZE, SIZE, 1)}, classes_of(["background", "disc"]))

    def stream(self, epochs: int, batch_size: int = 4, first_epoch: int = 0, first_step: int = 0) -> Any:
        return training(
            self.train_cache,
            batch_size=batch_size,
            seed=3,
            settings=Augment(),
            epochs=epochs,
            first_epoch=first_epoch,
            first_step=first_step,
        )

    def break_off(self, epoch: int) -> None:
        """Leave at once in that epoch's end, as a kill does: before its checkpoint is written."""

        def log(line: str) -> None:
            if line.startswith(f"epoch {epoch}/"):
                raise KeyboardInterrupt

        self.log = log

    def run(self, *, start: Checkpoint | None = None, **keys: Any) -> Outcome:
        settings = Train.model_validate({"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "patience": 0} | keys)
        return train(
            self.model,
            self.contract,
            settings,
            Feed(
                training=lambda first, end, step: self.change_stream(
                    self.stream(end, settings.batch_size, first, step)
                ),
                validation=plain(self.val_cache, batch_size=settings.batch_size),
                pictures=len(self.train_cache),
                steps=steps(len(self.train_cache), settings.batch_size),
            ),
            Account(self.folder, self.log),
            start=start,
        )


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job in a folder of its own."""
    return Job(tmp_path / "run")


@pytest.fixture(scope="session")
def make_blobs() -> Callable[..., Cache]:
    """``make_blobs(count, seed=…)``."""
    return blobs


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """``make_tiny(seed=…, last=…)``."""
    return tiny


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Any]:
    """``make_job(folder, **parts)``."""
    return Job


@pytest.fixture(scope="session")
def make_layered() -> Callable[[int], Any]:
    """``make_layered(seed)``."""
    return layered
