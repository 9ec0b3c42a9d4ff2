"""The report on a classifier: accuracy, precision, recall, F1 with intervals, what is confused, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.classify.calibration import calibrated, quality, risk_coverage
from leakdet_tf.analysis.classify.scores import Answers, Flags, check_labelled
from leakdet_tf.analysis.stats.intervals import bounded, bounds, cell, drawn, method, number_or_none, places, stacked
from leakdet_tf.analysis.stats.significance import wilson
from leakdet_tf.analysis.tables import text_table
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.confusion_matrix import Counts, Ratios, divide, label_ratios
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.tasks.classify import certainty, decided

PER_CLASS = ("precision", "recall", "f1")
OVERALL = ("accuracy", "mean_precision", "mean_recall", "mean_f1")
ABSENT = (
    "precision and F1 are null for a class that is neither in the truth nor answered, recall for one that is not in "
    "the truth; null is left out of means; precision of a class that is there and never answered is 0"
)
_BATCH = 200  # resamples at a time, to bound memory
_CONFUSED = 3  # pairs of classes that are told in the text
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a classifier made of pictures at a temperature and a threshold, and the figures of :func:`figures_of`.

    ``scores`` float32 (N, C) are calibrated; ``there`` bool (N, C) are the classes decided for, also where the answer
    is unsure; ``sure`` float32 (N,) is the certainty, ``answered`` bool (N,) whether it reaches ``abstain``; ``right``
    bool (N,) whether a picture's classes are all as in the truth. ``drawn`` are the figures of :func:`resample`;
    ``low`` and ``high`` bound each figure by them and are NaN where there is nothing to resample.
    """

    answers: Answers
    temperature: float
    abstain: float
    scores: npt.NDArray[np.float32]
    there: Flags
    sure: npt.NDArray[np.float32]
    answered: Flags
    right: Flags
    figures: Ratios
    drawn: Ratios
    low: Ratios
    high: Ratios

    def worst(self, number: int) -> list[int]:
        """Positions of the wrong answers, the most confident first; at most ``number``, unsure ones among them."""
        odd = np.flatnonzero(~self.right)
        order = np.argsort(-self.confidence()[odd], kind="stable")
        return [int(i) for i in odd[order][:number]]

    def confidence(self) -> npt.NDArray[np.float32]:
        """float32 (N,): the largest score; for sigmoid that of the surest wrong decision, 0 where none is wrong."""
        if self.answers.activation == "softmax":
            return self.sure
        wrong = self.there != self.answers.truth.astype(np.bool_)
        sure: npt.NDArray[np.float32] = np.where(wrong, np.maximum(self.scores, 1 - self.scores), 0).max(axis=1)
        return sure

    def labels(self, position: int, flags: npt.NDArray[Any] | None = None) -> list[str]:
        """Names of the classes decided for at a position, or of those in other ``flags`` (N, C)."""
        row = self.there[position] if flags is None else flags[position]
        return [name for name, inside in zip(self.answers.classes, row, strict=True) if inside]


def measure(
    answers: Answers,
    settings: Evaluate,
    *,
    seed: int | Sequence[int],
    temperature: float = 1.0,
    abstain: float = 0.0,
) -> Measured:
    """Decide every picture and count.

    Args:
        answers: scores before calibration, and truth.
        settings: the experiment's ``[evaluate]``.
        seed: of the bootstrap.
        temperature: of the contract.
        abstain: answers of less certainty than this are unsure.

    Raises:
        DataError: a picture of a softmax model has no class, or the temperature or threshold cannot be.
    """
    check_labelled(answers)
    if not 0 <= abstain <= 1:
        raise DataError(f"the threshold of answers must lie from 0 to 1, is {abstain}")
    scores = calibrated(answers, temperature)
    there, sure = decided(scores, answers.activation), certainty(scores, answers.activation)
    answered = ~(sure < abstain)
    truth = answers.truth.astype(np.bool_)
    right = np.asarray((there == truth).all(axis=1))
    sides, tally = sides_of(truth, there), tally_of(right, answered)
    resampled = resample(sides, tally, answers.groups, settings.resamples, seed=seed)
    figures = figures_of(sides.sum(0), tally.sum(0))
    low, high = bounds(resampled, figures, settings.confidence)
    return Measured(answers, temperature, abstain, scores, there, sure, answered, right, figures, resampled, low, high)


def sides_of(truth: Flags, there: Flags) -> Counts:
    """Truth and decisions bool (N, C) → int64 (N, C, 2, 2), 1 at [whether it is so, whether it was decided so]."""
    place = 2 * truth.astype(np.int64) + there
    sides: Counts = (place[..., None] == np.arange(4)).astype(np.int64).reshape(*truth.shape, 2, 2)
    return sides


def tally_of(right: Flags, answered: Flags) -> Counts:
    """Bool (N,) → int64 (N, 4): each picture, whether right, whether answered, whether answered and right."""
    return np.stack([np.ones_like(right), right, answered, right & answered], axis=1).astype(np.int64)


def figures_of(sides: npt.NDArray[Any], tally: npt.NDArray[Any]) -> Ratios:
    """Figures from sums of :func:`sides_of` (..., C, 2, 2) and of :func:`tally_of` (..., 4); leading axes are kept.

    ``precision`` = TP/(TP+FP), ``recall`` = TP/(TP+FN), ``f1`` = 2TP/(2TP+FP+FN): float64 (..., C), NaN as
    :data:`ABSENT` says; ``mean_precision``, ``mean_recall`` and ``mean_f1`` (...,) are over the classes that are not
    NaN (macro averages). ``accuracy`` (...,) is the share of pictures wholly right, ``coverage`` of those answered,
    and ``answered_accuracy`` that of the right ones among these.
    """
    counts = np.asarray(sides, np.float64)
    hit, missed, alarms = counts[..., 1, 1], counts[..., 1, 0], counts[..., 0, 1]
    pictures, right, answered, both = np.moveaxis(np.asarray(tally, np.float64), -1, 0)
    found = label_ratios(hit, hit + alarms, hit + missed, right, pictures)
    return found | {"coverage": divide(answered, pictures), "answered_accuracy": divide(both, answered)}


def resample(
    sides: Counts, tally: Counts, groups: Sequence[str], resamples: int, *, seed: int | Sequence[int]
) -> Ratios:
    """Figures of bootstrap resamples (Efron 1979), each with a leading axis of ``resamples``; none for a single group.

    Groups of pictures are drawn with replacement, as many as there are, each with all of its pictures (Davison &
    Hinkley 1997, section 3.8); where no group has several, that is the bootstrap over pictures.
    """
    place, number = places(groups)
    flat = np.concatenate([sides.reshape(len(sides), -1), tally], axis=1).astype(np.float64)
    totals = np.zeros((number, flat.shape[1]))
    np.add.at(totals, place, flat)
    cut = totals.shape[1] - tally.shape[1]
    sums = (weights @ totals for weights in drawn(number, resamples, seed=seed, batch=_BATCH))
    return stacked(figures_of(part[:, :cut].reshape(-1, *sides.shape[1:]), part[:, cut:]) for part in sums)


def wilson_of(flags: Flags, groups: Sequence[str], confidence: float) -> dict[str, float | None]:
    """Share of a flag (N,) with its Wilson interval; pictures of a group count together as one, on the wide side."""
    if not flags.size:
        return {"value": None, "low": None, "high": None}
    share, number = float(flags.mean()), len(set(groups))
    low, high = wilson(round(share * number), number, confidence)
    return {"value": share, "low": min(low, share), "high": max(high, share)}


def report(measured: Measured, settings: Evaluate, about: dict[str, Any]) -> dict[str, Any]:
    """The report as plain data for JSON. Undefined figures are null.

    Args:
        measured: from :func:`measure`.
        settings: the experiment's ``[evaluate]``.
        about: what was measured on what: kind of model, contract, folder, split, pictures' digest.
    """
    answers = measured.answers
    names, truth = answers.classes, answers.truth.astype(np.bool_)
    temperatures = dict.fromkeys((1.0, measured.temperature))
    whole = {
        "format": 1,
        **about,
        "task": "classify",
        "activation": answers.activation,
        "pictures": len(answers.ids),
        "groups": len(set(answers.groups)),
        "classes": list(names),
        "truth": {name: int(number) for name, number in zip(names, truth.sum(0), strict=True)},
        **decisions(measured),
        "accuracy_wilson": wilson_of(measured.right, answers.groups, settings.confidence),
        "abstain": {
            "threshold": float(measured.abstain),
            "answered": int(measured.answered.sum()),
            "coverage": bounded(measured, "coverage"),
            "accuracy": bounded(measured, "answered_accuracy"),
            "coverage_by_class": {
                name: number_or_none(measured.answered[inside].mean()) if inside.any() else None
                for name, inside in zip(names, truth.T, strict=True)
            },
        },
        "calibration": [quality(answers, value, confidence=settings.confidence) for value in temperatures],
        "aurc": risk_coverage(answers, measured.temperature).aurc,
        "intervals": method(settings, groups=answers.repeats),
        "absent_classes": ABSENT,
        "worst": [_told(measured, i) for i in measured.worst(settings.worst)],
    }
    if len(set(answers.sources)) > 1:
        whole["sources"] = _by_source(measured)
    return whole


def decisions(measured: Measured) -> dict[str, Any]:
    """``confusion``, and ``metrics`` with their intervals: :data:`OVERALL`, and :data:`PER_CLASS` by class.

    ``confusion`` for one class a picture is int (C, C), rows the truth; for several each class's [[TN, FP], [FN, TP]].
    """
    names = measured.answers.classes
    return {
        "confusion": _confusion(measured),
        "metrics": {key: bounded(measured, key) for key in OVERALL}
        | {key: {name: bounded(measured, key, i) for i, name in enumerate(names)} for key in PER_CLASS},
    }


def _confusion(measured: Measured) -> Any:
    answers = measured.answers
    if answers.activation == "softmax":
        return (answers.truth.T.astype(np.int64) @ measured.there.astype(np.int64)).tolist()
    sides = sides_of(answers.truth.astype(np.bool_), measured.there).sum(0)
    return {name: part.tolist() for name, part in zip(answers.classes, sides, strict=True)}


def _told(measured: Measured, position: int) -> dict[str, Any]:
    answers = measured.answers
    return {
        "id": answers.ids[position],
        "truth": measured.labels(position, answers.truth),
        "answer": measured.labels(position),
        "confidence": float(measured.confidence()[position]),
        "unsure": not measured.answered[position],
    }


def _by_source(measured: Measured) -> dict[str, Any]:
    answers, found = measured.answers, {}
    truth, names = answers.truth.astype(np.bool_), answers.classes
    for source in sorted(set(answers.sources)):
        chosen = np.array([name == source for name in answers.sources])
        sides = sides_of(truth[chosen], measured.there[chosen]).sum(0)
        figures = figures_of(sides, tally_of(measured.right[chosen], measured.answered[chosen]).sum(0))
        found[source] = {
            "pictures": int(chosen.sum()),
            **{key: number_or_none(figures[key]) for key in ("accuracy", "mean_f1", "coverage")},
            "f1": {name: number_or_none(figures["f1"][i]) for i, name in enumerate(names)},
        }
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The report as a few lines of text: each class, the means, what is confused, what is answered, calibration."""
    metrics = found["metrics"]
    rows = [
        [name, str(found["truth"][name]), *(cell(metrics[key][name]) for key in PER_CLASS)] for name in metrics["f1"]
    ]
    rows.append(["mean", str(found["pictures"]), *(cell(metrics[f"mean_{key}"]) for key in PER_CLASS)])
    text = text_table(["", "pictures", "precision", "recall", "F1"], rows)
    said = found["accuracy_wilson"]
    of = "" if found["groups"] == found["pictures"] else f" in {found['groups']} groups"
    text.append(f"accuracy {cell(metrics['accuracy'])}, {found['pictures']} pictures{of}")
    text.append(f"accuracy, Wilson interval: {cell(said)}")
    text += _confused(found)
    part = found["abstain"]
    if part["threshold"]:
        share = f"{part['coverage']['value']:.1%} ({part['answered']} of {found['pictures']})"
        text.append(f"answered from a certainty of {part['threshold']:.3f}: {share}, accuracy {cell(part['accuracy'])}")
    for one in found["calibration"]:
        text.append(
            f"temperature {one['temperature']:.3f}: NLL {one['nll']:.4f}, Brier {one['brier']:.4f}, "
            f"ECE {one['ece']:.4f} ({one['ece_equal_mass']:.4f} in bins of equal mass)"
        )
    for name, part in found.get("sources", {}).items():
        each = ", ".join(f"{label} {value:.4f}" for label, value in part["f1"].items() if value is not None)
        text.append(f"{name}: {part['pictures']} pictures, accuracy {part['accuracy']:.4f}, F1 {each}")
    return text


def _confused(found: dict[str, Any]) -> list[str]:
    names, text = found["classes"], []
    if found["activation"] == "softmax":
        counts = np.array(found["confusion"])
        pairs = [(int(counts[a, b]), -a, -b) for a in range(len(names)) for b in range(len(names)) if a != b]
        for number, a, b in sorted(pairs, reverse=True)[:_CONFUSED]:
            if number:
                text.append(f"{names[-a]} taken for {names[-b]}: {number} of {found['truth'][names[-a]]}")
    return text
