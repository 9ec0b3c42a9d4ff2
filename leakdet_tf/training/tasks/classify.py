"""Classification: losses of whole pictures, and counts of what was right."""

from __future__ import annotations

from collections.abc import Sequence

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
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
