"""The plant without gas: backdrop, equipment and what the camera's automatic gain makes of it, in either look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.gas.backdrop import Backdrop
from leakdet_tf.synth.gas.canvas import Canvas
from leakdet_tf.synth.gas.daylight import daylight
from leakdet_tf.synth.gas.equipment import Place, machines, pipes, vent, weather
from leakdet_tf.synth.gas.light import View
from leakdet_tf.synth.scenery.noise import Field

Streams = Callable[[str], np.random.Generator]
"""Random numbers of its own for every stage, by name."""


@dataclass(frozen=True)
class Scene:
    """A plant, seen through the air between it and the camera.

    Attributes:
        light: float64 (H, W, C), radiance 0..1; C is 1 in the infrared and 3 by daylight.
        machine: bool (H, W), where equipment was painted.
        leak_points: joints in view, as (x, y) in short sides of the picture; its middle if there are none.
        mouth: where the vent pipe ends, in the same way; None without one.
        places: the machines, in short sides of the picture.
        floor: where the ground starts, as a fraction of the height; 0 for a scene seen from above.
        kinds: the machines', from left to right.
        pipes: how many there are.
    """

    light: Field
    machine: NDArray[np.bool_]
    leak_points: list[tuple[float, float]]
    mouth: tuple[float, float] | None
    places: list[Place]
    floor: float
    kinds: list[str]
    pipes: int


def build(streams: Streams, empty: Backdrop, view: View, *, infrared: bool, vented: bool) -> Scene:
    """Put equipment into an empty scene; ``vented`` adds a vent pipe."""
    base, colors = (empty.radiance.copy(), None) if infrared else daylight(streams("colors"), empty)
    canvas = Canvas(base, slope=empty.slope, roll=empty.roll, daylight=colors)
    scale = float(np.clip((25.0 / view.distance_m) ** 0.2, 0.7, 1.25))  # plants far away look smaller, if not by much
    mouth = vent(canvas, streams("vent")) if vented else None
    rng = streams("equipment")
    in_front = rng.uniform() < 0.4
    count = 0 if in_front else pipes(canvas, rng, empty.floor, scale)
    placed = machines(canvas, rng, empty.floor, scale)
    count += pipes(canvas, rng, empty.floor, scale) if in_front else 0
    weather(canvas, rng)
    light = _auto_gain(streams("gain"), canvas.radiance)[:, :, np.newaxis]
    if colors is not None:
        haze = np.array([0.78, 0.81, 0.85])
        light = np.clip(light * colors.hue, 0.0, 1.0)
        light = haze + view.transmission * (light - haze)
    places = []
    for _, at in placed:
        x, foot = canvas.to_picture(at.x, at.foot)
        places.append(replace(at, x=x, foot=foot))
    kinds = [kind for kind, _ in placed]
    return Scene(light, canvas.machine, _in_view(canvas), mouth, places, empty.floor, kinds, count)


def _in_view(canvas: Canvas) -> list[tuple[float, float]]:
    margin = 0.06
    places = [canvas.to_picture(x, y) for x, y in canvas.leak_points]
    in_view = [(x, y) for x, y in places if margin < x < canvas.width - margin and margin < y < canvas.height - margin]
    return in_view or [(canvas.width / 2, canvas.height / 2)]


def _auto_gain(rng: np.random.Generator, clean: Field) -> Field:
    """Stretch the scene's range over most of the grey levels, as a camera's automatic gain or exposure does."""
    darkest, brightest = float(rng.uniform(0.1, 0.26)), float(rng.uniform(0.7, 0.9))
    low, high = (float(value) for value in np.quantile(clean, (0.01, 0.99)))
    gain = min(max((brightest - darkest) / (high - low + 1e-6), 0.8), 2.0)
    middle = (darkest + brightest) / 2
    return np.clip(middle + gain * (clean - (low + high) / 2), 0.0, 1.0)
