"""Boundary F1: how well a class's outline is drawn, where IoU is ruled by its inside.

G. Csurka, D. Larlus, F. Perronnin: What is a good evaluation measure for semantic segmentation? BMVC 2013; after
D. Martin, C. Fowlkes, J. Malik: Learning to detect natural image boundaries, PAMI 26(5), 2004. As in the former, a
boundary pixel is matched by any of the other side within the tolerance, not one to one as in the latter.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leakdet_tf.core.confusion_matrix import Counts, Ratios
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import Labels
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE

DIAGONAL_SHARE = 0.0075
"""The default tolerance as a share of the picture's diagonal, as Csurka et al. chose it."""
_SLACK = 1 + 1e-6  # distances are float32; the roots of two whole numbers differ by more than this
_SMALL = 8.0  # pixels; discs up to this radius are laid on by dilation, larger ones by a distance transform
Flags = npt.NDArray[np.bool_]


def default_tolerance(height: int, width: int) -> float:
    """Pixels: 0.75 % of the diagonal (Csurka et al. 2013), at least 1."""
    return max(1.0, DIAGONAL_SHARE * math.hypot(height, width))


def boundary_counts(
    truth: Labels, predicted: Labels, labelling: Labelling, *, tolerance: float | None = None
) -> Counts:
    """Count boundary pixels of every class: int64 (C, 4), fit to be added up over pictures.

    The columns are predicted boundary pixels that are matched, predicted ones, true ones that are matched, true ones.
    A boundary pixel of a class has one of its four neighbours inside the picture outside the class; it is matched
    when a boundary pixel of the other side is at most ``tolerance`` away (Euclidean, between pixel centres). Pixels
    that the truth ignores, or gives a set of classes with this one in it, are neither inside nor outside the class,
    on both sides.

    Args:
        truth: uint8 (H, W) labels with IGNORE.
        predicted: uint8 (H, W) classes.
        labelling: what the labels mean.
        tolerance: in pixels; by default :func:`default_tolerance`.

    Raises:
        ContractError: the shapes differ or are not (H, W), a label is unknown, or the tolerance is not above 0.
    """
    if truth.ndim != 2 or truth.shape != predicted.shape:
        raise ContractError(f"truth has shape {truth.shape}, prediction {predicted.shape}; both must be (H, W)")
    radius = default_tolerance(*truth.shape) if tolerance is None else tolerance
    if not (radius > 0 and math.isfinite(radius)):
        raise ContractError(f"the tolerance of boundaries must be above 0, is {tolerance}")
    members = labelling.members
    if truth.size:
        highest = int(np.max(truth, where=truth != IGNORE, initial=0))
        if highest >= labelling.count or int(predicted.max()) >= labelling.classes:
            raise ContractError(f"a label is outside the {labelling.count} labels of {labelling.classes} classes")
    counts = np.zeros((labelling.classes, 4), np.int64)
    for index in range(labelling.classes):
        unclear = np.zeros(IGNORE + 1, np.bool_)
        unclear[: labelling.count] = members[:, index]
        unclear[index], unclear[IGNORE] = False, True
        kept = ~unclear[truth]
        ours = _boundary((predicted == index) & kept, kept)
        theirs = _boundary((truth == index) & kept, kept)
        counts[index] = (_matched(ours, theirs, radius), ours.sum(), _matched(theirs, ours, radius), theirs.sum())
    return counts


def boundary_ratios(counts: npt.NDArray[Any]) -> Ratios:
    """Figures from counts (..., C, 4); leading axes are kept.

    Precision is the share of predicted boundary pixels that are matched, recall that of the true ones, both over all
    pixels counted (Csurka et al. average the F1 of single pictures instead). ``boundary_f1``: float64 (..., C), their
    harmonic mean; 0 for a class with a boundary on one side only, NaN for one without any. ``mean_boundary_f1``
    (...,) leaves the latter out and is NaN when no class has a boundary.
    """
    counts = np.asarray(counts, dtype=np.float64)
    ours, theirs = counts[..., 1], counts[..., 3]
    precision = np.divide(counts[..., 0], ours, out=np.zeros_like(ours), where=ours > 0)
    recall = np.divide(counts[..., 2], theirs, out=np.zeros_like(theirs), where=theirs > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    present = (ours > 0) | (theirs > 0)
    number = np.asarray(present.sum(-1), dtype=np.float64)
    total = np.where(present, f1, 0).sum(-1)
    return {
        "boundary_f1": np.where(present, f1, np.nan),
        "mean_boundary_f1": np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0),
    }


def _boundary(inside: Flags, kept: Flags) -> Flags:
    # Pixels of the class with a 4-neighbour in the picture that counts and is not of the class.
    outside = kept & ~inside
    near = np.zeros_like(inside)
    near[1:] |= outside[:-1]
    near[:-1] |= outside[1:]
    near[:, 1:] |= outside[:, :-1]
    near[:, :-1] |= outside[:, 1:]
    edge: Flags = inside & near
    return edge


def _matched(edge: Flags, other: Flags, radius: float) -> int:
    if not edge.any() or not other.any():
        return 0
    rows, columns = np.flatnonzero(edge.any(1)), np.flatnonzero(edge.any(0))
    margin = math.ceil(radius)  # what lies further from all of the edge matches none of it
    frame = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )
    if not other[frame].any():
        return 0
    return int(np.count_nonzero(_near(other[frame], radius * _SLACK) & edge[frame]))


def _near(flags: Flags, radius: float) -> Flags:
    # Pixels at most ``radius`` from a flagged one. Both ways are exact; each is the faster where it is used.
    if radius > _SMALL:
        far = np.ascontiguousarray(~flags).view(np.uint8)
        return np.asarray(cv2.distanceTransform(far, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius)
    reach = np.arange(-math.floor(radius), math.floor(radius) + 1)
    disc = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.uint8)
    return np.asarray(cv2.dilate(np.ascontiguousarray(flags).view(np.uint8), disc)) > 0
