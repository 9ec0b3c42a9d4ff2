"""``leakdet-tf export``: from a run's Keras model to bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leakdet_tf.config.load import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.data.items import Item
from leakdet_tf.export.bundle import Exported, make_bundle, require
from leakdet_tf.jobs.check import parts_of_run
from leakdet_tf.jobs.data import samples
from leakdet_tf.jobs.runs import MODEL, Log, Opened, open_model


def export(run: str, *, overrides: Sequence[str], log: Log) -> list[Exported]:
    """Export a run in every format of its ``[export]`` table, compared on its validation pictures.

    Raises:
        LeakdetError: not a finished run, or the exported file answers otherwise than the model.
    """
    opened = open_model(run)
    if opened.kind != "keras" or opened.experiment is None:
        raise LeakdetError(f"{run}: is a bundle already", remedy="give the run's folder")
    if opened.note:
        raise LeakdetError(f"{run}: did not finish", remedy="train it to the end; an unfinished model is not exported")
    settings = load(opened.experiment, overrides)
    return write_bundles(opened, settings, parts_of_run(settings, opened.folder, log=log)["val"], facts={}, log=log)


def write_bundles(
    opened: Opened, settings: Experiment, items: Sequence[Item], *, facts: dict[str, Any], log: Log
) -> list[Exported]:
    """Make a bundle of each format asked for, in ``<run>/export/<format>``.

    Raises:
        ExportError: a format needs packages that are not installed, which is found before the first is made; or a file
            answers otherwise than the model.
    """
    require(settings.export.formats)
    done = []
    frames = [sample.images for sample in samples(settings, items[: settings.export.pictures])]
    for name in settings.export.formats:
        log(f"exporting {name} …")
        made = make_bundle(
            opened.folder / MODEL,
            opened.predictor.contract,
            opened.predictor,
            frames,
            Path(opened.folder) / "export" / name,
            settings.export,
            facts,
            name,
        )
        parity = made.parity
        log(
            f"{name}: {made.model_bytes / 1e6:.1f} MB; {parity.changed} of {parity.decisions} validation "
            f"{made.unit} decided otherwise (limit {settings.export.max_changed:g}), "
            f"outputs within {parity.max_difference:.1e}"
        )
        done.append(made)
    return done
