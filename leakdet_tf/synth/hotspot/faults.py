"""What is wrong with solar modules and shows in the infrared: hot cells, hot spots in a cell, strings of cells off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.hotspot.modules import STRINGS, Site
from leakdet_tf.synth.scenery.texture import Image32

LEAST_SIDE = 6.0 / 256.0
"""A fault's box is as wide and high as this share of the picture's short side, at least, unless told otherwise."""
CONTRAST = (3.0, 30.0)
"""By how many kelvin a hot cell is warmer than it would be."""
STRING_CONTRAST = (3.0, 10.0)
"""By how many kelvin a string of cells is warmer whose diode leads the current past it."""
_LEAST_SPOT = 6.0  # kelvin, of a spot that is warmest in its middle
_COUNTS = (0.36, 0.27, 0.18, 0.12, 0.07)  # shares of the pictures with faults that hold 1, 2, ...
_ATTEMPTS = 24
_SLOPE = 0.3  # of a hot cell's warmth from its middle to its edge, at most
_APART = 2  # pixels between two faults

Kind = Literal["hotspot", "diode"]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: ``hotspot`` or ``diode``.
        where: bool (H, W), its pixels: one connected region.
        rise: float32 (H, W), kelvin; before heat spreads.
        contrast: kelvin, of its body.
    """

    kind: Kind
    where: NDArray[np.bool_]
    rise: Image32
    contrast: float


def draw_faults(
    rng: np.random.Generator, site: Site, diodes: float, least_k: float, least_side: float = LEAST_SIDE
) -> list[Fault]:
    """One to five faults that do not touch, each with the chance ``diodes`` to be a string; none where none fits.

    No contrast is below ``least_k`` (kelvin), so that all can be seen in the range that the camera shows, and no box
    has a side below ``least_side`` of the picture's short one.
    """
    count = 1 + int(rng.choice(len(_COUNTS), p=_COUNTS))
    taken = np.zeros(site.shape, np.uint8)
    found: list[Fault] = []
    for _ in range(count):
        for _ in range(_ATTEMPTS):
            fault = _draw(rng, site, diodes, least_k, max(least_side * min(site.shape), 2.0))
            if fault is not None and not (taken != 0)[fault.where].any():
                found.append(fault)
                near = cv2.dilate(fault.where.astype(np.uint8), np.ones((2 * _APART + 1, 2 * _APART + 1), np.uint8))
                taken |= np.asarray(near, np.uint8)
                break
    return found


def spread(rng: np.random.Generator, site: Site, faults: list[Fault]) -> Image32:
    """float32 (H, W): kelvin that faults add, after their heat has spread over a few centimetres of glass."""
    rise = np.zeros(site.shape, np.float32)
    length = float(rng.uniform(0.004, 0.02))
    for fault in faults:
        pixels = length / float(site.reach[fault.where].mean())
        if pixels > 0.2:
            rise += cv2.GaussianBlur(fault.rise, (0, 0), pixels, borderType=cv2.BORDER_REPLICATE)
        else:
            rise += fault.rise
    return rise


def _draw(rng: np.random.Generator, site: Site, diodes: float, least_k: float, least: float) -> Fault | None:
    """A fault at a random pixel, or None where there is no cell or its box would have a side under ``least`` pixels."""
    place, kind_of, shape_of = rng.uniform(size=2), rng.uniform(), rng.uniform()
    y, x = int(place[0] * site.shape[0]), int(place[1] * site.shape[1])
    columns, rows = site.layout.cells
    row, column = int(site.cell[0][y, x]), int(site.cell[1][y, x])
    if not (0 <= row < rows and 0 <= column < columns):
        return None
    pixels = min(site.layout.cell) / float(site.reach[y, x])
    if kind_of < diodes:
        heat, contrast = _strings(rng, site, (row, column), least_k)
    elif pixels > 2.5 * least and shape_of < 0.35:
        return _spot(rng, site, (y, x), least, least_k)
    else:
        heat, contrast = _cells(rng, site, (row, column), int(np.ceil(1.1 * least / pixels)), least_k)
    on = (site.module == site.module[y, x]) & (site.cell[0] >= 0) & (site.cell[0] < rows)
    on &= (site.cell[1] >= 0) & (site.cell[1] < columns)
    rise = np.zeros(site.shape, np.float32)
    rise[on] = heat[site.cell[0][on], site.cell[1][on]]
    where = rise > 0
    if kind_of >= diodes:
        way, slope = rng.uniform(0.0, 2.0 * np.pi), float(rng.uniform(0.0, _SLOPE))
        a, b = site.a - site.a[y, x], site.b - site.b[y, x]
        uphill = (np.float32(np.cos(way)) * a + np.float32(np.sin(way)) * b) / np.float32(0.5 * min(site.layout.cell))
        rise *= 1.0 + np.float32(slope) * np.clip(uphill, -1.0, 1.0)
    return Fault("diode" if kind_of < diodes else "hotspot", where, rise, contrast) if fits(where, least) else None


def _strings(rng: np.random.Generator, site: Site, cell: tuple[int, int], least_k: float) -> tuple[Image32, float]:
    """Kelvin by cell where one, two or all strings of a module are off, and their contrast."""
    columns, rows = site.layout.cells
    upright = site.layout.upright
    here = cell[1] * STRINGS // columns if upright else cell[0] * STRINGS // rows
    count = int(rng.choice((1, 2, 3), p=(0.72, 0.18, 0.1)))
    first = min(max(here - int(rng.integers(count)), 0), STRINGS - count)
    contrast, patchy = _contrast(rng, STRING_CONTRAST, least_k), float(rng.uniform(0.0, 0.15))
    number = np.arange(columns) * STRINGS // columns if upright else np.arange(rows) * STRINGS // rows
    off = ((number >= first) & (number < first + count)).astype(np.float32)
    heat = np.broadcast_to(off if upright else off[:, np.newaxis], (rows, columns))
    uneven = np.clip(1.0 + patchy * rng.standard_normal((rows, columns)), 0.7, 1.3).astype(np.float32)
    return np.asarray(heat * uneven * np.float32(contrast), np.float32), contrast


def _cells(
    rng: np.random.Generator, site: Site, cell: tuple[int, int], side: int, least_k: float
) -> tuple[Image32, float]:
    """Kelvin by cell of a square of ``side`` cells from ``cell`` on and a few that touch it, and their contrast."""
    columns, rows = site.layout.cells
    top, left = max(min(cell[0], rows - side), 0), max(min(cell[1], columns - side), 0)
    hot = np.zeros((rows, columns), np.bool_)
    hot[top : top + side, left : left + side] = True
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.62, 0.2, 0.12, 0.06)))):
        beside = cv2.dilate(hot.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        free = np.argwhere((beside != 0) & ~hot)
        if len(free):
            hot[tuple(free[int(rng.integers(len(free)))])] = True
    contrast = _contrast(rng, CONTRAST, least_k)
    uneven = rng.uniform(0.85, 1.1, (rows, columns)).astype(np.float32)
    return np.asarray(hot * uneven * np.float32(contrast), np.float32), contrast


def _spot(rng: np.random.Generator, site: Site, at: tuple[int, int], least: float, least_k: float) -> Fault | None:
    """A spot inside one cell, an ellipse with a soft edge: its pixels are those of half its contrast or more."""
    contrast, turn, aspect = (
        _contrast(rng, CONTRAST, max(least_k, _LEAST_SPOT)),
        rng.uniform(0.0, np.pi),
        rng.uniform(1.0, 1.8),
    )
    radius = float(rng.uniform(0.2, 0.42)) * min(site.layout.cell)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    a, b = site.a - site.a[at], site.b - site.b[at]
    along, across = (cos * a + sin * b) / np.float32(aspect), cos * b - sin * a
    shape = np.exp(np.float32(-np.log(2.0)) * np.square((np.square(along) + np.square(across)) / np.float32(radius**2)))
    on = (site.module == site.module[at]) & (site.inside > 0)
    rise = np.asarray(np.where(on, np.float32(contrast) * shape, np.float32(0.0)), np.float32)
    where = rise >= np.float32(0.5 * contrast)
    return Fault("hotspot", where, rise, contrast) if fits(where, least) else None


def _contrast(rng: np.random.Generator, bounds: tuple[float, float], least_k: float) -> float:
    low = max(bounds[0], least_k)
    return float(np.exp(rng.uniform(np.log(low), np.log(max(bounds[1], 1.5 * low)))))


def fits(where: NDArray[np.bool_], least: float) -> bool:
    """Whether pixels are one connected region whose box has sides of ``least`` pixels or more."""
    pixels = where.astype(np.uint8)
    x, y, width, height = cv2.boundingRect(pixels)
    if min(width, height) < least:
        return False
    count, _ = cv2.connectedComponents(np.ascontiguousarray(pixels[y : y + height, x : x + width]), connectivity=8)
    return bool(count == 2)
