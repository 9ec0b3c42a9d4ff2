"""What is mistaken for a leak and is none. All of it is drawn without regard to whether there is a leak.

What tells them apart from a leak, in principle:

- ``shadow`` darkens every material alike, has the shape of a thing, and mirrors nothing.
- ``stain`` is a leak that dried long ago: matt, with a darker rim or a pale bloom, and no depth.
- ``light_patch`` is the sun through a window: bright, straight-edged, and the texture below goes on in it.
- ``cable`` lies on top, round, of one width, with a shadow beside it.
- ``tape`` is flat and straight-edged, of one colour or striped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from leakdet_tf.synth.room import PIPE, Room
from leakdet_tf.synth.texture import Image32, Noise, band, draw_noise, smooth, turned

TAGS = ("shadow", "stain", "light_patch", "cable", "tape")
"""Every confuser's tag, as ``confusers`` in the parameters lists them."""
COUNTS = (0.3, 0.45, 0.25)
"""Shares of the pictures that hold none, one and two."""


def draw_tags(rng: np.random.Generator) -> list[str]:
    """Which confusers a picture holds, in the order of ``TAGS``."""
    count = int(rng.choice(3, p=COUNTS))
    return [TAGS[int(index)] for index in sorted(rng.choice(len(TAGS), size=count, replace=False))]


@dataclass(frozen=True)
class Litter:
    """What confusers do to a picture. All arrays are float32 (H, W) or (H, W, 3), changed in place.

    Attributes:
        room: where they lie.
        color: the surfaces' colours.
        shade: 0..1, how much of the lamp is kept away.
        gain: factor on all light.
        dull: 0..1, how much of the gloss is gone.
        over: 0..1, how much of a pixel a thing covers that lies on top of everything, and ``over_color``, its colour.
    """

    room: Room
    color: Image32
    shade: Image32
    gain: Image32
    dull: Image32
    over: Image32
    over_color: Image32


def empty(room: Room, color: Image32) -> Litter:
    """Nothing yet, over surfaces of a ``color`` that confusers may change."""
    blank = [np.zeros(room.shape, np.float32) for _ in range(3)]
    return Litter(room, color, blank[0], np.ones(room.shape, np.float32), blank[1], blank[2], np.zeros_like(color))


Lobe = tuple[float, float, float]
"""Where a part of something spilt lies, right and down of its middle, and its size; in radii."""


@dataclass(frozen=True)
class Place:
    """Coordinates of a confuser's own: ``a`` and ``b`` in short sides from its middle, and where its surface is."""

    a: Image32
    b: Image32
    reach: Image32
    here: Image32


def _place(rng: np.random.Generator, room: Room) -> Place:
    """A random direction and a random point that is seen and is not on a pipe, where there is any."""
    height, width = room.shape
    spots = rng.uniform(0.12, 0.88, (24, 2))
    turn = float(rng.uniform(0.0, np.pi))
    row, column = 0, 0
    for down, right in spots:
        row, column = int(down * height), int(right * width)
        if room.part[row, column] != PIPE:
            break
    part, unit = room.part[row, column], room.reach[row, column] * np.float32(min(room.shape))
    u, v = (room.u - room.u[row, column]) / unit, (room.v - room.v[row, column]) / unit
    return Place(*turned(u, v, turn), room.reach / unit, (room.part == part).astype(np.float32))


def put(rng: np.random.Generator, litter: Litter, tag: str) -> None:
    """Put the confuser ``tag`` there."""
    _PUTTERS[tag](rng, litter, _place(rng, litter.room))


def _shadow(rng: np.random.Generator, litter: Litter, at: Place) -> None:
    """Of a post, a box, a rail or a person: boxes and rounds, one or more."""
    soft = float(np.exp(rng.uniform(np.log(0.01), np.log(0.12))))
    total = np.zeros(litter.room.shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        half_a, half_b = float(rng.uniform(0.08, 0.9)), float(np.exp(rng.uniform(np.log(0.02), np.log(0.25))))
        a, b = at.a - np.float32(rng.normal(0.0, 0.15)), at.b - np.float32(rng.normal(0.0, 0.15))
        b = b + np.float32(rng.normal(0.0, 0.15)) * a
        if rng.uniform() < 0.3:
            inside = np.float32(half_b) * (1.0 - np.hypot(a / half_b, b / half_b))
        else:
            inside = np.minimum(np.float32(half_a) - np.abs(a), np.float32(half_b) - np.abs(b))
        total = np.maximum(total, smooth(inside / (np.float32(soft) + at.reach), -0.5, 0.5))
    depth = np.float32(rng.uniform(0.55, 0.95))
    np.maximum(litter.shade, depth * total * at.here, out=litter.shade)


def _stain(rng: np.random.Generator, litter: Litter, at: Place) -> None:
    """The shape of a puddle without its water."""
    field = blot(at, draw_noise(rng), float(rng.uniform(0.08, 0.34)), float(rng.uniform(0.15, 0.4)))
    soft = float(rng.uniform(0.006, 0.04))
    inside = smooth(field / (np.float32(soft) + at.reach), -0.5, 0.5) * at.here
    rim = np.exp(-np.square(field / np.float32(rng.uniform(0.012, 0.03)))) * at.here
    strength, ring = float(rng.uniform(0.12, 0.5)), float(rng.uniform(0.0, 0.35))
    tints = ((0.55, 0.55, 0.55), (0.35, 0.6, 0.9), (0.3, 0.45, 0.6), (-0.35, -0.35, -0.3))
    tint = np.array(tints[int(rng.integers(len(tints)))], np.float32)
    share = (np.float32(strength) * inside + np.float32(ring) * rim)[..., np.newaxis]
    litter.color[:] = np.clip(litter.color * (1.0 - share * tint), 0.0, 0.95)
    np.maximum(litter.dull, inside, out=litter.dull)


def _light_patch(rng: np.random.Generator, litter: Litter, at: Place) -> None:
    """Panes of a window, or a lamp's spot."""
    soft, strength = float(rng.uniform(0.006, 0.06)), float(rng.uniform(0.5, 1.6))
    half_a, half_b = float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.06, 0.2))
    lean, panes = np.float32(rng.normal(0.0, 0.5)), int(rng.integers(1, 4))
    a = at.a + lean * at.b
    inside = np.minimum(np.float32(half_a) - np.abs(a), np.float32(half_b) - np.abs(at.b))
    if rng.uniform() < 0.3:
        inside = np.float32(half_b) * (1.0 - np.hypot(a / half_a, at.b / half_b))
    elif panes > 1:
        period = 2.0 * half_a / panes
        cycles = (a + np.float32(half_a)) / np.float32(period)
        inside = np.minimum(inside, np.abs(cycles - np.rint(cycles)) * np.float32(period) - np.float32(0.008))
    lit = smooth(inside / (np.float32(soft) + at.reach), -0.5, 0.5) * at.here
    litter.gain[:] *= 1.0 + np.float32(strength) * lit


def _cable(rng: np.random.Generator, litter: Litter, at: Place) -> None:
    """A cable or hose in loose bends."""
    radius = float(np.exp(rng.uniform(np.log(0.006), np.log(0.022))))
    bends, long = rng.normal(0.0, 1.0, 3), rng.uniform(0.25, 0.9, 3)
    path = sum(
        np.float32(0.1 * bend * size) * np.sin(at.a * np.float32(2 * np.pi / size) + np.float32(5 * bend))
        for bend, size in zip(bends, long, strict=True)
    )
    steep = sum(
        np.float32(0.2 * np.pi * bend) * np.cos(at.a * np.float32(2 * np.pi / size) + np.float32(5 * bend))
        for bend, size in zip(bends, long, strict=True)
    )
    distance = (at.b - path) / np.sqrt(1.0 + np.square(steep))
    distance = np.asarray(distance, np.float32)
    side = np.float32(radius * (1.0 if rng.uniform() < 0.5 else -1.0))
    shade = band(distance - np.float32(0.8) * side, 1.1 * radius, at.reach + np.float32(0.6 * radius)) * at.here
    np.maximum(litter.shade, np.float32(0.8) * shade, out=litter.shade)
    cover = band(distance, radius, at.reach) * at.here
    across = np.clip(distance / np.float32(radius), -1.0, 1.0)
    round_shade = np.float32(0.35) + np.float32(0.65) * np.sqrt(1.0 - np.square(0.9 * across))
    glint = np.exp(-np.square((across + np.sign(side) * np.float32(0.35)) / np.float32(0.18)))
    colors = ((0.02, 0.02, 0.022), (0.02, 0.02, 0.022), (0.5, 0.16, 0.03), (0.05, 0.1, 0.3), (0.35, 0.35, 0.34))
    color = np.array(colors[int(rng.integers(len(colors)))], np.float32)
    painted = round_shade[..., np.newaxis] * color + (np.float32(0.16) * glint)[..., np.newaxis]
    _cover(litter, cover, np.asarray(painted, np.float32))


def _tape(rng: np.random.Generator, litter: Litter, at: Place) -> None:
    """Marking tape: one colour or striped, worn."""
    half, length = float(rng.uniform(0.02, 0.06)), float(rng.uniform(0.2, 2.0))
    worn = draw_noise(rng).at(at.a, at.b, at.reach, cell=0.06, octaves=4, gain=0.7)
    inside = band(at.b, half, at.reach) * band(at.a, length, at.reach) * at.here
    inside = inside * (1.0 - smooth(worn, float(rng.uniform(0.8, 2.5)), 2.8))
    pairs = (
        ((0.68, 0.48, 0.03), (0.03, 0.03, 0.03)),
        ((0.62, 0.62, 0.6), (0.5, 0.05, 0.04)),
        ((0.68, 0.48, 0.03), (0.68, 0.48, 0.03)),
        ((0.5, 0.51, 0.5), (0.5, 0.51, 0.5)),
        ((0.08, 0.08, 0.08), (0.08, 0.08, 0.08)),
        ((0.3, 0.24, 0.16), (0.3, 0.24, 0.16)),
    )
    one, other = (np.array(color, np.float32) for color in pairs[int(rng.integers(len(pairs)))])
    stripe = np.mod((at.a + at.b) / np.float32(2.2 * half), 2.0) < 1.0
    tape = np.where(stripe[..., np.newaxis], one, other) * (np.float32(1.0) + np.float32(0.08) * worn[..., np.newaxis])
    litter.color[:] += inside[..., np.newaxis] * (np.clip(tape, 0.0, 0.9) - litter.color)
    np.maximum(litter.dull, np.float32(0.7) * inside, out=litter.dull)


def _cover(litter: Litter, cover: Image32, color: Image32) -> None:
    litter.over_color[:] += cover[..., np.newaxis] * (color - litter.over_color)
    np.maximum(litter.over, cover, out=litter.over)


def blot(at: Place, noise: Noise, radius: float, ragged: float, lobes: Sequence[Lobe] = ((0.0, 0.0, 1.0),)) -> Image32:
    """The outline of something spilt, as a field that is positive inside; near its edge about the distance to it.

    It is about round and as large as ``radius``, or made of ``lobes``: places and sizes in radii, run into one another.
    """
    warp = np.float32(0.35 * radius)
    a = at.a + warp * noise.at(at.a, at.b, at.reach, cell=1.3 * radius, octaves=2, first=0)
    b = at.b + warp * noise.at(at.a, at.b, at.reach, cell=1.3 * radius, octaves=2, first=4)
    edge = noise.at(at.a, at.b, at.reach, cell=0.8 * radius, octaves=5, gain=0.5, first=8)
    within = np.full(at.a.shape, -1e3, np.float32)
    for right, down, size in lobes:
        from_middle = np.hypot(a / np.float32(radius) - np.float32(right), b / np.float32(radius) - np.float32(down))
        lobe = np.float32(size) - from_middle
        merged = np.maximum(np.float32(0.25) - np.abs(within - lobe), 0.0)
        within = np.maximum(within, lobe) + np.square(merged)
    return np.asarray(np.float32(radius) * (within + np.float32(ragged) * edge), np.float32)


_PUTTERS: dict[str, Callable[[np.random.Generator, Litter, Place], None]] = {
    "shadow": _shadow,
    "stain": _stain,
    "light_patch": _light_patch,
    "cable": _cable,
    "tape": _tape,
}
