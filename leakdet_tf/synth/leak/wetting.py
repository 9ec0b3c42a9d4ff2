"""How water and oil look: darker below, a mirror above, and colours where a film is about as thin as light is long."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from leakdet_tf.synth.leak.illumination import Light, fresnel, lamp_way, mirrored, reflected
from leakdet_tf.synth.leak.liquid import Spill
from leakdet_tf.synth.leak.room import FLOOR, Room
from leakdet_tf.synth.scenery.rendered import Parameter
from leakdet_tf.synth.scenery.texture import Image32, Noise, draw_noise, smooth

LIQUIDS = ("oil", "water")
_OILS = {
    "black": (4.2, 4.6, 5.0),
    "brown": (1.6, 2.6, 4.2),
    "amber": (0.5, 1.1, 2.9),
    "red": (0.6, 2.6, 2.9),
}
"""Optical depths of a full layer of oil in red, green and blue: used engine oil, gear oil, fresh oil, hydraulic oil."""
_WAVES_NM = (615.0, 535.0, 455.0)
_INDEX = {"oil": 1.47, "water": 1.33}
LEAST_CONTRAST = 0.18
"""By how much of the dry surface's radiance a leak changes it on the mean, at least."""


@dataclass(frozen=True)
class Liquid:
    """A drawn liquid.

    Attributes:
        name: one of ``LIQUIDS``.
        kind: the oil's, or ``clear``.
        strength: how much it darkens, 1 on the mean.
        ripple: slope of its surface's waves.
        sheen: how strong interference colours are; 0 for water.
        film_nm: thickness of the film in which those appear, and its spread.
        noise: for waves and swirls.
    """

    name: str
    kind: str
    strength: float
    ripple: float
    sheen: float
    film_nm: tuple[float, float]
    noise: Noise

    def parameters(self) -> dict[str, Parameter]:
        """What was drawn, for the manifest."""
        return {"liquid_kind": self.kind, "sheen": self.sheen, "ripple": self.ripple}


def draw_liquid(rng: np.random.Generator, name: str) -> Liquid:
    """Some water, or an oil; a film of some oils shimmers on a floor."""
    kind, shimmers = list(_OILS)[int(rng.choice(4, p=(0.4, 0.3, 0.2, 0.1)))], bool(rng.uniform() < 0.45)
    sheen = float(rng.uniform(0.4, 1.0))
    strength, ripple = float(rng.uniform(0.75, 1.25)), float(np.exp(rng.uniform(np.log(0.002), np.log(0.03))))
    film = (float(rng.uniform(250.0, 550.0)), float(rng.uniform(90.0, 260.0)))
    oil = name == "oil"
    return Liquid(
        name, kind if oil else "clear", strength, ripple, sheen if oil and shimmers else 0.0, film, draw_noise(rng)
    )


@dataclass(frozen=True)
class Scene:
    """A dry scene: float32 (H, W, 3) the surfaces' ``color``, the ``light`` on them, the ``glare`` that they mirror (as
    a liquid on them does too), and the ``radiance`` of all.

    ``wall_color`` and ``pipe_color``, float32 (3,), are what a mirror shows of the wall and the pipe.
    """

    room: Room
    lamp: Light
    color: Image32
    light: Image32
    glare: Image32
    radiance: Image32
    porous: Image32
    wall_color: Image32
    pipe_color: Image32


def wet(scene: Scene, spill: Spill, liquid: Liquid) -> Image32:
    """The radiance float32 (H, W, 3) of the scene with the liquid; equal to the dry one where nothing is wet."""
    room = scene.room
    tilt_x, tilt_y = _tilts(room, spill, liquid)
    below = _seen_through(scene, spill, liquid)
    way = reflected(room, tilt_x, tilt_y)
    straight = ((_INDEX[liquid.name] - 1.0) / (_INDEX[liquid.name] + 1.0)) ** 2
    smoothness = smooth(spill.depth, 0.02, 0.5)
    share = fresnel(room.facing(), 1.9 * straight) * (np.float32(0.12) + np.float32(0.88) * smoothness)
    around = mirrored(scene.lamp, room, way, scene.wall_color, scene.pipe_color)
    gloss = share[..., np.newaxis] * around
    seen = below * (1.0 - share[..., np.newaxis]) + gloss + _glint(scene, way, smoothness) + scene.glare
    if liquid.sheen:
        seen = seen + _sheen(scene, spill, liquid, around)
    cover = spill.cover[..., np.newaxis]
    film = _told_apart(scene.radiance, np.asarray(seen, np.float32), cover)
    shaded = scene.radiance * (1.0 - np.float32(0.3) * spill.shade[..., np.newaxis])
    return np.asarray(shaded + cover * (film - shaded), np.float32)


def _told_apart(dry: Image32, film: Image32, cover: Image32) -> Image32:
    """The film darkened until it differs enough from what is dry."""
    whole = max(float((cover * dry).sum()), 1e-6)
    for _ in range(4):
        if not float((cover * np.abs(film - dry)).sum()) / whole < LEAST_CONTRAST:
            break
        film = film * np.float32(0.85)
    return film


def _tilts(room: Room, spill: Spill, liquid: Liquid) -> tuple[Image32, Image32]:
    """How the liquid's surface leans along the surface's u and v: waves, and its rounded edges."""
    blurred = cv2.GaussianBlur(spill.depth, (0, 0), 0.8)
    down = cv2.Sobel(blurred, cv2.CV_32F, 0, 1, ksize=3) / np.float32(8.0)
    right = cv2.Sobel(blurred, cv2.CV_32F, 1, 0, ksize=3) / np.float32(8.0)
    steep = np.float32(spill.rise) / room.reach
    waves = np.float32(liquid.ripple)
    noise, u, v, reach = liquid.noise, room.u, room.v, room.reach
    wave_x = waves * noise.at(u, v, reach, cell=0.09, octaves=3, first=0)
    wave_y = waves * noise.at(u, v, reach, cell=0.09, octaves=3, first=6)
    return (
        np.clip(wave_x - steep * right, -0.7, 0.7).astype(np.float32),
        np.clip(wave_y + steep * down, -0.7, 0.7).astype(np.float32),
    )


def _seen_through(scene: Scene, spill: Spill, liquid: Liquid) -> Image32:
    """The surface below: darker as wet pores scatter forward, more saturated, and through what colours the oil."""
    porous = scene.porous * np.float32(liquid.strength)
    grey = scene.color.mean(axis=2, keepdims=True)
    deeper = scene.color + np.float32(0.25) * (scene.color - grey)
    dark = 1.0 - np.clip(np.float32(0.2) + np.float32(0.46) * porous, 0.0, 0.82)
    surface = np.maximum(deeper * dark[..., np.newaxis], np.float32(0.0)) * scene.light
    if liquid.name == "water":
        return np.asarray(surface, np.float32)
    layer = (np.float32(0.22) + np.float32(0.78) * spill.depth) * np.float32(liquid.strength)
    if liquid.sheen:
        layer = layer * np.where(scene.room.part == FLOOR, np.float32(0.3), np.float32(1.0))
    depths = np.array(_OILS[liquid.kind], np.float32)
    through = np.exp(-layer[..., np.newaxis] * depths)
    body = np.exp(-depths) * np.float32(0.05) * (1.0 - through) * scene.light
    return np.asarray(surface * through + body, np.float32)


def _glint(scene: Scene, way: tuple[Image32, Image32, Image32], smoothness: Image32) -> Image32:
    """The lamp itself, mirrored."""
    toward, _ = lamp_way(scene.lamp, scene.room.point)
    along = np.clip(sum(a * b for a, b in zip(way, toward, strict=True)), 0.0, 1.0)
    spot = np.exp((np.asarray(along, np.float32) - 1.0) * np.float32(160.0)) * smoothness
    return np.asarray(spot[..., np.newaxis] * np.float32(0.9) * np.array(scene.lamp.lamp_color, np.float32), np.float32)


def _sheen(scene: Scene, spill: Spill, liquid: Liquid, around: Image32) -> Image32:
    """Colours of a thin film: light of its two surfaces in and out of step, by the path difference 2 n d cos(angle)."""
    room, noise = scene.room, liquid.noise
    unit = float(np.median(room.reach)) * min(room.shape)
    u = room.u + np.float32(0.07 * unit) * noise.at(room.u, room.v, room.reach, cell=0.2 * unit, octaves=3, first=12)
    v = room.v + np.float32(0.07 * unit) * noise.at(room.u, room.v, room.reach, cell=0.2 * unit, octaves=3, first=16)
    swirl = noise.at(u, v, room.reach, cell=0.25 * unit, octaves=4, gain=0.55, first=20)
    thin = np.float32(liquid.film_nm[0]) + np.float32(liquid.film_nm[1]) * swirl
    thin = np.maximum(thin * (np.float32(0.35) + np.float32(0.65) * smooth(spill.cover + spill.depth, 0.3, 1.9)), 0.0)
    inner = np.sqrt(1.0 - (1.0 - np.square(room.facing())) / np.float32(_INDEX["oil"] ** 2))
    path = np.float32(2.0 * _INDEX["oil"]) * thin * inner
    strength = np.float32(0.17 * liquid.sheen) * smooth(swirl, -1.6, 0.3) * (room.part == FLOOR)
    colors = [np.float32(0.5) - np.float32(0.5) * np.cos(path * np.float32(2.0 * np.pi / wave)) for wave in _WAVES_NM]
    brightness = np.float32(0.35) * np.minimum(around, np.float32(1.0)) + np.float32(0.65) * scene.light.mean(
        axis=2, keepdims=True
    )
    return np.asarray(np.stack(colors, axis=-1) * strength[..., np.newaxis] * brightness, np.float32)
