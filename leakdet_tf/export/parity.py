"""Whether an exported file answers as its model does, on real pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from leakdet_tf.core.images import Pixels
from leakdet_tf.core.tasks import task_of
from leakdet_tf.edge.predictor import Predictor


@dataclass(frozen=True)
class Parity:
    """How two runtimes differ on the same pictures.

    ``decisions`` were taken on ``pictures`` pictures (one a pixel, or one a picture or class), ``changed`` of them
    otherwise; ``max_difference`` is the largest absolute difference of an output; ``max_margin`` the largest lead,
    among changed decisions, of the reference's winner over its second: a change is harmless noise when it is within
    twice ``max_difference``.
    """

    pictures: int
    decisions: int
    changed: int
    max_difference: float
    max_margin: float

    @property
    def changed_share(self) -> float:
        """Changed decisions as a share of all; NaN when there were none."""
        return self.changed / self.decisions if self.decisions else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``card.json``."""
        return {**asdict(self), "changed_share": self.changed_share}


def compare(reference: Predictor, exported: Predictor, frames: Iterable[dict[str, Pixels]]) -> Parity:
    """Answer every frame with both, and count; an output that is not finite raises ContractError."""
    contract = reference.contract
    task = task_of(contract)
    pictures = decisions = changed = 0
    difference = margin = 0.0
    for images in frames:
        inputs, _ = reference.prepare(images)
        ours, theirs = (next(iter(p.backend.run(inputs).values())) for p in (reference, exported))
        labels, others = task.decisions(ours, contract), task.decisions(theirs, contract)
        pictures += 1
        decisions += labels.size
        difference = max(difference, float(np.abs(ours - theirs).max()))
        if (other := labels != others).any():
            changed += int(other.sum())
            margin = max(margin, float(task.margins(ours, contract)[other].max()))
    return Parity(pictures, decisions, changed, difference, margin)
