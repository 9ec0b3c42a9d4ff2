"""``leakdet-tf export``: from a run's Keras model to bundles."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import ExportError, LeakdetError
from leakdet_tf.data.items import Item
from leakdet_tf.edge import trust
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.export.bundle import FORMATS, Evidence, Exported, make_bundle, require, tidy
from leakdet_tf.export.parity import Recalled
from leakdet_tf.jobs.check import parts_of_run
from leakdet_tf.jobs.gate import Frames, calibration_of, drawn_from, metric_of, table
from leakdet_tf.jobs.resume import locked
from leakdet_tf.jobs.runs import MODEL, Log, Opened, open_model


def export(run: str, *, overrides: Sequence[str], log: Log) -> list[Exported]:
    """Export a run in every format of its ``[export]`` table, held against its Keras model on validation pictures.

    Nobody else may be at work in the run. What a killed export left there is put right.

    Raises:
        LeakdetError: not a finished run, another process is at work in it, or a file does not live up to the model.
    """
    opened = open_model(run)
    if opened.kind != "keras" or opened.experiment is None:
        raise LeakdetError(f"{run}: is a bundle already", remedy="give the run's folder")
    if opened.note:
        raise LeakdetError(f"{run}: did not finish", remedy="train it to the end; an unfinished model is not exported")
    settings = load(opened.experiment, overrides)
    with locked(opened.folder):
        tidy(opened.folder / "export")
        return write_bundles(opened, settings, parts_of_run(settings, opened.folder, log=log), facts={}, log=log)


def write_bundles(
    opened: Opened, settings: Experiment, parts: Mapping[str, Sequence[Item]], *, facts: dict[str, Any], log: Log
) -> list[Exported]:
    """Make a bundle of each format asked for, in ``<run>/export/<format>``, and print one table of them.

    Pictures to calibrate on come from ``parts["train"]`` alone, those to compare and measure on from ``parts["val"]``.
    A format that fails leaves nothing; the others are made all the same.

    Raises:
        ExportError: a format needs packages that are not installed, which is found before the first is made; or a file
            does not live up to the model.
    """
    wanted = settings.export.formats
    require(wanted)
    if not wanted:
        return []
    if settings.export.key:
        trust.private_key(settings.export.key)  # a key that cannot sign is told before the work
    items = drawn_from(parts["val"], settings.export.pictures, settings.seed)
    predictor = opened.predictor
    made: list[Exported] = []
    refused: dict[str, LeakdetError] = {}
    with tempfile.TemporaryDirectory() as scratch:
        calibration = None
        if parts["train"] and any(FORMATS[name].calibrated for name in wanted):
            calibration = calibration_of(predictor, settings, parts["train"], Path(scratch) / "calibration.npz")
        evidence = Evidence(
            Predictor.over(Recalled(predictor.backend, Path(scratch)), predictor.contract),
            Frames(settings, items),
            metric_of(predictor, settings, items),
            lambda other: metric_of(other, settings, items),
            calibration,
        )
        for name in wanted:
            log(f"exporting {name} …")
            folder = Path(opened.folder) / "export" / name
            try:
                made.append(
                    make_bundle(
                        opened.folder / MODEL,
                        predictor.contract,
                        evidence,
                        folder,
                        settings.export,
                        facts,
                        name,
                        log=log,
                    )
                )
            except LeakdetError as error:
                log(f"error: {error}")
                refused[name] = error
    for line in table(made, evidence.metric, list(refused)):
        log(line)
    if refused:
        first = next(iter(refused.values()))
        others = f" ({', '.join(refused)} refused; {', '.join(one.name for one in made) or 'none'} made)"
        others = others if len(wanted) > 1 else ""
        raise ExportError(f"{first.args[0]}{others}", remedy=first.remedy)
    return made
