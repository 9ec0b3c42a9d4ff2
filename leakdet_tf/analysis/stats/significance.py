"""Shares, their bounds, and paired tests: what may be called a difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
"""A difference holds when its corrected p is at most this."""
_ROUNDING = 1e-12  # of a difference
Flags = npt.NDArray[np.bool_]


def wilson(hits: int, number: int, confidence: float) -> tuple[float, float]:
    """Bounds of a share by the score interval of Wilson (1927); (0, 1) when there is nothing to count."""
    if number == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, below = hits / number, 1 + z * z / number
    centre = (share + z * z / (2 * number)) / below
    half = z / below * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if hits == 0 else low), (1.0 if hits == number else high)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm 1979); None stays and does not count."""
    order = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[place] = highest
    return corrected


def swap_test(
    gap: Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]],
    seen: float,
    number: int,
    *,
    exact: int,
    seed: int,
    permutations: int,
    batch: int,
    dtype: type = np.uint8,
) -> tuple[float, int]:
    """Two-sided p of a paired difference, by swapping the sides of some pairs; and how many choices were tried.

    If it does not matter which side a value is on, every choice of pairs to swap is as likely as none; p is the share
    of choices that make the difference at least as large (Fisher 1935), of random choices (1 + larger) / (1 + tried),
    which is never 0 (Phipson & Smyth 2010).

    Args:
        gap: swaps (R, N), 1 where a pair is swapped → the differences (R,).
        seen: the difference without a swap.
        number: N, the pairs whose sides differ.
        exact: up to so many pairs, all choices are tried.
        seed: of random choices.
        permutations: random choices.
        batch: choices at a time, to bound memory.
        dtype: of random choices: the stream of random numbers depends on it.
    """
    every = number <= exact
    total = 2**number if every else permutations
    generator, larger = np.random.default_rng(seed), 0
    for start in range(0, total, batch):
        size = min(batch, total - start)
        if every:
            swaps = (np.arange(start, start + size)[:, None] >> np.arange(number)) & 1
        else:
            swaps = generator.integers(0, 2, (size, number), dtype)
        # an undefined difference counts as a large one, which errs on the careful side
        larger += int(np.count_nonzero(~(np.abs(gap(swaps)) < abs(seen) - _ROUNDING)))
    return (larger / total if every else (1 + larger) / (1 + total)), total


def binomial_cdf(hits: int, number: int, share: float) -> float:
    """Probability of at most ``hits`` of ``number`` when each has probability ``share`` in (0, 1)."""
    if hits >= number:
        return 1.0
    counts = np.arange(hits + 1)
    ways = np.cumsum(np.log(number - counts[:-1]) - np.log(counts[1:]))  # logarithms of binomial coefficients
    logs = np.append(0.0, ways) + counts * math.log(share) + (number - counts) * math.log1p(-share)
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


def upper_bound(hits: int, number: int, confidence: float) -> float:
    """One-sided upper bound of a share by Clopper and Pearson (1934): the largest of which so few hits are likely."""
    if hits >= number:
        return 1.0
    low, high = hits / number, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_cdf(hits, number, middle) > 1 - confidence else (low, middle)
    return high


def mcnemar(first: Flags, second: Flags, groups: Sequence[str]) -> tuple[int, int, float]:
    """Two-sided exact p that two models are right equally often (McNemar 1947), and on how much only one was.

    Of the pictures that one model alone has right, each is as likely the first's as the second's. Where groups repeat,
    a group counts once, for the model that has more of its pictures right, which makes it a sign test over groups.

    Args:
        first: bool (N,), whether the first model was right on each picture.
        second: the same of the second.
        groups: of each picture.
    """
    _, place = np.unique(np.array(groups), return_inverse=True)
    lead = np.rint(np.bincount(place, weights=first.astype(np.float64) - second))
    ahead, behind = int((lead > 0).sum()), int((lead < 0).sum())
    return ahead, behind, min(1.0, 2 * binomial_cdf(min(ahead, behind), ahead + behind, 0.5))
