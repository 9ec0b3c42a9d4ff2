"""A picture to paint equipment on: shapes in scene units, drawn with exact coverage and remembered in a mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.gas.daylight import Daylight
from leakdet_tf.synth.scenery.noise import Field

Shade = float | Callable[[Field, Field], Field]
"""A radiance, or a function of a shape's own coordinates (u across, v down, both -1..1) that gives one."""


class Canvas:
    """A radiance picture (0 black .. 1 white) and the mask of what has been painted on it.

    Scene units: the picture's short side is 1, x runs right and y down from the top left corner. ``slope`` tilts
    horizontal edges (a wall seen at an angle) and ``roll`` turns everything (a camera held askew); verticals stay
    vertical under ``slope``. A pixel belongs to a shape where the shape covers at least half of it.

    With ``daylight`` the picture is one of luminance, its colours are kept beside it, and shapes are shaded by the sun.
    """

    def __init__(self, radiance: Field, *, slope: float, roll: float, daylight: Daylight | None = None) -> None:
        self.radiance = radiance
        self.daylight = daylight
        self.machine: NDArray[np.bool_] = np.zeros(radiance.shape, dtype=np.bool_)
        self.leak_points: list[tuple[float, float]] = []
        height, width = radiance.shape
        self.pixels_per_unit = float(min(height, width))
        self.width = width / self.pixels_per_unit
        self.height = height / self.pixels_per_unit
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        self._to_scene: Field = np.array([[1.0, 0.0], [slope, 1.0]]) @ turn
        self._to_picture: Field = np.linalg.inv(self._to_scene)
        self._middle = np.array([self.width / 2, self.height / 2])
        x = ((np.arange(width) + 0.5) / self.pixels_per_unit - self._middle[0])[np.newaxis, :]
        y = ((np.arange(height) + 0.5) / self.pixels_per_unit - self._middle[1])[:, np.newaxis]
        self._x: Field = self._to_scene[0, 0] * x + self._to_scene[0, 1] * y + self._middle[0]
        self._y: Field = self._to_scene[1, 0] * x + self._to_scene[1, 1] * y + self._middle[1]

    def coat(self, tone: float, hot: float) -> tuple[float, float]:
        """Tones of the next machine and of its hot parts: as given, or by daylight those of the paint it gets."""
        if self.daylight is None:
            return tone, hot
        paint = self.daylight.next_paint()
        return paint, paint + 0.25 * (hot - tone)

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """Where a scene point lies in the picture, as (x, y) in units of the short side."""
        point = self._to_picture @ (np.array([x, y]) - self._middle) + self._middle
        return float(point[0]), float(point[1])

    def box(self, x0: float, y0: float, x1: float, y1: float, shade: Shade, *, shear: float = 0.0) -> None:
        """Paint a rectangle; ``shear`` lowers its right edge by that much, which makes it a parallelogram."""
        window = self._window(x0, y0 - abs(shear), x1, y1 + abs(shear))
        if window is None:
            return
        x, y = self._x[window], self._y[window]
        half_w, half_h = self._halves(x0, y0, x1, y1)
        u = (x - (x0 + x1) / 2) / half_w
        down = y - (y0 + y1) / 2
        v = (down - shear / 2 * u if shear else down) / half_h
        scale = self.pixels_per_unit
        cover = np.clip((half_w - half_w * np.abs(u)) * scale + 0.5, 0.0, 1.0)
        cover *= np.clip((half_h - half_h * np.abs(v)) * scale + 0.5, 0.0, 1.0)
        self._blend(window, cover, shade, u, v)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, shade: Shade, *, hole: float = 0.0) -> None:
        """Paint the ellipse within a rectangle; ``hole`` (0..1) leaves out its middle, for rings and hand wheels."""
        window = self._window(x0, y0, x1, y1)
        if window is None:
            return
        half_w, half_h = self._halves(x0, y0, x1, y1)
        u = (self._x[window] - (x0 + x1) / 2) / half_w
        v = (self._y[window] - (y0 + y1) / 2) / half_h
        radius = np.sqrt(u * u + v * v)
        scale = min(half_w, half_h) * self.pixels_per_unit
        cover = np.clip((1.0 - radius) * scale + 0.5, 0.0, 1.0)
        if hole:
            cover *= np.clip((radius - hole) * scale + 0.5, 0.0, 1.0)
        self._blend(window, cover, shade, u, v)

    def shadow(self, x0: float, y0: float, x1: float, y1: float, depth: float) -> None:
        """Darken the surroundings softly by ``depth`` around the middle of a rectangle; nothing is put in the mask."""
        window = self._window(1.5 * x0 - 0.5 * x1, 2 * y0 - y1, 1.5 * x1 - 0.5 * x0, 2 * y1 - y0)
        if window is not None:
            half_w, half_h = self._halves(x0, y0, x1, y1)
            u = (self._x[window] - (x0 + x1) / 2) / half_w
            v = (self._y[window] - (y0 + y1) / 2) / half_h
            depth *= 1.0 if self.daylight is None else 2.5
            self.radiance[window] -= depth * np.square(np.clip(1.0 - 0.25 * (u**4 + v * v), 0.0, 1.0))

    def stripes(self, base: float, depth: float, count: int, length: float, *, across: bool = True) -> Shade:
        """A shade of ``count`` dark gaps over ``length`` scene units, fading where the gaps are too fine to see."""
        period = length * self.pixels_per_unit / max(count, 1)
        depth = depth * min(1.0, max(0.0, (period - 1.6) / 1.6))

        def shade(u: Field, v: Field) -> Field:
            place = u if across else v
            return base + depth * np.cos(np.pi * count * (place + 1.0))

        return shade

    def _halves(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float]:
        """Half the sides of a rectangle in scene units, at least half a pixel: thin rods stay visible."""
        thin = 0.5 / self.pixels_per_unit
        return max((x1 - x0) / 2, thin), max((y1 - y0) / 2, thin)

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
        corners = np.array([[x0, x1, x0, x1], [y0, y0, y1, y1]]) - self._middle[:, np.newaxis]
        places = (self._to_picture @ corners + self._middle[:, np.newaxis]) * self.pixels_per_unit
        left, top = np.floor(places.min(axis=1)).astype(int) - 1
        right, bottom = np.ceil(places.max(axis=1)).astype(int) + 1
        height, width = self.radiance.shape
        rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def _blend(self, window: tuple[slice, slice], cover: Field, shade: Shade, u: Field, v: Field) -> None:
        patch = self.radiance[window]
        painted = shade(u, v) if callable(shade) else shade
        if self.daylight is not None:
            painted = self.daylight.lit(painted, u, v)
            hue = self.daylight.hue[window]
            hue += cover[:, :, np.newaxis] * (self.daylight.paint - hue)
        patch += cover * (painted - patch)
        self.machine[window] |= cover >= 0.5


def cylinder(base: float, relief: float, lean: float, *, across: bool) -> Shade:
    """The shade of a round body: darker to its edges by ``relief``, and by ``lean`` from one edge to the other.

    ``across`` is true where the axis is vertical, so that shading runs over u. A metal skin emits less at grazing
    angles and mirrors what surrounds it: a cold sky above, warm ground below.
    """

    def shade(u: Field, v: Field) -> Field:
        place = np.clip(u if across else v, -1.0, 1.0)
        return base + relief * (np.sqrt(1.0 - place * place) - 0.75) + lean * place

    return shade


def graded(base: float, over_u: float, over_v: float) -> Shade:
    """A flat face whose radiance changes by ``over_u`` and ``over_v`` from its middle to its right and lower edge."""
    return lambda u, v: base + over_u * u + over_v * v
