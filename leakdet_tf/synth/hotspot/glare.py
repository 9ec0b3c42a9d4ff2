"""What is mistaken for a hot spot on solar modules and is none; drawn without regard to whether there is one.

What tells them apart from a hot spot, in principle:

- ``glow`` is the warmth of the junction box behind a module: soft, and at the same place of every module.
- ``sun`` is mirrored by the glass: soft, and does not end where a cell or a module does.
- ``cloud`` is mirrored too: broad patches of other brightness over several modules.
- ``dirt`` is a soft, ragged rim along one side of every module, and small droppings far smaller than a cell.
- ``shade`` of a pole or a wire is colder, straight, and crosses frames.
- ``stones`` and sheets of metal are hot, and lie on the ground.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from leakdet_tf.synth.hotspot.modules import Site
from leakdet_tf.synth.scenery.texture import Image32, band, draw_noise, smooth, turned

TAGS = ("glow", "sun", "cloud", "dirt", "shade", "stones")
"""Every confuser's tag, as ``confusers`` in the parameters lists them."""
COUNTS = (0.3, 0.4, 0.3)
"""Shares of the pictures that hold none, one and two."""


def draw_tags(rng: np.random.Generator) -> list[str]:
    """Which confusers a picture holds, in the order of ``TAGS``."""
    count = int(rng.choice(3, p=COUNTS))
    return [TAGS[int(index)] for index in sorted(rng.choice(len(TAGS), size=count, replace=False))]


def put(rng: np.random.Generator, site: Site, heat: Image32, tag: str) -> Image32:
    """float32 (H, W): the temperatures ``heat`` with the confuser ``tag``."""
    return np.asarray(heat + _PUTTERS[tag](rng, site), np.float32)


def _glow(rng: np.random.Generator, site: Site) -> Image32:
    wide, high = site.layout.module
    along, across, length = (site.b, site.a, high) if site.layout.upright else (site.a, site.b, wide)
    end = float(rng.choice((-1.0, 1.0))) * (length / 2 - float(rng.uniform(0.1, 0.22)))
    size, strength = float(rng.uniform(0.04, 0.09)), float(rng.uniform(0.8, 3.5))
    square = np.square(along - np.float32(end)) + np.square(across * np.float32(rng.uniform(0.6, 1.0)))
    each = np.clip(1.0 + 0.25 * rng.standard_normal(1024), 0.4, 1.6).astype(np.float32)
    blob = np.exp(square * np.float32(-0.5 / size**2)) * site.each(each)
    return np.asarray(np.float32(strength) * blob * site.glass, np.float32)


def _sun(rng: np.random.Generator, site: Site) -> Image32:
    middle = rng.uniform(-0.5, 0.5, 2) * (2 * float(site.x.max()), 2 * float(site.y.max()))
    x, y = turned(site.x - np.float32(middle[0]), site.y - np.float32(middle[1]), float(rng.uniform(0.0, np.pi)))
    size, aspect = float(rng.uniform(0.03, 0.1)), float(rng.uniform(1.0, 3.0))
    strength = float(rng.uniform(2.0, 12.0))
    square = np.square(x / np.float32(size * aspect)) + np.square(y / np.float32(size))
    return np.asarray(np.float32(strength) * np.exp(np.float32(-0.5) * square) * site.glass, np.float32)


def _cloud(rng: np.random.Generator, site: Site) -> Image32:
    strength, cell, edge = float(rng.uniform(1.0, 4.0)), float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.4, 1.2))
    reach = np.full(site.shape, 1.0 / min(site.shape), np.float32)
    patches = draw_noise(rng).at(site.x, site.y, reach, cell=cell, octaves=4, gain=0.5)
    return np.asarray(np.float32(strength) * (smooth(patches, -edge, edge) - np.float32(0.5)) * site.glass, np.float32)


def _dirt(rng: np.random.Generator, site: Site) -> Image32:
    noise = draw_noise(rng)
    high, side = site.layout.module[1], float(rng.choice((-1.0, 1.0)))
    width, strength = float(rng.uniform(0.03, 0.09)), float(rng.uniform(0.5, 2.0))
    ragged = noise.at(site.u, site.v, site.reach, cell=0.2, octaves=3)
    rim = np.float32(high / 2) - np.float32(side) * site.b + np.float32(0.4 * width) * ragged
    warm = np.float32(strength) * np.exp(-np.maximum(rim, 0.0) / np.float32(width)) * site.glass
    drops = noise.at(site.u, site.v, site.reach, cell=0.09, octaves=2, first=20)
    return np.asarray(warm + np.float32(rng.uniform(-2.5, 1.5)) * smooth(drops, 2.2, 2.7) * site.glass, np.float32)


def _shade(rng: np.random.Generator, site: Site) -> Image32:
    middle = rng.uniform(-0.35, 0.35, 2)
    x, y = site.x - np.float32(middle[0]), site.y - np.float32(middle[1])
    _, across = turned(x, y, float(rng.uniform(0.0, np.pi)))
    half, soft = float(np.exp(rng.uniform(np.log(0.004), np.log(0.12)))), float(rng.uniform(0.004, 0.02))
    dark = band(across, half, np.full(site.shape, soft, np.float32))
    return np.asarray(-np.float32(rng.uniform(1.5, 6.0)) * dark, np.float32)


def _stones(rng: np.random.Generator, site: Site) -> Image32:
    noise = draw_noise(rng)
    cell, level = float(rng.uniform(0.1, 0.3)), float(rng.uniform(1.5, 2.1))
    lumps = noise.at(site.u, site.v, site.reach, cell=cell, octaves=3, gain=0.6)
    return np.asarray(np.float32(rng.uniform(4.0, 15.0)) * smooth(lumps, level, level + 0.25) * site.bare, np.float32)


_PUTTERS: dict[str, Callable[[np.random.Generator, Site], Image32]] = {
    "glow": _glow,
    "sun": _sun,
    "cloud": _cloud,
    "dirt": _dirt,
    "shade": _shade,
    "stones": _stones,
}
