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


def confusion(truth: Labels, predicted: Labels, classes: int) -> Counts:
    """Count pixels: int64 (classes, classes), rows are the truth, columns the prediction; IGNORE in truth is left out.

    Raises:
        ContractError: the shapes differ, labels are not integers, or one is neither a class nor, in the truth, IGNORE.
    """
    if truth.dtype.kind not in "iu" or predicted.dtype.kind not in "iu":
        raise ContractError(f"labels are integers, not {truth.dtype} and {predicted.dtype}")
    if truth.shape != predicted.shape:
        raise ContractError(f"truth has shape {truth.shape}, prediction {predicted.shape}")
    keep = truth != IGNORE
    rows, columns = truth[keep].astype(np.int64), predicted[keep].astype(np.int64)
    for labels in (rows, columns):
        if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= classes):
            raise ContractError(f"a label is outside 0..{classes - 1}")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def ratios(counts: npt.NDArray[Any]) -> Ratios:
    """Per-class and mean figures from counts (..., C, C), rows truth; leading axes are kept.

    ``iou`` = TP/(TP+FP+FN) (Jaccard), ``dice`` = 2TP/(2TP+FP+FN) (F1), ``accuracy`` = TP/(TP+FN) (recall): float64
    (..., C), NaN for a class that is absent: from truth and prediction for IoU and Dice, from the truth for accuracy.
    ``mean_iou``, ``mean_dice``, ``mean_accuracy`` (...,) leave such classes out. ``pixel_accuracy`` (...,) is the
    share of all pixels decided rightly. With no pixels at all everything is NaN.
    """
    counts = np.asarray(counts, dtype=np.float64)
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, predicted = counts.sum(-1), counts.sum(-2)
    result = {
        "iou": _divide(hit, truth + predicted - hit),
        "dice": _divide(2 * hit, truth + predicted),
        "accuracy": _divide(hit, truth),
    }
    for name in list(result):
        present = ~np.isnan(result[name])
        result[f"mean_{name}"] = _divide(np.where(present, result[name], 0).sum(-1), present.sum(-1))
    result["pixel_accuracy"] = _divide(hit.sum(-1), counts.sum((-2, -1)))
    return result


def _divide(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    below = np.asarray(below, dtype=np.float64)
    share: npt.NDArray[np.float64] = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return share
