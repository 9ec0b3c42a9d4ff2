"""What each task is trained by: one module a task, as :class:`.protocol.TrainingTask` says."""

from __future__ import annotations

from typing import cast

from leakdet_tf.core.registry import task_module
from leakdet_tf.training.tasks.protocol import TrainingTask


def training_task(name: str) -> TrainingTask:
    """The module that trains a task.

    Raises:
        ModelError: there is no such task.
    """
    return cast(TrainingTask, task_module(name, "training", TrainingTask))
