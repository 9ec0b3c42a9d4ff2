"""``leakdet-tf calibrate``: what is chosen on the validation pictures once the weights stand, by task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leakdet_tf.config.loading import load
from leakdet_tf.core.errors import ConfigError, LeakdetError
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.jobs.run.parts import parts_of_run
from leakdet_tf.jobs.run.runs import Log, open_model
from leakdet_tf.jobs.tasks import jobs_task


def calibrate_run(run: str, *, overrides: Sequence[str], threshold: float | None, log: Log) -> Path:
    """Calibrate a finished run on its validation pictures, or give a detector the threshold that the user wants.

    Raises:
        LeakdetError: not a finished run of a classifier or detector.
        ConfigError: ``threshold`` is given for a classifier.
    """
    opened = open_model(run)
    if opened.kind != "keras" or opened.experiment is None:
        raise LeakdetError(f"{run}: is a bundle", remedy="give the run's folder, then export again")
    if opened.note:
        raise LeakdetError(f"{run}: did not finish", remedy="train it to the end")
    contract = opened.predictor.contract
    task = jobs_task(contract.task).CALIBRATING
    if task is None:
        raise LeakdetError(
            f"{run}: a model to {contract.task} has nothing to calibrate",
            remedy="classifiers and detectors are calibrated",
        )
    if threshold is not None and not task.threshold:
        raise ConfigError("--threshold: is for detectors", remedy="set evaluate.max_risk, and unsure follows from it")
    settings = load(opened.experiment, overrides)
    items = parts_of_run(settings, opened.folder, log=log)["val"]
    task.run(opened, settings, items, threshold=threshold, log=log)
    return opened.folder / CONTRACT
