"""The gas: a turbulent plume as a cloud of small puffs that a moving wind field carries.

The plume follows the filament model of Farrell et al., "Filament-based atmospheric dispersion model to achieve short
time-scale structure of odor plumes", Environmental Fluid Mechanics 2 (2002): a leak emits puffs without pause, more of
them in gusts; each is advected, step by step, and grows with age. The velocity is the sum of

- the mean wind, with gusts and with shear over height;
- the jet with which the gas leaves the leak, dying out;
- a rise with the two-thirds power of the age, as Briggs found for bent-over buoyant plumes ("Plume Rise", 1969);
- turbulence: a sum of transverse Fourier modes with Kolmogorov's spectrum, exactly free of divergence, that moves with
  the wind and turns over as it goes (kinematic simulation: Fung, Hunt, Malik and Perkins, J. Fluid Mech. 236, 1992).

Eddies smaller than a puff come from warping the field with noise that moves and changes with time in the same way. So a
plume at two times is one plume, later: a clip.

Lengths are in units of the plume's own reach and times in units of what the gas takes to travel it, with the leak at
the origin, x to the right and y down; :class:`Placed` puts such a plume into a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.noise import Eddies, Field, draw_eddies, product

_STEPS = 30
_PER_STEP = 11
_MODES = 24
_GRID = 44
_CELLS = 5.0  # eddies of the largest kind along the plume's reach
_FADE = 0.35  # the last part of a plume's life, in which it thins out


@dataclass(frozen=True)
class Plume:
    """How a plume was drawn.

    Attributes:
        wind_m_s: wind speed; more wind makes a flatter, thinner plume.
        wind_direction_deg: where the wind blows to: 0 away from the camera, 90 to the right, -90 to the left.
        buoyancy: over 0 rises, under 0 sinks.
        jet_angle: direction in which the gas leaves the leak, radians from right, counter-clockwise.
        jet_reach: how far the jet carries before the wind bends it, over the plume's reach.
        spread: half width (one standard deviation) at the far end, over the plume's reach.
        gustiness: 0 steady .. 1 emitted in gusts.
        turbulence: standard deviation of the turbulent velocity over the mean speed.
    """

    wind_m_s: float
    wind_direction_deg: float
    buoyancy: float
    jet_angle: float
    jet_reach: float
    spread: float
    gustiness: float
    turbulence: float

    @property
    def wind_side(self) -> int:
        """+1 blows to the right, -1 to the left."""
        return 1 if self.wind_direction_deg > 0 else -1

    @property
    def mean_velocity(self) -> tuple[float, float]:
        """(along x, upward) in reaches per travel time."""
        across = self.wind_m_s * abs(float(np.sin(np.radians(self.wind_direction_deg))))
        carried = across / (across + 1.2)
        lift = self.buoyancy * (1.0 - 0.85 * carried)
        length = 1.0 / max(float(np.hypot(carried, lift)), 0.3)
        return self.wind_side * length * carried, length * lift

    def mirrored(self) -> Plume:
        """The same plume in a wind from the other side."""
        return replace(self, wind_direction_deg=-self.wind_direction_deg, jet_angle=float(np.pi) - self.jet_angle)


@dataclass(frozen=True)
class Puffs:
    """A plume at one time: float64 (n,) each. Lengths in reaches; ``mass`` falls to zero as a puff's life ends."""

    x: Field
    y: Field
    radius: Field
    mass: Field

    def mirrored(self) -> Puffs:
        """Left and right exchanged."""
        return replace(self, x=-self.x)

    def density(self, across: Field, down: Field, *, footprint: float = 0.0) -> Field:
        """Gas along the line of sight at columns ``across`` and rows ``down``: float64 (rows, columns).

        ``footprint`` is the standard deviation of what one pixel sees, in reaches.
        """
        radius = np.sqrt(np.square(self.radius) + footprint * footprint)
        vertical = np.exp(-0.5 * np.square((down[:, np.newaxis] - self.y) / radius))
        horizontal = np.exp(-0.5 * np.square((across[:, np.newaxis] - self.x) / radius))
        return product(vertical * (self.mass / np.square(radius)), horizontal.T)


def draw_plume(rng: np.random.Generator, fraction: float) -> Plume:
    """Draw a plume of gas that is to cover ``fraction`` of the picture; large ones are wider for their length."""
    wind = float(np.exp(rng.uniform(np.log(0.4), np.log(8.0))))
    direction = float(rng.choice((-1.0, 1.0)) * rng.uniform(35.0, 145.0))
    lean = float(rng.uniform(-0.6, 1.4))
    return Plume(
        wind_m_s=wind,
        wind_direction_deg=direction,
        buoyancy=float(rng.uniform(0.2, 1.0)) if rng.uniform() < 0.72 else float(rng.uniform(-0.6, 0.1)),
        jet_angle=lean if direction > 0 else float(np.pi) - lean,
        jet_reach=float(rng.uniform(0.03, 0.28)),
        spread=float(rng.uniform(0.09, 0.2)) * (1.0 + 2.2 * min(fraction, 0.5)) / (1.0 + 0.05 * wind),
        gustiness=float(rng.uniform(0.1, 1.0)),
        turbulence=float(rng.uniform(0.16, 0.48)),
    )


class Wind:
    """The velocity field that carries a plume's puffs, drawn once and then a function of place, age and time."""

    def __init__(self, rng: np.random.Generator, plume: Plume) -> None:
        self._plume = plume
        self._along, self._upward = plume.mean_velocity
        number = 2.0 * np.pi * np.geomspace(0.8, 14.0, _MODES) * np.exp(rng.uniform(-0.05, 0.05, size=_MODES))
        angle = rng.uniform(0.0, 2.0 * np.pi, size=_MODES)
        speed = number ** (-1.0 / 3.0)  # a mode's share of k^-5/3 over equal steps of log k
        speed *= plume.turbulence * np.sqrt(2.0) / np.sqrt(np.sum(np.square(speed)))
        self._number: Field = number * np.stack([np.cos(angle), np.sin(angle)])
        self._velocity: Field = speed[:, np.newaxis] * np.stack([-np.sin(angle), np.cos(angle)], axis=1)
        self._phase = rng.uniform(0.0, 2.0 * np.pi, size=_MODES)
        # an eddy turns over in its own time and drifts with the mean wind (Taylor's frozen turbulence)
        drift = self._number[0] * self._along - self._number[1] * 0.7 * self._upward
        self._rate = 0.4 * number * speed * rng.choice((-1.0, 1.0), size=_MODES) - drift
        self._gusts = rng.uniform(0.0, 2.0 * np.pi, size=4)
        self._shear = float(rng.uniform(0.1, 0.5))

    def gusts(self, times: Field) -> Field:
        """The wind's speed over its mean at times float64 (n,): float64 (n,)."""
        waves = np.sin(2.0 * np.pi * np.array([0.7, 1.3, 2.3, 4.1]) * times[:, np.newaxis] + self._gusts)
        strength: Field = np.exp(0.3 * self._plume.gustiness * (waves * np.array([1.0, 0.8, 0.6, 0.4])).sum(axis=1))
        return strength

    def __call__(self, x: Field, y: Field, age: Field, time: float, gust: float) -> tuple[Field, Field]:
        """Velocity (right, down) of puffs at (x, y), each float64 (n,)."""
        plume = self._plume
        phase = x[:, np.newaxis] * self._number[0]
        phase += y[:, np.newaxis] * self._number[1]
        phase += self._rate * time + self._phase
        eddies = np.cos(phase, out=phase) @ self._velocity
        calm = np.minimum(0.12 + 4.0 * age, 1.0)  # a jet drives its own way out of the leak
        jet = 10.0 * plume.jet_reach * np.exp(-10.0 * age)
        bent = 1.0 - np.exp(-12.5 * age)
        rise = self._upward * (2.0 / 3.0) * np.cbrt(1.0 / (age + 0.01))
        height = np.minimum(np.maximum(1.0 - self._shear * y, 0.4), 1.6)
        right = float(np.cos(plume.jet_angle)) * jet + self._along * gust * height * bent + calm * eddies[:, 0]
        down = -float(np.sin(plume.jet_angle)) * jet - rise * bent + calm * eddies[:, 1]
        return right, down


class Simulation:
    """A plume that blows: fully there at time 0, and then as long as one likes.

    The numbers drawn up to a time do not depend on what follows.
    """

    def __init__(self, rng: np.random.Generator, plume: Plume) -> None:
        self.time = -1.0
        self._rng, self._plume, self._wind = rng, plume, Wind(rng, plume)
        self._waves, self._phases = rng.uniform(1.0, 9.0, size=5), rng.uniform(0.0, 2.0 * np.pi, size=5)
        self._drawn, self._born = np.zeros((0, 5)), np.zeros(0)
        self._x, self._y = np.zeros(0), np.zeros(0)
        self.advance(1.0)

    def advance(self, duration: float) -> None:
        """Let ``duration`` pass, in steps of equal length."""
        steps = max(1, int(np.ceil(duration * _STEPS - 1e-9)))
        ahead = duration / steps
        alive = self._born > self.time - 1.0
        there = int(np.count_nonzero(alive))
        fresh = self._rng.standard_normal((steps * _PER_STEP, 5))
        moment = self.time + ahead * (np.arange(steps * _PER_STEP) + 0.5) / _PER_STEP
        drawn = self._drawn = np.concatenate([self._drawn[alive], fresh])
        born = self._born = np.concatenate([self._born[alive], moment])
        x = self._x = np.concatenate([self._x[alive], 0.006 * fresh[:, 0]])
        y = self._y = np.concatenate([self._y[alive], 0.006 * fresh[:, 1]])
        own = 0.75 * self._plume.spread * drawn[:, 2:4].T
        times = np.asarray(self.time + ahead * np.arange(steps), np.float64)
        for time, gust in zip(times, self._wind.gusts(times), strict=True):
            there += _PER_STEP
            now = slice(0, there)
            age = time + ahead - born[now]
            right, down = self._wind(x[now], y[now], age, float(time), float(gust))
            loose = np.sqrt(np.minimum(age / 0.3, 1.0))
            inside = np.minimum(age, ahead)  # a puff born within the step moves for its rest
            x[now] += inside * (right + loose * own[0, now])
            y[now] += inside * (down + loose * own[1, now])
        self.time += duration

    def puffs(self) -> Puffs:
        """The puffs as they are now."""
        plume, born, drawn = self._plume, self._born, self._drawn
        age = self.time - born
        emitted = np.sin(2.0 * np.pi * self._waves * born[:, np.newaxis] + self._phases).sum(axis=1) / np.sqrt(2.5)
        strength = np.exp(plume.gustiness * (0.7 * emitted + 0.4 * drawn[:, 4])) * _STEPS * _PER_STEP
        fade = np.clip((1.0 - age) / _FADE, 0.0, 1.0) ** 0.8
        radius = (0.010 + 0.55 * plume.spread * age**0.8) * np.exp(0.3 * drawn[:, 0])
        # puffs are born more densely in time where a clip's steps are short: weigh them by their share of it
        share = np.gradient(born) if len(born) > 1 else np.ones(1)
        return Puffs(self._x, self._y, radius, strength * share * fade * np.sqrt(0.1 + age))


@dataclass(frozen=True)
class Placed:
    """A plume put into a picture.

    Attributes:
        plume: how it was drawn.
        source: (x, y) of the leak from the top left corner of the picture, in short sides.
        reach: how far the visible plume extends, in short sides.
        eddies: the two shifts and the thinning of the small eddies.
    """

    plume: Plume
    source: tuple[float, float]
    reach: float
    eddies: tuple[Eddies, Eddies, Eddies]

    def column_density(self, puffs: Puffs, time: float, shape: tuple[int, int]) -> Field:
        """Gas along the line of sight of every pixel at a time: float64 (H, W), zero or more, in units of its own.

        The unit is the same at all times. Another ``shape`` gives the same plume.
        """
        scale = min(shape)
        full: Field = np.zeros(shape)
        columns = np.asarray((np.arange(shape[1]) + 0.5 - self.source[0] * scale) / (self.reach * scale), np.float64)
        rows = np.asarray((np.arange(shape[0]) + 0.5 - self.source[1] * scale) / (self.reach * scale), np.float64)
        margin = 3.2 * puffs.radius + 0.05 + 1.5 / (self.reach * scale)
        right = _slice(columns, float(np.min(puffs.x - margin)), float(np.max(puffs.x + margin)))
        down = _slice(rows, float(np.min(puffs.y - margin)), float(np.max(puffs.y + margin)))
        if right.stop - right.start < 2 or down.stop - down.start < 2:
            return full
        across, below = columns[right], rows[down]
        density = puffs.density(across, below, footprint=0.45 / (self.reach * scale))
        full[down, right] = self._stir(density, across, below, time, self.reach * scale)
        return full

    def _stir(self, density: Field, across: Field, below: Field, time: float, pixels: float) -> Field:
        """Fold the field with eddies that grow away from the leak and drift with the wind, and thin it into wisps."""
        plume = self.plume
        along, upward = plume.mean_velocity
        away = np.hypot(across[np.newaxis, :], below[:, np.newaxis])
        columns, rows = _CELLS * (across - along * time), _CELLS * (below + 0.7 * upward * time)
        turn = 1.5 * time * (0.5 + plume.turbulence)
        cell_px = pixels / _CELLS
        size = (0.5 + plume.turbulence) * pixels * (0.004 + 0.5 * plume.spread * np.minimum(away, 1.0) ** 0.75)
        shift_x = size * self.eddies[0].at(rows, columns, time=turn, coarsest_px=cell_px)
        shift_y = size * self.eddies[1].at(rows, columns, time=turn, coarsest_px=cell_px)
        wisps = self.eddies[2].at(2.0 * rows, 2.0 * columns, time=2.0 * turn, coarsest_px=cell_px / 2.0)
        strength = (0.5 + 0.8 * plume.turbulence) * np.clip(away / 0.25, 0.0, 1.0)
        thinned: Field = sample(density, shift_x, shift_y) * np.exp(
            strength * sample(wisps, 0.6 * shift_y, 0.6 * shift_x)
        )
        return thinned


def place(
    rng: np.random.Generator,
    plume: Plume,
    puffs: Puffs,
    sources: Sequence[tuple[float, float]],
    extent: tuple[float, float],
    fraction: float,
    depth: float,
) -> tuple[Placed, bool]:
    """Put a plume into a picture of ``extent`` (width, height) in short sides so that it covers ``fraction`` of it.

    Covered is where the density is at least the plume's typical one over ``depth``. The leak is one of ``sources``,
    drawn; the plume is mirrored where it would leave the picture otherwise, and other sources are tried where it leaves
    it either way, as an operator would point the camera elsewhere.

    Returns:
        The placed plume, and whether it (and so its puffs) was mirrored.
    """
    x0, x1 = float(np.min(puffs.x)) - 0.1, float(np.max(puffs.x)) + 0.1
    y0, y1 = float(np.min(puffs.y)) - 0.1, float(np.max(puffs.y)) + 0.1
    across = x0 + (x1 - x0) * (np.arange(_GRID) + 0.5) / _GRID
    below = y0 + (y1 - y0) * (np.arange(_GRID) + 0.5) / _GRID
    density = puffs.density(across, below, footprint=0.01)
    rows, columns = np.nonzero(density >= typical(density) / depth)
    x, y = across[columns], below[rows]
    cell = (x1 - x0) * (y1 - y0) / _GRID**2
    eddies = draw_eddies(rng, 5, 0.6), draw_eddies(rng, 5, 0.6), draw_eddies(rng, 4, 0.7)
    order = rng.permutation(len(sources))[:6]
    best: tuple[float, Placed, bool] | None = None
    for index in order:
        source = sources[int(index)]
        for mirror in (False, True):
            reach = _reach(source, -x if mirror else x, y, cell, extent, fraction)
            inside = _inside(source, -x if mirror else x, y, reach, extent)
            wanted = 0.85 - 0.8 * fraction
            covered = float(np.mean(inside))
            placed = Placed(plume.mirrored() if mirror else plume, source, reach, eddies)
            if best is None or covered > best[0] + 0.02:
                best = (covered, placed, mirror)
            if covered >= wanted:
                return placed, mirror
    assert best is not None  # there is at least one source
    return best[1], best[2]


def _reach(
    source: tuple[float, float], x: Field, y: Field, cell: float, extent: tuple[float, float], fraction: float
) -> float:
    """The reach in short sides at which the plume's cells at (x, y) cover ``fraction`` of the picture."""
    low, high = 0.01, 1.5
    for _ in range(12):
        reach = float(np.sqrt(low * high))
        covered = cell * reach**2 * np.count_nonzero(_inside(source, x, y, reach, extent)) / (extent[0] * extent[1])
        low, high = (low, reach) if covered > fraction else (reach, high)
    return reach


def _inside(
    source: tuple[float, float], x: Field, y: Field, reach: float, extent: tuple[float, float]
) -> NDArray[np.bool_]:
    """Which of the places (x, y) of a plume, in reaches, lie in the picture: bool (n,)."""
    right, down = source[0] + reach * x, source[1] + reach * y
    inside: NDArray[np.bool_] = (right > 0.0) & (right < extent[0]) & (down > 0.0) & (down < extent[1])
    return inside


def typical(density: Field) -> float:
    """The mean density that the gas itself meets: what most of the plume's mass looks like, not its core."""
    return float(np.sum(density * density) / max(float(np.sum(density)), 1e-300))


def _slice(places: Field, low: float, high: float) -> slice:
    """The part of ascending ``places`` within low..high."""
    return slice(int(np.searchsorted(places, low)), int(np.searchsorted(places, high)))


def sample(field: Field, shift_x: Field, shift_y: Field) -> Field:
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
