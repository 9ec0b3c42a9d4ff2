"""Random textures over surface coordinates, filtered by the size of a pixel there, so that far ones do not alias.

All pixels are shaded at once: coordinates are float32 arrays of one shape, in metres, and ``reach`` is what a pixel
spans there, also in metres. What is finer than two pixels fades out. Nothing here depends on the number of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.noise import product

Image32 = NDArray[np.float32]

_CELLS = 32  # lattice intervals of a noise tile, after which it repeats
_STEPS = 4  # samples of the tile to an interval
_GRAINS = 24  # grains of a grain tile to a side
_GRAIN_SIDE = 384  # samples of a grain tile to a side
_SPLINE_STD = 151.0 / 315.0  # standard deviation of a 2-D cubic B-spline surface over unit white noise


@lru_cache(maxsize=1)
def _interpolation() -> NDArray[np.float64]:
    """float64 (samples, cells): cubic B-spline weights over a lattice that repeats."""
    place = np.arange(_CELLS * _STEPS) / _STEPS
    first = np.floor(place).astype(np.intp)
    t = place - first
    weights = np.zeros((len(place), _CELLS))
    cubic = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for step, weight in enumerate(cubic):
        weights[np.arange(len(place)), (first + step - 1) % _CELLS] = weight / 6
    return weights


@dataclass(frozen=True)
class Noise:
    """Smooth noise of mean 0 and deviation near 1 that is sampled anywhere, with a turn and offset for each octave.

    Attributes:
        tile: float32 (128, 128), periodic.
        turns: float64 (N, 3), angle in radians and two offsets in samples, taken in their order.
    """

    tile: Image32
    turns: NDArray[np.float64]

    def at(
        self, u: Image32, v: Image32, reach: Image32, *, cell: float, octaves: int, gain: float = 0.5, first: int = 0
    ) -> Image32:
        """Octaves of noise at ``u``, ``v``: float32 of their shape.

        ``cell`` is the first octave's interval in metres; each further one halves it and is weaker by ``gain``. Calls
        with another ``first`` (0..47) give other patterns.
        """
        total = np.zeros(u.shape, np.float32)
        finest, power = float(reach.min()), 0.0
        for octave in range(octaves):
            weight, size = gain**octave, cell / 2**octave
            power += weight**2
            if size < finest:
                continue
            fade = np.clip(size / reach - 1.0, 0.0, 1.0)
            total += np.float32(weight) * fade * self._sampled(self.tile, u, v, size, first + octave)
        return total / np.float32(np.sqrt(power))

    def relief(
        self,
        u: Image32,
        v: Image32,
        reach: Image32,
        toward: tuple[float, float],
        *,
        cell: float,
        octaves: int,
        gain: float = 0.7,
        first: int = 0,
    ) -> Image32:
        """How much a rough surface leans to the light, which comes from the direction ``toward`` in (u, v)."""
        slopes = _slope(self.tile, 0), _slope(self.tile, 1)
        total = np.zeros(u.shape, np.float32)
        finest, power = float(reach.min()), 0.0
        for octave in range(octaves):
            weight, size = gain**octave, cell / 2**octave
            power += weight**2
            if size < finest:
                continue
            angle = self.turns[(first + octave) % len(self.turns), 0]
            across, down = turned_way(toward, float(angle))
            slope = np.float32(across) * slopes[1] + np.float32(down) * slopes[0]
            fade = np.clip(size / reach - 1.0, 0.0, 1.0)
            total -= np.float32(weight) * fade * self._sampled(slope, u, v, size, first + octave)
        return total / np.float32(np.sqrt(power))

    def _sampled(self, tile: Image32, u: Image32, v: Image32, size: float, index: int) -> Image32:
        angle, right, down = self.turns[index % len(self.turns)]
        x, y = turned(u, v, angle, _STEPS / size)
        return wrapped(tile, x + np.float32(right), y + np.float32(down))


def draw_noise(rng: np.random.Generator) -> Noise:
    """Noise of a picture's own."""
    lattice = rng.standard_normal((_CELLS, _CELLS))
    tile = product(product(_interpolation(), lattice), _interpolation().T) / _SPLINE_STD
    turns = rng.uniform(0.0, 1.0, (48, 3)) * (2.0 * np.pi, _CELLS * _STEPS, _CELLS * _STEPS)
    return Noise(tile.astype(np.float32), turns)


def _slope(tile: Image32, axis: int) -> Image32:
    """The tile's rise along an axis in a sample, made to a deviation near 1."""
    rise: Image32 = (np.roll(tile, -1, axis) - np.roll(tile, 1, axis)) * np.float32(1.25 * _STEPS / 2)
    return rise


def turned(u: Image32, v: Image32, angle: float, scale: float = 1.0) -> tuple[Image32, Image32]:
    """Coordinates on axes turned by ``angle`` (radians), times ``scale``."""
    cos, sin = np.float32(scale * np.cos(angle)), np.float32(scale * np.sin(angle))
    return cos * u + sin * v, cos * v - sin * u


def turned_way(way: tuple[float, float], angle: float) -> tuple[float, float]:
    """A direction on axes turned by ``angle`` (radians)."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return cos * way[0] + sin * way[1], cos * way[1] - sin * way[0]


def wrapped(tile: NDArray[np.float32], x: Image32, y: Image32, *, nearest: bool = False) -> Image32:
    """A periodic tile (h, w) sampled at columns ``x`` and rows ``y``, bilinearly or at the nearest sample."""
    height, width = tile.shape
    x = x - np.float32(width) * np.floor(x / np.float32(width))
    y = y - np.float32(height) * np.floor(y / np.float32(height))
    kind = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.remap(tile, x, y, kind, borderMode=cv2.BORDER_WRAP), np.float32)


@lru_cache(maxsize=1)
def _grain_tile() -> tuple[Image32, Image32]:
    """Two float32 (384, 384) tiles of stones: each stone's number, and the distance to its neighbour, 0 at its edge.

    A Voronoi diagram of jittered points on a torus; the same for all, as each use turns, scales and colours it.
    """
    rng = np.random.default_rng(20240607)
    jitter = rng.uniform(0.05, 0.95, (_GRAINS, _GRAINS, 2))
    place = (np.arange(_GRAIN_SIDE) + 0.5) * _GRAINS / _GRAIN_SIDE
    x, y = np.meshgrid(place, place)
    home_x, home_y = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    first = np.full(x.shape, 9.0)
    second, number = first.copy(), np.zeros(x.shape)
    for down in (-2, -1, 0, 1, 2):
        for right in (-2, -1, 0, 1, 2):
            column, row = home_x + right, home_y + down
            point = jitter[row % _GRAINS, column % _GRAINS]
            distance = np.hypot(column + point[..., 0] - x, row + point[..., 1] - y)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            number = np.where(nearer, row % _GRAINS * _GRAINS + column % _GRAINS, number)
            first = np.where(nearer, distance, first)
    return number.astype(np.float32), (second - first).astype(np.float32)


@dataclass(frozen=True)
class Grains:
    """Stones of a mean ``size`` in metres: values of their own (float32, 576) and how the tile lies."""

    size: float
    angle: float
    offset: tuple[float, float]
    values: Image32

    def at(self, u: Image32, v: Image32) -> tuple[Image32, Image32]:
        """float32 of the shape of ``u``: the value of the stone there, 0..1, and its depth inside: 0 at its edge."""
        x, y = turned(u, v, self.angle, _GRAIN_SIDE / _GRAINS / self.size)
        x, y = x + np.float32(self.offset[0]), y + np.float32(self.offset[1])
        numbers, depth = _grain_tile()
        number = wrapped(numbers, x, y, nearest=True).astype(np.intp)
        return self.values[number], wrapped(depth, x, y)


def draw_grains(rng: np.random.Generator, size: float) -> Grains:
    """Stones of a mean size in metres."""
    angle = float(rng.uniform(0.0, 2.0 * np.pi))
    right, down = rng.uniform(0.0, _GRAIN_SIDE, 2)
    return Grains(size, angle, (float(right), float(down)), rng.uniform(size=_GRAINS**2).astype(np.float32))


def band(distance: Image32, half: float | Image32, reach: Image32) -> Image32:
    """How much of a pixel lies within ``half`` of a line, 0..1, from its middle's ``distance`` to it; all in metres."""
    full = np.clip((half - np.abs(distance)) / reach + np.float32(0.5), 0.0, 1.0)
    return np.asarray(np.minimum(full, 2.0 * half / reach), np.float32)


def from_lines(place: Image32, period: float, offset: float = 0.0) -> Image32:
    """The signed distance to the nearest of equidistant lines."""
    cycles = (place - np.float32(offset)) / np.float32(period)
    return np.asarray((cycles - np.rint(cycles)) * np.float32(period), np.float32)


def hashed(values: Image32, row: Image32, column: Image32) -> Image32:
    """A random value for each cell of a grid: ``values`` float32 (h, w), indexed by whole ``row`` and ``column``."""
    height, width = values.shape
    down, right = row.astype(np.intp) % height, column.astype(np.intp) % width
    return np.asarray(values[down, right], np.float32)


def smooth(value: Image32, low: float, high: float) -> Image32:
    """0 below ``low``, 1 above ``high``, a cubic between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return np.asarray(t * t * (np.float32(3.0) - np.float32(2.0) * t), np.float32)
