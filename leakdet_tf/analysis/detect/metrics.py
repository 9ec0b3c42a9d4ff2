"""A detector's figures: mAP, recall, what is right at a threshold, and their intervals by resampling pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.detect.answers import Answers
from leakdet_tf.analysis.detect.coco import (
    AREAS,
    FALSE,
    HIT,
    IGNORED,
    IOUS,
    MOST,
    RECALLS,
    Curves,
    Matches,
    curves,
    matches,
)
from leakdet_tf.analysis.stats.intervals import bounds, drawn, places, stacked
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.confusion_matrix import Ratios, divide, label_ratios
from leakdet_tf.core.errors import DataError

OVERALL = ("map", "map50", "map75", "map_small", "map_medium", "map_large", "ar", "ar_small", "ar_medium", "ar_large")
PER_CLASS = ("ap", "ap50", "ap75", "ar_of")
AT_THRESHOLD = ("precision", "recall", "f1")
ABSENT = (
    "average precision, recall and F1 are null for a class of which no picture holds a box (of that size), and it is "
    "left out of means; precision is null where nothing was found either, else 0"
)
_BATCH = 250  # resamples at a time, to bound memory
_SEGMENTS = 2048  # hits at a time
_SPACING = np.spacing(1)  # COCO adds it to what it divides by
_ROUNDING = 1e-12
_EXACT = 2**24  # up to here float32 counts exactly
Floats = npt.NDArray[np.float64]


def averages(found: Matches, weights: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Average precision and recall, each float64 (R, T, K, A), of pictures counted ``weights`` (R, P) times.

    This is the evaluator's accumulation over pictures of which as many copies stand side by side as the weight says
    (the copies of a box together, also among equal scores); NaN where a class has no truth. Precision at a step of
    recall is the best at that hit or a later one, so only hits need be looked at, and the detections that were false
    since the one before.
    """
    steps, sizes, _ = found.state.shape
    classes, resamples = found.truths.shape[1], len(weights)
    ap = np.full((resamples, steps, classes, sizes), np.nan)
    recall = np.full_like(ap, np.nan)
    most = float(weights.sum(1).max(initial=0)) * MOST
    counts = np.ascontiguousarray(weights, np.float32 if most < _EXACT else np.float64)
    ends = np.searchsorted(found.label, np.arange(classes + 1))
    for label in range(classes):
        inside = slice(int(ends[label]), int(ends[label + 1]))
        for size in range(sizes):
            present = counts @ found.truths[size, label].astype(counts.dtype)
            there = present > 0
            if not there.any():
                continue
            for step in range(steps):
                state = found.state[step, size, inside]
                both = _average(found.picture[inside], state, counts, present.astype(np.float64))
                for target, values in zip((ap, recall), both, strict=True):
                    target[there, step, label, size] = values[there]
    return ap, recall


def _average(
    picture: npt.NDArray[np.int64], state: npt.NDArray[np.int8], counts: npt.NDArray[Any], present: Floats
) -> tuple[Floats, Floats]:
    hits = np.flatnonzero(state == HIT)
    if not len(hits):
        return np.zeros(len(counts)), np.zeros(len(counts))
    right = np.cumsum(counts[:, picture[hits]], axis=1, dtype=np.float64)
    wrong = np.cumsum(_false_between(picture, state, hits, counts), axis=1, dtype=np.float64)
    precision = right / (right + wrong + _SPACING)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    share = right / np.where(present > 0, present, 1)[:, None]
    reached = np.searchsorted(RECALLS, share, side="right")  # steps of recall up to each hit
    new = np.diff(reached, axis=1, prepend=0)
    return (best * new).sum(axis=1) / len(RECALLS), share[:, -1]


def _false_between(
    picture: npt.NDArray[np.int64], state: npt.NDArray[np.int8], hits: npt.NDArray[np.int64], counts: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    # (R, hits): false detections between a hit and the one before; those behind the last hit change nothing.
    wrong = np.flatnonzero(state[: hits[-1]] == FALSE)
    behind = np.searchsorted(hits, wrong)
    parts = []
    for start in range(0, len(hits), _SEGMENTS):
        size = min(_SEGMENTS, len(hits) - start)
        chosen = (behind >= start) & (behind < start + size)
        places = (behind[chosen] - start) * counts.shape[1] + picture[wrong[chosen]]
        table = np.bincount(places, minlength=size * counts.shape[1]).reshape(size, -1)
        parts.append(counts @ table.T.astype(counts.dtype))
    return np.concatenate(parts, axis=1)


def figures_of(ap: Floats, recall: Floats) -> Ratios:
    """COCO's figures from average precision and recall (..., T, K, A); leading axes are kept.

    ``map`` is over all overlaps .5 to .95, ``map50`` and ``map75`` at one of them, ``map_small`` … over boxes of a size
    of :data:`~.detect.coco.AREAS`; ``ar`` is the mean recall over the overlaps. All are means over the
    classes that are there. ``ap``, ``ap50``, ``ap75`` and ``ar_of`` (..., K) are each class's. Sizes that were not
    evaluated are left out.
    """
    middle = len(IOUS) // 2
    each = {"ap": ap[..., 0].mean(-2), "ap50": ap[..., 0, :, 0], "ar_of": recall[..., 0].mean(-2)}
    if ap.shape[-3] == len(IOUS):
        each["ap75"] = ap[..., middle, :, 0]
    found = each | {name: mean(each[key]) for name, key in (("map", "ap"), ("map50", "ap50"), ("ar", "ar_of"))}
    if "ap75" in each:
        found["map75"] = mean(each["ap75"])
    for place, size in enumerate(list(AREAS)[1 : ap.shape[-1]], start=1):
        found[f"map_{size}"] = mean(ap[..., place].mean(-2))
        found[f"ar_{size}"] = mean(recall[..., place].mean(-2))
    return found


def mean(values: Floats) -> Floats:
    """Means over the last axis without NaN; NaN where all are."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0).sum(-1), known.sum(-1))


def map_of(answers: Answers) -> Ratios:
    """Figures of :func:`figures_of` as the evaluator itself gives them.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    found = curves(answers)
    return figures_of(found.ap, found.recall)


def quick_map(answers: Answers) -> dict[str, float]:
    """``map`` and ``map50`` alone, for a look after each epoch; NaN where there are no boxes to find."""
    found = curves(answers, sizes=False)
    whole = figures_of(found.ap, found.recall)
    return {name: float(whole[name]) for name in ("map", "map50")}


def counts_at(found: Matches, threshold: float) -> npt.NDArray[np.int64]:
    """Hits, false alarms and true boxes of each picture and class at the first overlap: int64 (P, K, 3).

    Detections of a score below the threshold are left out; what the evaluator ignores counts neither way.
    """
    _, classes, pictures = found.truths.shape
    counts = np.zeros((pictures, classes, 3), np.int64)
    shown = found.score >= threshold
    for column, state in enumerate((HIT, FALSE)):
        chosen = shown & (found.state[0, 0] == state)
        np.add.at(counts[..., column], (found.picture[chosen], found.label[chosen]), 1)
    counts[..., 2] = found.truths[0].T
    return counts


def tally_of(counts: npt.NDArray[np.int64], answers: Answers) -> npt.NDArray[np.int64]:
    """Counts of :func:`counts_at` → int64 (P, 6): each picture, its false alarms, whether it is answered without an
    error, whether it is empty (no true box, nor one that is ignored), its false alarms if so, and whether it has any if
    so."""
    hits, alarms, present = np.moveaxis(counts.sum(1), -1, 0)
    empty = np.array([len(truth) == 0 for truth in answers.truths])
    right = (alarms == 0) & (hits == present)
    columns = (np.ones_like(hits), alarms, right, empty, alarms * empty, (alarms > 0) & empty)
    return np.stack(columns, axis=1).astype(np.int64)


def ratios_at(counts: npt.NDArray[Any], tally: npt.NDArray[Any]) -> Ratios:
    """Figures at a threshold from sums of :func:`counts_at` (..., K, 3) and :func:`tally_of` (..., 6).

    ``precision``, ``recall`` and ``f1`` are each class's and ``mean_…`` over the classes that are there;
    ``false_alarms`` are those per picture, ``empty_false_alarms`` those per empty picture, ``empty_alarmed`` is the
    share of empty pictures with any, ``faultless`` that of pictures without any error.
    """
    hits, alarms, present = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    pictures, wrong, right, empty, empty_wrong, alarmed = np.moveaxis(np.asarray(tally, np.float64), -1, 0)
    whole = label_ratios(hits, hits + alarms, present, right, pictures)
    found = {name: np.where((present > 0) | (name == "precision"), whole[name], np.nan) for name in AT_THRESHOLD}
    found |= {f"mean_{name}": mean(np.where(present > 0, found[name], np.nan)) for name in AT_THRESHOLD}
    return found | {
        "faultless": whole["accuracy"],
        "false_alarms": divide(wrong, pictures),
        "empty_false_alarms": divide(empty_wrong, empty),
        "empty_alarmed": divide(alarmed, empty),
    }


def sweep(found: Matches, thresholds: npt.NDArray[np.floating]) -> Ratios:
    """``precision``, ``recall`` and ``f1`` at thresholds (S,): means over the classes that are there, float64 (S,).

    Precision is over the classes of which something is shown at that threshold; NaN where nothing is.
    """
    present, state = found.truths[0].sum(1), found.state[0, 0]
    counts = np.zeros((len(thresholds), len(present), 3))
    for label in range(len(present)):
        for column, kind in enumerate((HIT, FALSE)):
            scores = np.sort(found.score[(found.label == label) & (state == kind)])
            counts[:, label, column] = len(scores) - np.searchsorted(scores, thresholds, side="left")
    hits, alarms = counts[..., 0], counts[..., 1]
    whole = np.where(present > 0, present, np.nan)
    shares = {
        "precision": divide(hits, np.where(present > 0, hits + alarms, 0)),
        "recall": hits / whole,
        "f1": 2 * hits / (hits + alarms + whole),
    }
    return {name: mean(values) for name, values in shares.items()}


@dataclass(frozen=True)
class Threshold:
    """A score from which on boxes are shown, and the mean F1 over classes that it reached; ``note`` says why none."""

    value: float | None
    f1: float | None
    note: str = ""


def best_threshold(answers: Answers) -> Threshold:
    """The score with the largest F1 at an overlap of .5, as the mean over the classes that are there.

    It lies midway between the lowest score that is shown and the next, so that a rounding does not hide a box; of equal
    ones the highest is taken. Choose it on pictures that nothing is reported on.
    """
    found = matches(answers, overlaps=1, sizes=False)
    present, state = found.truths[0].sum(1), found.state[0, 0]
    scores = np.unique(found.score[state != IGNORED])[::-1]
    if not present.any() or not len(scores):
        return Threshold(None, None, "there are no boxes to find" if not present.any() else "nothing was found")
    f1 = sweep(found, scores)["f1"]
    best = int(np.flatnonzero(f1 >= f1.max() - _ROUNDING)[0])
    if f1[best] == 0:
        return Threshold(None, None, "no box was found")
    lower = scores[best + 1] if best + 1 < len(scores) else scores[best]
    return Threshold(float((scores[best] + lower) / 2), float(f1[best]))


@dataclass(frozen=True, eq=False)
class Judged:
    """A picture's boxes at a threshold: the rows shown of a prediction and the state of each, the rows of the truth
    that count or are ignored, and which of them were found."""

    shown: npt.NDArray[np.int64]
    states: npt.NDArray[np.int8]
    found: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a detector made of pictures at a threshold.

    ``counts`` and ``tally`` are those of each picture at the threshold. ``figures`` are those of :func:`figures_of` and
    :func:`ratios_at`; ``low`` and ``high`` bound them by bootstrap and are NaN where there is nothing to resample.
    """

    answers: Answers
    threshold: float
    curves: Curves
    matches: Matches
    counts: npt.NDArray[np.int64]
    tally: npt.NDArray[np.int64]
    figures: Ratios
    low: Ratios
    high: Ratios

    @property
    def errors(self) -> npt.NDArray[np.int64]:
        """False alarms and misses of each picture at the threshold: int64 (P,)."""
        hits, alarms, present = np.moveaxis(self.counts.sum(1), -1, 0)
        errors: npt.NDArray[np.int64] = alarms + present - hits
        return errors

    def worst(self, number: int) -> list[int]:
        """Positions of the pictures with the most errors, at most ``number``, none without."""
        order = np.argsort(-self.errors, kind="stable")
        return [int(i) for i in order[:number] if self.errors[i]]

    def judged(self, position: int) -> Judged:
        """What is right and wrong on the picture at a position."""
        return judged(self.answers, self.matches, self.threshold, position)


def judged(answers: Answers, found: Matches, threshold: float, position: int) -> Judged:
    """What is right and wrong on a picture, by the evaluator's matches at the first overlap."""
    truth = answers.truths[position]
    chosen = np.flatnonzero((found.picture == position) & (found.score >= threshold))
    hits = chosen[found.state[0, 0, chosen] == HIT]
    met = np.zeros(len(truth), np.bool_)
    met[found.partner[hits]] = True
    chosen = chosen[np.argsort(found.row[chosen])]
    return Judged(found.row[chosen], found.state[0, 0, chosen], met)


def measure(answers: Answers, settings: Evaluate, *, seed: int | Sequence[int], threshold: float) -> Measured:
    """Let the evaluator match all boxes, count, and resample.

    Args:
        answers: boxes from a low score on, and truth.
        settings: the experiment's ``[evaluate]``.
        seed: of the bootstrap.
        threshold: of the contract: boxes of a lower score are not shown.

    Raises:
        DataError: the threshold cannot be.
        MissingExtraError: faster-coco-eval is not installed.
    """
    if not 0 <= threshold <= 1:
        raise DataError(f"the threshold of boxes must lie from 0 to 1, is {threshold}")
    whole, found = curves(answers), matches(answers)
    counts = counts_at(found, threshold)
    tally = tally_of(counts, answers)
    figures = figures_of(whole.ap, whole.recall) | ratios_at(counts.sum(0), tally.sum(0))
    resampled = resample(found, counts, tally, answers.groups, settings.resamples, seed=seed)
    low, high = bounds(resampled, figures, settings.confidence)
    return Measured(answers, threshold, whole, found, counts, tally, figures, low, high)


def resample(
    found: Matches,
    counts: npt.NDArray[np.int64],
    tally: npt.NDArray[np.int64],
    groups: Sequence[str],
    resamples: int,
    *,
    seed: int | Sequence[int],
) -> Ratios:
    """Figures of bootstrap resamples (Efron 1979), each with a leading axis of ``resamples``; none for a single group.

    Groups of pictures are drawn with replacement, as many as there are, each with all of its pictures (Davison &
    Hinkley 1997, section 3.8). A picture that is drawn twice counts twice, with its matches as they were.
    """

    def of(weights: Floats) -> Ratios:
        at = [np.tensordot(weights, part.astype(np.float64), axes=1) for part in (counts, tally)]
        return figures_of(*averages(found, weights)) | ratios_at(*at)

    return stacked(of(weights) for weights in drawn_pictures(groups, resamples, seed=seed))


def drawn_pictures(groups: Sequence[str], resamples: int, *, seed: int | Sequence[int]) -> Iterator[Floats]:
    """How often each picture is drawn with its group, in parts of (R, P); none for a single group."""
    place, number = places(groups)
    for weights in drawn(number, resamples, seed=seed, batch=_BATCH):
        yield weights[:, place].astype(np.float64)
