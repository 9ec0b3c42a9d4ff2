"""Segmentation: losses of pixels, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Size
from leakdet_tf.core.labels import Labelling
from leakdet_tf.training.losses import Objective, summed_losses
from leakdet_tf.training.measure import Confusion

MONITOR = ("val_mean_iou", "mean IoU")
SCORED = False


def objective(
    contract: Contract, settings: Train, labelling: Labelling, amounts: Sequence[int]
) -> tuple[Objective, Confusion]:
    """The summed losses, and the confusion matrix."""
    return summed_losses(contract, settings, labelling, amounts), Confusion(labelling)


def noise_targets(
    random: np.random.Generator, count: int, size: Size, labels: int, classes: int
) -> npt.NDArray[np.uint8]:
    """Masks of ``labels`` values, uint8 (N, h, w)."""
    return random.integers(0, labels, (count, *size), np.uint8)
