"""How far away a scene is, and how its light gets through the gas: kelvin, grey levels, optical depth.

Grey and kelvin: the camera's range from black (0) to white (1) spans ``span_k`` kelvin of apparent temperature. Gas of
a temperature difference ``dT`` to what is behind it changes the picture, where it is deep, by
``dT * transmission / span_k``. Transmission of the air over the distance is Beer-Lambert's law with one coefficient,
as for haze (Koschmieder, 1924).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from leakdet_tf.synth.gas.plume import sample
from leakdet_tf.synth.scenery.noise import Field

VISIBLE = 2.0
"""A pixel is gas from the depth at which the gas changes it by this many standard deviations of the noise ..."""
LEAST_CHANGE = 0.025
"""... and by at least this much of the range from black to white, however quiet the sensor is."""
LARGEST_SHARE = 0.75
"""The change that makes a pixel gas is at most this share of what the deepest gas would change."""
LEAST_FRACTION, SMALL_FRACTION, LARGEST_FRACTION = 0.0004, 0.02, 0.5
"""Share of the frame that is gas, where there is any: the least, what counts as small, and the largest."""
SMALL_SHARE = 0.305
"""The share of leaks that are to cover less than ``SMALL_FRACTION`` of the frame. Some of the others are too thin to
reach what they are to cover, so that a third is small in the end."""
LEAST_PIXELS = 5
"""A leak covers at least this many pixels, however small the picture is."""
MOST_DEPTH = 2.8
"""Gas is seldom opaque: its typical optical depth is at most this, unless less would not show."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class View:
    """Where the camera stands and what it spans.

    Attributes:
        distance_m: from the camera to the plant.
        frame_m: metres that the picture's short side spans at that distance.
        transmission: share of the light that the air lets through over the distance.
        span_k: kelvin from black to white.
        fraction: the share of the frame that the leak is to cover; far leaks tend to cover less.
    """

    distance_m: float
    frame_m: float
    transmission: float
    span_k: float
    fraction: float


def draw_view(rng: np.random.Generator) -> View:
    """Draw a distance of 5 to 200 m, a lens that suits it, the air, and how large the leak is to look."""
    normal = NormalDist()
    far = float(rng.uniform(0.0005, 0.9995))
    distance = float(np.exp(np.log(5.0) + far * np.log(40.0)))
    angle = float(np.clip(np.exp(rng.uniform(np.log(6.0), np.log(24.0))) * (distance / 30.0) ** -0.25, 3.0, 35.0))
    score = -0.55 * normal.inv_cdf(far) + 0.835 * float(rng.standard_normal())
    rank = normal.cdf(score)  # uniform over all pictures, and lower the farther the camera stands
    if rank < SMALL_SHARE:
        low, high, share = LEAST_FRACTION, SMALL_FRACTION, rank / SMALL_SHARE
    else:
        low, high, share = SMALL_FRACTION, LARGEST_FRACTION, (rank - SMALL_SHARE) / (1.0 - SMALL_SHARE)
    return View(
        distance_m=distance,
        frame_m=2.0 * distance * float(np.tan(np.radians(angle) / 2.0)),
        transmission=float(np.exp(-rng.uniform(0.3, 2.0) * distance / 1000.0)),
        span_k=float(np.exp(rng.uniform(np.log(15.0), np.log(60.0)))),
        fraction=low * (high / low) ** share,
    )


@dataclass(frozen=True)
class Light:
    """The gas as a source of light, the same in every frame of a clip.

    Attributes:
        level: float64 (C,), radiance 0..1 of gas so deep that nothing shines through.
        shading: how much the side of smoke that faces away from the sun is darker; 0 in the infrared.
        contrast: luminance of the gas less that of what is behind it; negative where the gas is darker.
        threshold: a pixel is gas iff its optical depth is this or more.
        thickness: optical depth of the plume's body.
    """

    level: Field
    shading: float
    contrast: float
    threshold: float
    thickness: float


def luminance(picture: Field) -> Field:
    """float64 (H, W, C) → (H, W): the channel itself, or the weighted sum of red, green and blue (BT.601)."""
    if picture.shape[2] == 1:
        return picture[:, :, 0]
    seen: Field = _LUMA[0] * picture[:, :, 0] + _LUMA[1] * picture[:, :, 1] + _LUMA[2] * picture[:, :, 2]
    return seen


def gas_radiance(level: Field, shading: float, density: Field) -> Field:
    """Radiance of deep gas: float64 (1, 1, C), or (H, W, C) where smoke shades itself."""
    if not shading:
        return level[np.newaxis, np.newaxis, :]
    reach = 0.03 * min(density.shape)
    away = np.full(density.shape, reach)
    lit = np.tanh(density - sample(density, away, -away))  # the sun stands at the upper right
    return np.clip(level * (1.0 + shading * lit[:, :, np.newaxis]), 0.0, 1.0)


def draw_light(
    rng: np.random.Generator, clean: Field, density: Field, view: View, noise: float, *, tinted: bool
) -> tuple[Light, Field]:
    """Choose how warm (or, ``tinted``, how bright) and how deep the gas is, so that it shows.

    The gas is darker or brighter than nine tenths of what is behind it. Three quarters of the pixels behind it (where
    ``density``, float64 (H, W), is over a tenth of that of the plume's body, 1) differ from it by the contrast or more.
    ``noise`` is the standard deviation of the sensor's noise. ``clean`` is float64 (H, W, C).

    Returns:
        The light, and :func:`gas_radiance` of it and ``density``.
    """
    change = max(VISIBLE * noise, LEAST_CHANGE)
    least = change / LARGEST_SHARE
    dark = bool(rng.uniform() < (0.35 if tinted else 0.55))
    kelvin = float(np.exp(rng.uniform(np.log(1.5), np.log(14.0))))
    brightness = float(np.exp(rng.uniform(np.log(0.1), np.log(0.5))))
    grey = brightness if tinted else kelvin
    delta = max(grey * view.transmission / (1.0 if tinted else view.span_k), least)
    tint, shading = (_tint(rng), float(rng.uniform(0.03, 0.1))) if tinted else (np.ones(1), 0.0)
    plume = density > 0.1
    behind = luminance(clean)[plume]
    low, high = (float(value) for value in np.quantile(behind, (0.1, 0.9)))
    room_below, room_above = low - 0.02, 0.98 - high
    if (room_below if dark else room_above) < max(least, 0.08):
        dark = room_below > room_above
    level = low - min(delta, room_below) if dark else high + min(delta, room_above)
    color = np.clip(level * tint, 0.0, 1.0)
    deep = gas_radiance(color, shading, density)
    shown = np.broadcast_to(luminance(deep), density.shape)
    contrast = float(np.quantile(np.abs(behind - shown[plume]), 0.25, method="lower"))
    threshold = float(-np.log1p(-min(change / max(contrast, 1e-6), LARGEST_SHARE)))
    thickness = _thickness(density, threshold, view.fraction)
    return Light(color, shading, -contrast if dark else contrast, threshold, thickness), deep


def _tint(rng: np.random.Generator) -> Field:
    """White, grey or brownish smoke: float64 (3,) of luminance 1."""
    brown = float(rng.choice((0.0, 0.03, 0.1), p=(0.4, 0.35, 0.25))) * float(rng.uniform(0.5, 1.0))
    tint = np.array([1.0 + brown, 1.0, 1.0 - 1.6 * brown])
    return tint / float(tint @ _LUMA)


def _thickness(density: Field, threshold: float, fraction: float) -> float:
    """Optical depth of the plume's body that makes ``fraction`` of the pixels gas, within reason."""
    ordered = np.sort(density, axis=None)[::-1]
    reached = ordered[min(max(round(fraction * ordered.size), LEAST_PIXELS), ordered.size) - 1]
    surely = ordered[LEAST_PIXELS - 1]
    wanted = threshold / max(float(reached), 1e-3)
    wanted = min(wanted, max(MOST_DEPTH, 1.5 * threshold))
    return max(wanted, threshold / max(float(surely), 1e-300)) * (1.0 + 1e-9)
