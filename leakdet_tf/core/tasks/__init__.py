"""The tasks by name, as :class:`~leakdet_tf.core.tasks.protocol.Task` says. A task is a module of functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.registry import task_module
from leakdet_tf.core.tasks.protocol import Task

if TYPE_CHECKING:
    from leakdet_tf.core.tasks import classify, detect, segment

    _segment: Task = segment
    _classify: Task = classify
    _detect: Task = detect


def task_named(name: str) -> Task:
    """The module that defines a task.

    Raises:
        ModelError: there is no such task.
    """
    return cast(Task, task_module(name, "core", Task))


def task_of(contract: Contract) -> Task:
    """The module that defines the contract's task."""
    return task_named(contract.task)
