"""How much of a test score is owed to test pictures that training or validation has, nearly, as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BATCH = 200  # resamples at a time, to bound memory
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Inflation:
    """The figure of all test pictures, of those without a twin elsewhere, and the difference with its bounds, 0..1."""

    pictures: int
    leaked: int
    whole: float
    rest: float
    low: float
    high: float
    figure: str

    def line(self, confidence: float) -> str:
        """One line for the user; differences in points of the figure."""
        told = f"{self.figure} on test: {self.whole:.4f} on all {self.pictures} pictures"
        if not self.leaked:
            return f"{told}, none of which has a twin in train or val"
        if self.leaked == self.pictures:
            return f"{told}, each of which has a twin in train or val: there is no rest to compare with"
        return (
            f"{told}, {self.rest:.4f} on the {self.pictures - self.leaked} without a twin in train or val: inflation "
            f"{100 * (self.whole - self.rest):+.2f} points [{100 * self.low:+.2f}, {100 * self.high:+.2f}], "
            f"{confidence:.0%} interval"
        )


def inflation(
    figure: Callable[[Weights], Weights],
    leaked: npt.NDArray[np.bool_],
    *,
    name: str,
    resamples: int,
    confidence: float,
    seed: int,
) -> Inflation:
    """The figure of all pictures less that of the rest, with a paired bootstrap interval.

    Pictures are drawn with replacement; both figures come from the same draw (Efron 1979). Draws without a picture of
    the rest are left out. Without leaked pictures, or without others, the bounds are NaN.

    Args:
        figure: how often each picture counts, (R, N) → the figure, (R,).
        leaked: bool (N,), whether train or val has nearly the same picture.
        name: of the figure, for people.
        resamples: draws.
        confidence: of the interval.
        seed: of the draws.
    """
    number = len(leaked)
    others = (~leaked).astype(np.float64)
    whole, rest = (float(value) for value in figure(np.stack([np.ones(number), others])))
    if not leaked.any() or leaked.all():
        return Inflation(number, int(leaked.sum()), whole, rest, np.nan, np.nan, name)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - start)
        weights = generator.multinomial(number, np.full(number, 1 / number), size=size).astype(np.float64)
        drawn.append(figure(weights) - figure(weights * others))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.concatenate(drawn), [tail, 1 - tail])
    return Inflation(number, int(leaked.sum()), whole, rest, float(low), float(high), name)
