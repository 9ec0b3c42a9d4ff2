"""Where a camera in a plant looks: a floor, a wall behind it, perhaps a pipe before the wall; each pixel's place there.

Metres. x runs right along the wall, y away from the camera, z up from the floor; the camera is above (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.texture import Image32, turned

FLOOR, WALL, PIPE = 0, 1, 2
PARTS = ("floor", "wall", "pipe")
KINDS = ("floor", "corner", "wall", "pipe")
_SHARES = (0.34, 0.28, 0.15, 0.23)
_FAR = 1e4
_LEAST_FALL = np.deg2rad(11.0)  # how far below the horizon the upper edge of a floor's picture lies


@dataclass(frozen=True)
class Pipe:
    """A straight pipe parallel to the wall.

    Attributes:
        upright: whether it stands; otherwise it lies along x.
        place: its axis: (y, z) of a lying one, (y, x) of an upright one.
        radius: in metres.
        flanges: places of flanges along the axis.
        flange: radius of the flanges over the pipe's.
        width: half the length of a flange along the axis, in metres.
    """

    upright: bool
    place: tuple[float, float]
    radius: float
    flanges: tuple[float, ...]
    flange: float
    width: float


@dataclass(frozen=True)
class View:
    """A camera and what stands around it.

    Attributes:
        kind: one of ``KINDS``.
        height: of the camera, in metres.
        pitch: how far it looks down, in radians.
        yaw: how far it looks away from the wall's normal, in radians.
        roll: in radians.
        focal: focal length over the picture's short side.
        distortion: share by which the lens moves the middle of a short side's edge inwards (barrel) or, negative,
            outwards.
        wall: distance of the wall from the camera; None without one.
        pipe: None without one.
    """

    kind: str
    height: float
    pitch: float
    yaw: float
    roll: float
    focal: float
    distortion: float
    wall: float | None
    pipe: Pipe | None


def draw_view(rng: np.random.Generator, size: tuple[int, int]) -> View:
    """A camera of someone who inspects: at arm's height, near, seldom level."""
    kind = str(rng.choice(KINDS, p=_SHARES))
    height, width = size[0] / min(size), size[1] / min(size)
    focal = float(rng.uniform(0.95, 1.6)) * max(1.0, 0.6 * max(height, width))
    eye, tilt, turn = rng.uniform(0.8, 1.9), rng.uniform(), rng.uniform(-1.0, 1.0)
    distance, line = float(rng.uniform(1.0, 2.6)), float(rng.uniform(-0.28, 0.22)) * height
    roll, distortion = float(rng.normal(0.0, 0.03)), float(rng.uniform(-0.03, 0.09))
    if kind == "floor":
        least = np.arctan(height / 2 / focal) + _LEAST_FALL
        pitch = least + float(tilt) ** 1.3 * (np.deg2rad(82.0) - least)
        return View(kind, float(eye), float(pitch), float(turn), roll, focal, distortion, None, None)
    if kind == "wall" or (kind == "pipe" and tilt < 0.4):
        distance *= 0.7
        pitch = float(rng.uniform(-0.15, 0.2))
    else:
        pitch = float(np.arctan(eye / distance) - np.arctan(line / focal))
    view = View(kind, float(eye), pitch, 0.55 * float(turn), roll, focal, distortion, distance, None)
    return replace(view, pipe=_draw_pipe(rng, view, height, width)) if kind == "pipe" else view


def _draw_pipe(rng: np.random.Generator, view: View, height: float, width: float) -> Pipe:
    """A pipe that crosses the picture, with a flange in it."""
    assert view.wall is not None
    radius = float(rng.uniform(0.05, 0.11)) * view.wall
    deep = view.wall - radius - float(rng.uniform(0.04, 0.2)) * view.wall
    upright = bool(rng.uniform() < 0.35)
    across, down = float(rng.uniform(-0.3, 0.3)) * width, float(rng.uniform(-0.32, 0.08)) * height
    middle = deep * np.tan(view.yaw + np.arctan(across / view.focal))
    level = view.height - deep / max(np.cos(view.yaw), 0.3) * np.tan(view.pitch + np.arctan(down / view.focal))
    level = max(float(level), radius + 0.04)
    home, spacing = (level, middle) if upright else (middle, level)
    gap = float(rng.uniform(0.5, 1.2)) * deep
    flanges = tuple(float(home + step * gap) for step in (-2, -1, 0, 1, 2))
    return Pipe(
        upright, (deep, float(spacing)), radius, flanges, float(rng.uniform(1.3, 1.65)), radius * rng.uniform(0.2, 0.4)
    )


@dataclass(frozen=True)
class Room:
    """What each pixel shows. All arrays are float32 (H, W), but for ``part``.

    Attributes:
        view: the camera.
        part: uint8 (H, W), one of ``FLOOR``, ``WALL`` and ``PIPE``.
        point: x, y and z.
        normal: unit, towards the camera's side.
        ray: unit, from the camera.
        u, v: coordinates on the surface in metres: floor (x, y), wall (x, z), pipe (along, around from its top).
        reach: what a pixel spans on the surface, in metres: the geometric mean of its two sides.
        flange: 1 on a flange of the pipe, else 0.
    """

    view: View
    part: NDArray[np.uint8]
    point: tuple[Image32, Image32, Image32]
    normal: tuple[Image32, Image32, Image32]
    ray: tuple[Image32, Image32, Image32]
    u: Image32
    v: Image32
    reach: Image32
    flange: Image32

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.part.shape[0], self.part.shape[1]

    def parts(self) -> list[int]:
        """Which parts are seen."""
        return [part for part in (FLOOR, WALL, PIPE) if (self.part == part).any()]

    def facing(self) -> Image32:
        """float32 (H, W), 0..1: the cosine between the normal and the way to the camera."""
        total = sum(n * r for n, r in zip(self.normal, self.ray, strict=True))
        return np.clip(-np.asarray(total, np.float32), 0.0, 1.0)


def trace(view: View, shape: tuple[int, int]) -> Room:
    """Follow the ray of each pixel of ``shape`` to what it meets first."""
    rays = _rays(view, shape)
    dx, dy, dz = rays
    eye = np.float32(view.height)
    reached = np.where(dz < -1e-4, -eye / np.minimum(dz, np.float32(-1e-4)), np.float32(_FAR))
    part = np.full(shape, FLOOR, np.uint8)
    if view.wall is not None:
        wall = np.where(dy > 1e-3, np.float32(view.wall) / np.maximum(dy, np.float32(1e-3)), np.float32(_FAR))
        behind = wall < reached
        part[behind], reached = WALL, np.minimum(wall, reached)
    flange = np.zeros(shape, np.float32)
    if view.pipe is not None:
        for collar in (False, True):
            near, along = _cylinder(view.pipe, view, rays, collar=collar)
            meets = near < reached
            if collar:
                nearest = np.min([np.abs(along - place) for place in view.pipe.flanges], axis=0)
                meets &= nearest < view.pipe.width
                flange[meets] = 1.0
            part[meets], reached = PIPE, np.where(meets, near, reached)
    x, y, z = reached * dx, reached * dy, eye + reached * dz
    normal, u, v = _surface(view, part, (x, y, z))
    pixel = 1.0 / (view.focal * min(shape))
    facing = np.clip(-(normal[0] * dx + normal[1] * dy + normal[2] * dz), 0.06, 1.0)
    reach = np.asarray(reached * np.float32(pixel) / np.sqrt(facing), np.float32)
    return Room(view, part, (x, y, z), normal, rays, u, v, reach, flange)


def _rays(view: View, shape: tuple[int, int]) -> tuple[Image32, Image32, Image32]:
    height, width = shape
    across = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / min(shape)
    down = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) / min(shape)
    x, y = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
    bend = np.float32(1.0) + np.float32(4.0 * view.distortion) * (x * x + y * y)
    x, y = x * bend, y * bend
    x, y = turned(x, y, -view.roll)
    ahead, down_again = turned(np.full(shape, view.focal, np.float32), y, -view.pitch)
    right, away = turned(x, ahead, view.yaw)
    up = -down_again
    length = np.sqrt(right * right + away * away + up * up)
    return tuple(np.asarray(one / length, np.float32) for one in (right, away, up))  # type: ignore[return-value]


def _cylinder(
    pipe: Pipe, view: View, rays: tuple[Image32, Image32, Image32], *, collar: bool
) -> tuple[Image32, Image32]:
    """Distance along each ray to the pipe, or to its flanges' wider cylinder, and the place along the axis there."""
    dx, dy, dz = rays
    cross, axis = (dx, dz) if pipe.upright else (dz, dx)
    start_cross, start_axis = (0.0, view.height) if pipe.upright else (view.height, 0.0)
    radius = pipe.radius * (pipe.flange if collar else 1.0)
    to_y, to_cross = np.float32(pipe.place[0]), np.float32(pipe.place[1] - start_cross)
    a = dy * dy + cross * cross
    b = dy * to_y + cross * to_cross
    c = to_y * to_y + to_cross * to_cross - np.float32(radius**2)
    root = b * b - a * c
    near = np.where(root > 0.0, (b - np.sqrt(np.maximum(root, 0.0))) / a, np.float32(_FAR)).astype(np.float32)
    return near, np.asarray(np.float32(start_axis) + near * axis, np.float32)


def _surface(
    view: View, part: NDArray[np.uint8], point: tuple[Image32, Image32, Image32]
) -> tuple[tuple[Image32, Image32, Image32], Image32, Image32]:
    x, y, z = point
    nothing = np.zeros(part.shape, np.float32)
    wall, tube = part == WALL, part == PIPE
    normal = [nothing, -wall.astype(np.float32), (part == FLOOR).astype(np.float32)]
    u, v = x, np.where(wall, z, y)
    if view.pipe is not None and tube.any():
        pipe = view.pipe
        cross = x if pipe.upright else z
        away, aside = y - np.float32(pipe.place[0]), cross - np.float32(pipe.place[1])
        length = np.maximum(np.hypot(away, aside), np.float32(1e-6))
        normal[1] = np.where(tube, away / length, normal[1])
        normal[0 if pipe.upright else 2] = np.where(tube, aside / length, normal[0 if pipe.upright else 2])
        around = np.arctan2(-away, aside) * np.float32(pipe.radius)
        u, v = np.where(tube, z if pipe.upright else x, u), np.where(tube, around, v)
    return (normal[0], normal[1], normal[2]), u.astype(np.float32), v.astype(np.float32)
