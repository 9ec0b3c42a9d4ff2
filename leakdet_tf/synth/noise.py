"""Smooth random fields whose pattern does not depend on the number of pixels they are sampled with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

_SPLINE_STD = 151.0 / 315.0  # standard deviation of a 2-D cubic B-spline surface over unit white noise


@lru_cache(maxsize=64)
def _spline(pixels: int, cells: int) -> Field:
    """float64 (pixels, cells + 3): cubic B-spline weights at pixel centres over a lattice of ``cells`` intervals."""
    place = (np.arange(pixels) + 0.5) * cells / pixels
    first = np.minimum(place.astype(np.intp), cells - 1)
    t = place - first
    weights = np.zeros((pixels, cells + 3))
    rows = np.arange(pixels)
    weights[rows, first] = (1 - t) ** 3 / 6
    weights[rows, first + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    weights[rows, first + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    weights[rows, first + 3] = t**3 / 6
    weights.setflags(write=False)
    return weights


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float], octaves: int, gain: float = 0.5
) -> Field:
    """A sum of octaves of spline noise: float64 ``shape`` (H, W), mean 0 and standard deviation near 1.

    ``cells`` is the number of lattice intervals down and across the picture in the first octave; each further octave
    doubles it and is weaker by ``gain``. Octaves too fine for ``shape`` are drawn but left out, so a generator is in
    the same state afterwards whatever the shape.
    """
    total: Field = np.zeros(shape)
    power = 0.0
    for octave in range(octaves):
        down, across = (max(1, round(count * 2**octave)) for count in cells)
        lattice = rng.standard_normal((down + 3, across + 3))
        weight = gain**octave
        power += weight**2
        if 2 * down <= shape[0] and 2 * across <= shape[1]:
            total += weight * (_spline(shape[0], down) @ lattice @ _spline(shape[1], across).T)
    return total / float(_SPLINE_STD * np.sqrt(power))


def wander(rng: np.random.Generator, samples: int, knots: int) -> Field:
    """A smooth random curve: float64 (samples,), mean 0 and standard deviation near 1."""
    curve: Field = _spline(samples, knots) @ rng.standard_normal(knots + 3)
    return curve / float(np.sqrt(_SPLINE_STD))
