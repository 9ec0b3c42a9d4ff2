"""Whether an engine of another precision still answers golden frames as its bundle's ONNX file does.

A float32 engine is held to the bundle's own tolerance. One in float16 or int8 cannot be: its numbers differ, and what
counts is whether it decides otherwise. The golden frames are few, so this finds an engine that is wrong, not one that
is a point less accurate: that is what ``leakdet-tf evaluate`` on the device is for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Geometry
from leakdet_tf.core.tasks import changes
from leakdet_tf.edge.golden import gap

Outputs = dict[str, npt.NDArray[np.float32]]
Pair = tuple[Outputs, Outputs, Geometry]
"""The bundle's answer to a golden frame, the engine's, and where the picture lies in the input."""


@dataclass(frozen=True)
class Limit:
    """What a precision may change.

    A decision that is another one counts when the bundle's was taken with more than ``margin``; ``changed`` is the
    largest share of such, ``mean`` the largest mean difference of an output relative to its largest value or 1, and a
    box is the same one when it overlaps by ``iou`` or more, or its edges lie within ``px`` of the model's pixels.
    """

    margin: float
    changed: float
    mean: float
    iou: float
    px: float


LIMITS = {"float16": Limit(0.02, 1e-3, 0.01, 0.9, 0.5), "int8": Limit(0.1, 0.02, 0.05, 0.7, 2.0)}
"""By precision. A judgement by the size of their steps (float16: 2^-11 of a value, int8: 2^-8 of its range), not
measured on a GPU."""


@dataclass(frozen=True)
class Agreement:
    """How an engine's answers to the golden frames differ from the bundle's.

    Of ``decisions`` (pixels, labels or boxes) ``changed`` are others, ``clear`` of them though the bundle's was taken
    with more than the limit's margin. ``largest`` is the largest difference, as :func:`~leakdet_tf.edge.golden.gap`
    tells it, ``mean`` the largest mean one of a frame.
    """

    frames: int
    decisions: int
    changed: int
    clear: int
    largest: float
    mean: float

    @property
    def share(self) -> float:
        """Clear changes as a share of all decisions; 0 where nothing is there to be decided, on either side."""
        return self.clear / self.decisions if self.decisions else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the engine's card."""
        return {**asdict(self), "share": self.share}


def compare(pairs: Iterable[Pair], contract: Contract, precision: str) -> Agreement:
    """Compare answers. An output that is not finite, missing or of another shape makes ``largest`` infinite."""
    limit = LIMITS.get(precision, LIMITS["float16"])
    found: list[tuple[int, int, int, float, float]] = []
    for kept, answered, geometry in pairs:
        if set(kept) != set(answered):
            found.append((1, 1, 1, np.inf, np.inf))
            continue
        largest = max(gap(kept[name], answered[name], contract, geometry) for name in kept)
        if not all(_comparable(kept[name], answered[name]) for name in kept):
            found.append((1, 1, 1, np.inf, np.inf))
            continue
        first, second = next(iter(kept.values())), answered[next(iter(kept))]
        seen = changes(first, second, contract, contract, geometry, near=(limit.iou, limit.px))
        counts = seen.decisions, len(seen.margins), int((seen.margins > limit.margin).sum())
        # rows of final boxes have no places of their own: their differences say nothing
        mean = 0.0 if contract.outputs == "final" else max(_mean(kept[name], answered[name]) for name in kept)
        found.append((*counts, largest, mean))
    return Agreement(
        frames=len(found),
        decisions=sum(one[0] for one in found),
        changed=sum(one[1] for one in found),
        clear=sum(one[2] for one in found),
        largest=max((one[3] for one in found), default=np.inf),
        mean=max((one[4] for one in found), default=np.inf),
    )


def objection(found: Agreement, precision: str, tolerance: float, changed: float | None = None) -> str:
    """Why an engine must not be used, in words, or "".

    Args:
        found: how it differs.
        precision: what it was built for; a ``float32`` one is held to ``tolerance`` alone.
        tolerance: the bundle's own.
        changed: largest share of clear changes, in place of the limit's.
    """
    if precision == "float32":
        fine = found.largest <= tolerance
        return "" if fine else f"outputs differ by {found.largest:.2g}, limit {tolerance:.2g}"
    limit = LIMITS[precision]
    most = limit.changed if changed is None else changed
    if not found.share <= most:
        return (
            f"{found.clear} of {found.decisions} decisions are clearly others ({found.share:.2g}, limit {most:.2g}; "
            f"outputs differ by {found.largest:.2g})"
        )
    if not found.mean <= limit.mean:
        return f"outputs differ by {found.mean:.2g} on average, limit {limit.mean:.2g}"
    return ""


def _comparable(kept: npt.NDArray[Any], answered: npt.NDArray[Any]) -> bool:
    return kept.shape == answered.shape and bool(np.isfinite(kept).all() and np.isfinite(answered).all())


def _mean(kept: npt.NDArray[Any], answered: npt.NDArray[Any]) -> float:
    scale = max(1.0, float(np.abs(kept).max(initial=0)))
    return float(np.abs(answered.astype(np.float64) - kept).mean()) / scale
