"""Detection: losses of boxes. What was found is known once all of it is sorted: no metric counts while Keras trains."""

from __future__ import annotations

from collections.abc import Sequence

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.labels import Labelling
from leakdet_tf.training.box_losses import BoxObjective

MONITOR = ("val_map", "mAP")
SCORED = True


def objective(
    contract: Contract, settings: Train, labelling: Labelling, amounts: Sequence[int]
) -> tuple[BoxObjective, None]:
    """The summed losses."""
    return BoxObjective(contract.inputs[contract.primary].size, settings.loss_weights), None
