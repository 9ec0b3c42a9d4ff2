"""What each task's models are asked: one module a task, as :class:`~leakdet_tf.jobs.tasks.protocol.JobsTask` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from leakdet_tf.core.registry import task_module
from leakdet_tf.jobs.tasks.protocol import JobsTask

if TYPE_CHECKING:  # mypy holds each task to the protocol of each floor
    from leakdet_tf.core.tasks import classify as core_classify
    from leakdet_tf.core.tasks import detect as core_detect
    from leakdet_tf.core.tasks import segment as core_segment
    from leakdet_tf.core.tasks.protocol import Task
    from leakdet_tf.jobs.tasks import classify, detect, segment
    from leakdet_tf.training.tasks import classify as training_classify
    from leakdet_tf.training.tasks import detect as training_detect
    from leakdet_tf.training.tasks import segment as training_segment
    from leakdet_tf.training.tasks.protocol import TrainingTask

    _segment: tuple[Task, TrainingTask, JobsTask] = (core_segment, training_segment, segment)
    _classify: tuple[Task, TrainingTask, JobsTask] = (core_classify, training_classify, classify)
    _detect: tuple[Task, TrainingTask, JobsTask] = (core_detect, training_detect, detect)


def jobs_task(name: str) -> JobsTask:
    """The module that does a task's jobs.

    Raises:
        ModelError: there is no such task.
    """
    return cast(JobsTask, task_module(name, "jobs", JobsTask))
