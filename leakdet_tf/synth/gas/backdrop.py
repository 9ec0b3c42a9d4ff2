"""What stands behind the equipment: sky, far trees, walls and ground, in low contrast and with texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leakdet_tf.synth.scenery.noise import Field, fractal

KINDS = ("yard", "wall", "ground")


@dataclass(frozen=True)
class Backdrop:
    """The empty scene.

    Attributes:
        radiance: float64 (H, W), 0 black .. 1 white.
        kind: ``yard`` (sky over ground), ``wall`` (a wall over a floor) or ``ground`` (seen from above).
        floor: where the ground starts, as a fraction of the height; 0 for ``ground``.
        slope: how much the wall's horizontal lines fall from left to right, in heights per width.
        roll: the camera's roll in radians.
        sky: float64 (H, W), 0..1, how much of a pixel is sky.
        trees: the same for what stands far away in front of the sky.
        wall: the same for the wall.
    """

    radiance: Field
    kind: str
    floor: float
    slope: float
    roll: float
    sky: Field
    trees: Field
    wall: Field


def backdrop(rng: np.random.Generator, shape: tuple[int, int]) -> Backdrop:
    """Draw an empty scene of ``shape`` (H, W)."""
    kind = str(rng.choice(KINDS, p=(0.41, 0.44, 0.15)))
    roll = float(rng.normal(0.0, 0.018))
    slope = float(rng.uniform(-0.14, 0.14)) if kind == "wall" else float(rng.uniform(-0.03, 0.03))
    floor = float(rng.uniform(0.55, 0.82)) if kind != "ground" else 0.0
    x, y = _axes(shape, roll)
    radiance = _ground(rng, shape, x, y, floor)
    none: Field = np.zeros(shape)
    sky, woods, masonry = none, none, none
    if kind == "yard":
        above = _edge(floor - y, shape)
        _mix(radiance, _sky(rng, shape, y, floor), above)
        ridge = floor - 0.02 - rng.uniform(0.0, 0.13) * (0.6 + 0.4 * _outline(rng, shape))
        trees = float(rng.uniform(0.3, 0.42)) + 0.02 * fractal(rng, shape, (14, 14), 3, 0.7)
        woods = _edge(y - ridge, shape) * above
        sky = above - woods
        _mix(radiance, trees, woods)
    elif kind == "wall":
        foot = floor - slope * (x - 0.5)
        masonry = _edge(foot - y, shape)
        _mix(radiance, _wall(rng, shape, x, y + slope * (x - 0.5), floor), masonry)
        skirting = np.exp(-np.square((y - foot) / 0.012))
        radiance += float(rng.uniform(-0.05, 0.03)) * skirting
    return Backdrop(np.clip(radiance, 0.0, 1.0), kind, floor, slope, roll, sky, woods, masonry)


def _axes(shape: tuple[int, int], roll: float) -> tuple[Field, Field]:
    """float64 (H, W) twice: x and y as fractions of the picture, turned by ``roll``."""
    height, width = shape
    x = ((np.arange(width) + 0.5) / width)[np.newaxis, :] + np.zeros(shape)
    y = ((np.arange(height) + 0.5) / height)[:, np.newaxis] - np.sin(roll) * (x - 0.5) * width / height
    return x, y


def _edge(inside: Field, shape: tuple[int, int]) -> Field:
    """Coverage 0..1 of a region that is positive inside, with an edge of one pixel."""
    return np.clip(inside * shape[0] + 0.5, 0.0, 1.0)


def _mix(radiance: Field, over: Field, cover: Field) -> None:
    radiance += cover * (over - radiance)


def _outline(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """float64 (1, W): a jagged curve across the picture, mean 0 and standard deviation near 1."""
    return fractal(rng, (128, shape[1]), (1, 5), 5, 0.6)[64:65]


def _sky(rng: np.random.Generator, shape: tuple[int, int], y: Field, floor: float) -> Field:
    cold, warm = float(rng.uniform(0.1, 0.22)), float(rng.uniform(0.06, 0.18))
    clouds = np.maximum(fractal(rng, shape, (3, 2), 4, 0.55) - float(rng.uniform(-0.5, 1.6)), 0.0)
    height = np.clip(y / floor, 0.0, 1.0)
    return cold + warm * height**2.2 + float(rng.uniform(0.02, 0.06)) * clouds


def _ground(rng: np.random.Generator, shape: tuple[int, int], x: Field, y: Field, floor: float) -> Field:
    base, rise = float(rng.uniform(0.34, 0.56)), float(rng.uniform(-0.08, 0.1))
    near = np.clip((y - floor) / max(1.0 - floor, 1e-3), 0.0, 1.0)
    stretch = 3.0 if floor else 1.0
    patches = fractal(rng, shape, (3 * stretch, 3), 4, 0.55)
    gravel = fractal(rng, shape, (20 * stretch, 20), 3, 0.8)
    ground = base + rise * near + float(rng.uniform(0.012, 0.035)) * patches + float(rng.uniform(0.004, 0.016)) * gravel
    joints = int(rng.integers(0, 6))
    depth, phase = float(rng.uniform(0.02, 0.05)), rng.uniform(size=2)
    if joints:  # concrete slabs: joints run to a vanishing point above the picture
        fan = (x - 0.5) / (0.45 + np.maximum(y - floor, 0.0)) if floor else x
        rows = np.sqrt(near) if floor else near
        for place, count in ((fan * joints + phase[0], 0.03 * joints), (rows * joints + phase[1], 0.04 * joints)):
            ground -= depth * np.clip(1.0 - np.abs(place - np.round(place)) / count, 0.0, 1.0) ** 2
    shadow = np.clip(0.5 + 1.5 * fractal(rng, shape, (2 * stretch, 2), 3, 0.4), 0.0, 1.0)
    return ground - float(rng.choice((0.0, 0.05, 0.1))) * shadow


def _wall(rng: np.random.Generator, shape: tuple[int, int], x: Field, y: Field, floor: float) -> Field:
    base, over_x, over_y = float(rng.uniform(0.34, 0.58)), float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.06, 0.1))
    wall = base + over_x * (x - 0.5) + over_y * (y / floor - 0.5)
    wall = wall + float(rng.uniform(0.008, 0.022)) * fractal(rng, shape, (3, 4), 4, 0.6)
    streaks = fractal(rng, shape, (1.5, 14), 3, 0.6)  # rain and rust run down a wall
    wall += float(rng.uniform(0.0, 0.018)) * streaks
    skin = str(rng.choice(("plain", "sheet", "brick", "panel")))
    count, depth, phase = int(rng.integers(4, 11)), float(rng.uniform(0.008, 0.025)), float(rng.uniform())
    if skin == "sheet" and shape[1] > 6 * 3 * count:
        wall += depth * np.clip(2.0 * np.sin(2 * np.pi * (3 * count * x + phase)), -1.0, 1.0)
    elif skin == "brick" and shape[0] > 6 * 2 * count:
        course = 2 * count * y / floor
        joint = 0.25 * (np.floor(course) % 2) + course * 0.0
        brick = count * x + 2 * joint
        line = np.minimum(np.abs(course - np.round(course)) * 0.5, np.abs(brick - np.round(brick)))
        wall -= depth * np.clip(1.0 - line / 0.07, 0.0, 1.0)
    elif skin == "panel":
        for place in (0.5 * count * x + phase, 0.4 * count * y / floor + phase):
            wall -= 1.5 * depth * np.clip(1.0 - np.abs(place - np.round(place)) / (0.006 * count), 0.0, 1.0)
    if rng.uniform() < 0.35:  # a doorway or a vent opening, deep and cool or lit and warm
        left, top = float(rng.uniform(0.05, 0.75)), float(rng.uniform(0.1, 0.5)) * floor
        right, bottom = left + float(rng.uniform(0.08, 0.22)), top + float(rng.uniform(0.15, 0.5)) * floor
        cover = _edge(x - left, shape) * _edge(right - x, shape) * _edge(y - top, shape) * _edge(bottom - y, shape)
        _mix(wall, base + float(rng.uniform(-0.14, 0.08)) + 0.03 * (y - top), cover)
    return wall
