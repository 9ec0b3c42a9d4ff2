"""What exported files are held against: the task's figure, pictures to calibrate on, and the table of all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from leakdet_tf.analysis.classify import report as classification
from leakdet_tf.analysis.segment import report as evaluate
from leakdet_tf.analysis.stats.intervals import Bounded, bounded, cell
from leakdet_tf.analysis.tables import text_table
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.files import whole_file
from leakdet_tf.core.images import Pixels
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import labelling_of
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.export.bundle import Calibration, Exported, Metric
from leakdet_tf.jobs.run.data import samples

METRICS = {"segment": "mean_iou", "classify": "accuracy", "detect": "map50"}
"""By task, the figure that a reduced format may not lose."""


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
    name = METRICS[settings.task.kind]
    found = bounded(_measured(predictor, settings, items), name)
    value = float("nan") if found["value"] is None else found["value"]
    return Metric(name, value, found["low"], found["high"])


def _measured(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Bounded:
    contract, how, seed = predictor.contract, settings.evaluate, settings.seed
    if settings.task.kind == "classify":
        from leakdet_tf.jobs.tasks.classify import answer

        given = answer(predictor, settings, items)
        return classification.measure(given, how, seed=seed, temperature=contract.temperature, abstain=contract.abstain)
    if settings.task.kind == "detect":
        from leakdet_tf.analysis.detect import metrics as box_metrics
        from leakdet_tf.jobs.tasks.detect import answer as boxes

        # a final file has cut off what is below its threshold: the model is held to it with no more boxes than that
        asked = contract if settings.export.outputs == "final" else None
        given_boxes = boxes(predictor, settings, items, asked=asked)
        return box_metrics.measure(given_boxes, how, seed=seed, threshold=contract.threshold)
    labelling = labelling_of(settings.data, settings.task.classes)
    return evaluate.measure(predictor, samples(settings, items), how, seed=seed, labelling=labelling)


def calibration_of(predictor: Predictor, settings: Experiment, items: Sequence[Item], path: Path) -> Calibration:
    """Write ``export.calibration`` training pictures, drawn by the experiment's seed, as the model takes them.

    A black and a white picture are added: ranges chosen on dark pictures alone would clip bright ones. An input of 16
    bits stays in float and clips nothing, but no scene is at 65535 throughout, and the ranges of all layers would be
    stretched to hold it: it has its first picture there again.

    Args:
        predictor: for its contract's inputs.
        settings: the experiment.
        items: the training split, and nothing else.
        path: the ``.npz`` to write: one array (N, h, w, C) by input name.
    """
    drawn = drawn_from(items, settings.export.calibration, settings.seed)
    parts: dict[str, list[Pixels]] = {name: [] for name in predictor.contract.inputs}
    for sample in samples(settings, drawn):
        for name, pixels in predictor.prepare(sample.images)[0].items():
            parts[name].append(pixels)
    frames = {name: 2 if spec.dtype == "uint8" else 0 for name, spec in predictor.contract.inputs.items()}
    for name, spec in predictor.contract.inputs.items():
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
