"""The pointing game, hand-worked: what counts as a hit, what chance would get, and what is said of both."""

from __future__ import annotations

import numpy as np
import pytest

from leakdet_tf.analysis.explain.pointing import Pointed, lines, peak, point, summary
from leakdet_tf.core.errors import ContractError, DataError


def hot(row: int, column: int, shape: tuple[int, int] = (100, 100)) -> np.ndarray:
    heat = np.zeros(shape, np.float32)
    heat[row, column] = 1
    return heat


def spot(row: int, column: int, shape: tuple[int, int] = (100, 100)) -> np.ndarray:
    return hot(row, column, shape) > 0


@pytest.mark.parametrize(
    ("row", "column", "hit"), [(10, 10, True), (10, 15, True), (10, 16, False), (13, 14, True), (14, 14, False)]
)
def test_the_tolerance_is_a_disc_whose_rim_counts(row: int, column: int, hit: bool) -> None:
    assert point(hot(row, column), spot(10, 10), tolerance=5).hit is hit


@pytest.mark.parametrize(("shape", "reach"), [((224, 224), 15), ((448, 600), 30), ((300, 224), 15), ((56, 80), 3)])
def test_the_default_tolerance_follows_the_shorter_side(shape: tuple[int, int], reach: int) -> None:
    mask = spot(20, 20, shape)
    assert point(hot(20, 20 + reach, shape), mask).hit
    assert not point(hot(20, 21 + reach, shape), mask).hit


def test_chance_is_what_all_possible_points_get() -> None:
    generator = np.random.default_rng(0)
    mask = np.zeros((12, 15), np.bool_)
    mask[2:4, 3:9] = mask[9, 13] = True
    found = point(generator.random((12, 15), np.float32), mask, tolerance=2)
    every = [point(hot(row, column, (12, 15)), mask, tolerance=2).hit for row in range(12) for column in range(15)]
    assert found.chance == pytest.approx(np.mean(every))
    assert found.area == pytest.approx(13 / 180)
    assert point(hot(0, 0), spot(50, 50), tolerance=1).chance == pytest.approx(5 / 10000)


def test_the_picture_s_middle_is_judged_like_the_maximum() -> None:
    assert point(hot(0, 0), spot(50, 53), tolerance=3).centre
    assert not point(hot(0, 0), spot(50, 54), tolerance=3).centre


def test_heat_inside_is_a_share_of_all_heat() -> None:
    heat, mask = np.zeros((10, 10), np.float32), np.zeros((10, 10), np.bool_)
    heat[2, 2], heat[8, 8], mask[:5] = 1, 0.25, True
    assert point(heat, mask).inside == pytest.approx(0.8)
    assert point(np.ones((10, 10), np.float32), mask).inside == pytest.approx(mask.mean())


def test_a_map_without_heat_is_a_miss_even_where_everything_would_hit() -> None:
    found = point(np.zeros((10, 10), np.float32), np.ones((10, 10), np.bool_))
    assert (found.hit, found.inside, found.chance) == (False, None, 1)
    assert peak(np.zeros((3, 3), np.float32)) is None


def test_the_maximum_of_a_plateau_is_its_middle() -> None:
    heat = np.full((20, 20), 0.5, np.float32)
    heat[:5, :7] = 1
    assert peak(heat) == (2, 3)
    heat[:5, :7] = 0.5
    heat[3, 4] = heat[3, 18] = 1
    assert peak(heat) in {(3, 4), (3, 18)}


def test_shapes_and_empty_masks_are_refused() -> None:
    with pytest.raises(ContractError, match="cannot be compared"):
        point(hot(1, 1), spot(1, 1, (99, 100)))
    with pytest.raises(DataError, match="nothing to point at"):
        point(hot(1, 1), np.zeros((100, 100), np.bool_))


def game(hits: int, misses: int, chance: float, centre: bool = False) -> list[Pointed]:
    return [Pointed(number < hits, chance, centre, 0.5, 0.2) for number in range(hits + misses)]


def test_a_rate_stands_beside_chance_and_middle() -> None:
    found = summary([*game(24, 16, 0.55)])
    assert found["pointing"] == pytest.approx({"hits": 24, "rate": 0.6, "low": 0.4460, "high": 0.7365}, abs=1e-4)
    assert (found["chance"], found["centre"]["rate"]) == (pytest.approx(0.55), 0)
    assert (found["inside"], found["area"], found["without_heat"]) == (0.5, pytest.approx(0.2), 0)
    text = lines(found)
    assert text[0].startswith(
        "pointing: 60.0% [44.6%, 73.7%], 24 of 40; a random point 55.0%, the picture's middle 0.0%"
    )
    assert text[0].endswith("not shown to be better than both")
    assert text[1] == "heat inside the mask: 50.0%; even heat would have 20.0%"


def test_better_is_said_only_when_the_interval_lies_above_both() -> None:
    assert lines(summary(game(24, 16, 0.40)))[0].endswith(": better than both")
    assert lines(summary(game(24, 16, 0.45)))[0].endswith("not shown to be better than both")
    assert lines(summary(game(24, 16, 0.40, centre=True)))[0].endswith("not shown to be better than both")


def test_means_leave_out_what_has_no_heat_but_hits_do_not() -> None:
    found = summary([Pointed(True, 0.2, True, 0.9, 0.1), Pointed(False, 0.4, False, None, 0.3)], confidence=0.9)
    assert (found["pointing"]["rate"], found["inside"], found["without_heat"]) == (0.5, 0.9, 1)
    assert (found["chance"], found["area"], found["confidence"]) == (pytest.approx(0.3), pytest.approx(0.2), 0.9)
    assert lines(found)[-1] == "1 without any heat, counted as misses"
    none = summary([Pointed(False, 0.4, False, None, 0.3)])
    assert none["inside"] is None
    assert len(lines(none)) == 2


def test_no_pictures_give_no_figures() -> None:
    found = summary([])
    assert (found["pointing"]["rate"], found["pointing"]["low"], found["chance"]) == (None, None, None)
    assert lines(found) == ["pointing: no picture to count"]
