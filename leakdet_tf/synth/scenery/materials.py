"""What floors, walls and pipes are made of: colour, relief and gloss over surface coordinates in metres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from leakdet_tf.synth.scenery.texture import (
    Grains,
    Image32,
    Noise,
    band,
    draw_grains,
    draw_noise,
    from_lines,
    hashed,
    smooth,
    turned,
)

FLOORS = ("concrete", "concrete", "painted", "tiles", "checker", "asphalt")
WALLS = ("concrete", "painted", "brick", "panel", "tiles")
SLABS = ("slab", "slab", "slab", "stucco", "aggregate", "asphalt", "painted")
"""Materials for floors, for walls, and for surfaces seen from near; one that stands twice is twice as likely."""

_PAINTS = (
    (0.50, 0.52, 0.50),
    (0.30, 0.34, 0.33),
    (0.12, 0.22, 0.17),
    (0.55, 0.52, 0.42),
    (0.16, 0.22, 0.32),
    (0.36, 0.13, 0.10),
    (0.62, 0.62, 0.60),
)
_PIPES = (
    (0.10, 0.20, 0.36),
    (0.13, 0.27, 0.17),
    (0.55, 0.40, 0.07),
    (0.38, 0.39, 0.40),
    (0.22, 0.23, 0.24),
    (0.35, 0.10, 0.07),
    (0.55, 0.56, 0.56),
)


@dataclass(frozen=True)
class Spot:
    """Where a material is asked for: float32 arrays of one shape, and where the light comes from.

    Attributes:
        u, v: surface coordinates in metres.
        reach: what a pixel spans, in metres.
        toward: how far the light comes from the side, along u and v: the tangent of its angle to the normal.
    """

    u: Image32
    v: Image32
    reach: Image32
    toward: tuple[float, float]


@dataclass(frozen=True)
class Skin:
    """What a surface does to light: float32 (H, W, 3) its colour with the shading of its relief, (H, W) its gloss.

    ``porous`` (0..1) says how much water darkens it.
    """

    color: Image32
    gloss: Image32
    porous: float


@dataclass(frozen=True)
class Material:
    """A drawn material: ``values`` holds 48 uniform numbers that its painter uses as it likes, ``cells`` (64, 64)."""

    kind: str
    noise: Noise
    grains: Grains
    values: tuple[float, ...]
    cells: Image32

    def between(self, index: int, low: float, high: float) -> float:
        """The number ``index`` spread over a range."""
        return low + (high - low) * self.values[index]

    def paint(self, at: Spot) -> Skin:
        """The material at a spot."""
        return _PAINTERS[self.kind](self, at)


def draw_material(rng: np.random.Generator, kinds: Sequence[str]) -> Material:
    """One of ``kinds``."""
    kind = str(rng.choice(kinds))
    noise = draw_noise(rng)
    near = kind in ("aggregate", "stucco", "slab")
    grains = draw_grains(rng, float(rng.uniform(0.0035, 0.008) if near else rng.uniform(0.0022, 0.005)))
    values = tuple(float(value) for value in rng.uniform(size=48))
    return Material(kind, noise, grains, values, rng.uniform(size=(64, 64)).astype(np.float32))


def _tinted(level: Image32, tint: Sequence[float]) -> Image32:
    return np.asarray(level[..., np.newaxis] * np.array(tint, np.float32), np.float32)


def _grey(self: Material, index: int, low: float, high: float) -> tuple[float, float, float]:
    """A grey that is a little warm or cold."""
    level, warm = self.between(index, low, high), self.between(index + 1, -0.05, 0.09)
    return level * (1.0 + warm), level, level * (1.0 - 1.3 * warm)


def _soiled(self: Material, at: Spot, color: Image32, first: int, most: float) -> Image32:
    """Dirt in clouds."""
    cloud = self.noise.at(at.u, at.v, at.reach, cell=0.9, octaves=5, gain=0.6, first=first)
    share = np.float32(self.between(30, 0.0, most)) * smooth(cloud, -0.2, 1.7)
    return np.asarray(color * (1.0 - share[..., np.newaxis] * np.array((0.42, 0.5, 0.58), np.float32)), np.float32)


def _jointed(self: Material, at: Spot, color: Image32, index: int) -> Image32:
    """Two sets of joints, in half of the cases."""
    if self.values[index] < 0.45:
        return color
    half = self.between(index + 1, 0.002, 0.007)
    u = from_lines(at.u, self.between(index + 2, 1.2, 3.0), self.between(index + 3, 0.0, 3.0))
    v = from_lines(at.v, self.between(index + 4, 1.2, 3.0), self.between(index + 5, 0.0, 3.0))
    gap = np.maximum(band(u, half, at.reach), band(v, half, at.reach))
    return np.asarray(color * (1.0 - np.float32(0.72) * gap[..., np.newaxis]), np.float32)


def _concrete(self: Material, at: Spot) -> Skin:
    noise = self.noise
    level = 1.0 + np.float32(0.10) * noise.at(at.u, at.v, at.reach, cell=0.55, octaves=4, gain=0.55)
    level += np.float32(self.between(2, 0.03, 0.07)) * noise.at(at.u, at.v, at.reach, cell=0.05, octaves=4, first=5)
    rough = self.between(3, 0.012, 0.045)
    level += np.float32(rough) * noise.relief(
        at.u, at.v, at.reach, at.toward, cell=0.014, octaves=4, gain=0.9, first=10
    )
    pits = noise.at(at.u, at.v, at.reach, cell=0.018, octaves=2, first=15)
    level *= 1.0 - np.float32(0.5) * smooth(pits, 2.0, 2.5)
    color = _soiled(self, at, _tinted(level, _grey(self, 0, 0.24, 0.5)), 20, 0.7)
    gloss = np.full(at.u.shape, self.between(4, 0.0, 0.15), np.float32)
    return Skin(_jointed(self, at, color, 8), gloss, self.between(5, 0.75, 1.0))


def _slab(self: Material, at: Spot) -> Skin:
    """Concrete from near: cement paste with trowel marks, relief of some millimetres, air voids."""
    noise = self.noise
    along, across = turned(at.u, at.v, self.between(6, 0.0, np.pi))
    level = 1.0 + np.float32(self.between(10, 0.01, 0.05)) * noise.at(at.u, at.v, at.reach, cell=0.12, octaves=3)
    level += np.float32(self.between(11, 0.01, 0.05)) * noise.at(
        along * np.float32(0.3), across, at.reach, cell=0.02, octaves=3, first=4
    )
    rough = self.between(2, 0.012, 0.075)
    level += np.float32(rough) * noise.relief(
        along * np.float32(self.between(12, 0.4, 1.0)),
        across,
        at.reach,
        at.toward,
        cell=self.between(3, 0.0045, 0.013),
        octaves=5,
        gain=self.between(18, 0.65, 0.9),
        first=10,
    )
    level += np.float32(self.between(13, 0.02, 0.085)) * noise.at(
        at.u, at.v, at.reach, cell=0.0024, octaves=2, gain=1.0, first=16
    )
    if self.values[4] < 0.6:
        voids, cell = self.between(5, 2.0, 2.9), self.between(14, 0.0016, 0.0045)
        hole = noise.at(at.u, at.v, at.reach, cell=cell, octaves=1, first=20)
        here = noise.at(at.u, at.v, at.reach, cell=0.08, octaves=2, first=24)
        pit = smooth(hole + np.float32(0.5) * here, voids, voids + 0.25)
        level *= 1.0 - np.float32(self.between(15, 0.3, 0.75)) * pit
    cast = self.between(7, -0.12, 0.10)
    tint = (1.0 + cast, 1.0, 1.0 - 1.1 * cast)
    color = _tinted(level * np.float32(self.between(8, 0.30, 0.48)), tint)
    patch = smooth(noise.at(at.u, at.v, at.reach, cell=0.1, octaves=4, gain=0.6, first=28), 0.4, 1.1)
    share = np.float32(self.between(9, -0.1, 0.18)) * patch
    return Skin(color * (1.0 - share[..., np.newaxis]), np.zeros(at.u.shape, np.float32), 0.9)


def _aggregate(self: Material, at: Spot) -> Skin:
    """Washed concrete: stones in cement, some dark, some reddish."""
    value, depth = self.grains.at(at.u, at.v)
    stone = smooth(depth, 0.03, 0.18)
    shows = (value > self.between(2, 0.3, 0.8)).astype(np.float32) * stone
    again = np.mod(value * np.float32(17.3), 1.0)
    dark = (np.mod(value * np.float32(7.7), 1.0) < self.between(3, 0.05, 0.4)).astype(np.float32)
    tone = (np.float32(0.8) + np.float32(0.4) * again) * (1.0 - np.float32(0.62) * dark)
    base = 1.0 + np.float32(0.08) * self.noise.at(at.u, at.v, at.reach, cell=0.06, octaves=5, gain=0.7)
    base += np.float32(self.between(4, 0.05, 0.17)) * self.noise.relief(
        at.u, at.v, at.reach, at.toward, cell=0.003, octaves=3, gain=1.0, first=10
    )
    sand, _ = replace(self.grains, size=0.31 * self.grains.size, values=self.grains.values[::-1]).at(at.u, at.v)
    gritty = np.clip(np.float32(0.31 * self.grains.size) / at.reach / 2.0, 0.0, 1.0) * np.float32(0.5)
    base = base * (1.0 + gritty * (sand - np.float32(0.5)))
    paste = _tinted(base * np.float32(1.0 - 0.25 * self.values[5]), (1.0, 0.96, 0.9))
    red = np.stack([np.float32(0.1) * again, 0.0 * again, -np.float32(0.16) * again], axis=-1)
    stones = _tinted(tone * base, (1.0, 1.0, 1.0)) + red * (1.0 - dark[..., np.newaxis])
    rim = np.float32(self.between(6, 0.0, 0.22)) * (1.0 - stone) * (value > self.between(2, 0.3, 0.8))
    color = paste * (1.0 - rim[..., np.newaxis]) + shows[..., np.newaxis] * (stones - paste)
    level, cast = self.between(7, 0.18, 0.5), self.between(8, -0.04, 0.16)
    return Skin(color * np.array((level * (1 + cast), level, level * (1 - 1.4 * cast)), np.float32), 0 * value, 0.9)


def _stucco(self: Material, at: Spot) -> Skin:
    """A rough cast: sand that stands out and throws small shadows."""
    relief = self.noise.relief(
        at.u, at.v, at.reach, at.toward, cell=self.between(2, 0.003, 0.007), octaves=3, gain=0.8, first=10
    )
    level = 1.0 + np.float32(self.between(3, 0.1, 0.26)) * relief
    level += np.float32(0.06) * self.noise.at(at.u, at.v, at.reach, cell=0.1, octaves=5, gain=0.6)
    cast = self.between(4, -0.02, 0.22)
    tint = (1.0 + cast, 1.0, 1.0 - 1.4 * cast)
    color = _tinted(np.maximum(level, np.float32(0.15)) * np.float32(self.between(5, 0.16, 0.48)), tint)
    return Skin(color, np.zeros(at.u.shape, np.float32), 0.9)


def _asphalt(self: Material, at: Spot) -> Skin:
    value, depth = self.grains.at(at.u, at.v)
    fine = np.clip(np.float32(self.grains.size) / at.reach / 2.0, 0.0, 1.0)
    tone = np.float32(0.66) + np.float32(0.55) * value * value * smooth(depth, 0.0, 0.25)
    level = 0.85 + fine * (tone - np.float32(0.85))
    level += np.float32(0.09) * self.noise.at(at.u, at.v, at.reach, cell=0.4, octaves=6, gain=0.7)
    level += np.float32(0.12) * self.noise.relief(
        at.u, at.v, at.reach, at.toward, cell=0.01, octaves=3, gain=0.9, first=10
    )
    color = _tinted(np.maximum(level, np.float32(0.1)), _grey(self, 0, 0.075, 0.19))
    return Skin(_soiled(self, at, color, 20, 0.4), np.full(at.u.shape, 0.05, np.float32), 0.7)


def _painted(self: Material, at: Spot) -> Skin:
    """Paint or epoxy: even, a little glossy, worn through in places."""
    tint = _PAINTS[int(self.values[0] * len(_PAINTS))]
    level = 1.0 + np.float32(0.04) * self.noise.at(at.u, at.v, at.reach, cell=0.7, octaves=4)
    level += np.float32(0.014) * self.noise.relief(at.u, at.v, at.reach, at.toward, cell=0.005, octaves=2, first=10)
    color = _tinted(level, tint)
    wear = self.noise.at(at.u, at.v, at.reach, cell=0.25, octaves=6, gain=0.65, first=16)
    gone = smooth(wear, self.between(2, 1.3, 2.6), self.between(2, 1.3, 2.6) + 0.12)[..., np.newaxis]
    color = color + gone * (np.float32(0.36) - color)
    gloss = np.full(at.u.shape, self.between(3, 0.1, 0.5), np.float32) * (1.0 - gone[..., 0])
    return Skin(_soiled(self, at, color, 24, 0.6), gloss.astype(np.float32), 0.15)


def _tiles(self: Material, at: Spot) -> Skin:
    side, half = self.between(0, 0.1, 0.33), self.between(1, 0.0015, 0.004)
    u, v = at.u - np.float32(self.between(2, 0.0, 1.0)), at.v - np.float32(self.between(3, 0.0, 1.0))
    gap = np.maximum(band(from_lines(u, side), half, at.reach), band(from_lines(v, side), half, at.reach))
    row, column = np.rint(v / np.float32(side) - 0.5), np.rint(u / np.float32(side) - 0.5)
    own = hashed(self.cells, row, column)
    level = np.float32(0.88) + np.float32(self.between(4, 0.04, 0.3)) * own
    level += np.float32(0.05) * self.noise.at(at.u, at.v, at.reach, cell=0.1, octaves=5, gain=0.65)
    tint = ((0.5, 0.5, 0.48), (0.36, 0.17, 0.1), (0.62, 0.61, 0.57), (0.2, 0.2, 0.21))[int(self.values[5] * 4)]
    color = _tinted(level, tint)
    grout = np.float32(self.between(6, 0.1, 0.3)) * np.ones(3, np.float32)
    color = color + gap[..., np.newaxis] * (grout - color)
    gloss = np.asarray(np.float32(self.between(7, 0.15, 0.8)) * (1.0 - gap), np.float32)
    return Skin(_soiled(self, at, color, 20, 0.6), gloss, 0.25)


def _checker(self: Material, at: Spot) -> Skin:
    """Tread plate: raised lozenges, every other one turned by a right angle."""
    pitch = self.between(0, 0.026, 0.042)
    x, y = turned(at.u, at.v, np.pi / 4, 1.0 / pitch)
    row, column = np.floor(y), np.floor(x)
    a, b = x - column - np.float32(0.5), y - row - np.float32(0.5)
    odd = np.mod(row + column, 2.0) > 0.5
    a, b = np.where(odd, b, a), np.where(odd, -a, b)
    narrow = np.float32(0.17) * np.clip(1.0 - np.square(a / np.float32(0.46)), 0.0, 1.0)
    sharp = np.float32(pitch) / at.reach
    cover = np.clip((narrow - np.abs(b)) * sharp + np.float32(0.5), 0.0, 1.0) * (narrow > 0)
    fine = np.clip(sharp / 4.0 - 0.5, 0.0, 1.0)
    light = (at.toward[0] + at.toward[1]) * np.where(odd, -0.7, 0.7) + (at.toward[1] - at.toward[0]) * 0.7 * ~odd
    flank = cover * np.clip(b / np.maximum(narrow, np.float32(0.02)), -1.0, 1.0) * np.float32(0.35) * light
    level = 1.0 + fine * (np.float32(0.22) * cover + np.clip(flank, -0.45, 0.7)) + np.float32(0.05) * (1.0 - fine)
    level *= 1.0 + np.float32(0.1) * self.noise.at(at.u, at.v, at.reach, cell=0.3, octaves=6, gain=0.65)
    color = _tinted(level.astype(np.float32), _grey(self, 1, 0.2, 0.42))
    rust = smooth(self.noise.at(at.u, at.v, at.reach, cell=0.35, octaves=6, gain=0.7, first=16), 1.0, 2.2)
    color += (np.float32(self.between(3, 0.0, 0.9)) * rust)[..., np.newaxis] * (
        np.array((0.2, 0.1, 0.05), np.float32) - color
    )
    seam = band(from_lines(at.u, self.between(4, 1.0, 1.6), self.between(5, 0.0, 1.5)), 0.002, at.reach)
    color = color * (1.0 - np.float32(0.75) * seam[..., np.newaxis])
    return Skin(_soiled(self, at, color, 24, 0.6), np.full(at.u.shape, 0.35, np.float32), 0.1)


def _brick(self: Material, at: Spot) -> Skin:
    high, wide, half = self.between(0, 0.062, 0.085), self.between(1, 0.2, 0.26), 0.005
    row = np.floor(at.v / np.float32(high))
    shifted = at.u + np.float32(0.5 * wide) * np.mod(row, 2.0)
    column = np.floor(shifted / np.float32(wide))
    bed = from_lines(at.v, high)
    ragged = np.float32(0.0015) * self.noise.at(at.u, at.v, at.reach, cell=0.03, octaves=2, first=30)
    upright = from_lines(shifted, wide)
    mortar = np.maximum(band(bed + ragged, half, at.reach), band(upright + ragged, half, at.reach))
    level = np.float32(0.72) + np.float32(0.5) * hashed(self.cells, row, column)
    level += np.float32(0.11) * self.noise.at(at.u, at.v, at.reach, cell=0.05, octaves=5, gain=0.7)
    level += np.float32(0.06) * self.noise.relief(at.u, at.v, at.reach, at.toward, cell=0.012, octaves=3, first=10)
    edge = band(bed - np.float32(half + 0.003), 0.003, at.reach) - band(bed + np.float32(half + 0.003), 0.003, at.reach)
    level -= np.float32(0.25) * edge
    tint = ((0.33, 0.13, 0.085), (0.42, 0.24, 0.15), (0.5, 0.5, 0.48), (0.42, 0.36, 0.28))[int(self.values[2] * 4)]
    color = _tinted(level, tint)
    joint = np.float32(self.between(3, 0.22, 0.45)) * np.array((1.0, 0.97, 0.92), np.float32)
    color = color + mortar[..., np.newaxis] * (joint - color)
    return Skin(_soiled(self, at, color, 20, 0.7), np.zeros(at.u.shape, np.float32), 0.9)


def _panel(self: Material, at: Spot) -> Skin:
    """Sheet metal in panels with bolts along their seams."""
    skin = _painted(self, at)
    pitch, high = self.between(10, 0.45, 1.0), self.between(11, 0.5, 1.1)
    u = from_lines(at.u, pitch, self.between(12, 0.0, 1.0))
    v = from_lines(at.v, high, self.between(13, 0.0, 1.0))
    seam = np.maximum(band(u, 0.002, at.reach), band(v, 0.002, at.reach))
    lit = np.maximum(band(u - np.float32(0.004), 0.0015, at.reach), band(v + np.float32(0.004), 0.0015, at.reach))
    radius, gap = self.between(14, 0.007, 0.013), self.between(15, 0.09, 0.2)
    beside, along = np.abs(u) - np.float32(0.028), from_lines(at.v, gap)
    away = np.hypot(beside, along)
    bolt = np.clip((np.float32(radius) - away) / at.reach + np.float32(0.5), 0.0, 1.0)
    lean = (beside * at.toward[0] * np.sign(u) + along * at.toward[1]) / np.float32(radius)
    drop = np.hypot(
        beside * np.sign(u) + np.float32(0.5 * radius * np.sign(at.toward[0])), along + np.float32(0.5 * radius)
    )
    shade = np.float32(0.4) * np.clip((np.float32(1.25 * radius) - drop) / at.reach + 0.5, 0.0, 1.0) * (1.0 - bolt)
    factor = (1.0 - np.float32(0.7) * seam) * (1.0 - shade) + np.float32(0.2) * lit
    color = skin.color * factor[..., np.newaxis]
    head = skin.color * (np.float32(0.95) + np.clip(np.float32(0.3) * lean, -0.3, 0.4))[..., np.newaxis]
    rusty = (0.75 * self.values[16]) * np.array((0.10, 0.17, 0.2), np.float32)
    color = color + bolt[..., np.newaxis] * (head - rusty - color)
    return Skin(np.maximum(color, np.float32(0.01)).astype(np.float32), skin.gloss, 0.12)


def _tube(self: Material, at: Spot) -> Skin:
    """A pipe's paint, with rust where it peeled."""
    tint = _PIPES[int(self.values[0] * len(_PIPES))]
    level = 1.0 + np.float32(0.06) * self.noise.at(at.u, at.v, at.reach, cell=0.15, octaves=6, gain=0.65)
    color = _tinted(level, tint)
    worn = self.noise.at(at.u, at.v, at.reach, cell=0.12, octaves=6, gain=0.7, first=16)
    rust = smooth(worn, self.between(2, 0.6, 2.4), self.between(2, 0.6, 2.4) + 0.35)[..., np.newaxis]
    color += rust * (np.array((0.21, 0.095, 0.045), np.float32) * level[..., np.newaxis] - color)
    gloss = np.float32(self.between(3, 0.25, 0.9)) * (1.0 - rust[..., 0])
    return Skin(_soiled(self, at, color, 24, 0.5), gloss.astype(np.float32), 0.1)


_PAINTERS: dict[str, Callable[[Material, Spot], Skin]] = {
    "concrete": _concrete,
    "slab": _slab,
    "aggregate": _aggregate,
    "stucco": _stucco,
    "asphalt": _asphalt,
    "painted": _painted,
    "tiles": _tiles,
    "checker": _checker,
    "brick": _brick,
    "panel": _panel,
    "tube": _tube,
}
