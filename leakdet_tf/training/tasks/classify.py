"""Classification: losses of whole pictures, and counts of what was right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Size
from leakdet_tf.core.labels import Labelling
from leakdet_tf.training.losses import Objective, summed_losses
from leakdet_tf.training.measure import LabelCounts

MONITOR = ("val_mean_f1", "mean F1")
SCORED = False


def objective(
    contract: Contract, settings: Train, labelling: Labelling, amounts: Sequence[int]
) -> tuple[Objective, LabelCounts]:
    """The summed losses, and the counts."""
    losses = summed_losses(contract, settings, labelling, amounts)
    return losses, LabelCounts(labelling.classes, contract.activation)


def noise_targets(
    random: np.random.Generator, count: int, size: Size, labels: int, classes: int
) -> npt.NDArray[np.uint8]:
    """A label a picture, uint8 (N, C)."""
    return np.eye(classes, dtype=np.uint8)[random.integers(0, classes, count)]
