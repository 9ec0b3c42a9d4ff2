"""The report on a model: one piece of code for Keras models and exported files, at the original pictures' size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.confusion import Counts, Ratios, ratios
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.records import Sample
from leakdet_tf.core.tasks import task_of
from leakdet_tf.edge.predictor import Predictor

PER_CLASS = ("iou", "dice", "accuracy")
OVERALL = ("mean_iou", "mean_dice", "mean_accuracy", "pixel_accuracy")
_BATCH = 200  # resamples at a time, to bound memory


@dataclass(frozen=True, eq=False)
class Measured:
    """Counts of every picture, int64 (N, C, C) with rows truth, and the figures drawn from their sum.

    ``low`` and ``high`` bound each figure by bootstrap over pictures; they are NaN for a single picture.
    """

    ids: tuple[str, ...]
    counts: Counts
    figures: Ratios
    low: Ratios
    high: Ratios

    def worst(self, number: int) -> list[int]:
        """Positions of the pictures with the lowest mean IoU, worst first."""
        order = np.argsort(ratios(self.counts)["mean_iou"], kind="stable")
        return [int(i) for i in order[:number]]


def measure(predictor: Predictor, samples: Iterable[Sample], settings: Evaluate, *, seed: int) -> Measured:
    """Answer every sample and count.

    Raises:
        DataError: there are no samples.
    """
    task = task_of(predictor.contract)
    ids, counts = [], []
    for sample in samples:
        ids.append(sample.id)
        counts.append(task.score(sample.truth, predictor.predict(sample.images), predictor.contract))
    if not counts:
        raise DataError("there are no pictures to evaluate on", remedy="check data.root and the split's name")
    stacked = np.stack(counts)
    low, high = intervals(stacked, settings, seed=seed)
    return Measured(tuple(ids), stacked, ratios(stacked.sum(0)), low, high)


def intervals(counts: Counts, settings: Evaluate, *, seed: int) -> tuple[Ratios, Ratios]:
    """Percentile bootstrap over pictures (Efron 1979): bounds of every figure of :func:`ratios`.

    Pictures are drawn with replacement, as many as there are; a figure's bounds leave out resamples in which it is
    undefined. With one picture there is nothing to resample and both bounds are NaN.
    """
    number, classes = counts.shape[0], counts.shape[1]
    if number < 2:
        nothing = {name: np.full_like(value, np.nan) for name, value in ratios(counts.sum(0)).items()}
        return nothing, dict(nothing)
    generator = np.random.default_rng(seed)
    flat = counts.reshape(number, -1).astype(np.float64)
    drawn: dict[str, list[npt.NDArray[np.float64]]] = {}
    for start in range(0, settings.resamples, _BATCH):
        size = min(_BATCH, settings.resamples - start)
        weights = generator.multinomial(number, np.full(number, 1 / number), size=size)
        for name, value in ratios((weights @ flat).reshape(size, classes, classes)).items():
            drawn.setdefault(name, []).append(value)
    tail = (1 - settings.confidence) / 2
    stacked = {name: np.concatenate(parts) for name, parts in drawn.items()}
    return (
        {name: _quantile(values, tail) for name, values in stacked.items()},
        {name: _quantile(values, 1 - tail) for name, values in stacked.items()},
    )


def _quantile(values: npt.NDArray[np.float64], level: float) -> npt.NDArray[np.float64]:
    undefined = np.isnan(values).all(axis=0)
    result = np.nanquantile(np.where(undefined, 0.0, values), level, axis=0)
    return np.where(undefined, np.nan, result)


def report(measured: Measured, predictor: Predictor, settings: Evaluate, about: dict[str, Any]) -> dict[str, Any]:
    """The report as plain data for JSON. Undefined figures are null.

    Args:
        measured: from :func:`measure`.
        predictor: the model, for class names and its contract's id.
        settings: the experiment's ``[evaluate]``.
        about: what was measured on what: kind of model, folder, split, pictures' digest.
    """
    names = predictor.contract.class_names
    per_picture = ratios(measured.counts)["mean_iou"]
    return {
        "format": 1,
        **about,
        "contract": predictor.contract.id,
        "pictures": len(measured.ids),
        "classes": list(names),
        "confusion": measured.counts.sum(0).tolist(),
        "metrics": {key: _bounded(measured, key) for key in OVERALL}
        | {key: {name: _bounded(measured, key, i) for i, name in enumerate(names)} for key in PER_CLASS},
        "intervals": {
            "method": "bootstrap over pictures",
            "confidence": settings.confidence,
            "resamples": settings.resamples,
        },
        "absent_classes": "left out of means; null for themselves",
        "worst": [
            {"id": measured.ids[i], "mean_iou": number_or_none(per_picture[i])} for i in measured.worst(settings.worst)
        ],
    }


def _bounded(measured: Measured, key: str, index: int | None = None) -> dict[str, float | None]:
    parts = {"value": measured.figures, "low": measured.low, "high": measured.high}
    return {part: number_or_none(found[key] if index is None else found[key][index]) for part, found in parts.items()}


def number_or_none(value: Any) -> float | None:
    """A float for JSON: None where it is NaN."""
    number = float(value)
    return None if math.isnan(number) else number


def lines(found: dict[str, Any]) -> list[str]:
    """The report as a few lines of text: each class, then the means, with intervals."""
    metrics, width = found["metrics"], max(len(name) for name in [*found["classes"], "mean"])
    text = [f"{'':{width}}  {'IoU':^22}  {'Dice':^22}  {'accuracy':^22}"]
    for name in found["classes"]:
        cells = "  ".join(_cell(metrics[key][name]) for key in PER_CLASS)
        text.append(f"{name:{width}}  {cells}")
    text.append(f"{'mean':{width}}  " + "  ".join(_cell(metrics[f"mean_{key}"]) for key in PER_CLASS))
    text.append(f"pixel accuracy {_cell(metrics['pixel_accuracy']).strip()}, {found['pictures']} pictures")
    return text


def _cell(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return f"{'absent':^22}"
    if figure["low"] is None:
        return f"{figure['value']:.4f}{'':16}"
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"
