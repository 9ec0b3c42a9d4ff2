"""Cracks as branching lines: random walks with momentum, their width along the way, and what they cover of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.texture import Image32

_SHIFT = 6  # bits of a pixel's fraction in OpenCV's polygons
_FINE = 4  # samples of a pixel to a side, where coverage is counted
_LEAST_WIDTH_PX = 1.25  # truth is at least this wide: a thinner line might cover half of no pixel


@dataclass(frozen=True)
class Line:
    """A crack or one of its branches: float64 (N, 2) x and y and (N,) full width, all in pixels; width 0 is a gap."""

    points: NDArray[np.float64]
    widths: NDArray[np.float64]


@dataclass(frozen=True)
class Habit:
    """How cracks of a picture run.

    Attributes:
        width_px: of the main line, in pixels.
        step_px: length of a straight piece.
        wander: how far the direction strays in a step, in radians.
        jag: how far single pieces lie off the direction, in radians.
        branches: mean number of branches of the main line.
        gaps: share of the way that is closed, or too thin to be seen.
    """

    width_px: float
    step_px: float
    wander: float
    jag: float
    branches: float
    gaps: float


def draw_habit(rng: np.random.Generator, short: int) -> Habit:
    """Hairline cracks mostly; a few are wide. A picture of 256 pixels has them 0.8 to 6 pixels wide."""
    scale = (short / 256) ** 0.7
    return Habit(
        width_px=float(np.exp(rng.normal(np.log(1.55), 0.5))) * scale,
        step_px=float(rng.uniform(2.5, 6.0)) * short / 256 + 0.5,
        wander=float(rng.uniform(0.06, 0.2)),
        jag=float(rng.uniform(0.15, 0.65)),
        branches=float(rng.choice((0.0, 0.6, 2.5), p=(0.5, 0.3, 0.2))),
        gaps=float(rng.choice((0.0, 0.15, 0.35), p=(0.5, 0.3, 0.2))),
    )


def draw_lines(rng: np.random.Generator, habit: Habit, size: tuple[int, int]) -> list[Line]:
    """A main crack that crosses the picture or enters it, its branches, and rarely a second one."""
    lines: list[Line] = []
    for _ in range(1 if rng.uniform() < 0.88 else 2):
        inside = rng.uniform(0.12, 0.88, 2) * (size[1], size[0])
        heading = float(rng.uniform(0.0, 2.0 * np.pi))
        whole = float(np.hypot(*size))
        ahead = whole if rng.uniform() < 0.75 else float(rng.uniform(0.15, 0.5)) * whole
        back = whole if rng.uniform() < 0.6 else float(rng.uniform(0.05, 0.4)) * whole
        one = _walk(rng, habit, inside, heading, ahead, size)
        other = _walk(rng, habit, inside, heading + np.pi, back, size)
        points = np.concatenate([other[:0:-1], one])
        main = Line(points, _widths(rng, habit, len(points), habit.width_px, (back < whole, ahead < whole)))
        lines += [main, *_branches(rng, habit, main, size, depth=0)]
    return lines


def _walk(
    rng: np.random.Generator,
    habit: Habit,
    start: NDArray[np.float64],
    heading: float,
    length: float,
    size: tuple[int, int],
) -> NDArray[np.float64]:
    """Points of a random walk with momentum, up to its length or a little beyond the picture's edge."""
    count = max(2, int(length / habit.step_px))
    drift = np.cumsum(rng.normal(0.0, habit.wander, count)) * 0.5
    turn = (
        heading
        + drift
        - drift[0]
        + rng.normal(0.0, habit.jag, count)
        + np.repeat(rng.normal(0.0, 0.8 * habit.jag, count // 4 + 1), 4)[:count]
    )
    steps = habit.step_px * rng.uniform(0.4, 1.6, count)
    path = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1) * steps[:, np.newaxis], axis=0)
    path = np.concatenate([start[np.newaxis], path])
    margin = 4.0 + habit.width_px
    outside = (path < -margin).any(axis=1) | (path[:, 0] > size[1] + margin) | (path[:, 1] > size[0] + margin)
    return path[: int(np.argmax(outside)) + 1] if outside.any() else path


def _widths(
    rng: np.random.Generator, habit: Habit, count: int, width: float, tapers: tuple[bool, bool]
) -> NDArray[np.float64]:
    """Width along a line: it swells and narrows, closes here and there, and tapers towards a free end."""
    place = np.arange(count)
    knots = max(3, count // 5 + 2)
    swell = np.exp(0.38 * np.interp(place, np.linspace(0, count - 1, knots), rng.normal(size=knots)))
    shut = np.interp(place, np.linspace(0, count - 1, knots), rng.uniform(size=knots)) < habit.gaps
    share = np.arange(count) / max(count - 1, 1)
    taper = np.ones(count)
    if tapers[0]:
        taper *= np.clip(share / 0.4, 0.15, 1.0)
    if tapers[1]:
        taper *= np.clip((1.0 - share) / 0.4, 0.15, 1.0)
    return np.asarray(np.where(shut, 0.0, width * swell * taper * rng.uniform(0.75, 1.25, count)), np.float64)


def _branches(rng: np.random.Generator, habit: Habit, stem: Line, size: tuple[int, int], *, depth: int) -> list[Line]:
    found: list[Line] = []
    for _ in range(int(rng.poisson(habit.branches)) if depth < 2 and len(stem.points) > 8 else 0):
        at = int(rng.integers(2, len(stem.points) - 2))
        along = stem.points[at + 1] - stem.points[at - 1]
        side = float(rng.choice((-1.0, 1.0))) * float(rng.uniform(0.5, 1.3))
        heading = float(np.arctan2(along[1], along[0])) + side
        length = float(rng.uniform(0.08, 0.5)) * min(size)
        points = _walk(rng, habit, stem.points[at], heading, length, size)
        width = habit.width_px * float(rng.uniform(0.35, 0.8)) * 0.8**depth
        branch = Line(points, _widths(rng, habit, len(points), width, (False, True)))
        found += [branch, *_branches(rng, habit, branch, size, depth=depth + 1)]
    return found


def coverage(lines: list[Line], size: tuple[int, int], *, least_px: float = 0.0, wider: float = 1.0) -> Image32:
    """float32 (H, W): the share of each pixel that the lines cover; pieces of width 0 cover nothing.

    ``least_px`` is the least width of any other piece, ``wider`` a factor on all widths.
    """
    fine = np.zeros((size[0] * _FINE, size[1] * _FINE), np.uint8)
    scale = _FINE * (1 << _SHIFT)
    for line in lines:
        drawn = np.maximum(np.maximum(line.widths * wider, least_px) - 1.0 / _FINE, 0.01)  # OpenCV fills borders too
        widths = np.where(line.widths > 0, drawn, 0.0)
        for start, end, w0, w1 in zip(line.points[:-1], line.points[1:], widths[:-1], widths[1:], strict=True):
            if w0 <= 0 or w1 <= 0:
                continue
            along = end - start
            length = max(float(np.hypot(*along)), 1e-6)
            across = np.array([-along[1], along[0]]) / length
            corners = [start + across * w0 / 2, end + across * w1 / 2, end - across * w1 / 2, start - across * w0 / 2]
            shape = np.rint(np.array(corners) * scale - (1 << _SHIFT) / 2).astype(np.int32)
            cv2.fillConvexPoly(fine, shape, 255, cv2.LINE_8, _SHIFT)
            middle = np.rint(end * scale - (1 << _SHIFT) / 2).astype(int)
            radius = int((w1 - 0.5 / _FINE) / 2 * scale)
            if w1 * _FINE > 3.0:
                cv2.circle(fine, (int(middle[0]), int(middle[1])), radius, 255, -1, cv2.LINE_8, _SHIFT)
    covered = cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(covered, np.float32) / np.float32(255.0)


def truth(lines: list[Line], size: tuple[int, int]) -> NDArray[np.bool_]:
    """bool (H, W): pixels half covered by the lines, none of which counts as thinner than a pixel and a quarter."""
    return np.asarray(coverage(lines, size, least_px=_LEAST_WIDTH_PX) >= 0.5)
