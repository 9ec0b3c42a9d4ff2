"""The pointing game: does a heat map's maximum lie on the thing?

J. Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016, arXiv 1608.00507. Beside it the share of
the heat that lies inside the mask, as in the energy-based game of H. Wang et al., Score-CAM, CVPR Workshops 2020, arXiv
1910.01279.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.stats.significance import wilson
from leakdet_tf.core.errors import ContractError, DataError

TOLERANCE = 15 / 224
"""How far beside the mask still counts as on it, as a share of the picture's shorter side: 15 of 224 pixels."""
_TIE = 1e-6
Heat = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def peak(heat: Heat) -> tuple[int, int] | None:
    """(row, column) of the maximum of (H, W), of equals the one nearest to their middle; None without any heat."""
    most = float(heat.max())
    if not most > 0:
        return None
    places = np.argwhere(heat >= most * (1 - _TIE))
    row, column = places[((places - places.mean(0)) ** 2).sum(1).argmin()]
    return int(row), int(column)


@dataclass(frozen=True)
class Pointed:
    """How one heat map lies to a mask.

    ``hit``: the maximum is on the mask or at most the tolerance away. ``chance``: the share of the picture's pixels
    for which that holds. ``centre``: whether it holds for the picture's middle. ``inside``: share of the heat that
    lies in the mask itself, None without heat. ``area``: the mask's share of the picture.
    """

    hit: bool
    chance: float
    centre: bool
    inside: float | None
    area: float


def point(heat: Heat, mask: Flags, *, tolerance: float | None = None) -> Pointed:
    """Compare a heat map (H, W) with a mask bool (H, W) that has pixels.

    Args:
        heat: from 0 up.
        mask: where the thing is.
        tolerance: in pixels, Euclidean; by default :data:`TOLERANCE` of the shorter side.

    Raises:
        ContractError: the shapes differ.
        DataError: the mask is empty.
    """
    if heat.shape != mask.shape:
        raise ContractError(f"a heat map of {heat.shape} px cannot be compared with a mask of {mask.shape} px")
    if not mask.any():
        raise DataError("the mask is empty: there is nothing to point at")
    reach = TOLERANCE * min(mask.shape) if tolerance is None else tolerance
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = away <= reach * (1 + 1e-6)  # distances are float32
    place, total = peak(heat), float(heat.sum(dtype=np.float64))
    return Pointed(
        hit=place is not None and bool(near[place]),
        chance=float(near.mean()),
        centre=bool(near[mask.shape[0] // 2, mask.shape[1] // 2]),
        inside=float(heat[mask].sum(dtype=np.float64)) / total if total > 0 else None,
        area=float(mask.mean()),
    )


def summary(pointed: Sequence[Pointed], *, confidence: float = 0.95) -> dict[str, Any]:
    """The pointing game over pictures as plain data for JSON, with Wilson intervals.

    ``hits`` stands beside what says nothing of the model: ``chance``, a point thrown at random (mean over the
    pictures), and ``centre``, always the middle. ``inside`` is the mean share of the heat in the mask, over pictures
    with heat; ``area`` is what heat that is the same everywhere would get. A picture without heat is a miss.
    """

    def share(hits: int) -> dict[str, Any]:
        low, high = wilson(hits, len(pointed), confidence) if pointed else (None, None)
        return {"hits": hits, "rate": hits / len(pointed) if pointed else None, "low": low, "high": high}

    insides = [item.inside for item in pointed if item.inside is not None]
    return {
        "pictures": len(pointed),
        "without_heat": len(pointed) - len(insides),
        "tolerance": TOLERANCE,
        "confidence": confidence,
        "pointing": share(sum(item.hit for item in pointed)),
        "chance": float(np.mean([item.chance for item in pointed])) if pointed else None,
        "centre": share(sum(item.centre for item in pointed)),
        "inside": float(np.mean(insides)) if insides else None,
        "area": float(np.mean([item.area for item in pointed])) if pointed else None,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """A :func:`summary` as lines of text."""
    if not found["pictures"]:
        return ["pointing: no picture to count"]
    hits, centre = found["pointing"], found["centre"]
    better = hits["low"] > max(found["chance"], centre["rate"])
    text = [
        f"pointing: {hits['rate']:.1%} [{hits['low']:.1%}, {hits['high']:.1%}], {hits['hits']} of {found['pictures']}; "
        f"a random point {found['chance']:.1%}, the picture's middle {centre['rate']:.1%}: "
        f"{'better than both' if better else 'not shown to be better than both'}"
    ]
    if found["inside"] is not None:
        text.append(f"heat inside the mask: {found['inside']:.1%}; even heat would have {found['area']:.1%}")
    if found["without_heat"]:
        text.append(f"{found['without_heat']} without any heat, counted as misses")
    return text
