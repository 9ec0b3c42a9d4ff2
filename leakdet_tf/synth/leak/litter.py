"""What is mistaken for a leak and is none. All of it is drawn without regard to whether there is a leak.

What tells them apart from a leak, in principle:

- ``shadow`` darkens every material alike, has the shape of a thing, and mirrors nothing.
- ``stain`` is a leak that dried long ago: matt, with a darker rim or a pale bloom, and no depth.
- ``light_patch`` is the sun through a window: bright, straight-edged, and the texture below goes on in it.
- ``cable`` lies on top, round, of one width, with a shadow beside it.
- ``tape`` is flat and straight-edged, of one colour or striped.
- ``reflection`` is a lamp or a window in something dry: brighter than around it, and nothing is darker beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from leakdet_tf.synth.leak.illumination import fresnel
from leakdet_tf.synth.leak.room import FLOOR, PIPE, Room
from leakdet_tf.synth.scenery.texture import Image32, Noise, band, draw_noise, from_lines, smooth, turned

_LAID = ("shadow", "stain", "light_patch", "cable", "tape")
TAGS = (*_LAID, "reflection")
"""Every confuser's tag, as ``confusers`` in the parameters lists them."""
COUNTS = (0.3, 0.45, 0.25)
"""Shares of the pictures that hold none, one and two of them, reflections apart."""
REFLECTION = 0.2
"""Share of the pictures that hold a reflection, whatever else they hold."""


def draw_tags(rng: np.random.Generator) -> list[str]:
    """Which confusers a picture holds, in the order of ``TAGS``."""
    count = int(rng.choice(3, p=COUNTS))
    laid = [_LAID[int(index)] for index in sorted(rng.choice(len(_LAID), size=count, replace=False))]
    return [*laid, "reflection"] if rng.uniform() < REFLECTION else laid


@dataclass(frozen=True)
class Litter:
    """What confusers do to a picture. All arrays are float32 (H, W) or (H, W, 3), changed in place.

    Attributes:
        room: where they lie.
        color: the surfaces' colours.
        shade: 0..1, how much of the lamp is kept away.
        gain: factor on all light.
        dull: 0..1, how much of the gloss is gone.
        glare: radiance that surfaces mirror besides.
        over: 0..1, how much of a pixel a thing covers that lies on top of everything, and ``over_color``, its colour.
    """

    room: Room
    color: Image32
    shade: Image32
    gain: Image32
    dull: Image32
    glare: Image32
    over: Image32
    over_color: Image32


def empty(room: Room, color: Image32) -> Litter:
    """Nothing yet, over surfaces of a ``color`` that confusers may change."""
    shade, dull, over = (np.zeros(room.shape, np.float32) for _ in range(3))
    gain = np.ones(room.shape, np.float32)
    return Litter(room, color, shade, gain, dull, np.zeros_like(color), over, np.zeros_like(color))


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


def _reflection(rng: np.random.Generator, litter: Litter, at: Place) -> None:
    """A lamp or a window mirrored by something dry: worn floor, lacquer, a metal plate, a wall's or a pipe's paint."""
    strength = float(np.exp(rng.uniform(np.log(0.16), np.log(0.9))))
    warm, on_pipe = float(rng.normal(0.0, 0.09)), rng.uniform() < 0.45
    if on_pipe and (litter.room.part == PIPE).any():
        seen = _along_pipe(rng, litter.room)
    else:
        seen = _mirror_image(rng, litter.room, at) * _polish(rng, litter, at)
    tint = np.array((1.0 + warm, 1.0, 1.0 - 1.4 * warm), np.float32)
    litter.glare[:] += np.float32(strength) * seen[..., np.newaxis] * tint


def _mirror_image(rng: np.random.Generator, room: Room, at: Place) -> Image32:
    """What a flat mirror shows around the place: upright in the picture, blurred and bent as the surface is uneven."""
    short = min(room.shape)
    middle = np.unravel_index(int(np.argmin(np.hypot(at.a, at.b) + 99.0 * (1.0 - at.here))), room.shape)
    down, right = np.indices(room.shape, np.float32)
    x, y = turned((right - middle[1]) / np.float32(short), (down - middle[0]) / np.float32(short), room.view.roll)
    noise, wave = draw_noise(rng), float(np.exp(rng.uniform(np.log(0.003), np.log(0.025))))
    x = x + np.float32(wave) * noise.at(at.a, at.b, at.reach, cell=0.22, octaves=3)
    y = y + np.float32(2.0 * wave) * noise.at(at.a, at.b, at.reach, cell=0.22, octaves=3, first=4)
    crisp = np.clip(_source(rng, x, y) * np.float32(short) + np.float32(0.5), 0.0, 1.0)
    soft, long = float(np.exp(rng.uniform(np.log(0.004), np.log(0.025)))), float(rng.uniform(1.0, 5.0))
    upright = soft * (long if room.part[middle] == FLOOR else 1.0 + 0.2 * long)
    sharp, wide = (
        cv2.GaussianBlur(crisp, (0, 0), spread * soft * short + 0.3, sigmaY=spread * upright * short + 0.3)
        for spread in (1.0, 5.0)
    )
    blurred = sharp + np.float32(rng.uniform(0.1, 0.6)) * wide
    facing = room.facing()
    share = fresnel(facing, 0.06) / fresnel(facing[middle], 0.06)
    return np.asarray(blurred / max(float(blurred.max()), 1e-3) * np.clip(share, 0.2, 2.0) * at.here, np.float32)


def _source(rng: np.random.Generator, x: Image32, y: Image32) -> Image32:
    """A window with bars, one or two tubes, or a round lamp: a field that is positive inside, in short sides."""
    kind, lean = float(rng.uniform()), np.float32(rng.normal(0.0, 0.12))
    x = x + lean * y
    if kind < 0.5:
        wide, high = float(rng.uniform(0.06, 0.2)), float(rng.uniform(0.1, 0.35))
        bar, inside = np.float32(rng.uniform(0.006, 0.014)), np.minimum(wide - np.abs(x), high - np.abs(y))
        for place, half, panes in ((x, wide, int(rng.integers(1, 4))), (y, high, int(rng.integers(1, 4)))):
            period = np.float32(2.0 * half / panes)
            cycles = (place + np.float32(half)) / period
            inside = np.minimum(inside, np.abs(cycles - np.rint(cycles)) * period - bar)
        return np.asarray(inside, np.float32)
    if kind < 0.8:
        half, long, apart = rng.uniform(0.012, 0.035), rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.25)
        across = np.minimum(np.abs(x), np.abs(x - np.float32(apart))) if rng.uniform() < 0.4 else np.abs(x)
        return np.asarray(np.minimum(np.float32(half) - across, np.float32(long) - np.abs(y)), np.float32)
    radius, stretch = float(rng.uniform(0.03, 0.09)), float(rng.uniform(1.0, 2.2))
    return np.asarray(np.float32(radius) - np.hypot(x, y / np.float32(stretch)), np.float32)


def _polish(rng: np.random.Generator, litter: Litter, at: Place) -> Image32:
    """0..1: where a surface mirrors: wherever it is not worn, in a pool of lacquer, or on a plate of bare metal."""
    kind, noise = float(rng.uniform()), draw_noise(rng)
    worn = noise.at(at.a, at.b, at.reach, cell=0.2, octaves=5, gain=0.65)
    grain = noise.at(at.a, at.b, at.reach, cell=0.03, octaves=3, gain=0.8, first=10)
    rough = np.float32(rng.uniform(0.0, 0.5)) * smooth(grain, -0.4, 1.8)
    whole = 1.0 - np.float32(rng.uniform(0.3, 0.95)) * smooth(worn, float(rng.uniform(-0.4, 0.6)), 1.4)
    if kind < 0.45:
        return np.asarray(whole * (1.0 - rough), np.float32)
    if kind < 0.75:
        field = blot(at, noise, float(rng.uniform(0.14, 0.34)), float(rng.uniform(0.1, 0.3)))
        edge = smooth(field / (np.float32(rng.uniform(0.006, 0.03)) + at.reach), -0.5, 0.5)
        return np.asarray(edge * (np.float32(0.5) + np.float32(0.5) * whole) * (1.0 - rough), np.float32)
    half_a, half_b = float(rng.uniform(0.14, 0.4)), float(rng.uniform(0.1, 0.26))
    inside = np.minimum(np.float32(half_a) - np.abs(at.a), np.float32(half_b) - np.abs(at.b))
    plate = np.clip(inside / at.reach + np.float32(0.5), 0.0, 1.0) * at.here
    grey = max(float(rng.uniform(0.2, 0.45)), float((litter.color.mean(axis=2) * plate).sum() / max(plate.sum(), 1e-3)))
    brushed = noise.at(np.float32(0.06) * at.a, at.b, at.reach, cell=0.012, octaves=2, gain=0.8, first=14)
    metal = np.float32(grey) * (1.0 + np.float32(0.07) * worn + np.float32(0.07) * brushed)
    metal = metal * (1.0 - np.float32(0.45) * band(inside, 0.004, at.reach))
    litter.color[:] += plate[..., np.newaxis] * (np.clip(metal, 0.0, 0.9)[..., np.newaxis] - litter.color)
    return np.asarray(plate * (1.0 - rough), np.float32)


def _along_pipe(rng: np.random.Generator, room: Room) -> Image32:
    """A line of light along a pipe, as a cylinder makes of any lamp; broken by a window's bars or by worn paint."""
    assert room.view.pipe is not None
    rows, columns = np.nonzero((room.part == PIPE) & (room.facing() > 0.35))
    pick, radius, noise = float(rng.uniform()), np.float32(room.view.pipe.radius), draw_noise(rng)
    if not len(rows):
        return np.zeros(room.shape, np.float32)
    row, column = rows[int(pick * len(rows))], columns[int(pick * len(rows))]
    along, around = (room.u - room.u[row, column]) / radius, (room.v - room.v[row, column]) / radius
    reach = room.reach / radius
    around = around + np.float32(rng.uniform(0.02, 0.12)) * noise.at(along, around, reach, cell=1.2, octaves=3)
    half, soft = float(rng.uniform(0.05, 0.3)), np.float32(rng.uniform(0.05, 0.25)) + reach
    line = smooth((np.float32(half) - np.abs(around)) / soft, -0.5, 0.5)
    long = float(np.exp(rng.uniform(np.log(0.8), np.log(6.0))))
    ends = smooth((np.float32(long) - np.abs(along)) / (np.float32(rng.uniform(0.1, 1.0)) + reach), -0.5, 0.5)
    if rng.uniform() < 0.4:
        bars = band(from_lines(along, float(rng.uniform(0.5, 1.5)) * long), 0.08, reach + np.float32(0.05))
        ends = ends * (1.0 - np.float32(0.8) * bars)
    worn = noise.at(along, around, reach, cell=0.9, octaves=5, gain=0.7, first=10)
    whole = 1.0 - np.float32(rng.uniform(0.2, 0.9)) * smooth(worn, 0.2, 1.3)
    return np.asarray(line * ends * whole * (room.part == PIPE), np.float32)


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
    "reflection": _reflection,
}
