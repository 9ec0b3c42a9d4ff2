"""Which layers a quantized file keeps in float so that its answers hold: as few of the most sensitive as will do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from leakdet_tf.core.errors import ExportError
from leakdet_tf.formats.child import Layer


class Tried(Protocol):
    """A file that was made and measured."""

    @property
    def drop(self) -> float:
        """How far the task's figure fell below the Keras model's; negative where it rose, NaN where it has none."""
        ...

    @property
    def changed(self) -> float:
        """Share of the decisions that are others than the Keras model's: a figure can rise by luck, this cannot."""
        ...

    def told(self) -> dict[str, Any]:
        """Size in bytes, latency and figure as plain data: ``bytes``, ``p50_ms``, and the figure by its name."""
        ...


@dataclass(frozen=True)
class Found:
    """The file that holds, the layers that it keeps in float, and every step on the way as plain data."""

    tried: Any
    kept: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]


def hold(
    attempt: Callable[[tuple[str, ...]], Tried],
    rank: Callable[[], Sequence[Layer]],
    *,
    limit: float,
    changed: float,
    most: float,
    name: str,
    log: Callable[[str], object] = lambda line: None,
) -> Found:
    """Try without float layers; where that does not hold, keep 1, 2, 4, … of the most sensitive.

    When some number holds, those between it and the last that did not are halved until the smallest is found that
    holds (which assumes that more float layers never hurt).

    Args:
        attempt: makes and measures a file with these layers in float.
        rank: gives the layers, most sensitive first; called where the file without any in float does not hold.
        limit: largest drop of the task's figure.
        changed: largest share of the decisions that may be others.
        most: largest share of the layers that may stay in float.
        name: the format's, for messages.
        log: told of each step, a line each.

    Raises:
        ExportError: not even ``most`` of the layers hold it; the message tells of every step.
    """
    steps: list[dict[str, Any]] = []

    def holds(kept: tuple[str, ...], tried: Tried) -> bool:
        steps.append({"kept_float": len(kept), "drop": tried.drop, "changed": tried.changed, **tried.told()})
        log(f"{name}: {_step(steps[-1])}")
        return tried.drop <= limit and tried.changed <= changed

    tried = attempt(())
    if holds((), tried):
        return Found(tried, (), tuple(steps))
    order = tuple(layer.name for layer in rank())
    ceiling = int(most * len(order))
    failed, number, held = 0, min(1, ceiling), None
    while number > failed:
        kept = order[:number]
        tried = attempt(kept)
        if holds(kept, tried):
            held = (number, tried)
            break
        failed, number = number, min(2 * number, ceiling)
    if held is None:
        best = min(steps, key=lambda step: (math.isnan(step["drop"]), max(step["drop"], 0) + step["changed"]))
        got = f"; with {best['kept_float']} of {len(order)} layers in float {_said(best)}" if order else ""
        tries = f"; tried: {', '.join(map(_step, steps))}" if order else ""
        raise ExportError(
            f"{name}: {_said(steps[0])} (limits {100 * limit:g}, {changed:.1%}){got}{tries}",
            remedy="nothing was exported; use float16 or dynamic range, more calibration pictures, or raise "
            "export.max_drop, export.max_turned or export.max_float",
        )
    while held[0] - failed > 1:
        middle = (held[0] + failed) // 2
        tried = attempt(order[:middle])
        if holds(order[:middle], tried):
            held = (middle, tried)
        else:
            failed = middle
    return Found(held[1], order[: held[0]], tuple(steps))


def _said(step: dict[str, Any]) -> str:
    return f"{100 * step['drop']:.2f} points below the Keras model, {step['changed']:.1%} decided otherwise"


def _step(step: dict[str, Any]) -> str:
    return (
        f"{step['kept_float']} layers in float {100 * step['drop']:.2f} points {step['changed']:.1%} "
        f"{step['bytes'] / 1e6:.2f} MB {step['p50_ms']:.1f} ms"
    )
