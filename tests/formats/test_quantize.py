"""The search for layers that stay in float: no more than it takes, and a clear end where nothing helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from leakdet_tf.core.errors import ExportError
from leakdet_tf.formats.child import Layer
from leakdet_tf.formats.quantize import hold

LAYERS = [Layer(f"layer{i}", 1.0 / (i + 1)) for i in range(40)]


@dataclass(frozen=True)
class Made:
    drop: float
    changed: float = 0.0

    def told(self) -> dict[str, Any]:
        return {"bytes": 1234567, "p50_ms": 4.25}


def falling(needed: int, calls: list[tuple[str, ...]]) -> Callable[[tuple[str, ...]], Made]:
    def attempt(keep: tuple[str, ...]) -> Made:
        calls.append(keep)
        return Made(0.0 if len(keep) >= needed else 0.1 - 0.001 * len(keep))

    return attempt


@pytest.mark.parametrize("needed", [0, 1, 2, 3, 5, 7, 8, 9, 20])
def test_the_fewest_of_the_most_sensitive_layers_stay_in_float(needed: int) -> None:
    calls: list[tuple[str, ...]] = []
    lines: list[str] = []
    found = hold(falling(needed, calls), lambda: LAYERS, limit=0.01, changed=0.05, most=0.5, name="x", log=lines.append)
    assert lines[0].startswith("x: 0 layers in float ")
    assert [int(line.split()[1]) for line in lines] == [len(keep) for keep in calls]
    assert all(line.endswith(" points 0.0% 1.23 MB 4.2 ms") for line in lines)
    assert found.kept == tuple(layer.name for layer in LAYERS[:needed])
    assert found.tried.drop == 0.0
    assert [step["kept_float"] for step in found.steps] == [len(keep) for keep in calls]
    assert all(step["bytes"] == 1234567 for step in found.steps)
    assert len(calls) <= 11
    assert len(set(calls)) == len(calls), "no file is made twice"


def test_a_file_that_holds_needs_no_ranking() -> None:
    def rank() -> list[Layer]:
        raise AssertionError("it takes minutes")

    assert hold(falling(0, []), rank, limit=0.01, changed=0.05, most=0.5, name="x").kept == ()


@pytest.mark.parametrize(("needed", "most", "reached"), [(21, 0.5, 20), (11, 0.25, 10), (1, 0.0, 0)])
def test_where_nothing_helps_it_says_how_far_it_got(needed: int, most: float, reached: int) -> None:
    calls: list[tuple[str, ...]] = []
    with pytest.raises(
        ExportError, match=rf"x: 10\.00 points .*limits 1, 5\.0%\); with {reached} of 40 layers in float"
    ) as caught:
        hold(falling(needed, calls), lambda: LAYERS, limit=0.01, changed=0.05, most=most, name="x")
    assert max(map(len, calls)) == reached
    tries = str(caught.value).partition("; tried: ")[2].partition(";")[0].split(", ")
    assert tries[0] == "0 layers in float 10.00 points 0.0% 1.23 MB 4.2 ms"
    assert [int(one.split()[0]) for one in tries] == [len(keep) for keep in calls]
    assert "\n" not in str(caught.value)


def test_a_drop_that_is_no_number_does_not_hold() -> None:
    with pytest.raises(ExportError, match="x: nan points"):
        hold(lambda keep: Made(float("nan")), lambda: LAYERS, limit=1.0, changed=1.0, most=0.5, name="x")


def test_a_file_whose_layers_are_not_quantized_is_tried_once() -> None:
    with pytest.raises(
        ExportError,
        match=r"x: 20\.00 points below the Keras model, 0\.0% decided otherwise \(limits 1, 5\.0%\); nothing",
    ):
        hold(lambda keep: Made(0.2), list, limit=0.01, changed=0.05, most=0.5, name="x")


def test_a_figure_that_holds_by_luck_does_not_hide_other_decisions() -> None:
    def attempt(keep: tuple[str, ...]) -> Made:
        return Made(-0.08, 0.33 if len(keep) < 3 else 0.02)

    assert len(hold(attempt, lambda: LAYERS, limit=0.01, changed=0.05, most=0.5, name="x").kept) == 3
    with pytest.raises(ExportError, match=r"x: -8\.00 points below the Keras model, 33\.0% decided otherwise"):
        hold(attempt, lambda: LAYERS, limit=0.01, changed=0.05, most=0.05, name="x")
    with pytest.raises(ExportError, match="nan% decided"):
        hold(lambda keep: Made(0.0, float("nan")), lambda: LAYERS, limit=1.0, changed=1.0, most=0.5, name="x")
