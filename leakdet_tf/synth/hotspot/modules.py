"""Fields of solar modules from above: how they are laid out, where each pixel lies on them, and how warm they are.

Lengths are metres on the plane of the modules, temperatures kelvin over the mean module. A field is of tables, which
are rows of modules on one frame, side by side with ground between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.rendered import Parameter
from leakdet_tf.synth.scenery.texture import Image32, band, draw_noise, from_lines, smooth, turned

GROUNDS = ("soil", "grass", "roof")
STRINGS = 3
"""Strings of cells in a module, each with a bypass diode of its own; they lie side by side along its length."""
FRAME = 0.03
"""Width of a module's aluminium frame."""
_MARGIN = 0.012  # glass between the frame and the first cell
_LONGEST = 1 << 10  # modules in a table without end
_COLUMN_BITS = 12  # of a module's number

Whole = NDArray[np.int32]


@dataclass(frozen=True)
class Layout:
    """How modules are put up.

    Attributes:
        module: (along, across) the table, metres.
        cells: cells (along, across) in a module.
        rows: modules across a table.
        gap: between two modules.
        aisle: ground between two tables.
        ends: first and last module along a table, and ``tables`` the first and last table; 0 is the picture's middle.
        start: where the picture's middle lies in its module along, and in its table across.
    """

    module: tuple[float, float]
    cells: tuple[int, int]
    rows: int
    gap: float
    aisle: float
    ends: tuple[int, int]
    tables: tuple[int, int]
    start: tuple[float, float]

    @property
    def upright(self) -> bool:
        """Whether the modules' long side lies across the table."""
        return self.module[1] > self.module[0]

    @property
    def depth(self) -> float:
        """A table's extent across."""
        return self.rows * (self.module[1] + self.gap) - self.gap

    @property
    def cell(self) -> tuple[float, float]:
        """A cell's sides (along, across)."""
        border = 2.0 * (FRAME + _MARGIN)
        return (self.module[0] - border) / self.cells[0], (self.module[1] - border) / self.cells[1]


@dataclass(frozen=True)
class Site:
    """Every pixel of a picture on a field; arrays are (H, W), float32 or int32.

    Attributes:
        layout: the field.
        x, y: the pixel's place in short sides of the picture, from its middle.
        u, v: along and across the tables; ``reach``, what a pixel spans.
        a, b: from the middle of the nearest module, along and across.
        inside: how far inside that module, and ``within``, inside its table; negative outside.
        beyond: how far past the table's middle across it.
        module: that module's number, the same for all its pixels and for no other's.
        cell: the cell's row and column in the module; out of range on frames and outside.
    """

    layout: Layout
    x: Image32
    y: Image32
    u: Image32
    v: Image32
    reach: Image32
    a: Image32
    b: Image32
    inside: Image32
    within: Image32
    beyond: Image32
    module: Whole
    cell: tuple[Whole, Whole]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.x.shape[0], self.x.shape[1]

    def each(self, values: Image32) -> Image32:
        """float32 (H, W): a value for each module, out of ``values`` (1024,)."""
        return np.asarray(values[((self.module >> _COLUMN_BITS) * 37 + self.module) & 1023], np.float32)

    @property
    def glass(self) -> Image32:
        """float32 (H, W): how much of a pixel is on a module."""
        return np.asarray(np.clip(self.inside / self.reach + np.float32(0.5), 0.0, 1.0), np.float32)

    @property
    def bare(self) -> Image32:
        """float32 (H, W): how much of a pixel is ground."""
        return np.asarray(np.clip(np.float32(0.5) - self.within / self.reach, 0.0, 1.0), np.float32)


def draw_layout(rng: np.random.Generator, span: float) -> Layout:
    """Modules of 60 or 72 cells, upright or lying, in tables of one to four rows; ``span`` is what the picture sees."""
    length, upright = int(rng.choice((10, 12))), bool(rng.uniform() < 0.5)
    side = float(rng.uniform(0.154, 0.182))
    border = 2.0 * (FRAME + _MARGIN)
    short, long = 6 * side + border, length * side + border
    module, cells = ((short, long), (6, length)) if upright else ((long, short), (length, 6))
    rows = int(rng.choice((1, 2, 3, 4), p=(0.2, 0.4, 0.2, 0.2)))
    gap, aisle = float(rng.uniform(0.015, 0.035)), float(rng.uniform(0.5, 3.6))
    cut = rng.uniform(size=4) < (0.22, 0.22, 0.15, 0.15)
    far = rng.uniform(0.15, 0.6, 2) * span / module[0]
    ends = (-int(far[0]) if cut[0] else -_LONGEST, int(far[1]) if cut[1] else _LONGEST)
    tables = (0 if cut[2] else -_LONGEST, 0 if cut[3] else _LONGEST)
    depth = rows * (module[1] + gap) - gap
    start = (float(rng.uniform(0.0, module[0])), float(rng.uniform(0.12, 0.88)) * depth)
    return Layout(module, cells, rows, gap, aisle, ends, tables, start)


def draw_site(rng: np.random.Generator, size: tuple[int, int], span: float, layout: Layout) -> Site:
    """A drone's view of a field, turned and leaning, ``span`` metres to the picture's short side."""
    short, long = min(size), max(size)
    turn = float(rng.choice((0.0, 0.5, 1.0, 1.5)) * np.pi + rng.normal(0.0, 0.22))
    way, lean = float(rng.uniform(0.0, 2.0 * np.pi)), float(rng.uniform(0.0, 0.75)) * short / long
    bend = float(rng.uniform(-0.05, 0.1)) * (short / long) ** 2
    across = ((np.arange(size[1], dtype=np.float32) + 0.5) - size[1] / 2) / short
    down = ((np.arange(size[0], dtype=np.float32) + 0.5) - size[0] / 2) / short
    x, y = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
    tilt = 1.0 - np.float32(lean * np.cos(way)) * x - np.float32(lean * np.sin(way)) * y
    far = np.asarray((1.0 + np.float32(bend) * (x * x + y * y)) / tilt * np.float32(span), np.float32)
    u, v = turned(np.asarray(x * far, np.float32), np.asarray(y * far, np.float32), turn)
    return _site(layout, (x, y), (u, v), np.asarray(far / np.float32(short), np.float32))


def _site(layout: Layout, xy: tuple[Image32, Image32], uv: tuple[Image32, Image32], reach: Image32) -> Site:
    u, v = uv
    wide, high = layout.module
    period, pitch = wide + layout.gap, layout.depth + layout.aisle
    along, across = u + np.float32(layout.start[0]), v + np.float32(layout.start[1])
    column, a = _nearest(along, wide, period, layout.ends)
    table, beyond = _nearest(across, layout.depth, pitch, layout.tables)
    row, b = _nearest(beyond + np.float32(layout.depth / 2), high, high + layout.gap, (0, layout.rows - 1))
    past = np.asarray(np.float32(wide / 2) - np.abs(a), np.float32)
    inside = np.minimum(past, np.float32(high / 2) - np.abs(b))
    # Along a table the gap between two modules is no ground: only what lies past its last module is.
    first = along - np.float32(layout.ends[0] * period)
    last = np.float32(layout.ends[1] * period + wide) - along
    within = np.minimum(np.minimum(first, last), np.float32(layout.depth / 2) - np.abs(beyond))
    border = FRAME + _MARGIN
    cells = tuple(
        np.floor((place + np.float32(side / 2 - border)) / np.float32(cell)).astype(np.int32)
        for place, side, cell in ((b, high, layout.cell[1]), (a, wide, layout.cell[0]))
    )
    line = np.asarray(table * np.float32(layout.rows) + row, np.int32)
    number = (line << _COLUMN_BITS) + (column.astype(np.int32) + _LONGEST)
    return Site(
        layout,
        *xy,
        u,
        v,
        reach,
        a,
        b,
        np.asarray(inside, np.float32),
        np.asarray(within, np.float32),
        beyond,
        number,
        (cells[0], cells[1]),
    )


def _nearest(place: Image32, side: float, period: float, limits: tuple[int, int]) -> tuple[Image32, Image32]:
    """The nearest of equal things of a ``side`` that stand every ``period``: its number, and how far its middle is."""
    number = np.clip(np.rint((place - np.float32(side / 2)) / np.float32(period)), *limits)
    return np.asarray(number, np.float32), np.asarray(
        place - np.float32(side / 2) - number * np.float32(period), np.float32
    )


def temperature(rng: np.random.Generator, site: Site) -> tuple[Image32, dict[str, Parameter]]:
    """float32 (H, W): how warm a field without faults is, in kelvin over its modules' mean, and what was drawn."""
    layout = site.layout
    noise = draw_noise(rng)
    apart, patchy, tilt = rng.uniform(0.1, 0.9), rng.uniform(0.02, 0.16), rng.normal(0.0, 1.0, 2)
    columns, rows = layout.cells
    modules = np.float32(apart) * rng.standard_normal(1024).astype(np.float32)
    strings = np.float32(rng.uniform(0.03, 0.35)) * rng.standard_normal((64, STRINGS, 1)).astype(np.float32)
    if layout.upright:
        string = np.repeat(strings.transpose(0, 2, 1), columns // STRINGS, axis=2)
    else:
        string = np.repeat(strings, rows // STRINGS, axis=1)
    cells = string + np.float32(patchy) * rng.standard_normal((64, rows, columns)).astype(np.float32)
    down, right = (np.clip(one, 0, last - 1) for one, last in zip(site.cell, (rows, columns), strict=True))
    own = (((site.module >> _COLUMN_BITS) * 7 + site.module) & 63) * np.int32(rows * columns)
    heat = site.each(modules) + cells.ravel()[own + down * np.int32(columns) + right]
    heat = heat + np.float32(tilt[0] / layout.module[0]) * site.a + np.float32(tilt[1] / layout.module[1]) * site.b
    rim = float(rng.normal(-0.8, 1.0))
    heat = heat + np.float32(rim) * np.exp(np.maximum(site.inside, 0.0) * np.float32(-18.0))
    cloudy = float(rng.uniform(0.05, 0.5))
    heat = heat + np.float32(cloudy) * noise.at(site.u, site.v, site.reach, cell=0.9, octaves=1, first=12)
    grid = float(rng.uniform(0.1, 1.2))
    heat = heat - np.float32(grid) * _grid(site)
    cold, share = float(rng.uniform(2.0, 9.0)), float(rng.uniform(0.1, 0.6))
    frame = np.clip((np.float32(FRAME) - site.inside) / site.reach + np.float32(0.5), 0.0, 1.0)
    heat = heat - np.float32(share * cold) * frame - np.float32((1.0 - share) * cold) * (np.float32(1.0) - site.glass)
    heat = heat - np.float32(rng.uniform(0.0, 9.0)) * _clamps(site)
    slope = rng.normal(0.0, 1.6, 2)
    bare = site.bare
    described: dict[str, Parameter] = {"ground": "none", "ground_k": 0.0}
    if bare.any():
        ground, described = _ground(rng, site)
        heat = heat + bare * (ground - heat)
    heat = heat + np.float32(slope[0]) * site.x + np.float32(slope[1]) * site.y
    return np.asarray(heat, np.float32), described | {"frame_k": cold, "between_modules_k": float(apart)}


def _grid(site: Site) -> Image32:
    """float32 (H, W): how much of a pixel is the seam between two cells."""
    seams = np.zeros(site.shape, np.float32)
    for place, side, cell in zip((site.a, site.b), site.layout.module, site.layout.cell, strict=True):
        distance = from_lines(place + np.float32(side / 2 - FRAME - _MARGIN), cell)
        seams = np.maximum(seams, band(distance, 0.003, site.reach))
    return seams


def _clamps(site: Site) -> Image32:
    """float32 (H, W): the clamps that hold a module by its long sides, two pairs to each."""
    wide, high = site.layout.module
    along, across, length, width = (site.b, site.a, high, wide) if site.layout.upright else (site.a, site.b, wide, high)
    middle = np.abs(np.abs(along) - np.float32(0.27 * length))
    pair = np.abs(middle - np.float32(0.022))
    near = band(np.asarray(np.abs(across) - np.float32(width / 2), np.float32), 0.025, site.reach)
    return np.asarray(band(pair, 0.014, site.reach) * near * (np.float32(1.0) - site.bare), np.float32)


def _ground(rng: np.random.Generator, site: Site) -> tuple[Image32, dict[str, Parameter]]:
    """How warm soil, grass or a roof is, with the tables' shadow on it."""
    kind = str(rng.choice(GROUNDS))
    noise = draw_noise(rng)
    mean, rough = float(rng.normal(-4.0, 6.0)), float(rng.uniform(1.0, 5.5))
    shaded, width = float(rng.uniform(2.0, 14.0)), float(rng.uniform(0.2, 1.2))
    side = np.float32(rng.choice((-1.0, 1.0)))
    lines = float(rng.uniform(0.6, 1.6))
    if kind == "roof":
        heat = np.float32(0.35 * rough) * noise.at(site.u, site.v, site.reach, cell=1.2, octaves=3, gain=0.55)
        heat = heat - np.float32(0.8 * rough) * band(from_lines(site.u, lines), 0.02, site.reach)
    elif kind == "grass":
        heat = np.float32(rough) * noise.at(site.u, site.v, site.reach, cell=0.3, octaves=4, gain=1.0)
    else:
        heat = np.float32(rough) * noise.at(site.u, site.v, site.reach, cell=1.1, octaves=5, gain=0.9)
    if rng.uniform() < 0.7:
        past = np.abs(site.beyond) - np.float32(site.layout.depth / 2)
        shadow = smooth(np.asarray(np.float32(width) - past, np.float32), -0.04, 0.04) * (site.beyond * side > 0)
        heat = heat * (1.0 - np.float32(0.6) * shadow) - np.float32(shaded) * shadow
    return np.asarray(heat + np.float32(mean), np.float32), {"ground": kind, "ground_k": mean}
