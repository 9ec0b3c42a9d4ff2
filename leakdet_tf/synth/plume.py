"""The gas: a turbulent plume as a cloud of small puffs, and how much of the light behind it gets through.

The plume follows the filament model of Farrell et al., "Filament-based atmospheric dispersion model to achieve short
time-scale structure of odor plumes", Environmental Fluid Mechanics 2 (2002): a leak emits puffs that are carried along
a common, meandering path, strewn about it, and grow with age. The path rises with the two-thirds power of the distance,
as Briggs found for bent-over buoyant plumes ("Plume Rise", 1969). Eddies smaller than a puff come from warping the
field with fractal noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leakdet_tf.synth.noise import Field, fractal, wander

_PUFFS = 320
_TRIES = 12


@dataclass(frozen=True)
class Plume:
    """How a plume was drawn; lengths in units of the picture's short side.

    Attributes:
        source: (x, y) of the leak from the top left corner of the picture.
        wind_m_s: wind speed; more wind makes a flatter, thinner plume.
        wind_side: +1 blows to the right, -1 to the left.
        buoyancy: over 0 rises, under 0 sinks.
        jet_angle: direction in which the gas leaves the leak, radians from right, counter-clockwise.
        jet_reach: how far the jet carries before the wind bends it.
        reach: how far downwind the visible plume extends.
        spread: half width (one standard deviation) at the far end, over ``reach``.
        gustiness: 0 steady .. 1 emitted in gusts.
        turbulence: strength of the small eddies.
    """

    source: tuple[float, float]
    wind_m_s: float
    wind_side: int
    buoyancy: float
    jet_angle: float
    jet_reach: float
    reach: float
    spread: float
    gustiness: float
    turbulence: float


def draw_plume(rng: np.random.Generator, sources: Sequence[tuple[float, float]], extent: tuple[float, float]) -> Plume:
    """Draw a plume from one of ``sources`` in a picture of ``extent`` (width, height), in short sides.

    A plume that leaves the picture at once is drawn again, as an operator would point the camera elsewhere.
    """
    age = np.linspace(0.0, 1.0, 33)
    for _ in range(_TRIES):
        plume = _any_plume(rng, sources[int(rng.integers(len(sources)))], extent)
        x, y = _path(plume, age)
        if np.mean((x > 0.0) & (x < extent[0]) & (y > 0.0) & (y < extent[1])) > 0.5:
            break
    return plume


def _any_plume(rng: np.random.Generator, source: tuple[float, float], extent: tuple[float, float]) -> Plume:
    inward = 1 if source[0] < extent[0] / 2 else -1
    reach = float(np.exp(rng.uniform(np.log(0.25), np.log(2.0))))
    wind = float(np.exp(rng.uniform(np.log(0.4), np.log(8.0))))
    side = inward if rng.uniform() < 0.75 else -inward
    lean = float(rng.uniform(-0.5, 1.1))
    return Plume(
        source=source,
        wind_m_s=wind,
        wind_side=side,
        buoyancy=float(rng.uniform(0.25, 1.0)) if rng.uniform() < 0.78 else float(rng.uniform(-0.7, 0.1)),
        jet_angle=lean if side > 0 else float(np.pi) - lean,
        jet_reach=float(rng.uniform(0.02, 0.22)) * min(reach, 0.6),
        reach=reach,
        spread=float(rng.uniform(0.10, 0.25)) / (1.0 + 0.06 * wind),
        gustiness=float(rng.uniform(0.1, 1.0)),
        turbulence=float(rng.uniform(0.5, 1.0)),
    )


def column_density(rng: np.random.Generator, plume: Plume, shape: tuple[int, int]) -> Field:
    """Gas along the line of sight of every pixel: float64 (H, W), zero or more, about 1 in the body of the plume.

    Only differences between ages, not pixels, are drawn, so another ``shape`` gives the same plume.
    """
    height, width = shape
    scale = min(shape)
    age = (np.arange(_PUFFS) + rng.uniform(size=_PUFFS)) / _PUFFS
    path_x, path_y = _path(plume, age)
    half_width = plume.reach * (0.014 + plume.spread * age**0.85)
    meander = 0.55 * wander(rng, _PUFFS, 5) * age**0.5
    along, across = 0.35 * rng.standard_normal(_PUFFS), 0.62 * rng.standard_normal(_PUFFS) + meander
    turn_x, turn_y = np.gradient(path_x), np.gradient(path_y)
    norm = np.hypot(turn_x, turn_y) + 1e-12
    turn_x, turn_y = turn_x / norm, turn_y / norm
    x = path_x + half_width * (along * turn_x - across * turn_y)
    y = path_y + half_width * (along * turn_y + across * turn_x)
    radius = half_width * rng.uniform(0.24, 0.55, size=_PUFFS)
    gusts = np.exp(plume.gustiness * (0.9 * wander(rng, _PUFFS, 9) + 0.5 * rng.standard_normal(_PUFFS)))
    fade = np.clip((1.0 - age) / 0.35, 0.0, 1.0) ** 0.8
    weight = gusts * fade / (radius * radius + 2e-5) * plume.reach**2 * (0.15 + age)

    rows, columns = (np.arange(height) + 0.5) / scale, (np.arange(width) + 0.5) / scale
    down = np.exp(-0.5 * np.square((rows[:, np.newaxis] - y) / radius))
    right = np.exp(-0.5 * np.square((columns[:, np.newaxis] - x) / radius))
    density = (down * weight) @ right.T
    density = _stir(rng, density, plume)
    return density / max(_typical(density), 1e-300)


def _typical(density: Field) -> float:
    """The mean density that the gas itself meets: what most of the plume's mass looks like, not its core."""
    return float(np.sum(density * density) / max(np.sum(density), 1e-300))


def _path(plume: Plume, age: Field) -> tuple[Field, Field]:
    """Centre line (x, y) in short sides at ages 0..1: a jet that the wind bends, rising or sinking as it goes."""
    carried = plume.wind_m_s / (plume.wind_m_s + 1.2)
    jet = plume.jet_reach * (1.0 - np.exp(-age / 0.12))
    lift = plume.buoyancy * (1.0 - 0.85 * carried)
    length = plume.reach / max(float(np.hypot(carried, lift)), 0.3)
    x = plume.source[0] + jet * np.cos(plume.jet_angle) + plume.wind_side * length * carried * age
    y = plume.source[1] - jet * np.sin(plume.jet_angle) - length * lift * age ** (2.0 / 3.0)
    return x, y


def _stir(rng: np.random.Generator, density: Field, plume: Plume) -> Field:
    """Fold the field with eddies that grow away from the leak, and thin it into wisps."""
    height, width = density.shape
    scale = min(density.shape)
    x = (np.arange(width) + 0.5) / scale
    y = (np.arange(height) + 0.5) / scale
    away = np.hypot(x[np.newaxis, :] - plume.source[0], y[:, np.newaxis] - plume.source[1])
    cells = (5.0 * height / scale, 5.0 * width / scale)
    size = plume.turbulence * scale * (0.004 + 0.45 * plume.spread * np.minimum(away, plume.reach))
    shift_x = size * fractal(rng, density.shape, cells, 5, 0.55)
    shift_y = size * fractal(rng, density.shape, cells, 5, 0.55)
    wisps = fractal(rng, density.shape, (2 * cells[0], 2 * cells[1]), 4, 0.65)
    strength = 0.8 * plume.turbulence * np.clip(away / 0.12, 0.0, 1.0)
    stirred = _sample(density, shift_x, shift_y)
    thinned: Field = stirred * np.exp(strength * _sample(wisps, 0.5 * shift_y, 0.5 * shift_x))
    return thinned


def _sample(field: Field, shift_x: Field, shift_y: Field) -> Field:
    """Bilinear values of ``field`` at pixels displaced by (shift_x, shift_y) pixels; edges are repeated."""
    height, width = field.shape
    x = np.clip(np.arange(width)[np.newaxis, :] + shift_x, 0.0, width - 1.000001)
    y = np.clip(np.arange(height)[:, np.newaxis] + shift_y, 0.0, height - 1.000001)
    left, top = x.astype(np.intp), y.astype(np.intp)
    fx, fy = x - left, y - top
    flat, start = field.ravel(), top * width + left
    upper = flat[start] + fx * (flat[start + 1] - flat[start])
    lower = flat[start + width] + fx * (flat[start + width + 1] - flat[start + width])
    between: Field = upper + fy * (lower - upper)
    return between
