"""What each task's models are asked: one module a task, as :class:`~leakdet_tf.jobs.tasks.protocol.JobsTask` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from leakdet_tf.core.registry import task_module
from leakdet_tf.jobs.tasks.protocol import JobsTask

if TYPE_CHECKING:
    from leakdet_tf.jobs.tasks import classify, detect, segment

    _segment: JobsTask = segment
    _classify: JobsTask = classify
    _detect: JobsTask = detect


def jobs_task(name: str) -> JobsTask:
    """The module that does a task's jobs.

    Raises:
        ModelError: there is no such task.
    """
    return cast(JobsTask, task_module(name, "jobs", JobsTask))
