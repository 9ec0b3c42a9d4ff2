"""How long answers took, over the last of them: kept in a ring, so that years of frames take no more memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

KEPT = 1000
"""Answers that a :class:`Counters` remembers."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of answers: the median, the 95th percentile (linear between neighbours), and the longest."""

    p50_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True)
class Stats:
    """What a predictor has done.

    ``count``: answers since the start or the last reset. ``window``: how many of them the times are of, the newest.
    ``invoke``: time in the model's runtime. ``total``: from frame to answer. ``outside``: the difference of the two.
    The three are None before the first answer.
    """

    count: int
    window: int
    invoke: Latency | None = None
    total: Latency | None = None
    outside: Latency | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


class Counters:
    """The times of the last answers. Every method may be called from any thread.

    Args:
        kept: how many answers are remembered.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._times: npt.NDArray[np.float64] = np.zeros((kept, 2))
        self._lock = Lock()
        self._count = 0

    def add(self, invoke_ms: float, total_ms: float) -> None:
        """One answer more."""
        with self._lock:
            self._times[self._count % len(self._times)] = invoke_ms, total_ms
            self._count += 1

    def reset(self) -> None:
        """Forget all answers."""
        with self._lock:
            self._count = 0

    def stats(self) -> Stats:
        """Counts and quantiles as of now; they are computed here and cost an answer nothing."""
        with self._lock:
            count = self._count
            times = self._times[:count].copy()
        if not count:
            return Stats(0, 0)
        invoke, total = times.T
        return Stats(count, len(times), _latency(invoke), _latency(total), _latency(total - invoke))


def _latency(times: npt.NDArray[np.float64]) -> Latency:
    p50, p95, most = (float(value) for value in np.quantile(times, [0.5, 0.95, 1.0]))
    return Latency(p50, p95, most)
