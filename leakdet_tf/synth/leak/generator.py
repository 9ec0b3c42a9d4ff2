"""Oil and water leaks on floors, walls and pipes of a plant, in colour: the generator ``leak``.

A picture is built in stages, each with random numbers of its own: camera and room, materials, light, confusers, the
label, the spill, the liquid, exposure, noise. So the same seed without its leak is the same picture elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError, did_you_mean
from leakdet_tf.synth.leak import cladding, litter
from leakdet_tf.synth.leak.illumination import Light, draw_light, irradiance, lamp_way, mirrored, reflected
from leakdet_tf.synth.leak.liquid import draw_spill
from leakdet_tf.synth.leak.room import FLOOR, PARTS, PIPE, WALL, Room, View, draw_view, trace
from leakdet_tf.synth.leak.wetting import LIQUIDS, Scene, draw_liquid, wet
from leakdet_tf.synth.scenery.camera import Camera, draw_camera, expose, gain_for, linear
from leakdet_tf.synth.scenery.materials import FLOORS, WALLS, Spot, draw_material
from leakdet_tf.synth.scenery.photos import Piece, draw_piece
from leakdet_tf.synth.scenery.regions import boxes_of, divide
from leakdet_tf.synth.scenery.rendered import Parameter, Rendered
from leakdet_tf.synth.scenery.streams import Streams, check_frame, check_share, streams_of
from leakdet_tf.synth.scenery.texture import Image32

CLASSES = ("background", "oil", "water")
LABELS = ("oil_leak", "water_leak", "no_leak")
NO_LEAK = 1.0 / 3.0
"""The share of pictures without any leak."""
MOST_JOIN, MOST_EXTENT = 0.25, 0.1
"""What ``join`` and ``least_extent`` may be at most: beyond, a picture has one box whatever it shows, or hardly any."""
_SALT = 7101
_STAGES = (
    "view",
    "floor",
    "wall",
    "pipe",
    "light",
    "tags",
    "label",
    "spill",
    "liquid",
    "camera",
    "noise",
    "photo",
    *litter.TAGS,
)
"""Stages with random numbers of their own. A stage's place in this list is part of its seed: do not reorder."""
_ATTEMPTS = 12
_LEAST_PIXELS = 8


@dataclass(frozen=True)
class Layers:
    """A picture before the camera has seen it.

    Attributes:
        radiance: float32 (H, W, 3), linear.
        cover: float32 (H, W), how much of each pixel is wet; 0 where something else hides it.
        touched: bool (H, W), where the leak changes the radiance at all.
        liquid: the liquid's class id, 0 without a leak.
        gain: exposure, of the scene without its leak.
        camera: what the picture is taken with.
        parameters: everything that was drawn.
    """

    radiance: Image32
    cover: Image32
    touched: NDArray[np.bool_]
    liquid: int
    gain: float
    camera: Camera
    parameters: dict[str, Parameter]

    @property
    def mask(self) -> NDArray[np.uint8]:
        """uint8 (H, W): the liquid's id where it covers half of a pixel or more."""
        return np.where(self.cover >= 0.5, np.uint8(self.liquid), np.uint8(0))


def render(
    seed: int,
    size: tuple[int, int],
    *,
    backgrounds: str = "",
    textures: str | Mapping[str, str] = "",
    texture_m: float | Mapping[str, float] = cladding.WIDTH_M,
    liquids: Sequence[str] = LIQUIDS,
    no_leak: float = NO_LEAK,
    join: float = 0.0,
    least_extent: float = 0.0,
    background_share: Sequence[int] | None = None,
) -> Rendered:
    """Render one picture of ``size`` (height, width) pixels, each 32..2048. The same seed gives the same bytes.

    The label is drawn by itself: nothing else in the picture, nor its exposure, noise or JPEG quality, depends on it.
    Confusers (:mod:`.litter`), whose tags are in the parameter ``confusers``, are as frequent with a
    leak as without.

    The mask is exact: oil or water is every pixel whose middle lies inside the liquid's outline (which holds the damp
    edge of a porous floor too) where nothing in front hides it. Boxes are those of its connected regions, or of what
    ``join`` makes of them; a leak without any box of ``least_extent`` still is one by its label and its mask.

    Args:
        seed: 0 or more.
        size: (height, width) in pixels.
        backgrounds: a folder of photographs to put leaks on; empty renders floors, walls and pipes.
        textures: pictures, taken straight from the front, that cover the rendered floors and walls: a folder with
            ``floor`` or ``wall`` in it or both, or a table of the two parts' folders. Not with ``backgrounds``.
        texture_m: how wide what a texture shows is in metres, for both parts or by part; up to
            :data:`~.cladding.MOST_M`.
        liquids: which of ``oil`` and ``water`` leak, equally often.
        no_leak: share of the pictures without a leak, 0..1.
        join: regions share a box where at most this share of the picture's short side lies between them, so that a
            puddle and its splashes are one thing to find; 0..:data:`MOST_JOIN`.
        least_extent: boxes whose extent, the root of width times height, is under this share of the picture's short
            side are to be ignored, grown to it (:func:`~.scenery.regions.divide`): they count neither when
            training nor when scored; 0..:data:`MOST_EXTENT`.
        background_share: which of the photographs or textures are this split's; see
            :func:`~leakdet_tf.synth.scenery.photos.draw_picture`.

    Raises:
        DataError: an argument out of range, or a folder without pictures.
        ImageError: a photograph or texture that cannot be decoded.
    """
    check_share("join", join, most=MOST_JOIN)
    check_share("least_extent", least_extent, most=MOST_EXTENT)
    layers = compose(
        seed,
        size,
        backgrounds=backgrounds,
        textures=textures,
        texture_m=texture_m,
        liquids=liquids,
        no_leak=no_leak,
        background_share=background_share,
    )
    return finish(seed, layers, join=join, least_extent=least_extent)


def compose(
    seed: int,
    size: tuple[int, int],
    *,
    backgrounds: str = "",
    textures: str | Mapping[str, str] = "",
    texture_m: float | Mapping[str, float] = cladding.WIDTH_M,
    liquids: Sequence[str] = LIQUIDS,
    no_leak: float = NO_LEAK,
    leak: bool = True,
    background_share: Sequence[int] | None = None,
) -> Layers:
    """Everything up to the camera; ``leak=False`` leaves the liquid away and changes nothing else."""
    _check(seed, size, liquids, no_leak)
    streams = streams_of(seed, _STAGES, _SALT)
    if backgrounds and textures:
        raise DataError("textures: there is no room to cover on photographs", remedy="drop textures or backgrounds")
    clad = cladding.asked_for(textures, texture_m, background_share)
    piece = draw_piece(streams("photo"), backgrounds, size, background_share) if backgrounds else None
    view = draw_view(streams("view"), size)
    view = view if piece is None else _plain(view)
    room = trace(view, size)
    lamp = draw_light(streams("light"), view.wall)
    tags = litter.draw_tags(streams("tags"))
    scene, over, described = _scene(streams, room, lamp, tags, piece, clad)
    clean = _smoothed(room, _covered(scene.radiance, over, scene.light))
    parameters: dict[str, Parameter] = {"confusers": tags, **_described(view, lamp), **described}
    camera = draw_camera(streams("camera"), size)
    gain = 1.0 if piece is not None else gain_for(clean)
    label, name = _draw_label(streams("label"), liquids, no_leak)
    parameters |= camera.parameters() | {"has_leak": False, "leak_fraction": 0.0, "liquid": "none", "shape": "none"}
    blank = np.zeros(size, np.float32)
    without = Layers(clean, blank, blank > 0, 0, gain, camera, parameters)
    if label == "no_leak" or not leak:
        return without
    liquid = draw_liquid(streams("liquid"), name)
    rng = streams("spill")
    for attempt in range(_ATTEMPTS):
        spill = draw_spill(rng, room, porous=float(scene.porous.mean()), attempt=attempt)
        seen = np.asarray(spill.cover * (over.over < 0.5), np.float32)
        if np.count_nonzero(seen >= 0.5) >= _LEAST_PIXELS:
            break
    else:
        return without
    radiance = _smoothed(room, _covered(wet(scene, spill, liquid), over, scene.light))
    touched = (radiance != clean).any(axis=2)
    fraction = float(np.mean(seen >= 0.5))
    parameters |= {"has_leak": True, "leak_fraction": fraction, "liquid": name, "shape": spill.shape}
    parameters |= liquid.parameters()
    return Layers(radiance, seen, touched, CLASSES.index(name), gain, camera, parameters)


def finish(seed: int, layers: Layers, *, join: float = 0.0, least_extent: float = 0.0) -> Rendered:
    """Expose layers with the camera that ``seed`` drew for them; the rest as in :func:`render`."""
    noise = streams_of(seed, _STAGES, _SALT)("noise")
    image = expose(noise, layers.camera, layers.radiance, layers.gain)
    mask = layers.mask
    label = f"{CLASSES[layers.liquid]}_leak" if layers.liquid else "no_leak"
    short = min(mask.shape)
    boxes, ignored = divide(boxes_of(mask, CLASSES, gap=round(join * short)), least_extent * short, mask.shape)
    return Rendered(image, mask, layers.parameters, CLASSES, (label,), boxes, ignored)


def _check(seed: int, size: tuple[int, int], liquids: Sequence[str], no_leak: float) -> None:
    check_frame(seed, size)
    check_share("no_leak", no_leak)
    if isinstance(liquids, str) or not liquids:
        raise DataError(f"liquids is {liquids!r}", remedy='give a list, such as ["oil", "water"]')
    for name in liquids:
        if name not in LIQUIDS:
            raise DataError(f"liquids: there is no '{name}'", remedy=did_you_mean(str(name), LIQUIDS))


def _draw_label(rng: np.random.Generator, liquids: Sequence[str], no_leak: float) -> tuple[str, str]:
    """The label and the liquid, always with the same two random numbers."""
    chance, which = rng.uniform(size=2)
    name = liquids[int(which * len(liquids))]
    return ("no_leak" if chance < no_leak else f"{name}_leak"), name


def _plain(view: View) -> View:
    """The view of a photograph: all floor, or all wall."""
    if view.kind == "floor":
        return view
    return replace(view, kind="wall", height=1.6, wall=0.8, pitch=0.0, pipe=None)


def _scene(
    streams: Streams,
    room: Room,
    lamp: Light,
    tags: list[str],
    piece: Piece | None,
    clad: Mapping[int, cladding.Textures],
) -> tuple[Scene, litter.Litter, dict[str, Parameter]]:
    """The dry scene with its confusers, but for those that lie on top."""
    described: dict[str, Parameter] = {}
    if piece is None:
        color, gloss, porous, described = _skinned(streams, room, lamp, clad)
    else:
        color = linear(piece.pixels)
        gloss, porous = np.zeros(room.shape, np.float32), np.full(room.shape, 0.7, np.float32)
        described = {**piece.parameters()}
    placed = litter.empty(room, color)
    for tag in tags:
        litter.put(streams(tag), placed, tag)
    if piece is None:
        light = irradiance(lamp, room, placed.shade) * placed.gain[..., np.newaxis]
    else:
        light = np.repeat(((1.0 - np.float32(0.65) * placed.shade) * placed.gain)[..., np.newaxis], 3, axis=2)
    tones = [_tone(placed.color * light, room.part == part) for part in (WALL, PIPE)]
    radiance = placed.color * light + placed.glare
    shine = gloss * (1.0 - placed.dull)
    if shine.any():
        radiance = radiance + _shine(room, lamp, shine, tones[0], tones[1])
    dry = np.asarray(radiance, np.float32)
    scene = Scene(room, lamp, placed.color, light, placed.glare, dry, porous, tones[0], tones[1])
    return scene, placed, described


def _skinned(
    streams: Streams, room: Room, lamp: Light, clad: Mapping[int, cladding.Textures]
) -> tuple[Image32, Image32, Image32, dict[str, Parameter]]:
    """Colour, gloss and pores of everything that is seen, and which materials or textures it is of."""
    color = np.zeros((*room.shape, 3), np.float32)
    gloss, porous = np.zeros(room.shape, np.float32), np.zeros(room.shape, np.float32)
    described: dict[str, Parameter] = {}
    for part, kinds in ((FLOOR, FLOORS), (WALL, WALLS), (PIPE, ("tube",))):
        where = room.part == part
        if not where.any():
            continue
        rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if part in clad:
            texture = clad[part].draw(streams(PARTS[part]), part)
            skin, inside = texture.paint(room, part, window), where[window]
            described |= {PARTS[part]: "texture", **texture.picked.texture_of(PARTS[part])}
        else:
            material = draw_material(streams(PARTS[part]), kinds)
            described[PARTS[part]] = material.kind
            spot = Spot(room.u[window], room.v[window], room.reach[window], _toward(room, lamp, where, part))
            skin, inside = material.paint(spot), where[window]
        np.copyto(color[window], np.clip(skin.color, 0.004, 0.95), where=inside[..., np.newaxis])
        np.copyto(gloss[window], skin.gloss, where=inside)
        porous[where] = skin.porous
    return color, gloss, porous, described


def _toward(room: Room, lamp: Light, where: NDArray[np.bool_], part: int) -> tuple[float, float]:
    """How far the lamp stands to the side of a part of the room, along its u and v."""
    row, column = (int(axis.mean()) for axis in np.nonzero(where))
    point = tuple(axis[row : row + 1, column : column + 1] for axis in room.point)
    (x, y, z), _ = lamp_way(lamp, (point[0], point[1], point[2]))
    side, along, straight = (x, y, z) if part == FLOOR else (x, z, -y)
    lean = max(abs(float(straight[0, 0])), 0.3)
    return (float(np.clip(side[0, 0] / lean, -1.5, 1.5)), float(np.clip(along[0, 0] / lean, -1.5, 1.5)))


def _tone(radiance: Image32, where: NDArray[np.bool_]) -> Image32:
    """float32 (3,): the mean radiance of a part, or a grey where it is not seen."""
    if not where.any():
        return np.full(3, 0.25, np.float32)
    return np.asarray(radiance[where].mean(axis=0), np.float32)


def _shine(room: Room, lamp: Light, gloss: Image32, wall: Image32, pipe: Image32) -> Image32:
    """What dry paint, tiles and metal mirror, blurred as they are: the lamp as a broad spot, and the surroundings."""
    way = reflected(room, 0.0, 0.0)
    toward, _ = lamp_way(lamp, room.point)
    along = np.clip(sum(a * b for a, b in zip(way, toward, strict=True)), 0.0, 1.0)
    broad = np.float32(0.28) * np.exp((np.asarray(along, np.float32) - 1.0) * np.float32(22.0))
    around = mirrored(lamp, room, way, wall, pipe)
    around = cv2.GaussianBlur(np.minimum(around, np.float32(1.5)), (0, 0), 0.012 * min(room.shape) + 0.5)
    share = np.float32(0.05) + np.float32(0.35) * (1.0 - room.facing()) ** 4
    lit = broad[..., np.newaxis] * np.array(lamp.lamp_color, np.float32) + share[..., np.newaxis] * around
    return np.asarray(gloss[..., np.newaxis] * lit, np.float32)


def _covered(radiance: Image32, over: litter.Litter, light: Image32) -> Image32:
    """A radiance with what lies on top of everything."""
    if not over.over.any():
        return radiance
    return np.asarray(radiance + over.over[..., np.newaxis] * (over.over_color * light - radiance), np.float32)


def _smoothed(room: Room, radiance: Image32) -> Image32:
    """A radiance whose pixels along the edges between floor, wall and pipe take a share of their neighbours'."""
    part = room.part
    edge = np.zeros(part.shape, np.bool_)
    for axis in (0, 1):
        differs = np.diff(part, axis=axis) != 0
        edge |= np.pad(differs, [(0, int(axis == 0)), (0, int(axis == 1))])
        edge |= np.pad(differs, [(int(axis == 0), 0), (int(axis == 1), 0)])
    if not edge.any():
        return radiance
    mixed = cv2.GaussianBlur(radiance, (3, 3), 0.7, borderType=cv2.BORDER_REFLECT)
    return np.where(edge[..., np.newaxis], mixed, radiance)


def _described(view: View, lamp: Light) -> dict[str, Parameter]:
    return {
        "view": view.kind,
        "camera_height_m": view.height,
        "pitch_deg": float(np.rad2deg(view.pitch)),
        "yaw_deg": float(np.rad2deg(view.yaw)),
        "roll_deg": float(np.rad2deg(view.roll)),
        "focal": view.focal,
        "distortion": view.distortion,
        "wall_m": view.wall or 0.0,
        "lamp_m": list(lamp.lamp),
        "lamp_color": list(lamp.lamp_color),
        "ambient": lamp.ambient,
    }
