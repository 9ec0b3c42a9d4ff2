"""Detection: losses of boxes. What was found is known once all of it is sorted: no metric counts while Keras trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Size
from leakdet_tf.core.labels import Labelling
from leakdet_tf.training.detection_losses import BoxObjective

MONITOR = ("val_map", "mAP")
SCORED = True


def objective(
    contract: Contract, settings: Train, labelling: Labelling, amounts: Sequence[int]
) -> tuple[BoxObjective, None]:
    """The summed losses."""
    return BoxObjective(contract.inputs[contract.primary].size, settings.loss_weights), None


def noise_targets(
    random: np.random.Generator, count: int, size: Size, labels: int, classes: int
) -> npt.NDArray[np.float32]:
    """Four boxes a picture, float32 (N, 4, 6)."""
    corners = random.uniform(0, 0.6, (count, 4, 2))
    edges = np.concatenate([corners, corners + random.uniform(0.05, 0.4, (count, 4, 2))], axis=-1)
    kinds, counted = random.integers(0, classes, (count, 4, 1)), np.zeros((count, 4, 1))
    return np.concatenate([edges * (size[1], size[0], size[1], size[0]), kinds, counted], axis=-1).astype(np.float32)
