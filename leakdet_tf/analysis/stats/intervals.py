"""Intervals of a report's figures: pictures or groups of them drawn again and again, percentiles of what that gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.confusion_matrix import Ratios

Interval = dict[str, float | None]


class Bounded(Protocol):
    """Figures by name, with the bounds of each; NaN where one is undefined."""

    @property
    def figures(self) -> Ratios: ...
    @property
    def low(self) -> Ratios: ...
    @property
    def high(self) -> Ratios: ...


def drawn(number: int, resamples: int, *, seed: int | Sequence[int], batch: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each of ``number`` groups is drawn in each resample, in parts of (R, G) with at most ``batch`` rows.

    Groups are drawn with replacement, as many as there are (Efron 1979). Of a single one there is nothing to draw.
    """
    generator, share = np.random.default_rng(seed), np.full(number, 1 / number)
    for start in range(0, resamples if number > 1 else 0, batch):
        yield generator.multinomial(number, share, size=min(batch, resamples - start))


def places(groups: Sequence[str]) -> tuple[npt.NDArray[np.intp], int]:
    """Each picture's group as a number (N,), and how many groups there are."""
    _, place = np.unique(np.array(groups), return_inverse=True)
    return place, int(place.max()) + 1


def stacked(parts: Iterable[Ratios]) -> Ratios:
    """Figures of parts of the resamples as those of all, along their first axis; nothing of no parts."""
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]} if found else {}


def bounds(resampled: Ratios, figures: Ratios, confidence: float) -> tuple[Ratios, Ratios]:
    """Percentiles of each resampled figure; resamples in which it is undefined are left out, NaN where all are."""
    both = [{name: np.full_like(value, np.nan) for name, value in figures.items()} for _ in range(2)]
    for name, values in resampled.items():
        undefined = np.isnan(values).all(axis=0)
        ends = np.nanquantile(np.where(undefined, 0.0, values), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        for side, end in zip(both, ends, strict=True):
            side[name] = np.where(undefined, np.nan, end)
    return both[0], both[1]


def bounded(measured: Bounded, key: str, index: int | None = None) -> Interval:
    """A figure for JSON with its bounds, or that of one class; null where it is undefined."""
    parts = {"value": measured.figures, "low": measured.low, "high": measured.high}
    return {part: number_or_none(found[key] if index is None else found[key][index]) for part, found in parts.items()}


def method(settings: Evaluate, *, groups: bool = False) -> dict[str, Any]:
    """What a report says of its intervals; ``groups`` whether whole groups of pictures were drawn."""
    return {
        "method": f"bootstrap over {'groups of pictures' if groups else 'pictures'}",
        "confidence": settings.confidence,
        "resamples": settings.resamples,
    }


def number_or_none(value: Any) -> float | None:
    """A float for JSON: None where it is NaN."""
    number = float(value)
    return None if math.isnan(number) else number


def cell(figure: Interval) -> str:
    """A figure with its interval as text."""
    if figure["value"] is None:
        return "absent"
    if figure["low"] is None:
        return f"{figure['value']:.4f}"
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"
