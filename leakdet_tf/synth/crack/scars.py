"""What is mistaken for a crack and is none. All of it is drawn without regard to whether there is a crack.

What tells them apart from a crack, in principle:

- ``joint`` is a straight groove of one width, wider than a crack, with even edges; a saw cut or a gap between slabs.
- ``seam`` is where two boards of a formwork met: a straight, thin ridge with a light and a dark side and no depth.
- ``stain`` is dark or rusty, soft-edged, and lies on the texture without cutting it.
- ``scratch`` is lighter than the surface, nearly straight, and shallow.
- ``shadow`` has an edge between light and dark, but no line.
- ``cable`` is a smooth curve of one width that throws a shadow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leakdet_tf.synth.scenery.texture import Image32, band, draw_noise, smooth, turned, turned_way

TAGS = ("joint", "seam", "stain", "scratch", "shadow", "cable")
"""Every confuser's tag, as ``confusers`` in the parameters lists them."""
COUNTS = (0.5, 0.35, 0.15)
"""Shares of the pictures that hold none, one and two."""


def draw_tags(rng: np.random.Generator) -> list[str]:
    """Which confusers a picture holds, in the order of ``TAGS``."""
    count = int(rng.choice(3, p=COUNTS))
    return [TAGS[int(index)] for index in sorted(rng.choice(len(TAGS), size=count, replace=False))]


@dataclass(frozen=True)
class Surface:
    """A surface that confusers are put on: float32 (H, W) or (H, W, 3), changed in place.

    Attributes:
        x, y: coordinates of pixel centres in short sides.
        pixel: a pixel's side in the same unit.
        toward: the direction of the light in the picture, a unit vector.
        color: the surface's radiance.
        over: 0..1, how much of a pixel a thing covers that lies on top, and ``over_color``, its colour.
    """

    x: Image32
    y: Image32
    pixel: float
    toward: tuple[float, float]
    color: Image32
    over: Image32
    over_color: Image32

    def darken(self, share: Image32) -> None:
        """Take a share of the light away."""
        self.color[:] *= 1.0 - share[..., np.newaxis]


@dataclass(frozen=True)
class Frame:
    """A confuser's own coordinates in short sides, along and across it; and ``toward``, the light across it."""

    a: Image32
    b: Image32
    reach: Image32
    toward: float


def put(rng: np.random.Generator, surface: Surface, tag: str) -> None:
    """Put the confuser ``tag`` there."""
    turn = float(rng.uniform(0.0, np.pi))
    if tag in ("joint", "seam"):  # builders work by the plumb line
        turn = float(rng.choice((0.0, np.pi / 2))) + float(rng.normal(0.0, 0.08))
    middle = rng.uniform(0.15, 0.85, 2) * (surface.x.max(), surface.y.max())
    x, y = surface.x - np.float32(middle[0]), surface.y - np.float32(middle[1])
    _, toward = turned_way(surface.toward, turn)
    reach = np.full(x.shape, surface.pixel, np.float32)
    _PUTTERS[tag](rng, surface, Frame(*turned(x, y, turn), reach, toward))


def _ragged(rng: np.random.Generator, at: Frame, cell: float, size: float) -> Image32:
    noise = draw_noise(rng)
    return np.float32(size) * noise.at(at.a, at.b, at.reach, cell=cell, octaves=3)


def _joint(rng: np.random.Generator, surface: Surface, at: Frame) -> None:
    half = float(np.exp(rng.uniform(np.log(0.006), np.log(0.03))))
    soft = at.reach + np.float32(rng.uniform(0.0, 0.006))
    distance = at.b + _ragged(rng, at, 0.04, 0.0012)
    groove = band(distance, half, soft)
    lit = band(distance + np.float32(np.sign(at.toward) * (half + 0.004)), 0.004, soft)
    surface.darken(np.float32(rng.uniform(0.35, 0.8)) * groove)
    surface.color[:] *= 1.0 + (np.float32(rng.uniform(0.0, 0.2)) * lit * (1.0 - groove))[..., np.newaxis]


def _seam(rng: np.random.Generator, surface: Surface, at: Frame) -> None:
    """A ridge, and often boards of other tones on its two sides."""
    half = float(rng.uniform(0.003, 0.009))
    distance = at.b + _ragged(rng, at, 0.1, 0.002)
    side = np.float32(np.sign(at.toward) or 1.0)
    lit = band(distance - side * np.float32(half), half, at.reach)
    dark = band(distance + side * np.float32(half), half, at.reach)
    strength, step = np.float32(rng.uniform(0.06, 0.25)), np.float32(rng.normal(0.0, 0.05))
    tone = 1.0 + strength * (np.float32(0.8) * lit - dark) + step * smooth(distance, -0.006, 0.006)
    surface.color[:] *= np.asarray(tone, np.float32)[..., np.newaxis]


def _stain(rng: np.random.Generator, surface: Surface, at: Frame) -> None:
    """Along a line or in a cloud, as rust and damp have it."""
    noise, narrow = draw_noise(rng), float(rng.uniform(0.012, 0.12))
    bent = at.b + np.float32(0.06) * noise.at(at.a, 0.0 * at.b, at.reach, cell=0.3, octaves=3)
    cloud = noise.at(at.a, at.b, at.reach, cell=0.15, octaves=5, gain=0.6, first=8)
    body = np.exp(-np.square(bent / np.float32(narrow)))
    ends = 1.0 - smooth(np.abs(at.a), 0.2, float(rng.uniform(0.35, 0.9)))
    share = np.float32(rng.uniform(0.12, 0.42)) * body * ends * smooth(cloud, -1.2, 0.8)
    tints = ((1.0, 1.0, 1.0), (0.35, 0.75, 1.1), (0.7, 0.9, 1.1), (-0.6, -0.6, -0.55))
    tint = np.array(tints[int(rng.integers(len(tints)))], np.float32)
    surface.color[:] = np.clip(surface.color * (1.0 - share[..., np.newaxis] * tint), 0.0, 0.98)


def _scratch(rng: np.random.Generator, surface: Surface, at: Frame) -> None:
    """One or some, nearly parallel, in strokes."""
    noise = draw_noise(rng)
    strokes = smooth(noise.at(at.a, 0.0 * at.b, at.reach, cell=0.08, octaves=4, gain=0.7, first=6), -0.6, 0.3)
    for _ in range(int(rng.integers(1, 5))):
        offset, bend = float(rng.normal(0.0, 0.05)), float(rng.normal(0.0, 0.12))
        half, length = float(rng.uniform(0.0012, 0.004)), float(rng.uniform(0.1, 0.7))
        line = band(at.b - np.float32(offset) - np.float32(bend) * at.a * at.a, half, at.reach)
        ends = 1.0 - smooth(np.abs(at.a), 0.6 * length, length)
        share = np.float32(rng.uniform(0.12, 0.4)) * line * ends * strokes
        surface.color[:] *= 1.0 + share[..., np.newaxis]


def _shadow(rng: np.random.Generator, surface: Surface, at: Frame) -> None:
    """Beyond an edge, or a bar."""
    soft = np.float32(np.exp(rng.uniform(np.log(0.008), np.log(0.12)))) + at.reach
    inside = at.b if rng.uniform() < 0.6 else np.float32(rng.uniform(0.02, 0.15)) - np.abs(at.b)
    if rng.uniform() < 0.4:
        inside = inside + _ragged(rng, at, 0.25, 0.05)
    share = np.float32(rng.uniform(0.2, 0.6)) * smooth(np.asarray(inside, np.float32) / soft, -0.5, 0.5)
    surface.color[:] *= 1.0 - share[..., np.newaxis] * np.array((1.0, 0.97, 0.92), np.float32)


def _cable(rng: np.random.Generator, surface: Surface, at: Frame) -> None:
    half = float(np.exp(rng.uniform(np.log(0.006), np.log(0.03))))
    bends, long = rng.normal(0.0, 0.02, 2), rng.uniform(0.5, 1.6, 2)
    path = sum(
        np.float32(bend * size) * np.sin(np.float32(2 * np.pi / size) * at.a)
        for bend, size in zip(bends, long, strict=True)
    )
    distance = np.asarray(at.b - path, np.float32)
    side = np.sign(at.toward) or 1.0
    shadow = band(distance + np.float32(side * half), 1.3 * half, at.reach + np.float32(half))
    surface.darken(np.float32(rng.uniform(0.35, 0.7)) * shadow)
    across = np.clip(distance / np.float32(half), -1.0, 1.0)
    light = np.float32(0.4) + np.float32(0.6) * np.sqrt(1.0 - np.square(0.9 * across))
    glint = np.exp(-np.square((across - np.float32(0.35 * side)) / np.float32(0.2)))
    colors = ((0.03, 0.03, 0.03), (0.25, 0.25, 0.25), (0.4, 0.15, 0.04), (0.5, 0.5, 0.47))
    color = np.array(colors[int(rng.integers(len(colors)))], np.float32)
    cover = band(distance, half, at.reach)
    painted = light[..., np.newaxis] * color + np.float32(0.1) * glint[..., np.newaxis]
    surface.over_color[:] += cover[..., np.newaxis] * (painted - surface.over_color)
    np.maximum(surface.over, cover, out=surface.over)


_PUTTERS: dict[str, Callable[[np.random.Generator, Surface, Frame], None]] = {
    "joint": _joint,
    "seam": _seam,
    "stain": _stain,
    "scratch": _scratch,
    "shadow": _shadow,
    "cable": _cable,
}
