"""``leakdet-tf calibrate``: what is chosen on the validation pictures once the weights stand, by task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import ConfigError, LeakdetError
from leakdet_tf.data.items import Item
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.jobs import classify, detect
from leakdet_tf.jobs.check import parts_of_run
from leakdet_tf.jobs.runs import Log, Opened, open_model


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
    task = opened.predictor.contract.task
    if task == "segment":
        raise LeakdetError(f"{run}: is a segmenter's", remedy="classifiers and detectors are calibrated")
    if threshold is not None and task != "detect":
        raise ConfigError("--threshold: is for detectors", remedy="set evaluate.max_risk, and unsure follows from it")
    settings = load(opened.experiment, overrides)
    items = parts_of_run(settings, opened.folder, log=log)["val"]
    calibrated(opened, settings, items, threshold=threshold, log=log)
    return opened.folder / CONTRACT


def calibrated(
    opened: Opened, settings: Experiment, items: Sequence[Item], *, threshold: float | None = None, log: Log
) -> Opened:
    """The run with what was chosen in a new contract, written over ``contract.json``."""
    if settings.task.kind == "classify":
        return classify.calibrated(opened, settings, items, log=log)
    return detect.thresholded(opened, settings, items, threshold=threshold, log=log)
