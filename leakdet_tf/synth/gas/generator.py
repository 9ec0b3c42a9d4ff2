"""Gas leaks in a plant as an infrared camera for gas imaging, or a colour camera, shows them: the generator ``gas``.

A frame is built in stages, each with random numbers of its own, so that leaving one out changes nothing else:
backdrop, equipment, confusers, plume, light through the gas, sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError, did_you_mean
from leakdet_tf.synth.gas import confusers
from leakdet_tf.synth.gas.backdrop import backdrop
from leakdet_tf.synth.gas.light import Light, View, draw_light, draw_view, gas_radiance
from leakdet_tf.synth.gas.plume import Placed, Plume, Simulation, draw_plume, place, typical
from leakdet_tf.synth.gas.scene import Scene, Streams, build
from leakdet_tf.synth.gas.sensor import Sensor, Stuck, draw_sensor, draw_stuck, expose
from leakdet_tf.synth.scenery.noise import Field
from leakdet_tf.synth.scenery.rendered import GAS, MACHINE, Parameter, Rendered

SMALLEST_SIDE, LARGEST_SIDE = 32, 2048
LOOKS = ("infrared", "visible")
NO_GAS = 0.2
"""The share of pictures without any gas."""
_FULL_DEPTH = 5.0  # typical depth of a plume over the depth that shows, for which it is given its size
CAMERA_HZ = 60
"""Frames of a clip are every so-manieth of a camera of this rate."""

_STAGES = (
    "backdrop",
    "equipment",
    "leak",
    "eddies",
    "light",
    "sensor",
    "noise",
    "gain",
    "view",
    "place",
    "tags",
    "colors",
    "vent",
    "pattern",
    "stuck",
    *confusers.TAGS,
)
"""Stages with random numbers of their own. A stage's place in this list is part of its seed: do not reorder."""


@dataclass(frozen=True)
class Layers:
    """A frame before the sensor has seen it.

    Attributes:
        clean: float64 (H, W, C), radiance 0..1 of the scene without gas, confusers included; C is 1 or 3.
        machine: bool (H, W), where equipment was painted.
        tau: float64 (H, W), optical depth of the gas; zero everywhere when there is none.
        tau_threshold: a pixel is gas iff its ``tau`` is this or more.
        gas_radiance: float64 (H or 1, W or 1, C), radiance 0..1 of gas so deep that nothing shines through.
        sensor: how the frame is exposed.
        stuck: dead pixels, if any.
        parameters: everything that was drawn.
    """

    clean: Field
    machine: NDArray[np.bool_]
    tau: Field
    tau_threshold: float
    gas_radiance: Field
    sensor: Sensor
    stuck: Stuck | None
    parameters: dict[str, Parameter]

    @property
    def radiance(self) -> Field:
        """float64 (H, W, C): ``clean * exp(-tau) + gas_radiance * (1 - exp(-tau))``, the light that arrives."""
        through = np.exp(-self.tau)[:, :, np.newaxis]
        return self.clean * through + self.gas_radiance * (1.0 - through)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """uint8 (H, W) class ids: gas where ``tau >= tau_threshold``, else machine where painted, else background."""
        mask = np.where(self.machine, np.uint8(MACHINE), np.uint8(0))
        mask[self.tau >= self.tau_threshold] = GAS
        return mask


def render(seed: int, size: tuple[int, int], *, look: str = "infrared", frame: int = 0) -> Rendered:
    """Render one frame of ``size`` (height, width) pixels, each 32..2048.

    The same seed gives the same bytes; another size of the same proportions gives the same scene. One picture in five
    has no gas; one leak in three covers less than a fiftieth of the frame. Most pictures without gas and some with it
    hold confusers (:mod:`.confusers`), whose tags are in the parameter ``confusers`` and which are
    labelled as what is behind them.

    The mask is exact, not an estimate. Gas is every pixel whose optical depth along the line of sight is at least
    ``tau_threshold`` (in the parameters): the depth at which gas of this temperature changes the picture, over
    three quarters of the plume, by two standard deviations of the sensor's noise or more, and by no less than 0.025 of
    the range from black to white. Thinner gas is in the picture too, but is labelled as what is behind it. Gas in front
    of equipment is gas. Machine is every other pixel that equipment covers by half or more: motors, pumps, compressors,
    coolers, cabinets, tanks and vessels, and also the pipes between them with their flanges, valves, vents and posts.

    Args:
        seed: 0 or more.
        size: (height, width) in pixels.
        look: ``infrared`` (grey, brighter is warmer) or ``visible`` (colour; gas is smoke that scatters daylight).
        frame: which frame of a clip, from 0: the same scene and plume, later by ``frame`` times ``frame_interval_s``
            (in the parameters). Fixed pattern noise stays, other noise does not.

    Returns:
        image uint8 (H, W, 1) or, visible, (H, W, 3); mask uint8 (H, W) with 0 background, 1 gas, 2 machine; and the
        parameters, of which docs and analysis use ``gas_fraction``, ``delta_t_k`` (kelvin, signed; 0 without gas and in
        the visible look), ``distance_m``, ``wind_m_s`` and ``confusers``.

    Raises:
        DataError: a negative seed or frame, a look that does not exist, or a size out of range.
    """
    return finish(seed, compose(seed, size, look=look, frame=frame))


def compose(seed: int, size: tuple[int, int], *, look: str = "infrared", frame: int = 0, leak: bool = True) -> Layers:
    """Everything up to the sensor; ``leak=False`` shuts the leak off and changes nothing else in the scene."""
    _check(seed, size, look, frame)
    streams = partial(_stream, seed)
    infrared = look == "infrared"
    view = draw_view(streams("view"))
    sensor = draw_sensor(streams("sensor"), distance_m=view.distance_m, infrared=infrared)
    rng = streams("leak")
    leaks = bool(rng.uniform() >= NO_GAS)
    plume = draw_plume(rng, view.fraction)
    empty = backdrop(streams("backdrop"), size)
    tags = confusers.draw_tags(streams("tags"), leak=leaks, sky=empty.kind == "yard")
    if "cloud" in tags:
        confusers.cloud(streams("cloud"), empty.sky, empty.radiance)
    scene = build(streams, empty, view, infrared=infrared, vented="steam" in tags)
    leakage = _leak(streams, plume, view, scene, size) if leaks else None
    plume, interval = (leakage.placed.plume, leakage.interval_s) if leakage else (plume, 0.1)

    def confused(moment: int) -> Field:
        setting = confusers.Setting(scene, scene.light.copy(), plume, moment * interval, view.frame_m)
        for tag in tags:
            confusers.paint(streams(tag), setting, tag)
        return setting.light

    first = confused(0)
    clean = confused(frame) if frame else first
    parameters: dict[str, Parameter] = {
        "look": look,
        "frame": frame,
        "frame_interval_s": interval,
        "has_gas": False,
        "gas_fraction": 0.0,
        "confusers": list(tags),
        "distance_m": view.distance_m,
        "frame_m": view.frame_m,
        "transmission": view.transmission,
        "span_k": view.span_k if infrared else 0.0,
        "delta_t_k": 0.0,
        "wind_m_s": plume.wind_m_s,
        "wind_side": plume.wind_side,
        "wind_direction_deg": plume.wind_direction_deg,
        "backdrop": empty.kind,
        "machines": len(scene.places),
        "machine_kinds": list(scene.kinds),
        "pipes": scene.pipes,
        "noise_sigma": sensor.noise,
        "column_sigma": sensor.columns,
        "blur_px": sensor.blur_px,
        "vignetting": sensor.vignetting,
    }
    stuck = draw_stuck(streams("stuck"), size) if "dead_pixels" in tags else None
    tau, threshold, level = np.zeros(size), 1.0, np.full((1, 1, clean.shape[2]), 0.5)
    if leakage is not None and leak:
        density = leakage.density(size)
        light, level = draw_light(streams("light"), first, density, view, sensor.total_noise, tinted=not infrared)
        if frame:
            density = leakage.density(size, frame)
            level = gas_radiance(light.level, light.shading, density)
        tau, threshold = light.thickness * density, light.threshold
        fraction = float(np.mean(tau >= threshold))
        parameters |= _described(leakage.placed, light, view, infrared=infrared)
        parameters |= {"gas_fraction": fraction, "has_gas": fraction > 0.0}
    return Layers(clean, scene.machine, tau, threshold, level, sensor, stuck, parameters)


def finish(seed: int, layers: Layers) -> Rendered:
    """Expose layers through the sensor that ``seed`` drew for them."""
    frame = layers.parameters["frame"]
    assert isinstance(frame, int)
    noise = _stream(seed, "noise", frame)
    image = expose(_stream(seed, "pattern"), noise, layers.sensor, layers.radiance, layers.stuck)
    return Rendered(image=image, mask=layers.mask, parameters=layers.parameters)


class _Leakage:
    """A plume in a scene, frame by frame."""

    def __init__(self, blowing: Simulation, placed: Placed, mirror: bool, view: View) -> None:
        travel = placed.reach * view.frame_m / max(0.6 * placed.plume.wind_m_s, 0.3)  # seconds that the gas takes
        self.placed = placed
        self.interval_s = float(np.clip(round(0.05 * travel * CAMERA_HZ), 1, 30)) / CAMERA_HZ
        self._blowing, self._mirror, self._step = blowing, mirror, self.interval_s / travel
        self._unit = 0.0

    def density(self, size: tuple[int, int], frames: int = 0) -> Field:
        """Column density ``frames`` after the last one asked for: float64 (H, W), 1 in the first one's body."""
        for _ in range(frames):
            self._blowing.advance(self._step)
        puffs = self._blowing.puffs()
        density = self.placed.column_density(puffs.mirrored() if self._mirror else puffs, self._blowing.time, size)
        self._unit = self._unit or max(typical(density), 1e-300)
        return density / self._unit


def _leak(streams: Streams, plume: Plume, view: View, scene: Scene, size: tuple[int, int]) -> _Leakage:
    blowing = Simulation(streams("eddies"), plume)
    extent = (size[1] / min(size), size[0] / min(size))
    placed, mirror = place(
        streams("place"), plume, blowing.puffs(), scene.leak_points, extent, view.fraction, _FULL_DEPTH
    )
    return _Leakage(blowing, placed, mirror, view)


def _stream(seed: int, stage: str, *more: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([_STAGES.index(stage), seed, *more]))


def _check(seed: int, size: tuple[int, int], look: str, frame: int) -> None:
    if seed < 0:
        raise DataError(f"seed {seed} is negative", remedy="use 0 or more")
    if not isinstance(frame, int) or frame < 0:
        raise DataError(f"frame is {frame!r}", remedy="use 0 or more")
    if look not in LOOKS:
        raise DataError(f"look is {look!r}", remedy=did_you_mean(str(look), LOOKS))
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise DataError(f"size {size} is out of range", remedy=f"use {SMALLEST_SIDE}..{LARGEST_SIDE} pixels a side")


def _described(placed: Placed, light: Light, view: View, *, infrared: bool) -> dict[str, Parameter]:
    plume = placed.plume
    return {
        "source_xy": [placed.source[0], placed.source[1]],
        "buoyancy": plume.buoyancy,
        "jet_angle_rad": plume.jet_angle,
        "jet_reach": plume.jet_reach,
        "plume_reach": placed.reach,
        "plume_reach_m": placed.reach * view.frame_m,
        "plume_width": plume.spread,
        "gustiness": plume.gustiness,
        "turbulence": plume.turbulence,
        "delta_sign": 1 if light.contrast > 0 else -1,
        "delta": abs(light.contrast),
        "delta_t_k": light.contrast * view.span_k / view.transmission if infrared else 0.0,
        "tau_threshold": light.threshold,
        "optical_thickness": light.thickness,
    }
