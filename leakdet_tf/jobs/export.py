"""``leakdet-tf export``: from a run's Keras model to bundles."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from leakdet_tf.analysis.stats.intervals import bounded, cell
from leakdet_tf.analysis.tables import text_table
from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError, LeakdetError
from leakdet_tf.core.files import whole_file
from leakdet_tf.core.images import Pixels
from leakdet_tf.data.items import Item
from leakdet_tf.edge import keys
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.formats.bundle import FORMATS, Calibration, Evidence, Exported, Metric, make_bundle, require, tidy
from leakdet_tf.formats.parity import Recalled
from leakdet_tf.jobs.run.data import samples
from leakdet_tf.jobs.run.notebook import shown
from leakdet_tf.jobs.run.parts import parts_of_run
from leakdet_tf.jobs.run.resume import locked
from leakdet_tf.jobs.run.runs import MODEL, Log, Opened, open_model, say
from leakdet_tf.jobs.tasks import jobs_task


class Bundles(list[Exported]):
    """The bundles that were made. A notebook shows them as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (one.name, f"{one.model_bytes / 1e6:.2f}", f"{one.p50_ms:.1f}", f"{one.metric.value:.4f}", one.folder)
            for one in self
        ]
        figure = self[0].metric.name if self else "figure"
        return shown("bundles", ("format", "MB", "p50 ms", figure, "folder"), rows)


def export(run: str | Path, *, overrides: Sequence[str] = (), log: Log = say, **tables: Any) -> Bundles:
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
    settings = load(opened.experiment, overrides, tables)
    with locked(opened.folder):
        tidy(opened.folder / "export")
        return write_bundles(opened, settings, parts_of_run(settings, opened.folder, log=log), facts={}, log=log)


def write_bundles(
    opened: Opened, settings: Experiment, parts: Mapping[str, Sequence[Item]], *, facts: dict[str, Any], log: Log
) -> Bundles:
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
        return Bundles()
    if settings.export.key:
        keys.private_key(settings.export.key)  # a key that cannot sign is told before the work
    items = drawn_from(parts["val"], settings.export.pictures, settings.seed)
    predictor = opened.predictor
    made = Bundles()
    refused: dict[str, LeakdetError] = {}
    with tempfile.TemporaryDirectory() as scratch:
        calibration = None
        if parts["train"] and any(FORMATS[name].calibrated for name in wanted):
            calibration = calibration_of(
                predictor.contract, settings, parts["train"], Path(scratch) / "calibration.npz"
            )
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


class Frames(Sequence[dict[str, Pixels]]):
    """Items' original pixels by input name, read when they are asked for: many large pictures need not fit memory."""

    def __init__(self, settings: Experiment, items: Sequence[Item]) -> None:
        self._settings, self._items = settings, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Frames(self._settings, self._items[place])
        return next(iter(samples(self._settings, [self._items[place]]))).images


def drawn_from(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    """No more than ``most`` items from all over a split, in their order: its first may be of one place or class."""
    return [items[i] for i in np.sort(np.random.default_rng(seed).permutation(len(items))[:most])]


def metric_of(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Metric:
    """The task's figure on items with its interval, by the code of ``evaluate``'s report.

    Raises:
        LeakdetError: there are no items, or one cannot be read.
    """
    task = jobs_task(settings.task.kind)
    found = bounded(task.measure(predictor, settings, items), task.METRIC)
    value = float("nan") if found["value"] is None else found["value"]
    return Metric(task.METRIC, value, found["low"], found["high"])


def calibration_of(contract: Contract, settings: Experiment, items: Sequence[Item], path: Path) -> Calibration:
    """Write ``export.calibration`` training pictures, drawn by the experiment's seed, as the model takes them.

    A black and a white picture are added: ranges chosen on dark pictures alone would clip bright ones. An input of 16
    bits stays in float and clips nothing, but no scene is at 65535 throughout, and the ranges of all layers would be
    stretched to hold it: it has its first picture there again.

    Args:
        contract: the model's.
        settings: the experiment.
        items: the training split, and nothing else.
        path: the ``.npz`` to write: one array (N, h, w, C) by input name.
    """
    drawn = drawn_from(items, settings.export.calibration, settings.seed)
    parts: dict[str, list[Pixels]] = {name: [] for name in contract.inputs}
    for sample in samples(settings, drawn):
        for name, pixels in contract.prepare(sample.images)[0].items():
            parts[name].append(pixels)
    frames = {name: 2 if spec.dtype == "uint8" else 0 for name, spec in contract.inputs.items()}
    for name, spec in contract.inputs.items():
        if frames[name]:
            parts[name] += [np.full(spec.shape, value, np.uint8) for value in (0, 255)]
        elif any(frames.values()):
            parts[name] += parts[name][:1] * 2
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **{name: np.stack(arrays) for name, arrays in parts.items()})  # type: ignore[arg-type]
    return Calibration(path, len(drawn), frames)


def table(made: Sequence[Exported], keras: Metric, refused: Sequence[str]) -> list[str]:
    """Every format in a line: size, latency here on one thread, differences from the Keras model, and its figure."""
    head = ["", "MB", "p50 ms", "outputs within", "changed", "margin", keras.name, "points lost", "float layers"]
    rows = [["keras", "", "", "", "", "", cell(asdict(keras)), "", ""]]
    for one in made:
        parity = one.parity
        rows.append(
            [
                one.name,
                f"{one.model_bytes / 1e6:.2f}",
                f"{one.p50_ms:.1f}",
                f"{parity.max_difference:.1e}",
                f"{parity.changed} of {parity.decisions} {one.unit}",
                f"{parity.max_margin:.1e}" if parity.changed else "-",
                cell(asdict(one.metric)),
                f"{100 * one.drop:.2f}",
                str(len(one.kept_float)) if one.kept_float else "-",
            ]
        )
    rows += [[name, "refused", *[""] * 7] for name in refused]
    return text_table(head, rows)
