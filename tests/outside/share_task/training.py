"""What ``share`` is trained by: cross-entropy with the true share, and one less the mean distance from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Size
from leakdet_tf.core.labels import Labelling

MONITOR = ("val_closeness", "closeness")
SCORED = False


class Closeness(keras.metrics.Mean):
    def __init__(self) -> None:
        super().__init__(name="distance")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(keras.ops.abs(y_true - keras.ops.sigmoid(y_pred)))

    def figures(self, classes: tuple[str, ...]) -> dict[str, float]:
        return {"closeness": 1 - float(self.result())}


def objective(
    contract: Contract, settings: Train, labelling: Labelling, amounts: Sequence[int]
) -> tuple[keras.losses.Loss, Closeness]:
    return keras.losses.BinaryCrossentropy(from_logits=True), Closeness()


def noise_targets(
    random: np.random.Generator, count: int, size: Size, labels: int, classes: int
) -> npt.NDArray[np.float32]:
    return random.random((count, 1), np.float32)
