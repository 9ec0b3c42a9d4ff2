"""The tasks by name, as :class:`~leakdet_tf.core.tasks.protocol.Task` says. A task is a module of functions."""

from __future__ import annotations

from typing import cast

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Geometry
from leakdet_tf.core.registry import task_module
from leakdet_tf.core.tasks.output import changed_decisions
from leakdet_tf.core.tasks.protocol import Array, Changes, Near, Task


def task_named(name: str) -> Task:
    """The module that defines a task.

    Raises:
        ModelError: there is no such task.
    """
    return cast(Task, task_module(name, "core", Task))


def task_of(contract: Contract) -> Task:
    """The module that defines the contract's task."""
    return task_named(contract.task)


def changes(
    ours: Array, theirs: Array, contract: Contract, exported: Contract, geometry: Geometry, near: Near = None
) -> Changes:
    """How an exported file's output for a picture differs from the model's.

    Args:
        ours: the model's, as its ``contract`` says.
        theirs: the file's, as ``exported`` says.
        contract: the model's.
        exported: the file's.
        geometry: where the picture lies in the input.
        near: which boxes count as the same.
    """
    task = task_of(exported)
    if task.CHANGES is not None:
        return task.CHANGES(ours, theirs, contract, exported, geometry, near)
    return changed_decisions(
        ours, theirs, lambda one: task.decisions(one, exported), lambda one: task.margins(one, exported)
    )
