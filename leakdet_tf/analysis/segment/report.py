"""The report on a model: one piece of code for Keras models and exported files, at the original pictures' size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.segment import pod
from leakdet_tf.analysis.segment.boundary import boundary_counts, boundary_ratios
from leakdet_tf.analysis.segment.pod import Detection, collect
from leakdet_tf.analysis.stats.intervals import bounded, bounds, drawn, method, number_or_none, stacked
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.confusion_matrix import Counts, Ratios, ratios
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import Mask, Sample
from leakdet_tf.core.tasks import segment
from leakdet_tf.edge.predictor import Predictor

PER_LABEL = ("iou", "dice", "accuracy")
PER_CLASS = ("boundary_f1",)
OVERALL = ("mean_iou", "mean_dice", "mean_accuracy", "mean_boundary_f1", "pixel_accuracy")
TARGET = "gas"
"""The class whose detection is told by size, temperature and distance where rendered pictures say them."""
_BATCH = 200  # resamples at a time, to bound memory


@dataclass(frozen=True, eq=False)
class Measured:
    """What was counted on every picture, and the figures drawn from the sums.

    ``counts``: int64 (N, L, C), rows the truth's labels. ``boundary``: int64 (N, C, 4), see
    :mod:`~.segment.boundary`. ``sources``: each picture's source. ``low`` and ``high`` bound each figure by
    bootstrap over pictures; they are NaN for a single picture. ``found`` holds what a rendered picture's parameters
    allow to say about detection.
    """

    ids: tuple[str, ...]
    counts: Counts
    boundary: Counts
    labelling: Labelling
    sources: tuple[str, ...]
    figures: Ratios
    low: Ratios
    high: Ratios
    found: dict[str, list[Detection]]

    def worst(self, number: int) -> list[int]:
        """Positions of the pictures with the lowest mean IoU, worst first."""
        order = np.argsort(ratios(self.counts, self.labelling.members)["mean_iou"], kind="stable")
        return [int(i) for i in order[:number]]


def measure(
    predictor: Predictor,
    samples: Iterable[Sample],
    settings: Evaluate,
    *,
    seed: int,
    labelling: Labelling | None = None,
    sources: Sequence[str] = (),
) -> Measured:
    """Answer every sample and count.

    Args:
        predictor: the model.
        samples: pictures with truth.
        settings: the experiment's ``[evaluate]``.
        seed: of the bootstrap.
        labelling: what the truth's labels mean; the contract's classes alone when left out.
        sources: the name of each sample's source; one for all when left out.

    Raises:
        DataError: there are no samples.
    """
    contract = predictor.contract
    labelling = labelling or Labelling(len(contract.classes))
    ids, counts, boundary = [], [], []
    found: dict[str, list[Detection]] = {}
    for sample in samples:
        if sample.truth is None:
            raise DataError(f"{sample.id}: has no mask to measure against", remedy="add it, or leave the picture out")
        answer = cast(Mask, predictor.predict(sample.images))
        ids.append(sample.id)
        counts.append(segment.score(sample.truth, answer, contract, labelling))
        boundary.append(boundary_counts(sample.truth, answer.labels, labelling))
        if (seen := collect(sample, answer, contract, TARGET, labelling)) is not None:
            found.setdefault(TARGET, []).append(seen)
    if not counts:
        raise DataError("there are no pictures to evaluate on", remedy="check data.root and the split's name")
    stacked, edges = np.stack(counts), np.stack(boundary)
    low, high = intervals(stacked, settings, seed=seed, boundary=edges, labelling=labelling)
    return Measured(
        tuple(ids),
        stacked,
        edges,
        labelling,
        tuple(sources) or ("data",) * len(ids),
        figures_of(stacked.sum(0), edges.sum(0), labelling),
        low,
        high,
        found,
    )


def figures_of(counts: npt.NDArray[Any], boundary: npt.NDArray[Any], labelling: Labelling) -> Ratios:
    """All figures from counts (..., L, C) and boundary counts (..., C, 4)."""
    return ratios(counts, labelling.members) | boundary_ratios(boundary)


def intervals(
    counts: Counts, settings: Evaluate, *, seed: int, boundary: Counts, labelling: Labelling
) -> tuple[Ratios, Ratios]:
    """Percentile bootstrap over pictures (Efron 1979): bounds of every figure of :func:`figures_of`.

    With one picture there is nothing to resample and both bounds are NaN.
    """
    flat, edges = (part.reshape(len(part), -1).astype(np.float64) for part in (counts, boundary))
    resampled = stacked(
        figures_of(
            (weights @ flat).reshape(-1, *counts.shape[1:]),
            (weights @ edges).reshape(-1, *boundary.shape[1:]),
            labelling,
        )
        for weights in drawn(len(counts), settings.resamples, seed=seed, batch=_BATCH)
    )
    return bounds(resampled, figures_of(counts.sum(0), boundary.sum(0), labelling), settings.confidence)


def report(measured: Measured, predictor: Predictor, settings: Evaluate, about: dict[str, Any]) -> dict[str, Any]:
    """The report as plain data for JSON. Undefined figures are null.

    Args:
        measured: from :func:`measure`.
        predictor: the model, for class names and its contract's id.
        settings: the experiment's ``[evaluate]``.
        about: what was measured on what: kind of model, folder, split, pictures' digest.
    """
    names = predictor.contract.class_names
    labels = measured.labelling.names(names)
    per_picture = ratios(measured.counts, measured.labelling.members)["mean_iou"]
    whole = {
        "format": 2,
        **about,
        "contract": predictor.contract.id,
        "pictures": len(measured.ids),
        "classes": list(names),
        "labels": list(labels),
        "confusion": measured.counts.sum(0).tolist(),
        "metrics": {key: bounded(measured, key) for key in OVERALL}
        | {key: {name: bounded(measured, key, i) for i, name in enumerate(labels)} for key in PER_LABEL}
        | {key: {name: bounded(measured, key, i) for i, name in enumerate(names)} for key in PER_CLASS},
        "intervals": method(settings),
        "absent_classes": "left out of means; null for themselves",
        "worst": [
            {"id": measured.ids[i], "mean_iou": number_or_none(per_picture[i])} for i in measured.worst(settings.worst)
        ],
    }
    if len(set(measured.sources)) > 1:
        whole["sources"] = _by_source(measured, labels)
    if measured.found:
        whole["detection"] = {name: pod.report(found, settings.confidence) for name, found in measured.found.items()}
    return whole


def _by_source(measured: Measured, labels: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for source in sorted(set(measured.sources)):
        chosen = np.array([name == source for name in measured.sources])
        figures = figures_of(measured.counts[chosen].sum(0), measured.boundary[chosen].sum(0), measured.labelling)
        found[source] = {
            "pictures": int(chosen.sum()),
            "mean_iou": number_or_none(figures["mean_iou"]),
            "iou": {name: number_or_none(figures["iou"][i]) for i, name in enumerate(labels)},
        }
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The report as a few lines of text: each label, then the means, with intervals."""
    metrics, width = found["metrics"], max(len(name) for name in [*found["labels"], "mean"])
    columns = (*PER_LABEL, *PER_CLASS)
    text = [f"{'':{width}}  {'IoU':^22}  {'Dice (F1)':^22}  {'accuracy':^22}  {'boundary F1':^22}"]
    for name in found["labels"]:
        cells = "  ".join(_cell(metrics[key][name]) for key in columns if name in metrics[key])
        text.append(f"{name:{width}}  {cells}")
    text.append(f"{'mean':{width}}  " + "  ".join(_cell(metrics[f"mean_{key}"]) for key in columns))
    text.append(f"pixel accuracy {_cell(metrics['pixel_accuracy']).strip()}, {found['pictures']} pictures")
    for name, part in found.get("sources", {}).items():
        each = ", ".join(f"{label} {value:.4f}" for label, value in part["iou"].items() if value is not None)
        text.append(f"{name}: {part['pictures']} pictures, IoU {each}")
    for part in found.get("detection", {}).values():
        text += pod.lines(part)
    return text


def _cell(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return f"{'absent':^22}"
    if figure["low"] is None:
        return f"{figure['value']:.4f}{'':16}"
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"
