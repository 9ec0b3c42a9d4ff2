"""Random numbers of their own for each stage of a scene, so that leaving a stage out changes no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from leakdet_tf.core.errors import DataError

Streams = Callable[[str], np.random.Generator]
"""From a stage's name to its generator, always in its first state."""

SMALLEST_SIDE, LARGEST_SIDE = 32, 2048


def streams_of(seed: int, stages: Sequence[str], salt: int) -> Streams:
    """The streams of one picture. A stage's place in ``stages`` and the generator's ``salt`` are part of its seed."""

    def stream(stage: str) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([salt, stages.index(stage), seed]))

    return stream


def check_frame(seed: int, size: tuple[int, int]) -> None:
    """Refuse a negative seed and a size out of range."""
    if seed < 0:
        raise DataError(f"seed {seed} is negative", remedy="use 0 or more")
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise DataError(f"size {size} is out of range", remedy=f"use {SMALLEST_SIDE}..{LARGEST_SIDE} pixels a side")


def check_share(name: str, share: object, *, most: float = 1.0) -> None:
    """Refuse what is no share, 0..``most``."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 <= share <= most:
        raise DataError(f"{name} is {share!r}", remedy=f"use a number from 0 to {most:g}")
