"""Cracks in concrete, asphalt and painted walls, seen from near and nearly straight on: the generator ``crack``.

A picture is built in stages, each with random numbers of its own: surface, light, confusers, the label, the crack's
course, its look, exposure, noise. So the same seed without its crack is the same picture elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.crack import scars
from leakdet_tf.synth.crack.fissure import Line, coverage, draw_habit, draw_lines, truth
from leakdet_tf.synth.scenery.camera import Camera, draw_camera, expose, gain_for, linear
from leakdet_tf.synth.scenery.materials import SLABS, Spot, draw_material
from leakdet_tf.synth.scenery.photos import Piece, draw_piece
from leakdet_tf.synth.scenery.regions import boxes_of
from leakdet_tf.synth.scenery.rendered import Parameter, Rendered
from leakdet_tf.synth.scenery.streams import Streams, check_frame, check_share, streams_of
from leakdet_tf.synth.scenery.texture import Image32, draw_noise, smooth, turned, turned_way

CLASSES = ("background", "crack")
LABELS = ("cracked", "non_cracked")
NO_CRACK = 0.5
"""The share of pictures without any crack."""
_SALT = 7102
_STAGES = ("surface", "pose", "light", "tags", "label", "course", "look", "camera", "noise", "photo", *scars.TAGS)
"""Stages with random numbers of their own. A stage's place in this list is part of its seed: do not reorder."""
_BRIGHT = 0.31  # linear level that concrete in daylight is exposed to
_ATTEMPTS = 12
_LEAST_PIXELS = 12
LEAST_CONTRAST = 0.1
"""By how much of the surface's radiance the crack's pixels differ from it on the mean, at least."""


@dataclass(frozen=True)
class Layers:
    """A picture before the camera has seen it.

    Attributes:
        radiance: float32 (H, W, 3), linear.
        crack: bool (H, W), the crack's pixels that nothing hides.
        touched: bool (H, W), where the crack changes the radiance at all.
        gain: exposure, of the surface without its crack.
        camera: what the picture is taken with.
        parameters: everything that was drawn.
    """

    radiance: Image32
    crack: NDArray[np.bool_]
    touched: NDArray[np.bool_]
    gain: float
    camera: Camera
    parameters: dict[str, Parameter]


def render(
    seed: int,
    size: tuple[int, int],
    *,
    backgrounds: str = "",
    no_crack: float = NO_CRACK,
    background_share: Sequence[int] | None = None,
) -> Rendered:
    """Render one picture of ``size`` (height, width) pixels, each 32..2048. The same seed gives the same bytes.

    The label is drawn by itself: nothing else in the picture, nor its exposure, noise or JPEG quality, depends on it.
    Confusers (:mod:`.scars`), whose tags are in the parameter ``confusers``, are as frequent with a
    crack as without.

    The mask is exact: crack is every pixel that the crack covers by half or more, where a crack thinner than a pixel
    and a quarter counts as that wide, and nothing on top hides it. Pieces where it is closed are background. Boxes are
    those of its connected regions.

    Args:
        seed: 0 or more.
        size: (height, width) in pixels.
        backgrounds: a folder of photographs to put cracks on; empty renders concrete, asphalt and paint.
        no_crack: share of the pictures without a crack, 0..1.
        background_share: which of the photographs are this split's; see :func:`~.scenery.photos.draw_piece`.

    Raises:
        DataError: an argument out of range, or a folder without pictures.
        ImageError: a photograph that cannot be decoded.
    """
    layers = compose(seed, size, backgrounds=backgrounds, no_crack=no_crack, background_share=background_share)
    return finish(seed, layers)


def compose(
    seed: int,
    size: tuple[int, int],
    *,
    backgrounds: str = "",
    no_crack: float = NO_CRACK,
    crack: bool = True,
    background_share: Sequence[int] | None = None,
) -> Layers:
    """Everything up to the camera; ``crack=False`` leaves the crack away and changes nothing else."""
    check_frame(seed, size)
    check_share("no_crack", no_crack)
    streams = streams_of(seed, _STAGES, _SALT)
    direction = float(streams("light").uniform(0.0, 2.0 * np.pi))
    toward = (float(np.cos(direction)), float(np.sin(direction)))
    piece = draw_piece(streams("photo"), backgrounds, size, background_share) if backgrounds else None
    color, described = _surface(streams, size, toward, piece)
    tags = scars.draw_tags(streams("tags"))
    pixel = np.float32(1.0 / min(size))
    y, x = (np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32) + np.float32(0.5)) * pixel
    surface = scars.Surface(
        x, y, float(pixel), toward, color, np.zeros(size, np.float32), np.zeros((*size, 3), np.float32)
    )
    for tag in tags:
        scars.put(streams(tag), surface, tag)
    clean = _covered(surface.color, surface)
    camera = draw_camera(streams("camera"), size)
    gain = 1.0 if backgrounds else gain_for(clean, _BRIGHT)
    parameters: dict[str, Parameter] = {"confusers": tags, "light_direction_deg": float(np.rad2deg(direction))}
    parameters |= described | camera.parameters()
    parameters |= {"has_crack": False, "crack_fraction": 0.0, "crack_width_px": 0.0}
    nowhere = np.zeros(size, np.bool_)
    without = Layers(clean, nowhere, nowhere, gain, camera, parameters)
    if float(streams("label").uniform()) < no_crack or not crack:
        return without
    rng = streams("course")
    for _ in range(_ATTEMPTS):
        habit = draw_habit(rng, min(size))
        lines = draw_lines(rng, habit, size)
        mask = truth(lines, size) & (surface.over < 0.5)
        if np.count_nonzero(mask) >= _LEAST_PIXELS:
            break
    else:
        return without
    radiance = _covered(_cracked(streams("look"), surface, lines, mask), surface)
    touched = (radiance != clean).any(axis=2)
    parameters |= {
        "has_crack": True,
        "crack_fraction": float(mask.mean()),
        "crack_width_px": habit.width_px,
        "crack_lines": len(lines),
    }
    return Layers(radiance, mask, touched, gain, camera, parameters)


def finish(seed: int, layers: Layers) -> Rendered:
    """Expose layers with the camera that ``seed`` drew for them."""
    noise = streams_of(seed, _STAGES, _SALT)("noise")
    image = expose(noise, layers.camera, layers.radiance, layers.gain)
    mask = layers.crack.astype(np.uint8)
    label = LABELS[0] if layers.crack.any() else LABELS[1]
    return Rendered(image, mask, layers.parameters, CLASSES, (label,), boxes_of(mask, CLASSES))


def _surface(
    streams: Streams, size: tuple[int, int], toward: tuple[float, float], piece: Piece | None
) -> tuple[Image32, dict[str, Parameter]]:
    """The bare surface's radiance, and what it is."""
    if piece is not None:
        return linear(piece.pixels), {**piece.parameters()}
    rng = streams("pose")
    span, turn = float(rng.uniform(0.11, 0.24)), float(rng.uniform(0.0, 2.0 * np.pi))
    lean, bend = rng.normal(0.0, 0.08, 2), float(rng.uniform(-0.04, 0.1))
    fall, low = rng.normal(0.0, 0.07, 2), float(rng.uniform(0.25, 1.0))
    short = min(size)
    across = ((np.arange(size[1], dtype=np.float32) + 0.5) - size[1] / 2) / short
    down = ((np.arange(size[0], dtype=np.float32) + 0.5) - size[0] / 2) / short
    x, y = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
    far = (1.0 + np.float32(bend) * (x * x + y * y)) / (1.0 - np.float32(lean[0]) * x - np.float32(lean[1]) * y)
    far = np.asarray(far * np.float32(span), np.float32)
    u, v = turned(np.asarray(x * far, np.float32), np.asarray(y * far, np.float32), turn)
    reach = np.asarray(far / np.float32(short), np.float32)
    light = turned_way((low * toward[0], low * toward[1]), turn)
    material = draw_material(streams("surface"), SLABS)
    spot = Spot(np.asarray(u, np.float32), np.asarray(v, np.float32), reach, light)
    skin = material.paint(spot)
    slope = 1.0 + (np.float32(fall[0]) * x + np.float32(fall[1]) * y)
    color = np.clip(skin.color * np.asarray(slope, np.float32)[..., np.newaxis], 0.004, 0.98)
    return np.asarray(color, np.float32), {"material": material.kind, "span_m": span}


def _cracked(rng: np.random.Generator, surface: scars.Surface, lines: list[Line], mask: NDArray[np.bool_]) -> Image32:
    """The surface with its crack: a stain or a bloom along it, broken edges, the dark groove, and its lit edge."""
    size = mask.shape
    short, whole = min(size), (size[0], size[1])
    groove = coverage(lines, whole)
    noise = draw_noise(rng)
    reach = np.full(size, surface.pixel, np.float32)
    cloud = noise.at(surface.x, surface.y, reach, cell=0.12, octaves=4, gain=0.6)
    color = surface.color
    halo, strength = float(rng.uniform(0.008, 0.05)) * short, float(rng.normal(0.0, 0.09))
    near = cv2.GaussianBlur(truth(lines, whole).astype(np.float32), (0, 0), halo)
    share = np.float32(strength) * smooth(near * np.float32(halo), 0.03, 0.45) * smooth(cloud, -0.8, 0.8)
    warm = np.array((0.9, 1.0, 1.1), np.float32)
    color = color * (1.0 - share[..., np.newaxis] * warm)
    if rng.uniform() < 0.35:
        wide = coverage(lines, whole, wider=float(rng.uniform(2.0, 4.0)))
        broken = wide * smooth(cloud + noise.at(surface.x, surface.y, reach, cell=0.02, octaves=2, first=8), 0.5, 1.2)
        color = color * (1.0 + np.float32(rng.uniform(-0.3, 0.15)) * broken[..., np.newaxis])
    lit = _moved(groove, surface.toward, 0.7 + 0.3 * short / 256) * (1.0 - groove)
    color = color * (1.0 + np.float32(rng.uniform(0.02, 0.22)) * lit[..., np.newaxis])
    depth = float(rng.uniform(0.45, 0.93))
    dark = np.float32(depth) * np.clip(np.float32(1.0) + np.float32(0.2) * cloud, 0.3, 1.06) * groove
    tint = np.array((0.97, 1.0, 1.0), np.float32)
    for _ in range(5):
        found = color * (1.0 - np.minimum(dark, np.float32(0.97))[..., np.newaxis] * tint)
        change = float(np.abs(found - surface.color)[mask].mean()) / max(float(surface.color[mask].mean()), 1e-6)
        if not change < LEAST_CONTRAST:
            break
        dark = dark * np.float32(1.35)
    return np.asarray(found, np.float32)


def _moved(field: Image32, toward: tuple[float, float], pixels: float) -> Image32:
    """A field moved away from the light: the far wall of a groove is the one that the light reaches."""
    step = np.array([[1.0, 0.0, -pixels * toward[0]], [0.0, 1.0, -pixels * toward[1]]])
    return np.asarray(cv2.warpAffine(field, step, field.shape[::-1], flags=cv2.INTER_LINEAR), np.float32)


def _covered(color: Image32, surface: scars.Surface) -> Image32:
    """A radiance with what lies on top."""
    return np.asarray(color + surface.over[..., np.newaxis] * (surface.over_color - color), np.float32)
