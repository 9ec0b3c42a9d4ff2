"""Smooth random fields whose pattern does not depend on the number of pixels they are sampled with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

_ALONE = 1 << 18  # multiplications that OpenBLAS gives to one thread
_SPLINE_STD = 151.0 / 315.0  # standard deviation of a 2-D cubic B-spline surface over unit white noise


def product(left: Field, right: Field) -> Field:
    """``left @ right`` for matrices, in blocks of rows so small that BLAS leaves each to one thread.

    So the last bits do not depend on the number of threads, and a busy machine does not make threads wait for one
    another, which costs a hundred times what they save.
    """
    rows = max(1, _ALONE // max(left.shape[1] * right.shape[1], 1))
    if rows >= len(left):
        return np.asarray(left @ right)
    out = np.empty((len(left), right.shape[1]))
    for start in range(0, len(left), rows):
        np.matmul(left[start : start + rows], right, out=out[start : start + rows])
    return out


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
            total += weight * product(product(_spline(shape[0], down), lattice), _spline(shape[1], across).T)
    return total / float(_SPLINE_STD * np.sqrt(power))


_PERIOD = 24  # cells after which moving noise repeats: more than a plume spans


@dataclass(frozen=True)
class Eddies:
    """Spline noise without borders that changes with time: octaves of periodic lattices, two for each octave.

    A lattice's value at a time is ``a cos(rate t) + b sin(rate t)``, a random oscillation of constant variance.
    """

    lattices: tuple[tuple[Field, Field], ...]
    gain: float

    def at(self, down: Field, across: Field, *, time: float, coarsest_px: float) -> Field:
        """Values at rows ``down`` and columns ``across`` (both in cells of the first octave): float64 (rows, columns).

        Mean 0 and standard deviation near 1 over all octaves. An octave finer than two pixels is left out;
        ``coarsest_px`` is the size of a cell of the first octave in pixels. ``time`` is in turnovers of the first
        octave's eddies; finer ones turn over faster with the two-thirds power, as Kolmogorov's law has it.
        """
        total: Field = np.zeros((len(down), len(across)))
        power = 0.0
        for octave, (a, b) in enumerate(self.lattices):
            weight = self.gain**octave
            power += weight**2
            if coarsest_px / 2**octave < 2.0 and octave:
                continue
            phase = 2.0 ** (2.0 * octave / 3.0) * time
            lattice = np.cos(phase) * a + np.sin(phase) * b if time else a
            total += weight * product(product(_wrapped(down * 2**octave), lattice), _wrapped(across * 2**octave).T)
        return total / float(_SPLINE_STD * np.sqrt(power))


def draw_eddies(rng: np.random.Generator, octaves: int, gain: float) -> Eddies:
    """Moving noise of ``octaves``, each weaker than the one before by ``gain``."""
    drawn = rng.standard_normal((octaves, 2, _PERIOD, _PERIOD))
    return Eddies(tuple((pair[0], pair[1]) for pair in drawn), gain)


def _wrapped(place: Field) -> Field:
    """float64 (n, _PERIOD): cubic B-spline weights at places on a lattice that repeats."""
    first = np.floor(place)
    t = place - first
    start = first.astype(np.intp)
    weights = np.zeros((len(place), _PERIOD))
    rows = np.arange(len(place))
    weights[rows, start % _PERIOD] = (1 - t) ** 3 / 6
    weights[rows, (start + 1) % _PERIOD] = (3 * t**3 - 6 * t**2 + 4) / 6
    weights[rows, (start + 2) % _PERIOD] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    weights[rows, (start + 3) % _PERIOD] = t**3 / 6
    return weights
