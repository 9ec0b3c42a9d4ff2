"""What a task says of itself on this floor: the objective, and the figure whose largest value is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Size
from leakdet_tf.core.labels import Labelling


class Metric(Protocol):
    """A Keras metric that counts, and knows the ratios of what it has counted."""

    name: str
    variables: Any

    def figures(self, classes: tuple[str, ...]) -> dict[str, float]:
        """Figures by name, the one that is watched among them."""


class TrainingTask(Protocol):
    """A module of ``training/tasks``."""

    @property
    def MONITOR(self) -> tuple[str, str]:
        """The log key whose largest value is best, and what it is called."""

    @property
    def SCORED(self) -> bool:
        """Whether figures are known after all validation outputs alone: training then takes a score."""

    def objective(
        self, contract: Contract, settings: Train, labelling: Labelling, amounts: Sequence[int]
    ) -> tuple[keras.losses.Loss, Metric | None]:
        """The loss on logits, and the metric that counts while Keras trains, if any.

        Args:
            contract: classes and head activation.
            settings: the experiment's ``[train]``.
            labelling: what the targets' labels mean.
            amounts: training pixels or pictures of each class, for ``class_weights``.
        """

    def noise_targets(
        self, random: np.random.Generator, count: int, size: Size, labels: int, classes: int
    ) -> npt.NDArray[Any]:
        """Targets of so many pictures of noise, to time training by."""
