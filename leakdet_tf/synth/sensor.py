"""An infrared camera with a focal plane array: optics blur, vignetting, noise of pixels and of columns, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.noise import Field


@dataclass(frozen=True)
class Sensor:
    """How a camera degrades a frame; radiance is 0 black .. 1 white.

    Attributes:
        blur_px: standard deviation of the optics' blur in pixels.
        vignetting: share of the light that is lost in the corners.
        noise: standard deviation of the pixels' own noise, in radiance.
        columns: standard deviation of the fixed pattern of columns, in radiance.
    """

    blur_px: float
    vignetting: float
    noise: float
    columns: float

    @property
    def total_noise(self) -> float:
        """Standard deviation of one pixel under both kinds of noise, in radiance."""
        return float(np.hypot(self.noise, self.columns))


def draw_sensor(rng: np.random.Generator) -> Sensor:
    """A camera between a cooled one (quiet) and an uncooled one (noisy, striped)."""
    noise = float(np.exp(rng.uniform(np.log(0.006), np.log(0.024))))
    return Sensor(
        blur_px=float(rng.uniform(0.45, 0.85)),
        vignetting=float(rng.uniform(0.0, 0.16)),
        noise=noise,
        columns=noise * float(rng.uniform(0.1, 0.55)),
    )


def expose(rng: np.random.Generator, sensor: Sensor, radiance: Field) -> NDArray[np.uint8]:
    """Radiance float64 (H, W) → counts uint8 (H, W)."""
    height, width = radiance.shape
    seen = _blur(radiance, sensor.blur_px)
    y = (2.0 * np.arange(height) + 1.0) / height - 1.0
    x = (2.0 * np.arange(width) + 1.0) / width - 1.0
    seen *= 1.0 - 0.5 * sensor.vignetting * (np.square(y)[:, np.newaxis] + np.square(x))
    seen += sensor.columns * rng.standard_normal(width)
    seen += sensor.noise * rng.standard_normal((height, width))
    return np.clip(np.rint(seen * 255.0), 0.0, 255.0).astype(np.uint8)


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
