"""Gas leaks in a plant as an infrared camera for gas imaging shows them: the generator ``gas``.

A frame is built in stages, each with random numbers of its own, so that leaving one out changes nothing else:
backdrop, equipment, plume, light through the gas, sensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError
from leakdet_tf.synth.backdrop import backdrop
from leakdet_tf.synth.canvas import Canvas
from leakdet_tf.synth.equipment import machines, pipes, weather
from leakdet_tf.synth.noise import Field
from leakdet_tf.synth.plume import Plume, column_density, draw_plume
from leakdet_tf.synth.rendered import GAS, MACHINE, Parameter, Rendered
from leakdet_tf.synth.sensor import Sensor, draw_sensor, expose

SMALLEST_SIDE, LARGEST_SIDE = 32, 2048
NO_GAS = 0.12
"""The share of pictures without any gas."""
VISIBLE = 2.0
"""A pixel is gas from the depth at which the gas changes it by this many standard deviations of the noise ..."""
LEAST_CHANGE = 0.025
"""... and by at least this much of the range from black to white, however quiet the sensor is."""
LARGEST_SHARE = 0.75
"""The change that makes a pixel gas is at most this share of what the deepest gas would change."""
LEAST_FRACTION, LARGEST_FRACTION = 0.005, 0.45
"""Bounds on the share of the frame that is gas, where there is any; frames longer than 2:1 may have less."""

_BACKDROP, _EQUIPMENT, _LEAK, _EDDIES, _LIGHT, _SENSOR, _NOISE, _GAIN = range(8)


@dataclass(frozen=True)
class Layers:
    """A frame before the sensor has seen it.

    Attributes:
        clean: float64 (H, W), radiance 0..1 of the scene without gas.
        machine: bool (H, W), where equipment was painted.
        tau: float64 (H, W), optical depth of the gas; zero everywhere when there is none.
        tau_threshold: a pixel is gas iff its ``tau`` is this or more.
        gas_radiance: radiance 0..1 of gas so deep that nothing shines through.
        sensor: how the frame is exposed.
        parameters: everything that was drawn.
    """

    clean: Field
    machine: NDArray[np.bool_]
    tau: Field
    tau_threshold: float
    gas_radiance: float
    sensor: Sensor
    parameters: dict[str, Parameter]

    @property
    def radiance(self) -> Field:
        """float64 (H, W): ``clean * exp(-tau) + gas_radiance * (1 - exp(-tau))``, the light that arrives."""
        through = np.exp(-self.tau)
        return self.clean * through + self.gas_radiance * (1.0 - through)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """uint8 (H, W) class ids: gas where ``tau >= tau_threshold``, else machine where painted, else background."""
        mask = np.where(self.machine, np.uint8(MACHINE), np.uint8(0))
        mask[self.tau >= self.tau_threshold] = GAS
        return mask


def render(seed: int, size: tuple[int, int]) -> Rendered:
    """Render one frame of ``size`` (height, width) pixels, each 32..2048.

    The same seed gives the same bytes; another size of the same proportions gives the same scene. About one picture
    in eight has no gas.

    The mask is exact, not an estimate. Gas is every pixel whose optical depth along the line of sight is at least
    ``tau_threshold`` (in the parameters): the depth at which gas of this temperature changes the picture, over
    three quarters of the plume, by two standard deviations of the sensor's noise or more, and by no less than 0.025 of
    the range from black to white. Thinner gas is in the picture too, but is labelled as what is behind it. Gas in front
    of equipment is gas. Machine is every other pixel that equipment covers by half or more: motors, pumps, compressors,
    coolers, cabinets, tanks and vessels, and also the pipes between them with their flanges, valves and posts.

    Returns:
        image uint8 (H, W, 1), mask uint8 (H, W) with 0 background, 1 gas, 2 machine, and the parameters.

    Raises:
        DataError: a negative seed, or a size out of range.
    """
    return finish(seed, compose(seed, size))


def compose(seed: int, size: tuple[int, int], *, leak: bool = True) -> Layers:
    """Everything up to the sensor; ``leak=False`` shuts the leak off and changes nothing else in the scene."""
    if seed < 0:
        raise DataError(f"seed {seed} is negative", remedy="use 0 or more")
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise DataError(f"size {size} is out of range", remedy=f"use {SMALLEST_SIDE}..{LARGEST_SIDE} pixels a side")
    empty = backdrop(_stream(seed, _BACKDROP), size)
    canvas = Canvas(empty.radiance.copy(), slope=empty.slope, roll=empty.roll)
    rng = _stream(seed, _EQUIPMENT)
    in_front = rng.uniform() < 0.4
    count = 0 if in_front else pipes(canvas, rng, empty.floor)
    kinds = machines(canvas, rng, empty.floor)
    count += pipes(canvas, rng, empty.floor) if in_front else 0
    weather(canvas, rng)
    sensor = draw_sensor(_stream(seed, _SENSOR))
    rng = _stream(seed, _LEAK)
    has_gas = bool(rng.uniform() >= NO_GAS) and leak
    plume = draw_plume(rng, _leak_points(canvas), (canvas.width, canvas.height))
    clean = _auto_gain(_stream(seed, _GAIN), canvas.radiance)
    parameters: dict[str, Parameter] = {
        "backdrop": empty.kind,
        "machines": len(kinds),
        "machine_kinds": kinds,
        "pipes": count,
        "noise_sigma": sensor.noise,
        "column_sigma": sensor.columns,
        "blur_px": sensor.blur_px,
        "vignetting": sensor.vignetting,
        "has_gas": has_gas,
        "gas_fraction": 0.0,
    }
    tau, threshold, level = np.zeros(size), 1.0, 0.5
    if has_gas:
        rng = _stream(seed, _LIGHT)
        density = column_density(_stream(seed, _EDDIES), plume, size)
        change = max(VISIBLE * sensor.total_noise, LEAST_CHANGE)
        level, contrast = _gas_radiance(rng, clean, density, change / LARGEST_SHARE)
        threshold = float(-np.log1p(-min(change / abs(contrast), LARGEST_SHARE)))
        thickness = _thickness(rng, density, threshold)
        tau = thickness * density
        parameters |= _described(plume, contrast, threshold, thickness)
        parameters["gas_fraction"] = float(np.mean(tau >= threshold))
    return Layers(clean, canvas.machine, tau, threshold, level, sensor, parameters)


def finish(seed: int, layers: Layers) -> Rendered:
    """Expose layers through the sensor that ``seed`` drew for them."""
    image = expose(_stream(seed, _NOISE), layers.sensor, layers.radiance)
    return Rendered(image=image[:, :, np.newaxis], mask=layers.mask, parameters=layers.parameters)


def _stream(seed: int, stage: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([stage, seed]))


def _leak_points(canvas: Canvas) -> list[tuple[float, float]]:
    """The equipment's joints that are in view, as (x, y) in short sides of the picture; its middle if none is."""
    margin = 0.06
    places = [canvas.to_picture(x, y) for x, y in canvas.leak_points]
    in_view = [(x, y) for x, y in places if margin < x < canvas.width - margin and margin < y < canvas.height - margin]
    return in_view or [(canvas.width / 2, canvas.height / 2)]


def _auto_gain(rng: np.random.Generator, clean: Field) -> Field:
    """Stretch the scene's range over most of the grey levels, as a camera's automatic gain does."""
    darkest, brightest = float(rng.uniform(0.1, 0.26)), float(rng.uniform(0.7, 0.9))
    low, high = (float(value) for value in np.quantile(clean, (0.01, 0.99)))
    gain = min(max((brightest - darkest) / (high - low + 1e-6), 0.8), 2.0)
    middle = (darkest + brightest) / 2
    return np.clip(middle + gain * (clean - (low + high) / 2), 0.0, 1.0)


def _gas_radiance(rng: np.random.Generator, clean: Field, density: Field, least: float) -> tuple[float, float]:
    """Radiance of the gas, and its contrast to what is behind the plume (negative: the gas is colder).

    The gas is colder or warmer than nine tenths of what is behind it, by ``least`` or more where the grey scale has
    room for it, so it is dark or bright almost throughout. Three quarters of the pixels behind it (where
    the density is over a tenth of the plume's body) differ from it by the contrast or more.
    """
    cold, delta = rng.uniform() < 0.55, float(np.exp(rng.uniform(np.log(0.05), np.log(0.3))))
    behind = clean[density > 0.1]
    low, high = (float(value) for value in np.quantile(behind, (0.1, 0.9)))
    room_below, room_above = low - 0.02, 0.98 - high
    delta = max(delta, least)
    if (room_below if cold else room_above) < max(least, 0.08):
        cold = room_below > room_above
    level = low - min(delta, room_below) if cold else high + min(delta, room_above)
    contrast = float(np.quantile(np.abs(behind - level), 0.25, method="lower"))
    return level, -contrast if cold else contrast


def _thickness(rng: np.random.Generator, density: Field, threshold: float) -> float:
    """Optical depth of the plume's densest part: thick enough to see, and within the bounds on the gas fraction."""
    drawn = threshold * float(np.exp(rng.uniform(np.log(2.5), np.log(16.0))))
    most, least = (float(value) for value in np.quantile(density, (1.0 - LARGEST_FRACTION, 1.0 - 1.2 * LEAST_FRACTION)))
    drawn = max(min(drawn, 3.0), threshold / max(least, 1e-3))
    return min(drawn, threshold / most) if most > 0.0 else drawn


def _described(plume: Plume, contrast: float, threshold: float, thickness: float) -> dict[str, Parameter]:
    return {
        "source_xy": [plume.source[0], plume.source[1]],
        "wind_m_s": plume.wind_m_s,
        "wind_side": plume.wind_side,
        "buoyancy": plume.buoyancy,
        "jet_angle_rad": plume.jet_angle,
        "jet_reach": plume.jet_reach,
        "plume_reach": plume.reach,
        "plume_width": plume.spread,
        "gustiness": plume.gustiness,
        "turbulence": plume.turbulence,
        "delta_sign": 1 if contrast > 0 else -1,
        "delta": abs(contrast),
        "tau_threshold": threshold,
        "optical_thickness": thickness,
    }
