"""What is mistaken for gas and is none: each is painted into the scene behind the gas, and none is ever labelled.

What tells them apart from gas, in principle:

- ``steam`` leaves the mouth of a vent pipe, not a joint; it is opaque, so nothing behind it shines through, always hot
  (white), rises at once, and ends sharply where its droplets evaporate. Gas is translucent and thins out.
- ``cloud`` lies in the sky behind trees and plant, and touches no equipment.
- ``reflection`` is a streak or blob on metal that ends where the metal does, and stands still in a clip.
- ``dust`` is a wide haze that is densest at the ground and has no source.
- ``dead_pixels`` are single pixels, clusters and columns of extreme value, sharper than the optics allow.
- ``hot_machine`` is a part of a machine with sharp edges, close to white, in a round halo that stands still; by
  daylight it is a lamp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leakdet_tf.synth.gas.plume import Placed, Plume, Simulation, typical
from leakdet_tf.synth.gas.scene import Scene
from leakdet_tf.synth.scenery.noise import Field, draw_eddies

TAGS = ("steam", "cloud", "reflection", "dust", "dead_pixels", "hot_machine")
"""Every confuser's tag, as ``confusers`` in the parameters lists them."""
NO_GAS_COUNTS = (0.1, 0.6, 0.3)
"""Shares of the frames without gas that hold none, one and two confusers ..."""
GAS_COUNTS = (0.62, 0.29, 0.09)
"""... and of the frames with gas."""
_HUES = {"steam": (1.0, 1.0, 1.0), "dust": (1.06, 1.0, 0.86), "light": (1.05, 1.0, 0.9)}


def draw_tags(rng: np.random.Generator, *, leak: bool, sky: bool) -> list[str]:
    """Which confusers a scene holds, in the order of ``TAGS``; a cloud needs a ``sky``."""
    count = int(rng.choice(3, p=GAS_COUNTS if leak else NO_GAS_COUNTS))
    # a cloud is twice as likely where it can be, as most scenes have no sky
    weight = np.array([1.0, 2.0 if sky else 0.0, 1.0, 1.0, 1.0, 1.0])
    drawn = rng.choice(len(TAGS), size=count, replace=False, p=weight / weight.sum())
    return [TAGS[int(index)] for index in sorted(drawn)]


@dataclass(frozen=True)
class Setting:
    """Where a confuser is put.

    Attributes:
        scene: the plant.
        light: float64 (H, W, C), the scene's radiance 0..1 with what was put there before; changed in place.
        wind: the plume's, whether it is there or not.
        time_s: since the clip's first frame.
        frame_m: metres that the short side spans.
    """

    scene: Scene
    light: Field
    wind: Plume
    time_s: float
    frame_m: float

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.light.shape[0], self.light.shape[1]

    @property
    def infrared(self) -> bool:
        """Whether the scene has one channel."""
        return bool(self.light.shape[2] == 1)

    def axes(self) -> tuple[Field, Field]:
        """float64 (1, W) and (H, 1): x and y of pixel centres in short sides."""
        scale = min(self.shape)
        across, down = (np.arange(self.shape[1]) + 0.5) / scale, (np.arange(self.shape[0]) + 0.5) / scale
        return across[np.newaxis, :], down[:, np.newaxis]

    def cover(self, opacity: Field, level: float, hue: str) -> None:
        """Lay a layer of ``opacity`` float64 (H, W), 0..1, over the scene."""
        color = np.array([level]) if self.infrared else np.clip(level * np.array(_HUES[hue]), 0.0, 1.0)
        self.light[:] += opacity[:, :, np.newaxis] * (color - self.light)

    def add(self, light: Field) -> None:
        """Add light float64 (H, W) to the scene."""
        color = np.ones(1) if self.infrared else np.array(_HUES["light"])
        np.clip(self.light + light[:, :, np.newaxis] * color, 0.0, 1.0, out=self.light)


def cloud(rng: np.random.Generator, sky: Field, radiance: Field) -> None:
    """Put a cloud into the part of an empty scene that is ``sky`` (float64 (H, W), 0..1): billows over a flat base."""
    height, width = radiance.shape
    scale = min(height, width)
    x, y = (np.arange(width) + 0.5) / scale, (np.arange(height) + 0.5) / scale
    middle, base = float(rng.uniform(0.15, 0.85)) * width / scale, float(rng.uniform(0.12, 0.42)) * height / scale
    half, high = float(rng.uniform(0.15, 0.4)), float(rng.uniform(0.08, 0.2))
    cell = 0.35 * half
    billows = draw_eddies(rng, 5, 0.6).at(y / cell, x / cell, time=0.0, coarsest_px=cell * scale)
    round_top = (
        1.0 - np.square((x - middle) / half)[np.newaxis, :] - np.clip((base - y) / high, 0.0, 9.0)[:, np.newaxis]
    )
    flat = np.clip((base - y) / 0.02 + 0.5, 0.0, 1.0)[:, np.newaxis]
    dense = np.clip(1.2 * (round_top + 0.45 * billows) + 0.2, 0.0, 1.0) * flat
    radiance += sky * dense * (float(rng.uniform(0.12, 0.26)) * (0.8 + 0.2 * np.tanh(billows)))
    np.clip(radiance, 0.0, 1.0, out=radiance)


def paint(rng: np.random.Generator, at: Setting, tag: str) -> None:
    """Put the confuser ``tag`` there, if it is one of those that stand in the scene's light."""
    if tag in _PAINTERS:
        _PAINTERS[tag](rng, at)


def steam(rng: np.random.Generator, at: Setting) -> None:
    """Steam from the scene's vent; nothing where there is none."""
    wind, mouth = at.wind, at.scene.mouth
    if mouth is None:
        return
    plume = Plume(
        wind_m_s=0.5 * wind.wind_m_s,
        wind_direction_deg=wind.wind_direction_deg,
        buoyancy=1.0,
        jet_angle=float(np.pi / 2.0),
        jet_reach=float(rng.uniform(0.15, 0.35)),
        spread=float(rng.uniform(0.12, 0.2)),
        gustiness=float(rng.uniform(0.2, 0.7)),
        turbulence=float(rng.uniform(0.15, 0.35)),
    )
    reach = float(rng.uniform(0.2, 0.75))
    eddies = draw_eddies(rng, 5, 0.6), draw_eddies(rng, 5, 0.6), draw_eddies(rng, 4, 0.7)
    level = float(rng.uniform(0.9, 1.0))
    blowing = Simulation(rng, plume)
    placed = Placed(plume, mouth, reach, eddies)
    unit = typical(placed.column_density(blowing.puffs(), 0.0, at.shape))
    elapsed = at.time_s * max(0.5 * wind.wind_m_s, 1.0) / (reach * at.frame_m)
    if elapsed > 0.0:
        blowing.advance(elapsed)
    density = placed.column_density(blowing.puffs(), blowing.time, at.shape) / max(unit, 1e-300)
    opaque = 1.0 - np.exp(-6.0 * np.clip(density - 0.2, 0.0, 4.0))
    at.cover(opaque, level, "steam")


def dust(rng: np.random.Generator, at: Setting) -> None:
    """Haze that drifts over the ground, in front of everything."""
    x, y = at.axes()
    ground = at.scene.floor if at.scene.floor else float(rng.uniform(0.3, 0.6))
    foot = (ground + (1.0 - ground) * float(rng.uniform(0.1, 0.5))) * at.shape[0] / min(at.shape)
    high, deep = float(rng.uniform(0.05, 0.16)), float(rng.uniform(0.7, 1.7))
    drift = at.time_s * at.wind.wind_m_s * at.wind.wind_side / at.frame_m
    cell = 2.2 * high
    eddies = draw_eddies(rng, 4, 0.65)
    swirls = eddies.at(1.6 * y[:, 0] / cell, (x[0] - drift) / cell, time=2.0 * drift, coarsest_px=cell * min(at.shape))
    above = np.clip((foot - y) / high, 0.0, 30.0)
    below = np.clip((y - foot) / (2.5 * high), 0.0, 30.0)
    body = np.exp(-above - np.square(below)) * np.clip(0.75 + 0.6 * swirls, 0.0, None)
    level = float(rng.uniform(0.35, 0.72)) if at.infrared else float(rng.uniform(0.6, 0.75))
    at.cover(1.0 - np.exp(-deep * body), level, "dust")


def reflection(rng: np.random.Generator, at: Setting) -> None:
    """The sun, or a warm or cold sky, mirrored in metal: a streak along a pipe or a tank, or a blob."""
    x, y = at.axes()
    scale = min(at.shape)
    spot = _on_machine(rng, at)
    long, short = float(rng.uniform(0.04, 0.16)), float(rng.uniform(0.006, 0.02))
    if rng.uniform() < 0.3:
        long = short = float(rng.uniform(0.02, 0.045))
    upright = rng.uniform() < 0.5
    half_w, half_h = (short, long) if upright else (long, short)
    shape = np.exp(-np.square((x - spot[0]) / half_w) - np.square((y - spot[1]) / half_h))
    cold = at.infrared and rng.uniform() < 0.3
    strength = float(rng.uniform(0.3, 0.6)) * (-1.0 if cold else 1.0)
    glint = np.clip(1.6 * shape, 0.0, 1.0) * at.scene.machine
    if not glint.any():  # the metal is finer than a pixel: a glint of one pixel
        row, column = int(spot[1] * scale), int(spot[0] * scale)
        glint[min(row, at.shape[0] - 1), min(column, at.shape[1] - 1)] = 1.0
    at.add(strength * glint)


def hot_machine(rng: np.random.Generator, at: Setting) -> None:
    """A bearing, exhaust or furnace door close to white, in the halo of its stray light; by daylight a lamp."""
    x, y = at.axes()
    place = at.scene.places[int(rng.integers(len(at.scene.places)))]
    size = float(rng.uniform(0.06, 0.2)) * min(place.width, place.height)
    middle = (
        place.left + float(rng.uniform(0.2, 0.8)) * place.width,
        place.top + float(rng.uniform(0.2, 0.7)) * place.height,
    )
    half_w, half_h = size * float(rng.uniform(0.7, 2.0)), size
    scale = min(at.shape)
    u, v = np.abs(x - middle[0]), np.abs(y - middle[1])
    if rng.uniform() < 0.5:
        inside = np.clip((half_w - u) * scale + 0.5, 0.0, 1.0) * np.clip((half_h - v) * scale + 0.5, 0.0, 1.0)
    else:
        inside = np.clip((1.0 - np.hypot(u / half_w, v / half_h)) * half_h * scale + 0.5, 0.0, 1.0)
    glow = float(rng.uniform(0.1, 0.25)) * np.exp(-np.hypot(u, v) / (2.2 * size + 0.02))
    at.add(glow)
    at.cover(inside, float(rng.uniform(0.93, 1.0)), "light")


def _on_machine(rng: np.random.Generator, at: Setting) -> tuple[float, float]:
    """A place on equipment, as (x, y) in short sides: the first of some drawn ones, so alike for every size."""
    height, width = at.shape
    scale = min(at.shape)
    for right, down in rng.uniform(0.05, 0.95, size=(64, 2)):
        if at.scene.machine[int(down * height), int(right * width)]:
            break
    return float(right) * width / scale, float(down) * height / scale


_PAINTERS: dict[str, Callable[[np.random.Generator, Setting], None]] = {
    "steam": steam,
    "reflection": reflection,
    "dust": dust,
    "hot_machine": hot_machine,
}
