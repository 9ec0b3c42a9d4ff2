"""The visible look: what colour things have by day, and how the sun shades them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.gas.backdrop import Backdrop
from leakdet_tf.synth.scenery.noise import Field, fractal

_PAINTS = (
    # red, green, blue as in sRGB, and how often it is seen on plants
    ((0.80, 0.80, 0.77), 0.24),  # white
    ((0.62, 0.64, 0.66), 0.26),  # aluminium and zinc
    ((0.44, 0.46, 0.47), 0.12),  # grey
    ((0.30, 0.42, 0.56), 0.09),  # blue
    ((0.33, 0.47, 0.38), 0.08),  # green
    ((0.78, 0.66, 0.30), 0.08),  # yellow
    ((0.52, 0.34, 0.26), 0.08),  # rust
    ((0.70, 0.66, 0.56), 0.05),  # cream
)
_GROUNDS = ((0.62, 0.61, 0.58), (0.50, 0.50, 0.51), (0.66, 0.60, 0.50), (0.47, 0.52, 0.36), (0.56, 0.50, 0.44))
_WALLS = ((0.68, 0.67, 0.64), (0.60, 0.62, 0.63), (0.62, 0.42, 0.34), (0.52, 0.60, 0.66), (0.74, 0.70, 0.60))
_LUMA = np.array([0.299, 0.587, 0.114])
_VIVID = 0.72  # of a paint's colour is left: plants are dusty, and a camera's white balance is pale


class Daylight:
    """Colours of a scene.

    Attributes:
        hue: float64 (H, W, 3) of luminance 1; times a luminance it gives the colour.
        paint: float64 (3,), the hue of what is painted next.
    """

    def __init__(self, rng: np.random.Generator, hue: Field) -> None:
        self.hue = hue
        self.paint: Field = np.ones(3)
        self._rng = rng
        self._sun = float(rng.choice((-1.0, 1.0))) * float(rng.uniform(0.06, 0.2))

    def next_paint(self) -> float:
        """Take another paint; returns its luminance."""
        index = int(self._rng.choice(len(_PAINTS), p=[share for _, share in _PAINTS]))
        color = np.array(_PAINTS[index][0]) * float(self._rng.uniform(0.85, 1.1))
        self.paint, bright = _split(color)
        return bright

    def lit(self, shade: Field | float, u: Field, v: Field) -> Field:
        """A shape's luminance in the sun: float64 like ``u`` and ``v``, its own coordinates -1..1."""
        light: Field = np.maximum(1.35 * shade - 0.175, 0.03) * (1.0 + self._sun * u - 0.08 * v)
        return light


def daylight(rng: np.random.Generator, empty: Backdrop) -> tuple[Field, Daylight]:
    """Luminance float64 (H, W) of an empty scene by day, from its infrared radiance, and its colours."""
    shape = (empty.radiance.shape[0], empty.radiance.shape[1])
    ground, ground_light = _split(np.array(_GROUNDS[int(rng.integers(len(_GROUNDS)))]))
    wall, wall_light = _split(np.array(_WALLS[int(rng.integers(len(_WALLS)))]))
    trees, trees_light = _split(np.array([0.27, 0.34, 0.24]) * float(rng.uniform(0.7, 1.3)))
    blue, grey = float(rng.uniform(0.0, 0.3)), float(rng.uniform(0.72, 0.92))
    texture = empty.radiance
    bright = ground_light + 1.3 * (texture - 0.45)
    hue = np.ones((*shape, 3)) * ground
    hue *= 1.0 + 0.025 * fractal(rng, shape, (6, 4), 2)[:, :, np.newaxis] * np.array([1.0, 0.0, -1.0])
    for cover, color, light in (
        (empty.wall, wall, wall_light + 1.5 * (texture - 0.46)),
        (empty.trees, trees, trees_light + 2.0 * (texture - 0.36)),
    ):
        bright = bright + cover * (light - bright)
        hue = hue + cover[:, :, np.newaxis] * (color - hue)
    pale = np.clip((texture - 0.1) / 0.28, 0.0, 1.0)  # clouds and the horizon are both warmer and whiter
    zenith, _ = _split(np.array([1.0 - blue, 1.0 - 0.45 * blue, 1.0 + 0.1 * blue]))
    sky = zenith + pale[:, :, np.newaxis] * (1.0 - zenith)
    bright = bright + empty.sky * (grey * (0.86 + 0.16 * pale) - bright)
    hue = hue + empty.sky[:, :, np.newaxis] * (sky - hue)
    return np.clip(bright, 0.03, 1.0), Daylight(rng, hue)


def _split(color: NDArray[np.float64]) -> tuple[Field, float]:
    """A colour (3,) as a hue of luminance 1 and its luminance."""
    bright = float(color @ _LUMA)
    return 1.0 + _VIVID * (color / bright - 1.0), bright
