"""Confusion matrices and the ratios drawn from them: one definition for the trainer, the reports and the exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import Labels
from leakdet_tf.core.records import IGNORE

Counts = npt.NDArray[np.int64]
Ratios = dict[str, npt.NDArray[np.float64]]


def confusion(truth: Labels, predicted: Labels, classes: int, *, labels: int | None = None) -> Counts:
    """Count pixels: int64 (labels, classes), rows are the truth, columns the prediction; IGNORE in truth is left out.

    Args:
        truth: labels, any integer shape; ``labels`` of them, the classes and then the sets of a
            :class:`~leakdet_tf.core.labels.Labelling`, or as many as there are classes.
        predicted: classes, of the truth's shape.
        classes: how many classes there are.
        labels: how many labels there are; ``classes`` when left out.

    Raises:
        ContractError: the shapes differ, labels are not integers, or one is out of range and, in the truth, not IGNORE.
    """
    rows_count = classes if labels is None else labels
    if truth.dtype.kind not in "iu" or predicted.dtype.kind not in "iu":
        raise ContractError(f"labels are integers, not {truth.dtype} and {predicted.dtype}")
    if truth.shape != predicted.shape:
        raise ContractError(f"truth has shape {truth.shape}, prediction {predicted.shape}")
    keep = truth != IGNORE
    rows, columns = truth[keep].astype(np.int64), predicted[keep].astype(np.int64)
    for found, count in ((rows, rows_count), (columns, classes)):
        if found.size and (int(found.min()) < 0 or int(found.max()) >= count):
            raise ContractError(f"a label is outside 0..{count - 1}")
    return np.bincount(rows * classes + columns, minlength=rows_count * classes).reshape(rows_count, classes)


def ratios(counts: npt.NDArray[Any], members: npt.NDArray[np.bool_] | None = None) -> Ratios:
    """Figures of each label and their means over the classes, from counts (..., L, C), rows truth; leading axes kept.

    ``iou`` = TP/(TP+FP+FN) (Jaccard), ``dice`` = 2TP/(2TP+FP+FN) (F1), ``accuracy`` = TP/(TP+FN) (recall): float64
    (..., L), NaN for a label that is absent: from truth and prediction for IoU and Dice, from the truth for accuracy;
    and for one that no pixel is certain to be while some may be it, in sets.
    ``mean_iou``, ``mean_dice``, ``mean_accuracy`` (...,) are over the classes that are not absent. ``pixel_accuracy``
    (...,) is the share of all pixels decided rightly. With no pixels at all everything is NaN.

    ``members`` bool (L, C) says which classes a label allows (:attr:`~leakdet_tf.core.labels.Labelling.members`); one
    to one when left out. A pixel whose label is a set is decided rightly by each class of the set: the set's summed
    probability, for a decision. For one class of the set alone such a pixel says neither yes nor no, and is left out;
    for the set as a label of its own, pixels of its classes count as well.
    """
    counts = np.asarray(counts, dtype=np.float64)
    classes = counts.shape[-1]
    allowed = np.eye(classes) if members is None else np.asarray(members, np.float64)
    shared = allowed @ allowed.T  # classes that two labels have in common
    within = (shared == shared.diagonal()).astype(np.float64)  # [a, b]: all classes of b are among those of a
    apart = (shared == 0).astype(np.float64)
    chosen = counts @ allowed.T  # (..., L, L): pixels of label b decided as one of the classes of label a, at [b, a]
    hit = np.einsum("ab,...ba->...a", within, chosen)
    truth = np.einsum("ab,...b->...a", within, counts.sum(-1))
    predicted = hit + np.einsum("ab,...ba->...a", apart, chosen)
    unsure = np.einsum("ab,...b->...a", 1 - within - apart, counts.sum(-1))
    untold = (truth == 0) & (unsure > 0)
    predicted = np.where(untold, 0, predicted)
    result = {
        "iou": divide(hit, truth + predicted - hit),
        "dice": divide(2 * hit, truth + predicted),
        "accuracy": divide(hit, truth),
    }
    for name in list(result):
        own = result[name][..., :classes]
        present = ~np.isnan(own)
        result[f"mean_{name}"] = divide(np.where(present, own, 0).sum(-1), present.sum(-1))
    result["pixel_accuracy"] = divide((counts * allowed).sum((-2, -1)), counts.sum((-2, -1)))
    return result


def label_ratios(
    hits: npt.NDArray[Any], answered: npt.NDArray[Any], present: npt.NDArray[Any], right: Any, total: Any
) -> Ratios:
    """Figures of a classifier from counts of pictures; leading axes are kept.

    ``precision`` = hits / answered, ``recall`` = hits / present, ``f1`` = 2 hits / (answered + present): float64
    (..., C). Precision and F1 are NaN for a class that is neither there nor answered, recall for one that is not there;
    precision is 0 for a class that is there and never answered. ``mean_precision``, ``mean_recall`` and ``mean_f1``
    (...,) are over the classes that are not NaN (macro means). ``accuracy`` (...,) = right / total.

    Args:
        hits: (..., C), pictures of a class that were answered so.
        answered: (..., C), pictures answered so.
        present: (..., C), pictures of the class.
        right: (...,), pictures answered with just the classes that are there.
        total: (...,), pictures.
    """
    hits, answered, present = (np.asarray(part, np.float64) for part in (hits, answered, present))
    found = {
        "precision": np.where((answered == 0) & (present > 0), 0.0, divide(hits, answered)),
        "recall": divide(hits, present),
        "f1": divide(2 * hits, answered + present),
    }
    for name in list(found):
        defined = ~np.isnan(found[name])
        found[f"mean_{name}"] = divide(np.where(defined, found[name], 0).sum(-1), defined.sum(-1))
    found["accuracy"] = divide(np.asarray(right, np.float64), total)
    return found


def divide(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Elementwise shares, NaN where there is nothing to share."""
    below = np.asarray(below, dtype=np.float64)
    share: npt.NDArray[np.float64] = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return share
