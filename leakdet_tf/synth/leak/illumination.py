"""Light in a plant: a lamp with shadows, light from all around, and what a mirror at a place would show.

Radiance is linear; 1 is a white surface under full light. Colours are red, green and blue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leakdet_tf.synth.leak.room import FLOOR, WALL, Pipe, Room
from leakdet_tf.synth.scenery.texture import Image32, smooth

Vector = tuple[Image32, Image32, Image32]


@dataclass(frozen=True)
class Light:
    """A lamp, and the hall that it hangs in.

    Attributes:
        lamp: x, y and z of the lamp in metres.
        ambient: share of the light that comes from all around.
        lamp_color, ambient_color: linear RGB.
        hardness: 0..1, how sharp shadows are.
        ceiling: its height in metres.
        tubes: period of the rows of lamps below the ceiling in metres, and their half width.
        glare: radiance of those lamps.
        dim: radiance of the ceiling itself.
    """

    lamp: tuple[float, float, float]
    ambient: float
    lamp_color: tuple[float, float, float]
    ambient_color: tuple[float, float, float]
    hardness: float
    ceiling: float
    tubes: tuple[float, float, float]
    glare: float
    dim: float


def draw_light(rng: np.random.Generator, wall: float | None) -> Light:
    """Somewhere above; warm, neutral or cold."""
    deep = 2.0 if wall is None else max(wall - 0.35, 0.3)
    lamp = (float(rng.uniform(-2.0, 2.0)), float(rng.uniform(-0.8, deep)), float(rng.uniform(2.1, 4.0)))
    warm, cold = float(rng.normal(0.04, 0.09)), float(rng.normal(-0.03, 0.06))
    return Light(
        lamp=lamp,
        ambient=float(rng.uniform(0.3, 0.75)),
        lamp_color=(1.0 + warm, 1.0, 1.0 - 1.4 * warm),
        ambient_color=(1.0 + cold, 1.0, 1.0 - 1.4 * cold),
        hardness=float(rng.uniform(0.2, 1.0)),
        ceiling=float(rng.uniform(3.0, 6.0)),
        tubes=(float(rng.uniform(1.4, 3.5)), float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.0, 3.0))),
        glare=float(rng.uniform(2.5, 7.0)),
        dim=float(rng.uniform(0.25, 0.8)),
    )


def lamp_way(light: Light, point: Vector) -> tuple[Vector, Image32]:
    """The unit way from each point to the lamp, and the distance in metres."""
    ways = [np.float32(at) - axis for at, axis in zip(light.lamp, point, strict=True)]
    distance = np.sqrt(ways[0] ** 2 + ways[1] ** 2 + ways[2] ** 2)
    return (ways[0] / distance, ways[1] / distance, ways[2] / distance), distance


def irradiance(light: Light, room: Room, shade: Image32 | None = None) -> Image32:
    """float32 (H, W, 3): the light that falls on each pixel's surface; ``shade`` (0..1) is what else hides the lamp."""
    way, distance = lamp_way(light, room.point)
    facing = np.clip(sum(n * w for n, w in zip(room.normal, way, strict=True)), 0.0, 1.0)
    direct = facing * np.float32(light.lamp[2]) / distance * np.float32(1.15)
    around = _open(room)
    if room.view.pipe is not None:
        direct = direct * (1.0 - _pipe_shadow(light, room.view.pipe, room))
        around = around * (1.0 - _pipe_closeness(room.view.pipe, room))
    if shade is not None:
        direct = direct * (1.0 - shade)
        around = around * (1.0 - np.float32(0.3) * shade)
    total = [
        np.float32((1.0 - light.ambient) * lamp) * direct + np.float32(light.ambient * sky) * around
        for lamp, sky in zip(light.lamp_color, light.ambient_color, strict=True)
    ]
    return np.stack(total, axis=-1)


def _open(room: Room) -> Image32:
    """How much of the surroundings each point sees: less in the corner of wall and floor, less below a pipe."""
    _, y, z = room.point
    seen = np.ones(room.shape, np.float32)
    if room.view.wall is not None:
        floor = np.float32(1.0) - np.float32(0.45) * np.exp(-(np.float32(room.view.wall) - y) / np.float32(0.12))
        wall = np.float32(1.0) - np.float32(0.4) * np.exp(-z / np.float32(0.1))
        seen = np.where(room.part == FLOOR, floor, np.where(room.part == WALL, wall, seen))
    below = np.float32(0.78) + np.float32(0.22) * room.normal[2]
    return np.where(room.part > WALL, below, seen).astype(np.float32)


def _axis_distance(pipe: Pipe, room: Room) -> tuple[Image32, Image32]:
    """Where each point lies from the pipe's axis, across it: away from the camera, and up (or right)."""
    x, y, z = room.point
    return y - np.float32(pipe.place[0]), (x if pipe.upright else z) - np.float32(pipe.place[1])


def _pipe_shadow(light: Light, pipe: Pipe, room: Room) -> Image32:
    """0..1: how much of the lamp the pipe hides from the floor and the wall."""
    away, aside = _axis_distance(pipe, room)
    lamp_away = np.float32(light.lamp[1] - pipe.place[0]) - away
    lamp_aside = np.float32((light.lamp[0] if pipe.upright else light.lamp[2]) - pipe.place[1]) - aside
    length = np.hypot(lamp_away, lamp_aside)
    nearest = np.abs(away * lamp_aside - aside * lamp_away) / length
    between = (-(away * lamp_away + aside * lamp_aside) > 0.0) & (room.part < 2)
    gap = np.hypot(away, aside)
    soft = np.float32(0.01 + 0.25 * (1.0 - light.hardness)) * gap + room.reach
    return np.where(between, np.clip((np.float32(pipe.radius) - nearest) / soft + 0.5, 0.0, 1.0), 0.0).astype(
        np.float32
    )


def _pipe_closeness(pipe: Pipe, room: Room) -> Image32:
    """0..1: how much of the surroundings the pipe hides from the floor and the wall."""
    gap = np.hypot(*_axis_distance(pipe, room))
    near = np.float32(0.55) * np.square(np.minimum(np.float32(pipe.radius) / gap, 1.0))
    return np.where(room.part < 2, near, 0.0).astype(np.float32)


def mirrored(light: Light, room: Room, way: Vector, wall_color: Image32, pipe_color: Image32) -> Image32:
    """float32 (H, W, 3): what is seen from each point along ``way`` (unit): the wall, the pipe, or ceiling and lamps.

    ``wall_color`` and ``pipe_color`` are float32 (3,), the radiance that those have on the whole.
    """
    x, y, z = room.point
    up = np.maximum(way[2], np.float32(1e-3))
    above = (np.float32(light.ceiling) - z) / up
    across, deep = x + above * way[0], y + above * way[1]
    period, half, offset = light.tubes
    cycles = (across + np.float32(offset)) / np.float32(period)
    beside = np.abs(cycles - np.rint(cycles)) * np.float32(period)
    lengthwise = np.abs(deep / np.float32(2.2) - np.rint(deep / np.float32(2.2)))
    tube = (1.0 - smooth(beside, half, half + 0.18)) * (1.0 - smooth(lengthwise, 0.30, 0.36))
    haze = np.exp(-np.maximum(above, np.float32(0.0)) * np.float32(0.12))
    level = np.float32(light.dim) * (np.float32(0.45) + np.float32(0.55) * haze) + np.float32(light.glare) * tube * haze
    level = np.where(way[2] > 0.0, level, np.float32(0.3 * light.dim))
    seen = level[..., np.newaxis] * np.array(light.ambient_color, np.float32)
    if room.view.wall is not None:
        toward = np.maximum(way[1], np.float32(1e-3))
        height = np.asarray(z + (np.float32(room.view.wall) - y) / toward * way[2], np.float32)
        on_wall = (1.0 - smooth(height, 0.9 * light.ceiling, light.ceiling)) * (way[1] > 1e-3)
        tone = (np.float32(0.7) + np.float32(0.4) * np.clip(height, 0.0, 1.5))[..., np.newaxis] * wall_color
        seen += on_wall[..., np.newaxis] * (tone - seen)
    if room.view.pipe is not None:
        pipe = room.view.pipe
        away, aside = _axis_distance(pipe, room)
        turn = way[0] if pipe.upright else way[2]
        length = np.maximum(np.hypot(way[1], turn), np.float32(1e-3))
        nearest = np.abs(away * turn - aside * way[1]) / length
        ahead = -(away * way[1] + aside * turn) > 0.0
        edge = np.clip((np.float32(pipe.radius) - nearest) / np.float32(0.25 * pipe.radius) + 0.5, 0.0, 1.0) * ahead
        seen += edge[..., np.newaxis] * (np.float32(0.6) * pipe_color - seen)
    return np.asarray(seen, np.float32)


def reflected(room: Room, tilt_x: Image32 | float, tilt_y: Image32 | float) -> Vector:
    """The way of each pixel's ray after a mirror on its surface, whose normal is tilted along the surface's u and v."""
    nx, ny, nz = room.normal
    floor, wall = room.part == FLOOR, room.part == WALL
    lean_x = tilt_x * np.ones(room.shape, np.float32)
    lean_y = tilt_y * np.ones(room.shape, np.float32)
    mx, my = nx + lean_x, ny + np.where(floor, lean_y, 0.0)
    mz = nz + np.where(wall, lean_y, 0.0)
    length = np.sqrt(mx * mx + my * my + mz * mz)
    mx, my, mz = mx / length, my / length, mz / length
    rx, ry, rz = room.ray
    inward = np.float32(2.0) * (rx * mx + ry * my + rz * mz)
    return (
        np.asarray(rx - inward * mx, np.float32),
        np.asarray(ry - inward * my, np.float32),
        np.asarray(rz - inward * mz, np.float32),
    )


def fresnel(facing: Image32, straight: float) -> Image32:
    """Share of the light that a smooth surface mirrors: Schlick's approximation from the share seen straight on."""
    grazing = np.float32(1.0) - np.clip(facing, 0.0, 1.0)
    return np.asarray(np.float32(straight) + np.float32(1.0 - straight) * grazing**5, np.float32)
