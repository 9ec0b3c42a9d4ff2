"""What is explained of a picture: what was predicted and what is true, in words, and why it may not be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.images import Labels, Pixels

NO_MASK, NOTHING, UNKNOWN = "there is no mask", "nothing was decided", "no class is truly there"
NOT_THERE, EMPTY = "the class is not on the picture", "the mask shows nothing of the class"


@dataclass(frozen=True, eq=False)
class Case:
    """A picture, its truth as its task has it, and for a classifier its mask, uint8 (H, W); None where unknown.

    ``names`` are those of the mask's ids, where a manifest says any.
    """

    images: dict[str, Pixels]
    truth: npt.NDArray[Any] | None = None
    mask: Labels | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """The class that is explained (None when there is none), its score, what was decided, and what is true."""

    index: int | None
    score: float | None
    decided: str
    truth: str


def joined(names: Sequence[str], chosen: npt.NDArray[np.integer]) -> str:
    """Names of the classes chosen, or ``none``."""
    return "+".join(names[index] for index in chosen) or "none"
