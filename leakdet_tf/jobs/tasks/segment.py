"""A segmenter's jobs: its report, its comparison with others, and what of it a heat map is scored by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.comparison import Run
from leakdet_tf.analysis.explain.reading import NO_MASK, NOT_THERE, NOTHING, UNKNOWN, Case, Reading, joined
from leakdet_tf.analysis.figures import save
from leakdet_tf.analysis.segment import pod
from leakdet_tf.analysis.segment.compare import check_comparable, check_metric, compare
from leakdet_tf.analysis.segment.counts import COUNTS, PerPicture, load_counts, save_counts
from leakdet_tf.analysis.segment.figures import examples, page
from leakdet_tf.analysis.segment.report import Measured, lines, report
from leakdet_tf.analysis.segment.report import measure as measured_on
from leakdet_tf.analysis.stats.inflation import Weights
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.confusion_matrix import ratios
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, write_json
from leakdet_tf.core.records import Mask, Sample
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import labelling_of, read, truth_tables
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.run.data import samples
from leakdet_tf.jobs.tasks.protocol import Asked, Calibrating, Comparing, Evaluation, Explaining, Report, Weighted
from leakdet_tf.training.progress import track

if TYPE_CHECKING:
    from leakdet_tf.training.measure import Score  # imports Keras, whose backend is chosen later

EXAMPLES = 6
METRIC = "mean_iou"
CALIBRATING: Calibrating | None = None


def validation_score(contract: Contract, cache: Cache) -> Score | None:
    """None: a confusion matrix is counted while Keras trains."""
    return None


def measure(predictor: Predictor, settings: Experiment, items: Sequence[Item], *, told: str = "") -> Measured:
    """Predict every item and count pixels; with a bar where ``told`` says what of."""
    given = samples(settings, items)
    return measured_on(
        predictor,
        track(given, told, len(items)) if told else given,
        settings.evaluate,
        seed=settings.seed,
        labelling=labelling_of(settings.data, settings.task.classes),
        sources=[item.source for item in items],
    )


def weighted_figure(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Weighted:
    """Mean IoU, by how often each picture counts."""
    measured = measure(predictor, settings, items, told="evaluating")
    return "mean IoU", weighted_mean_iou(measured.counts, measured.labelling.members)


def weighted_mean_iou(
    counts: npt.NDArray[np.int64], members: npt.NDArray[np.bool_] | None = None
) -> Callable[[Weights], Weights]:
    """From counts (N, L, C) a function of how often each picture counts, (R, N) → mean IoU (R,)."""
    flat = counts.reshape(len(counts), -1).astype(np.float64)

    def mean_iou(weights: Weights) -> Weights:
        sums = (weights @ flat).reshape(len(weights), *counts.shape[1:])
        return np.asarray(ratios(sums, members)["mean_iou"], np.float64)

    return mean_iou


def write_report(asked: Evaluation) -> Report:
    """Measure an open segmenter on items; write ``metrics.json``, ``counts.npz`` and pictures into ``folder``."""
    opened, settings, items, about = asked.opened, asked.settings, asked.items, asked.about
    predictor = opened.predictor
    measured = measure(predictor, settings, items, told=f"evaluating {opened.kind}")
    labelling = measured.labelling
    found = report(measured, predictor, settings.evaluate, about)
    files = [asked.folder / "metrics.json", asked.folder / COUNTS, asked.folder / "report.png"]
    write_json(files[0], found)
    names = predictor.contract.class_names
    save_counts(files[1], PerPicture(measured.ids, measured.counts, measured.boundary, labelling.members, names))
    save(page(found, predictor.contract), files[2])
    for name, part in found.get("detection", {}).items():
        files.append(asked.folder / f"detection-{name}.png")
        save(pod.draw(part), files[-1])
    if chosen := [items[i] for i in measured.worst(settings.evaluate.worst)]:
        tables = truth_tables(settings.data, settings.task.classes)
        shown = [read(item, tables[item.source]).sample for item in chosen]
        predictions = [cast(Mask, predictor.predict(sample.images)) for sample in shown]
        files.append(asked.folder / "worst.png")
        title = f"worst of {len(items)} pictures, {about['data']} ({about['split']})"
        save(examples(shown, predictions, predictor.contract, title, labelling), files[-1])
    for line in lines(found):
        asked.log(line)
    return found, files


def draw_examples(
    shown: Sequence[Sample], predictions: Sequence[Mask], settings: Experiment, contract: Contract, title: str
) -> Any:
    """Rows of picture, truth, prediction and errors."""
    labelling = labelling_of(settings.data, settings.task.classes)
    return examples(shown, predictions, contract, title, labelling)


def _load(folder: Path, found: Mapping[str, Any]) -> PerPicture:
    table = load_counts(folder / COUNTS)
    agree = (
        found.get("classes") == list(table.classes)
        and found.get("ids_sha256") == sha256_bytes("\n".join(table.ids).encode())
        and found.get("confusion") == table.counts.sum(0).tolist()
    )
    if not agree:
        raise DataError(f"{folder}: metrics.json and {COUNTS} are not of one evaluation", remedy="run evaluate again")
    return table


def _compare(runs: Sequence[Run[PerPicture]], metric: str) -> dict[str, Any]:
    check_comparable(runs)
    check_metric(metric, runs[0].table.classes)
    return compare(runs, metric)


COMPARING: Comparing | None = Comparing("mean_iou", _load, _compare)


def _read(prediction: Mask, truth: npt.NDArray[Any] | None, asked: Asked) -> Reading:
    # The painted class with most pixels, with its mean score over those that were decided so.
    names, painted = asked.contract.class_names, np.array([item.rgb is not None for item in asked.contract.classes])
    pixels = _counts(prediction.labels, len(names)) * painted
    there = _counts(truth, len(names)) * painted if truth is not None else np.zeros(len(names), np.int64)
    true = "" if truth is None else joined(names, np.flatnonzero(there))
    most = there if asked.truly else pixels
    chosen = asked.index if asked.index is not None else int(most.argmax()) if most.any() else None
    inside = prediction.labels == chosen
    score = float(prediction.scores[inside].mean()) if inside.any() else None
    return Reading(chosen, score, joined(names, np.flatnonzero(pixels)), true)


def _mask_of(case: Case, reading: Reading, asked: Asked) -> tuple[npt.NDArray[np.bool_] | None, str]:
    if case.truth is None:
        return None, NO_MASK
    if reading.index is None:
        return None, UNKNOWN if asked.truly else NOTHING
    there: npt.NDArray[np.bool_] = np.asarray(case.truth == reading.index)
    return there, "" if there.any() else NOT_THERE


def _counts(labels: npt.NDArray[Any], classes: int) -> npt.NDArray[Any]:
    return np.bincount(labels.ravel(), minlength=256)[:classes]


EXPLAINING: Explaining | None = Explaining(_read, _mask_of)
