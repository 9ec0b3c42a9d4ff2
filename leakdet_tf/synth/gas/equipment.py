"""The plant itself: pipes, tanks and machines, each painted with the details that show in the infrared.

Everything painted here is of the class ``machine``: motors, pumps, compressors, coolers, cabinets, tanks, vessels, and
also the pipes between them with their flanges, valves and posts, because gas can leak from all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from leakdet_tf.synth.gas.canvas import Canvas, cylinder, graded
from leakdet_tf.synth.scenery.noise import fractal


@dataclass(frozen=True)
class Place:
    """Where a machine stands: the middle of its foot and its size in scene units, its radiance, its hot parts'."""

    x: float
    foot: float
    width: float
    height: float
    tone: float
    hot: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        return self.foot - self.height


def _tank(canvas: Canvas, rng: np.random.Generator, at: Place) -> None:
    """An upright tank: domed roof, hoops, and a liquid whose level shows through the shell."""
    lean, dome = float(rng.uniform(-0.08, 0.08)), at.width * float(rng.uniform(0.1, 0.22))
    relief = float(rng.uniform(0.1, 0.22))
    canvas.ellipse(at.left, at.top, at.right, at.top + 2 * dome, cylinder(at.tone - 0.06, relief, lean, across=True))
    canvas.box(at.left, at.top + dome, at.right, at.foot, cylinder(at.tone, relief, lean, across=True))
    level = at.top + dome + (at.height - dome) * float(rng.uniform(0.2, 0.75))
    wet = float(rng.uniform(-0.09, 0.12))
    canvas.box(at.left, level, at.right, at.foot, cylinder(at.tone + wet, relief, lean, across=True))
    for hoop in np.linspace(at.top + dome, at.foot, int(rng.integers(3, 6)))[:-1]:
        shade = cylinder(at.tone + 0.05, relief, lean, across=True)
        canvas.box(at.left, hoop - 0.004, at.right, hoop + 0.004, shade)
    nozzle = at.width * 0.07
    canvas.box(at.x - nozzle, at.top - nozzle, at.x + nozzle, at.top + dome * 0.4, graded(at.tone + 0.1, -0.04, 0.0))
    canvas.box(at.x - 1.7 * nozzle, at.top - 1.3 * nozzle, at.x + 1.7 * nozzle, at.top - 0.6 * nozzle, at.tone - 0.07)
    rail = at.right - at.width * float(rng.uniform(0.2, 0.35))  # a ladder
    for side in (0.0, 0.1 * at.width):
        canvas.box(rail + side, at.top + dome, rail + side + 0.004, at.foot, at.tone - 0.1)
    canvas.leak_points += [(at.x, at.top - nozzle), (at.left + 0.1 * at.width, at.foot - 0.1 * at.height)]


def _vessel(canvas: Canvas, rng: np.random.Generator, at: Place) -> None:
    """A lying pressure vessel on two saddles."""
    body = at.height * 0.7
    cap, lean, relief = body * 0.3, float(rng.uniform(0.03, 0.12)), float(rng.uniform(0.1, 0.2))
    for share in (0.2, 0.8):
        foot = at.left + share * at.width
        canvas.box(foot - 0.05 * at.width, at.foot - 0.4 * at.height, foot + 0.05 * at.width, at.foot, at.tone - 0.13)
    skin = cylinder(at.tone, relief, lean, across=False)
    canvas.ellipse(at.left, at.top, at.left + 2 * cap, at.top + body, skin)
    canvas.ellipse(at.right - 2 * cap, at.top, at.right, at.top + body, skin)
    canvas.box(at.left + cap, at.top, at.right - cap, at.top + body, skin)
    seam = cylinder(at.tone + 0.06, relief, lean, across=False)
    for share in (0.0, 0.5, 1.0):
        middle = at.left + cap + share * (at.width - 2 * cap)
        canvas.box(middle - 0.004, at.top, middle + 0.004, at.top + body, seam)
    nozzle = at.left + float(rng.uniform(0.3, 0.7)) * at.width
    canvas.box(nozzle - 0.05 * body, at.top - 0.2 * body, nozzle + 0.05 * body, at.top + 0.05 * body, at.tone + 0.08)
    canvas.box(nozzle - 0.1 * body, at.top - 0.22 * body, nozzle + 0.1 * body, at.top - 0.12 * body, at.tone - 0.05)
    canvas.leak_points += [(nozzle, at.top - 0.15 * body), (at.right - cap, at.top + 0.8 * body)]


def _motor(canvas: Canvas, rng: np.random.Generator, at: Place) -> None:
    """A finned electric motor that drives a pump: warm body, hot bearing, fan cowl, coupling and volute."""
    body, left = at.height * 0.62, at.left
    top = at.top + 0.15 * at.height
    canvas.box(left, at.foot - 0.12 * at.height, at.right, at.foot, graded(at.tone - 0.14, 0.02, -0.05))
    split, warm = left + at.width * 0.58, at.tone + 0.5 * (at.hot - at.tone)
    for share in (0.12, 0.42):
        canvas.box(left + share * at.width, top + body * 0.8, left + (share + 0.07) * at.width, at.foot, at.tone - 0.16)
    canvas.box(left, top, split, top + body, cylinder(warm, 0.12, 0.05, across=False))
    fins = canvas.stripes(warm - 0.02, 0.06, int(rng.integers(6, 11)), body * 0.86, across=False)
    canvas.box(left + 0.12 * at.width, top + 0.06 * body, split - 0.03 * at.width, top + 0.94 * body, fins)
    canvas.box(left, top + 0.04 * body, left + 0.1 * at.width, top + 0.96 * body, graded(warm - 0.12, 0.03, 0.02))
    terminal = left + at.width * 0.25
    canvas.box(terminal, top - 0.14 * at.height, terminal + at.width * 0.16, top + 0.05 * body, at.tone - 0.03)
    shaft = top + body / 2
    canvas.box(split, shaft - 0.09 * body, split + at.width * 0.2, shaft + 0.09 * body, graded(at.hot, 0.0, -0.06))
    bell = at.right - at.width * 0.3
    canvas.ellipse(
        bell, top + 0.02 * body, at.right, at.foot - 0.08 * at.height, cylinder(at.tone, 0.1, 0.05, across=False)
    )
    canvas.ellipse(
        bell + 0.09 * at.width, top + 0.25 * body, at.right - 0.09 * at.width, top + 0.8 * body, at.tone - 0.07
    )
    canvas.box(
        bell + 0.1 * at.width, at.top, bell + 0.2 * at.width, top + 0.2 * body, graded(at.tone + 0.05, -0.05, 0.0)
    )
    canvas.box(bell + 0.06 * at.width, at.top, bell + 0.24 * at.width, at.top + 0.06 * at.height, at.tone - 0.05)
    canvas.leak_points += [(bell + 0.15 * at.width, at.top), (bell, shaft)]


def _compressor(canvas: Canvas, rng: np.random.Generator, at: Place) -> None:
    """A skid with a crankcase, hot cylinder heads and an exhaust stack."""
    canvas.box(at.left, at.foot - 0.08 * at.height, at.right, at.foot, at.tone - 0.15)
    top = at.foot - 0.55 * at.height
    side = 0.1 * at.width
    canvas.box(at.left, top, at.right - side, at.foot - 0.08 * at.height, graded(at.tone, 0.03, 0.05))
    canvas.box(
        at.right - side, top, at.right, at.foot - 0.08 * at.height, graded(at.tone - 0.1, -0.02, 0.03), shear=-0.03
    )
    count = int(rng.integers(2, 5))
    step = (at.width - side) / count
    for index in range(count):
        left = at.left + (index + 0.18) * step
        right = left + 0.64 * step
        canvas.box(
            left,
            at.foot - 0.8 * at.height,
            right,
            top,
            canvas.stripes(at.hot - 0.1, 0.06, 4, 0.25 * at.height, across=False),
        )
        canvas.box(
            left - 0.08 * step, at.foot - 0.84 * at.height, right + 0.08 * step, at.foot - 0.78 * at.height, at.hot
        )
        canvas.ellipse(
            left,
            top + 0.12 * at.height,
            right,
            top + 0.12 * at.height + 0.64 * step,
            graded(at.tone - 0.07, 0.02, 0.03),
        )
    stack = at.left + float(rng.uniform(0.1, 0.8)) * at.width
    canvas.box(stack, at.top, stack + 0.09 * at.width, top, cylinder(at.hot + 0.04, 0.12, 0.03, across=True))
    canvas.leak_points += [(at.left + 0.5 * step, at.foot - 0.82 * at.height), (at.right - side, top + 0.1 * at.height)]


def _cabinet(canvas: Canvas, rng: np.random.Generator, at: Place) -> None:
    """A housing with a top and a side that are seen at an angle, louvres, and a warm grille."""
    side, lid = 0.16 * at.width, 0.06 * at.height
    face = at.right - side
    canvas.box(at.left, at.top + lid, face, at.foot, graded(at.tone, float(rng.uniform(-0.03, 0.03)), 0.03))
    canvas.box(face, at.top + lid, at.right, at.foot, graded(at.tone - 0.09, -0.02, 0.02), shear=-0.3 * side)
    canvas.box(at.left, at.top, at.right - 0.5 * side, at.top + lid, at.tone - 0.13)
    inset = 0.1 * at.width
    louvres = canvas.stripes(at.tone + 0.02, 0.05, int(rng.integers(5, 9)), 0.3 * at.height, across=False)
    canvas.box(at.left + inset, at.top + 0.16 * at.height, face - inset, at.top + 0.46 * at.height, louvres)
    middle = (at.left + face) / 2
    canvas.box(middle - 0.003, at.top + lid, middle + 0.003, at.foot, at.tone - 0.07)
    grille = canvas.stripes(at.hot - 0.06, 0.06, int(rng.integers(4, 8)), 0.35 * at.width, across=True)
    canvas.box(at.left + inset, at.foot - 0.34 * at.height, middle - 0.4 * inset, at.foot - 0.12 * at.height, grille)
    canvas.leak_points += [(face, at.top + 0.3 * at.height), (at.left + 2 * inset, at.top + lid)]


def _cooler(canvas: Canvas, rng: np.random.Generator, at: Place) -> None:
    """A fin-fan cooler: a warm finned core on legs with fans in front of it."""
    legs = at.foot - 0.25 * at.height
    for share in (0.05, 0.5, 0.95):
        leg = at.left + share * at.width
        canvas.box(leg - 0.02 * at.width, legs, leg + 0.02 * at.width, at.foot, at.tone - 0.14)
    canvas.box(at.left, at.top, at.right, legs, graded(at.tone, 0.02, 0.04))
    core = canvas.stripes(at.hot - 0.12, 0.04, 16, 0.92 * at.width, across=True)
    canvas.box(
        at.left + 0.04 * at.width, at.top + 0.08 * at.height, at.right - 0.04 * at.width, legs - 0.06 * at.height, core
    )
    count = int(rng.integers(1, 4))
    radius = min(0.3 * at.height, 0.42 * at.width / count)
    middle = (at.top + legs) / 2
    for index in range(count):
        fan = at.left + (index + 0.5) / count * at.width
        canvas.ellipse(fan - radius, middle - radius, fan + radius, middle + radius, at.tone - 0.05, hole=0.82)
        for hand in (0.3, 1.0):
            canvas.box(
                fan - hand * radius * 0.9,
                middle - 0.05 * radius / hand,
                fan + hand * radius * 0.9,
                middle + 0.05 * radius / hand,
                at.tone - 0.08,
            )
        canvas.ellipse(
            fan - 0.25 * radius, middle - 0.25 * radius, fan + 0.25 * radius, middle + 0.25 * radius, at.tone + 0.04
        )
    canvas.leak_points += [(at.left + 0.02 * at.width, at.top + 0.2 * at.height), (at.right, legs - 0.1 * at.height)]


MACHINES: dict[str, tuple[Callable[[Canvas, np.random.Generator, Place], None], float, float]] = {
    # painter, width over height, usual height over the others'
    "tank": (_tank, 0.62, 1.5),
    "vessel": (_vessel, 2.2, 0.75),
    "motor": (_motor, 1.8, 0.7),
    "compressor": (_compressor, 1.25, 1.0),
    "cabinet": (_cabinet, 0.9, 1.0),
    "cooler": (_cooler, 1.5, 1.0),
}


def machines(canvas: Canvas, rng: np.random.Generator, floor: float, scale: float = 1.0) -> list[tuple[str, Place]]:
    """Paint one to four machines side by side, the far ones first; returns kinds and places from left to right.

    ``floor`` is where the ground starts, as a fraction of the height; feet stand at or below it. ``scale`` is the
    machines' size over the usual one.
    """
    count = int(rng.choice((1, 2, 3, 4), p=(0.22, 0.38, 0.28, 0.12)))
    kinds = [str(kind) for kind in rng.choice(tuple(MACHINES), size=count)]
    size = scale * float(rng.uniform(0.24, 0.5)) * (1.25 - 0.12 * count)
    warm = float(rng.uniform(0.42, 0.62))
    shade = float(rng.uniform(0.02, 0.09))
    edges = np.linspace(0.0, 1.0, count + 1)
    places: list[tuple[float, str, Place]] = []
    for index, kind in enumerate(kinds):
        _, wide, tall = MACHINES[kind]
        spot = float(rng.uniform(edges[index] + 0.25 / count, edges[index + 1] - 0.25 / count))
        lowest = 0.97 if floor else 0.92
        foot = float(rng.uniform(floor + 0.02, lowest) if floor else rng.uniform(0.5, lowest))
        near = 0.8 + 0.5 * (foot - floor) / max(1.0 - floor, 1e-3) if floor else 0.6 + 0.5 * foot
        high = size * tall * near * float(rng.uniform(0.85, 1.2))
        tone = warm + float(rng.normal(0.0, 0.05))
        hot = tone + float(rng.uniform(0.1, 0.34))
        at = Place(
            spot * canvas.width, foot * canvas.height, high * wide * float(rng.uniform(0.85, 1.2)), high, tone, hot
        )
        places.append((foot, kind, at))
    for _, kind, at in sorted(places, key=lambda item: item[0]):
        canvas.shadow(at.left, at.foot - 0.05 * at.height, at.right, at.foot + 0.07 * at.height, shade)
        tone, hot = canvas.coat(at.tone, at.hot)
        MACHINES[kind][0](canvas, rng, replace(at, tone=tone, hot=hot))
    return [(kind, at) for _, kind, at in places]


def _flange(canvas: Canvas, x: float, y: float, radius: float, tone: float, *, upright: bool) -> None:
    """A bolted joint across a pipe that runs up (``upright``) or along; the pair of discs has a gap between them."""
    long, short = 1.6 * radius, 0.5 * radius
    half_w, half_h = (long, short) if upright else (short, long)
    canvas.box(x - half_w, y - half_h, x + half_w, y + half_h, cylinder(tone + 0.05, 0.12, 0.03, across=upright))
    gap_w, gap_h = (long, 0.08 * radius) if upright else (0.08 * radius, long)
    canvas.box(x - gap_w, y - gap_h, x + gap_w, y + gap_h, tone - 0.12)
    canvas.leak_points.append((x, y))


def _valve(canvas: Canvas, x: float, y: float, radius: float, tone: float) -> None:
    """A gate valve on a pipe that runs along: body, stem, and a hand wheel seen at an angle."""
    canvas.ellipse(
        x - 1.7 * radius,
        y - 1.5 * radius,
        x + 1.7 * radius,
        y + 1.5 * radius,
        cylinder(tone + 0.04, 0.12, 0.04, across=False),
    )
    canvas.box(x - 0.3 * radius, y - 4.0 * radius, x + 0.3 * radius, y - radius, tone - 0.05)
    canvas.ellipse(x - 1.9 * radius, y - 4.5 * radius, x + 1.9 * radius, y - 3.5 * radius, tone - 0.1, hole=0.55)
    canvas.leak_points.append((x, y - 1.8 * radius))


def vent(canvas: Canvas, rng: np.random.Generator) -> tuple[float, float]:
    """Paint an upright vent pipe with a cap, which is no leak point; returns its mouth as (x, y) in short sides."""
    x, top = float(rng.uniform(0.08, 0.92)) * canvas.width, float(rng.uniform(0.3, 0.75)) * canvas.height
    radius, high = float(rng.uniform(0.012, 0.024)), float(rng.uniform(0.12, 0.3))
    tone, hot = canvas.coat(0.55, 0.75)
    canvas.box(x - radius, top, x + radius, top + high, cylinder(tone, 0.16, 0.04, across=True))
    canvas.box(x - 1.5 * radius, top, x + 1.5 * radius, top + 0.5 * radius, cylinder(hot, 0.1, 0.03, across=True))
    return canvas.to_picture(x, top - 0.3 * radius)


def pipes(canvas: Canvas, rng: np.random.Generator, floor: float, scale: float = 1.0) -> int:
    """Paint a rack of pipes along the picture and risers up from it, with posts, flanges and valves.

    Returns the number of pipes; it may be none. ``scale`` is their bore over the usual one.
    """
    along = int(rng.choice((0, 1, 2, 3), p=(0.14, 0.36, 0.32, 0.18)))
    upright = int(rng.choice((0, 1, 2), p=(0.3, 0.45, 0.25)))
    width, height = canvas.width, canvas.height
    level = float(rng.uniform(0.15, 0.8)) * height
    start = -0.1 if rng.uniform() < 0.7 else float(rng.uniform(0.0, 0.3)) * width
    end = width + 0.1 if rng.uniform() < 0.7 else float(rng.uniform(0.7, 1.0)) * width
    tones = np.clip(rng.normal(0.5, 0.07, size=along + upright), 0.3, 0.75)
    radii = scale * rng.uniform(0.010, 0.034, size=along + upright)
    if along + upright:  # one coat of paint for all of them
        tones = tones + (canvas.coat(0.5, 0.5)[0] - 0.5)
    if along and floor:
        for share in rng.uniform(0.05, 0.95, size=int(rng.integers(1, 4))):
            post = start + float(share) * (end - start)
            foot = max(floor * height + 0.08, level + 0.12)
            canvas.box(post - 0.01, level, post + 0.01, foot, graded(0.38, 0.03, 0.02))
            canvas.box(post - 0.025, foot - 0.012, post + 0.025, foot, 0.36)
    for index in range(upright):
        x, radius, tone = float(rng.uniform(0.05, 0.95)) * width, float(radii[index]), float(tones[index])
        top = -0.1 if rng.uniform() < 0.5 or not along else level
        bottom = min(height + 0.1, max(level, floor * height) + float(rng.uniform(0.05, 0.3)))
        canvas.box(
            x - radius, top, x + radius, bottom, cylinder(tone, 0.16, float(rng.uniform(-0.06, 0.06)), across=True)
        )
        for share in rng.uniform(0.15, 0.9, size=int(rng.integers(1, 3))):
            _flange(canvas, x, max(top, 0.0) + float(share) * (bottom - max(top, 0.0)), radius, tone, upright=True)
        _flange(canvas, x, bottom, radius, tone, upright=True)
    y = level
    for index in range(upright, along + upright):
        radius, tone = float(radii[index]), float(tones[index])
        canvas.box(
            start, y - radius, end, y + radius, cylinder(tone, 0.16, float(rng.uniform(0.03, 0.1)), across=False)
        )
        for share in rng.uniform(0.08, 0.92, size=int(rng.integers(1, 4))):
            _flange(canvas, start + float(share) * (end - start), y, radius, tone, upright=False)
        for stop in (start, end):  # a blind flange closes a pipe that ends in view
            _flange(canvas, stop, y, radius, tone, upright=False)
        if rng.uniform() < 0.5:
            _valve(canvas, float(rng.uniform(0.1, 0.9)) * width, y, radius, tone)
        y += radius + float(rng.uniform(0.03, 0.08))
    return along + upright


def weather(canvas: Canvas, rng: np.random.Generator) -> None:
    """Stain what has been painted with slow blotches and fine grime, as on old paint and bare steel."""
    shape = (canvas.radiance.shape[0], canvas.radiance.shape[1])
    stain = 0.016 * fractal(rng, shape, (5, 5), 2) + 0.01 * fractal(rng, shape, (24, 24), 2, 0.8)
    canvas.radiance += stain * canvas.machine
    np.clip(canvas.radiance, 0.0, 1.0, out=canvas.radiance)
