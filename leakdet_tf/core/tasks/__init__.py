"""The tasks by name. A task is a module of functions.

``target_shape``, ``targets`` and ``amounts`` say what training learns from; ``output_shape`` what a model gives;
``decisions`` and ``margins`` what it decided and how narrowly; ``decode`` and ``draw`` make the answer and its picture.
"""

from __future__ import annotations

from types import ModuleType

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.tasks import classify, detect, segment

TASKS: dict[str, ModuleType] = {"segment": segment, "classify": classify, "detect": detect}


def task_of(contract: Contract) -> ModuleType:
    """The module that defines the contract's task."""
    return TASKS[contract.task]
