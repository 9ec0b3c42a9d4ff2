"""Segmentation: losses of pixels, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
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
