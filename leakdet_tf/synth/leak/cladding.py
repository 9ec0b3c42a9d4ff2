"""Textures of the user's own on floors and walls, as the camera sees them: pictures of a known width in metres.

A picture is laid over the surface's coordinates again and again, every other time mirrored, so that no seam shows. It
is filtered over what a pixel spans there, which is longer than wide where a surface is seen aslant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import resize
from leakdet_tf.synth.leak.room import FLOOR, PARTS, WALL, Room
from leakdet_tf.synth.scenery.camera import linear
from leakdet_tf.synth.scenery.materials import Skin
from leakdet_tf.synth.scenery.photos import Known, Picked, decoded, draw_picture, pictures_below
from leakdet_tf.synth.scenery.texture import Image32, turned

OPTION = "textures"
CLAD = {PARTS[FLOOR]: FLOOR, PARTS[WALL]: WALL}
"""The parts of a room that may be clad, by name."""
WIDTH_M = 1.0
"""How wide a texture is where nobody says, in metres."""
MOST_M = 100.0
_LARGEST = 2048  # pixels of a texture's longer side; larger ones are scaled
_SAMPLES = 8  # along the longer side of what a pixel spans


@dataclass(frozen=True)
class Textures:
    """What a part may be clad with: a folder, how wide its pictures are in metres, which of them are the split's."""

    folder: str
    width_m: float
    share: Sequence[int] | None

    def draw(self, rng: np.random.Generator, part: int) -> Cladding:
        """One of them: a wall's stands on the floor, a floor's lies anywhere, along one of the two directions."""
        picked = draw_picture(rng, OPTION, self.folder, self.share)
        right, up, gloss, porous = rng.uniform(0.0, (8.0, 8.0, 0.2, 0.4))
        quarters = int(rng.integers(4))
        lies = (float(right), float(up), quarters) if part == FLOOR else (float(right), 0.0, 0)
        return Cladding(picked, self.width_m, *lies, float(gloss), 0.6 + float(porous))


def asked_for(textures: object, texture_m: object, share: Sequence[int] | None) -> dict[int, Textures]:
    """Which parts are clad with what; see :func:`.generator.render` for ``textures`` and ``texture_m``.

    Raises:
        DataError: a folder is missing or holds no picture, holds what belongs to neither part, or lies in the other
            part's; a width is out of range.
    """
    folders = _folders(textures) if textures else {}
    if not folders and texture_m != WIDTH_M:
        raise DataError(f"texture_m is {texture_m!r} without {OPTION}", remedy=f"leave it out, or set {OPTION}")
    known = texture_m if isinstance(texture_m, Mapping) else dict.fromkeys(folders, texture_m)
    for part in known:
        if part not in folders:
            raise DataError(f"texture_m: there are no textures of '{part}'", remedy=f"leave it out, or set {OPTION}")
    found = {}
    for part, folder in folders.items():
        pictures_below(f"{OPTION}.{part}", folder)
        width = known.get(part, WIDTH_M)
        if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0.0 < width <= MOST_M:
            raise DataError(f"texture_m is {width!r}", remedy=f"use metres above 0, up to {MOST_M:g}")
        found[CLAD[part]] = Textures(folder, float(width), share)
    places = [Path(folder).resolve() for folder in folders.values()]
    if len(places) == 2 and (places[0] in places[1].parents or places[1] in places[0].parents):
        raise DataError(
            f"{OPTION}: {folders['floor']} and {folders['wall']} lie in one another",
            remedy="name one folder for both, or two that share no picture",
        )
    return found


def _folders(textures: object) -> dict[str, str]:
    """The folder of each part."""
    if isinstance(textures, Mapping):
        for part in textures:
            if part not in CLAD:
                raise DataError(f"{OPTION}: there is no part '{part}'", remedy=f"choose from: {', '.join(CLAD)}")
        return dict(textures)
    root, files = pictures_below(OPTION, textures)
    for path in files:
        if path.relative_to(root).parts[0] not in CLAD:
            raise DataError(
                f"{path}: is in neither {root / 'floor'} nor {root / 'wall'}",
                remedy=f"move it there, or name folders: {OPTION} = {{floor = DIR, wall = DIR}}",
            )
    return {part: str(root / part) for part in CLAD if (root / part).exists()}


@dataclass(frozen=True)
class Cladding:
    """A texture on a part of a room.

    Attributes:
        picked: the picture.
        width_m: its width in metres; its height follows.
        right, up: where its lower left corner lies on the surface, in metres, before it is turned.
        quarters: turns by 90 degrees.
        gloss, porous: as of any material.
    """

    picked: Picked
    width_m: float
    right: float
    up: float
    quarters: int
    gloss: float
    porous: float

    def paint(self, room: Room, part: int, window: tuple[slice, slice]) -> Skin:
        """What the part looks like in a window of the picture, light left aside."""
        levels = _levels(self.picked.known)
        u, v, reach, facing = (axis[window] for axis in (room.u, room.v, room.reach, room.facing()))
        side, ahead = (axis[window] for axis in (room.ray[0], room.ray[1 if part == FLOOR else 2]))
        angle = self.quarters * math.pi / 2
        u, v = turned(u, v, angle)
        side, ahead = turned(side, ahead, angle)
        aslant = np.sqrt(np.clip(facing, 0.06, 1.0))
        narrow, long = reach * aslant, reach / aslant
        away = long / np.maximum(np.hypot(side, ahead), np.float32(1e-6))
        high, wide = levels[0].shape[:2]
        metre = wide / self.width_m
        level = np.log2(np.maximum(np.maximum(narrow, long / _SAMPLES) * np.float32(metre), 1.0))
        level = np.minimum(level, np.float32(len(levels) - 1))
        total = np.zeros((*u.shape, 3), np.float32)
        for step in range(_SAMPLES):
            along = away * np.float32((step + 0.5) / _SAMPLES - 0.5)
            x = _folded((u + along * side - np.float32(self.right)) * np.float32(metre / wide))
            y = _folded((v + along * ahead - np.float32(self.up)) * np.float32(metre / high))
            for number in range(int(level.min()), math.ceil(float(level.max())) + 1):
                share = np.clip(1.0 - np.abs(level - np.float32(number)), 0.0, 1.0)
                total += share[..., np.newaxis] * _looked_up(levels[number], x, np.float32(1.0) - y)
        gloss = np.full(u.shape, self.gloss, np.float32)
        return Skin(np.asarray(total / np.float32(_SAMPLES), np.float32), gloss, self.porous)


def _folded(place: NDArray[np.floating[Any]]) -> Image32:
    """Places in pictures side by side, every other one mirrored, as places in one: 0..1."""
    return np.asarray(1.0 - np.abs(1.0 - np.mod(place, np.float32(2.0))), np.float32)


def _looked_up(level: NDArray[np.uint16], x: Image32, y: Image32) -> Image32:
    """float32 (H, W, 3), linear: a picture at shares of its width and of its height from above."""
    high, wide = level.shape[:2]
    half = np.float32(0.5)
    found = cv2.remap(
        level,
        x * np.float32(wide) - half,
        y * np.float32(high) - half,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32) / np.float32(65535.0)


@lru_cache(maxsize=4)
def _levels(known: Known) -> list[NDArray[np.uint16]]:
    """A picture file as linear light, 0..65535, and half as large again and again, down to one pixel."""
    pixels = decoded(known)
    scale = min(1.0, _LARGEST / max(pixels.shape[:2]))
    size = max(1, round(scale * pixels.shape[0])), max(1, round(scale * pixels.shape[1]))
    light = linear(np.asarray(resize(pixels, size), np.uint8))
    levels = [light]
    while max(light.shape[:2]) > 1:
        half = max(1, light.shape[1] // 2), max(1, light.shape[0] // 2)
        light = np.asarray(cv2.resize(light, half, interpolation=cv2.INTER_AREA), np.float32)
        levels.append(light)
    return [np.rint(level * np.float32(65535.0)).astype(np.uint16) for level in levels]
