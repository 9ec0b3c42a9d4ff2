"""The tasks by name. A task is a module of functions: ``targets``, ``decide``, ``decode``, ``score``, ``draw``."""

from __future__ import annotations

from types import ModuleType

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.tasks import segment

TASKS: dict[str, ModuleType] = {"segment": segment}


def task_of(contract: Contract) -> ModuleType:
    """The module that defines the contract's task."""
    return TASKS[contract.task]
