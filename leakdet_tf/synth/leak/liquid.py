"""Where a leak's liquid is: puddles on a floor, runs down a wall, drips from a pipe. How it looks is another matter.

Outlines are level sets of noise over surface coordinates, so that perspective foreshortens them as it does the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leakdet_tf.synth.leak.litter import Lobe, Place, blot
from leakdet_tf.synth.leak.room import FLOOR, PIPE, WALL, Room
from leakdet_tf.synth.scenery.texture import Image32, Noise, draw_noise, smooth

SHAPES = ("puddle", "run", "drip")
SMALLEST_SHARE, LARGEST_SHARE = 0.008, 0.4
"""The share of the frame that a puddle is drawn for, logarithmically even."""


@dataclass(frozen=True)
class Spill:
    """Liquid on surfaces. All arrays are float32 (H, W).

    Attributes:
        shape: one of ``SHAPES``.
        cover: 0..1, how much of a pixel is wet.
        depth: 0..1, how thick the liquid stands there; damp without standing liquid is 0.
        shade: 0..1, the shadow that thick liquid throws beside itself.
        rise: height of the liquid where ``depth`` is 1, in metres.
    """

    shape: str
    cover: Image32
    depth: Image32
    shade: Image32
    rise: float


def draw_spill(rng: np.random.Generator, room: Room, *, porous: float, attempt: int) -> Spill:
    """A leak somewhere that is seen; further ``attempt`` s are larger, for views in which little is to be seen."""
    noise = draw_noise(rng)
    share = float(np.exp(rng.uniform(np.log(SMALLEST_SHARE), np.log(LARGEST_SHARE)))) * 1.6**attempt
    pick, parts = float(rng.uniform()), room.parts()
    if room.view.pipe is not None and PIPE in parts and pick < 0.62:
        return _drip(rng, room, noise, min(share, 0.5), porous)
    if WALL in parts and (FLOOR not in parts or pick > (0.75 if PIPE in parts else 0.5)):
        return _run(rng, room, noise, min(share, 0.5), porous)
    return _puddle(rng, room, noise, min(share, 0.5), porous)


def _spot(rng: np.random.Generator, room: Room, part: int) -> tuple[int, int]:
    """Row and column of a random pixel that shows ``part``, or the last one tried."""
    height, width = room.shape
    row, column = 0, 0
    for down, right in rng.uniform(0.06, 0.94, (48, 2)):
        row, column = int(down * height), int(right * width)
        if room.part[row, column] == part:
            break
    return row, column


def _puddle(rng: np.random.Generator, room: Room, noise: Noise, share: float, porous: float) -> Spill:
    row, column = _spot(rng, room, FLOOR)
    field = _pool(rng, room, noise, (room.u[row, column], room.v[row, column]), _radius(room, row, column, share))
    return _standing("puddle", room, field, float(rng.uniform()), porous, rise=0.002)


def _radius(room: Room, row: int, column: int, share: float) -> float:
    """The radius in metres of a round puddle there that covers ``share`` of the frame."""
    pixels = share * room.part.size
    return float(np.sqrt(pixels / np.pi) * room.reach[row, column])


def _pool(rng: np.random.Generator, room: Room, noise: Noise, middle: tuple[float, float], radius: float) -> Image32:
    """Lobes that ran into one another, and splashes around: metres, positive inside, on the floor only."""
    flow, ragged, reach = float(rng.uniform(0.0, 2.0 * np.pi)), float(rng.uniform(0.14, 0.34)), room.reach
    lobes: list[Lobe] = [(0.0, 0.0, 0.8)]
    for lobe in range(1, int(rng.integers(1, 5))):
        step, bend = lobe * float(rng.uniform(0.35, 0.7)), flow + float(rng.normal(0.0, 0.5))
        lobes.append((step * np.cos(bend), step * np.sin(bend), float(rng.uniform(0.3, 0.65))))
    u, v = room.u - np.float32(middle[0]), room.v - np.float32(middle[1])
    field = blot(Place(u, v, reach, u), noise, radius, ragged, lobes)
    if rng.uniform() < 0.55:
        far = np.hypot(room.u - np.float32(middle[0]), room.v - np.float32(middle[1])) / np.float32(radius)
        cell = float(rng.uniform(0.12, 0.3)) * radius
        specks = noise.at(room.u, room.v, reach, cell=cell, octaves=2, gain=0.4, first=20)
        field = np.maximum(field, np.float32(0.6 * cell) * (specks - np.float32(0.9) - far * np.float32(0.75)))
    return np.where(room.part == FLOOR, field, np.float32(-1e3))


def _standing(shape: str, room: Room, field: Image32, chance: float, porous: float, *, rise: float) -> Spill:
    """Wet where ``field`` (metres) is positive; a porous floor is damp along the edge before liquid stands on it."""
    soft = np.float32(0.002 + 0.02 * porous * chance) + room.reach
    margin = np.float32(0.02 * porous * chance)
    cover = np.clip(field / soft + np.float32(0.5), 0.0, 1.0)
    rim = np.float32(0.012 + 0.03 * chance) + room.reach
    depth = smooth((field - margin) / rim, 0.0, 1.0) * cover
    blank = np.zeros(room.shape, np.float32)
    return Spill(shape, np.asarray(cover, np.float32), np.asarray(depth, np.float32), blank, rise)


def _run(rng: np.random.Generator, room: Room, noise: Noise, share: float, porous: float) -> Spill:
    """Runs down the wall from a seam or a point, each with a bead at its end; and a puddle if they reach the floor."""
    row, column = _spot(rng, room, WALL)
    unit = float(room.reach[row, column]) * min(room.shape)
    start_u, start_v = float(room.u[row, column]), float(room.v[row, column]) + 0.15 * unit
    wide, number = unit * np.sqrt(share) * float(rng.uniform(0.04, 0.14)), int(rng.integers(1, 7))
    spread = unit * float(rng.uniform(0.01, 0.05 + 0.3 * np.sqrt(share)))
    field, end = np.full(room.shape, -1e3, np.float32), []
    wander = noise.at(0.0 * room.u, room.v, room.reach, cell=0.22 * unit, octaves=2, first=30)
    swell = noise.at(room.u, room.v, room.reach, cell=0.1 * unit, octaves=2, first=34)
    for _ in range(number):
        length = unit * np.sqrt(share) * float(rng.uniform(0.5, 2.6))
        half = wide * float(rng.uniform(0.35, 1.2))
        u, sway = start_u + float(rng.normal(0.0, spread)), float(rng.normal(0.0, 0.012)) * unit
        fall = np.float32(start_v) - room.v
        field = np.maximum(field, _trail(room.u - np.float32(u) - np.float32(sway) * wander, fall, half, length, swell))
        end.append((u, start_v - length, half))
    head = Place(room.u - np.float32(start_u), (room.v - np.float32(start_v)) * np.float32(2.2), room.reach, field)
    if rng.uniform() < 0.6:
        field = np.maximum(field, blot(head, noise, max(1.3 * spread, 1.5 * wide), 0.35))
    field = np.where(room.part == WALL, field, np.float32(-1e3))
    deep = [(u, half) for u, low, half in end if low < 0.0]
    if deep and FLOOR in room.parts() and room.view.wall is not None:
        radius = unit * np.sqrt(share) * float(rng.uniform(0.15, 0.35))
        pool = _pool(rng, room, noise, (deep[0][0], room.view.wall - 0.3 * radius), radius)
        field = np.maximum(field, pool)
    spill = _standing("run", room, field, float(rng.uniform()), porous, rise=0.0014)
    thick = np.clip(field / np.float32(max(wide, 1e-4)), 0.0, 1.0) * spill.cover
    depth = np.where(room.part == WALL, np.sqrt(thick), spill.depth).astype(np.float32)
    return Spill("run", spill.cover, depth, _beside(spill.cover, depth, room.part == WALL), spill.rise)


def _trail(across: Image32, fall: Image32, half: float, length: float, swell: Image32) -> Image32:
    """Distance inside a run that begins at ``fall`` 0 and ends at ``length`` in a bead; negative outside."""
    share = np.clip(fall / np.float32(length), 0.0, 1.0)
    bead = np.exp(-np.square((fall - np.float32(length - half)) / np.float32(1.8 * half)))
    width = np.float32(half) * (1.0 - np.float32(0.35) * share + np.float32(0.25) * swell + np.float32(0.55) * bead)
    below = np.maximum(fall - np.float32(length - half), np.float32(0.0))
    above = np.maximum(-fall, np.float32(0.0))
    return np.asarray(width - np.hypot(across, np.maximum(below, above)), np.float32)


def _beside(
    cover: Image32, depth: Image32, where: Image32 | np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> Image32:
    """The narrow shadow under and beside beads and runs."""
    step = 1 + min(cover.shape) // 200
    moved = np.zeros_like(depth)
    moved[step:, step:] = depth[:-step, :-step]
    return np.asarray(np.clip(moved - cover, 0.0, 1.0) * where, np.float32)


def _drip(rng: np.random.Generator, room: Room, noise: Noise, share: float, porous: float) -> Spill:
    """A wet joint of the pipe, drops or a thread from it, and a puddle below where the floor is seen."""
    pipe = room.view.pipe
    assert pipe is not None
    flange = pipe.flanges[2]
    outer = pipe.radius * pipe.flange
    size, tube = pipe.radius * float(rng.uniform(0.5, 1.1)), room.part == PIPE
    swell = noise.at(room.u, room.v, room.reach, cell=0.8 * pipe.radius, octaves=2, gain=0.6, first=30)
    if pipe.upright:
        fall = np.float32(flange) - room.u
        side = float(rng.uniform(0.25, 0.75)) * np.pi * pipe.radius
        field = np.full(room.shape, -1e3, np.float32)
        for _ in range(int(rng.integers(1, 4))):
            offset, half = side + float(rng.normal(0.0, 0.35)) * pipe.radius, size * float(rng.uniform(0.15, 0.4))
            length = float(rng.uniform(2.0, 9.0)) * pipe.radius * np.sqrt(share / 0.03)
            bent = room.v - np.float32(offset) - np.float32(0.1 * pipe.radius) * swell
            field = np.maximum(field, _trail(bent, fall, half, length, swell))
        foot = (pipe.place[1], pipe.place[0] - pipe.radius)
    else:
        around = room.v / np.float32(pipe.radius)
        low = smooth(around, float(rng.uniform(0.3, 1.0)), 2.4)
        reach = np.float32(size) * (np.float32(0.25) + np.float32(0.9) * low + np.float32(0.35) * swell)
        start = float(rng.uniform(0.1, 0.9))
        field = np.where(around > start, reach - np.abs(room.u - np.float32(flange)), np.float32(-1e3))
        foot = (flange, pipe.place[0])
    field = np.where(tube, field, np.float32(-1e3)).astype(np.float32)
    if FLOOR in room.parts():
        radius = min(float(np.sqrt(share / 0.05)) * 1.6 * pipe.radius, 6 * pipe.radius)
        field = np.maximum(field, _pool(rng, room, noise, foot, radius))
    spill = _standing("drip", room, field, float(rng.uniform()), porous, rise=0.0012)
    depth = np.where(tube, np.sqrt(np.clip(field / np.float32(0.5 * size), 0.0, 1.0)) * spill.cover, spill.depth)
    cover, depth = spill.cover.copy(), depth.astype(np.float32)
    if not pipe.upright:
        bottom = pipe.place[1] - outer
        falling = bool(rng.uniform() < 0.45)
        for _ in range(int(rng.integers(1, 4))):
            x = flange + float(rng.normal(0.0, 0.5)) * size
            drop = pipe.radius * float(rng.uniform(0.06, 0.14))
            _hang(room, cover, depth, (x, pipe.place[0], bottom - 0.6 * drop), drop, stretch=1.7)
        if falling:
            _thread(room, cover, depth, (flange, pipe.place[0], bottom), pipe.radius * float(rng.uniform(0.03, 0.07)))
        else:
            for height in rng.uniform(0.0, 1.0, int(rng.integers(0, 3))):
                at = (flange, pipe.place[0], bottom * float(height))
                _hang(room, cover, depth, at, pipe.radius * float(rng.uniform(0.05, 0.09)), stretch=1.3)
    return Spill("drip", cover, depth, _beside(cover, depth, tube), spill.rise)


def _seen_at(room: Room, point: tuple[float, float, float]) -> tuple[float, float, float]:
    """Row, column and metres to a pixel of a point in front of the camera: the pixel whose ray passes nearest."""
    x, y, z = point[0], point[1], point[2] - room.view.height
    far = float(np.sqrt(x * x + y * y + z * z))
    rx, ry, rz = room.ray
    toward = rx * np.float32(x / far) + ry * np.float32(y / far) + rz * np.float32(z / far)
    row, column = divmod(int(np.argmax(toward)), room.shape[1])
    return row, column, far / (room.view.focal * min(room.shape))


def _hang(
    room: Room, cover: Image32, depth: Image32, point: tuple[float, float, float], radius: float, *, stretch: float
) -> None:
    """A drop in the air or on a rim, seen from the side."""
    row, column, metres = _seen_at(room, point)
    size = max(radius / metres, 0.8)
    height, width = room.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    fall = (rows - row) / np.float32(stretch * size)
    narrow = np.clip(0.75 + 0.45 * fall, 0.25, 1.0)
    inside = 1.0 - np.hypot((columns - column) / np.float32(size) / narrow, fall)
    seen = np.clip(inside * np.float32(size) + np.float32(0.5), 0.0, 1.0)
    np.maximum(cover, seen, out=cover)
    np.maximum(depth, np.sqrt(np.clip(inside, 0.0, 1.0)), out=depth)


def _thread(room: Room, cover: Image32, depth: Image32, point: tuple[float, float, float], radius: float) -> None:
    """A thread of liquid that falls from ``point`` to the floor."""
    row, column, metres = _seen_at(room, point)
    foot_row, foot_column, _ = _seen_at(room, (point[0], point[1], 0.0))
    height, width = room.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    share = np.clip((rows - row) / np.float32(max(foot_row - row, 1)), 0.0, 1.0)
    middle = column + share * np.float32(foot_column - column)
    half = max(radius / metres, 0.7) * (1.0 - 0.4 * share)
    inside = half - np.abs(columns - middle)
    between = (rows >= row) & (rows <= max(foot_row, row + 1))
    np.maximum(cover, np.clip(inside + np.float32(0.5), 0.0, 1.0) * between, out=cover)
    np.maximum(depth, np.sqrt(np.clip(inside / half, 0.0, 1.0)) * between, out=depth)
