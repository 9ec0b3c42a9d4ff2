"""A camera: optics blur, vignetting, noise of pixels and of columns, dead pixels, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.noise import Field


@dataclass(frozen=True)
class Sensor:
    """How a camera degrades a frame; radiance is 0 black .. 1 white.

    Attributes:
        blur_px: standard deviation of the optics' blur in pixels, and of the air's over the distance.
        vignetting: share of the light that is lost in the corners.
        noise: standard deviation of the pixels' own noise, in radiance; another in every frame.
        columns: standard deviation of the fixed pattern of columns, in radiance; the same in every frame.
    """

    blur_px: float
    vignetting: float
    noise: float
    columns: float

    @property
    def total_noise(self) -> float:
        """Standard deviation of one pixel under both kinds of noise, in radiance."""
        return float(np.hypot(self.noise, self.columns))


@dataclass(frozen=True)
class Stuck:
    """Dead pixels: bool (H, W) which, float64 (H, W) what they show."""

    where: NDArray[np.bool_]
    value: Field


def draw_sensor(rng: np.random.Generator, *, distance_m: float, infrared: bool) -> Sensor:
    """An infrared camera between a cooled one (quiet) and an uncooled one (noisy, striped), or a colour camera."""
    noise = float(np.exp(rng.uniform(np.log(0.006), np.log(0.024))))
    blur, vignetting = float(rng.uniform(0.45, 0.85)) + 0.0012 * distance_m, float(rng.uniform(0.0, 0.16))
    stripes = float(rng.uniform(0.1, 0.55))
    if not infrared:
        return Sensor(blur_px=blur, vignetting=vignetting, noise=0.6 * noise, columns=0.0)
    return Sensor(blur_px=blur, vignetting=vignetting, noise=noise, columns=noise * stripes)


def draw_stuck(rng: np.random.Generator, shape: tuple[int, int]) -> Stuck:
    """Dead detectors: clusters of a few, and perhaps a piece of a column; black or white."""
    height, width = shape
    where, value = np.zeros(shape, dtype=np.bool_), np.zeros(shape)
    for _ in range(int(rng.integers(2, 9))):
        row, column = int(rng.uniform() * height), int(rng.uniform() * width)
        level = float(rng.choice((0.0, 1.0)))
        for step in rng.integers(-1, 2, size=(int(rng.integers(1, 12)), 2)):
            where[row, column], value[row, column] = True, level
            row, column = min(max(row + int(step[0]), 0), height - 1), min(max(column + int(step[1]), 0), width - 1)
    for _ in range(int(rng.choice((0, 1, 2), p=(0.45, 0.4, 0.15)))):
        column, start = int(rng.uniform() * width), int(rng.uniform(-0.5, 0.7) * height)
        rows = slice(max(start, 0), start + int(rng.uniform(0.4, 1.5) * height))
        where[rows, column], value[rows, column] = True, float(rng.choice((0.0, 0.12, 0.9, 1.0)))
    return Stuck(where, value)


def expose(
    fixed: np.random.Generator, rng: np.random.Generator, sensor: Sensor, radiance: Field, stuck: Stuck | None = None
) -> NDArray[np.uint8]:
    """Radiance float64 (H, W, C) → counts uint8 (H, W, C).

    ``fixed`` draws what is the same in every frame of a clip, ``rng`` what is not.
    """
    height, width, channels = radiance.shape
    y = (2.0 * np.arange(height) + 1.0) / height - 1.0
    x = (2.0 * np.arange(width) + 1.0) / width - 1.0
    light = 1.0 - 0.5 * sensor.vignetting * (np.square(y)[:, np.newaxis] + np.square(x))
    columns = sensor.columns * fixed.standard_normal(width)
    counts = np.empty(radiance.shape, dtype=np.uint8)
    for channel in range(channels):
        seen = _blur(radiance[:, :, channel], sensor.blur_px) * light + columns
        seen += sensor.noise * rng.standard_normal((height, width))
        if stuck is not None:
            seen = np.where(stuck.where, stuck.value, seen)
        counts[:, :, channel] = np.clip(np.rint(seen * 255.0), 0.0, 255.0)
    return counts


def _blur(field: Field, sigma: float) -> Field:
    """Gaussian blur with five taps a direction; edges are mirrored."""
    weights = np.exp(-0.5 * np.square(np.arange(3) / sigma))
    weights /= weights[0] + 2.0 * weights[1:].sum()
    for _ in range(2):
        padded = np.pad(field, ((2, 2), (0, 0)), mode="symmetric")
        rows = field.shape[0]
        near = padded[1 : rows + 1] + padded[3 : rows + 3]
        far = padded[:rows] + padded[4 : rows + 4]
        field = (weights[0] * padded[2 : rows + 2] + weights[1] * near + weights[2] * far).T
    return np.ascontiguousarray(field)
