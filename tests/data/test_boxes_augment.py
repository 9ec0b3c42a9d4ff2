"""Boxes move as the pixels under them do, through every change; what is hardly left of them goes, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.data import Augment
from leakdet_tf.core.boxes import areas
from leakdet_tf.data.augmentation import training_key
from leakdet_tf.data.augmentation_boxes import (
    LEAST_PX,
    LEAST_SHARE,
    augment_boxes,
    augment_boxes_alone,
    visible,
)
from leakdet_tf.data.mosaic import MOST, blended, changed_picture, mosaic_of, rows

Array = np.ndarray[Any, Any]
NONE = {"flip_horizontal": 0.0, "flip_vertical": 0.0, "brightness": 0.0, "contrast": 0.0, "chance": 1.0}
FLIPS = {"flip_horizontal": 0.5, "flip_vertical": 0.5}
MOVES = {
    "flips": FLIPS,
    "shift": {"shift": 0.6},
    "scale": {"scale": 0.9},
    "rotation": {"rotation": 180.0},
    "crop": {"crop": 0.7},
    "all": {"shift": 0.3, "scale": 0.5, "rotation": 30.0, "crop": 0.4, **FLIPS},
}
SIZE = (96, 128)
APART = 1.5
"""Pixels by which a box may miss the pixels that were painted in it, at most."""


def strengths(**given: float) -> Augment:
    return Augment.model_validate(NONE | given)


def box(x1: float, y1: float, x2: float, y2: float, label: float = 0, ignored: float = 0) -> Array:
    return np.array([[x1, y1, x2, y2, label, ignored]], np.float32)


def painted(boxes: Array, fine: int = 1) -> Array:
    """Red boxes on black, uint8 (H, W, 3), ``fine`` times as large; edges are whole pixels."""
    image = np.zeros((SIZE[0] * fine, SIZE[1] * fine, 3), np.uint8)
    for x1, y1, x2, y2 in (fine * boxes[:, :4]).astype(int):
        image[y1:y2, x1:x2, 0] = 255
    return image


def lit(image: Array) -> Array:
    """Where it is red, bool (H, W): a third is enough, so that the tips of turned boxes count."""
    return np.asarray(image[..., 0].astype(int) - image[..., 1] > 85)


def extent(image: Array) -> Array | None:
    """Edges of what is painted, or None where nothing is."""
    seen = lit(image)
    if not seen.any():
        return None
    down, across = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return np.array([across[0], down[0], across[-1] + 1, down[-1] + 1], np.float64)


def chance_box(random: np.random.Generator, size: tuple[int, int] = SIZE, most: int = 50) -> Array:
    wide, high = random.integers(8, most, 2)
    x, y = random.integers(0, size[1] - wide + 1), random.integers(0, size[0] - high + 1)
    return box(x, y, x + wide, y + high, random.integers(0, 3), random.integers(0, 2))


def agree(image: Array, found: Array, given: Array, scale: float = 1.0) -> bool:
    """Assert that what is left of one box is around what is painted; tell whether it was left."""
    seen, fine = extent(image), image.shape[0] // SIZE[0]
    if len(found):
        if given[0, 5] and min(found[0, 2:4] - found[0, :2]) < 1:
            return True  # too little is left to be painted
        assert seen is not None
        seen /= fine
        assert np.abs(found[0, :4] - seen).max() <= APART, (found, seen)
        assert list(found[0, 4:]) == list(given[0, 4:])
        assert (found[0, :4] >= 0).all() and found[0, 2] <= SIZE[1] and found[0, 3] <= SIZE[0]
        return True
    if seen is not None:
        assert not given[0, 5] or min(seen[2:] - seen[:2]) <= APART * fine
        left = float(lit(image).sum()) / fine**2
        low = min(seen[2] - seen[0], seen[3] - seen[1]) / fine
        assert low <= LEAST_PX + APART or left <= 1.5 * LEAST_SHARE * scale * float(areas(given[:, :4])[0]) + 20
    return False


@pytest.mark.parametrize("name", MOVES)
def test_a_box_stays_around_its_pixels(name: str) -> None:
    random, left = np.random.default_rng(7), 0
    for index in range(120):
        given = chance_box(random)
        key = training_key(3, epoch=1, index=index)
        images = {"i": painted(given, 4)}  # where the frame cuts a turned box the rest may be finer than a pixel
        changed, found = augment_boxes(images, given, strengths(**MOVES[name]), size=SIZE, key=key)
        assert found.dtype == np.float32 and found.shape[1:] == (6,)
        left += agree(changed["i"], found, given, 4.0)
    assert left >= 60


@pytest.mark.parametrize("name", ["flip_horizontal", "flip_vertical", "shift", "scale", "rotation", "crop"])
@pytest.mark.parametrize("point", [0.0, 1.0])
def test_one_change_alone_moves_boxes_too(name: str, point: float) -> None:
    given = box(50, 40, 80, 60, 1)
    settings = strengths(**{name: 1.0 if "flip" in name else 20.0 if name == "rotation" else 0.3})
    changed, found = augment_boxes_alone({"i": painted(given)}, given, settings, name, size=SIZE, point=point)
    assert agree(changed["i"], found, given)


def test_a_second_input_of_another_size_moves_along() -> None:
    given = box(40, 30, 90, 60)
    images = {"i": painted(given), "fine": painted(given, 3)}
    left = 0
    for index in range(20):
        key = training_key(1, epoch=0, index=index)
        changed, found = augment_boxes(images, given, strengths(shift=0.3, scale=0.5, **FLIPS), size=SIZE, key=key)
        left += agree(changed["i"], found, given) and agree(changed["fine"], found, given)
        parts = [({"fine": painted(given, 3)}, given)] + [({"fine": painted(given[:0], 3)}, given[:0])] * 3
        changed, found = mosaic_of(parts, SIZE, np.random.default_rng(index))
        left += agree(changed["fine"], found, given, 2.25)
    assert left >= 20


def test_what_is_seen_of_a_turned_box_is_boxed_and_no_more() -> None:
    diamond = np.array([[[-10, 0], [0, -10], [10, 0], [0, 10]]], np.float64)
    assert visible(diamond, (40, 40)).tolist() == [[0, 0, 10, 10]]
    assert visible(diamond + 10, (40, 40)).tolist() == [[0, 0, 20, 20]]
    assert visible(diamond + np.array([-5, 20]), (40, 40)).tolist() == [[0, 15, 5, 25]]
    assert visible(diamond - 20, (40, 40)).tolist() == [[0, 0, 0, 0]]
    assert visible(diamond - 7, (40, 40)).tolist() == [[0, 0, 0, 0]]  # its own box reaches into the frame, it does not
    assert visible(100 * diamond, (40, 30)).tolist() == [[0, 0, 30, 40]]


def test_beyond_the_picture_there_is_grey_and_not_its_mirror() -> None:
    given = box(0, 0, 30, 96)
    settings = strengths(shift=1.0)
    changed, found = augment_boxes_alone({"i": painted(given)}, given, settings, "shift", size=SIZE, point=0.9)
    assert (changed["i"][:60, :90] == 114).all()
    assert len(found) == 0 or agree(changed["i"], found, given)
    wide = np.full((*SIZE, 1), 1000, np.uint16)
    wide[0, 0] = 1510
    changed, _ = augment_boxes_alone({"i": wide}, given, settings, "shift", size=SIZE, point=0.9)
    assert (changed["i"][:60, :90] == 1000 + 228).all()


def test_what_is_hardly_left_goes_and_small_ones_that_are_whole_stay() -> None:
    given = np.concatenate([box(1, 50, 41, 70), box(60, 50, 61, 51), box(80, 10, 100, 30), box(13, 80, 17, 84)])
    settings = strengths(shift=30 / 128)
    _, found = augment_boxes_alone({"i": painted(given)}, given, settings, "shift", size=SIZE, point=0.0)
    assert found[:, 2].tolist() == [11, 31, 70]
    assert found[0, 0] == 0
    settings = strengths(shift=38.5 / 128)  # 2.5 of 40 px are left of the first: enough pixels, less than a tenth
    _, found = augment_boxes_alone({"i": painted(given)}, given, settings, "shift", size=SIZE, point=0.0)
    assert found[:, 2].tolist() == [22.5]


@pytest.mark.parametrize("gone", [38.5, 39.5, 41.5])
def test_what_is_to_be_ignored_stays_so_while_any_of_it_is_left(gone: float) -> None:
    given = np.concatenate([box(1, 50, 41, 70), box(1, 60, 41, 90, 0, 1)])
    settings = strengths(shift=gone / 128)
    _, found = augment_boxes_alone({"i": painted(given)}, given, settings, "shift", size=SIZE, point=0.0)
    left, up = 41 - gone, gone * 96 / 128
    np.testing.assert_allclose(
        found, box(0, 60 - up, left, 90 - up, 0, 1) if left > 0 else box(*[0] * 4)[:0], atol=1e-4
    )


def test_a_picture_without_boxes_stays_one() -> None:
    nothing = np.zeros((0, 6), np.float32)
    settings = strengths(mosaic=1.0, mixup=1.0, **MOVES["all"])
    image = np.full((*SIZE, 3), 9, np.uint8)
    for index in range(10):
        _, found = changed_picture(
            lambda place: ({"i": image}, nothing), [1, 1], settings, size=SIZE, seed=0, epoch=0, index=index % 2
        )
        assert found.shape == (0, 6) and found.dtype == np.float32


@pytest.mark.parametrize("part", range(4))
def test_a_mosaic_cuts_pictures_and_boxes_at_the_same_place(part: int) -> None:
    random, left = np.random.default_rng(part), 0
    nothing = np.zeros((0, 6), np.float32)
    for seed in range(80):
        given = chance_box(random)
        parts = [({"i": np.zeros((*SIZE, 3), np.uint8)}, nothing)] * 4
        parts[part] = ({"i": painted(given)}, given)
        changed, found = mosaic_of(parts, SIZE, np.random.default_rng(seed))
        assert changed["i"].shape == (*SIZE, 3) and changed["i"].dtype == np.uint8
        left += agree(changed["i"], found, given, 2.25)
        if len(found):
            x, y = found[0, [0, 2]].mean(), found[0, [1, 3]].mean()
            assert (x < 0.75 * SIZE[1]) if part % 2 == 0 else (x > 0.25 * SIZE[1])
            assert (y < 0.75 * SIZE[0]) if part // 2 == 0 else (y > 0.25 * SIZE[0])
    assert left >= 20


def test_a_mosaic_shows_all_four_and_grey_where_they_do_not_reach() -> None:
    parts = [({"i": np.full((*SIZE, 3), 200 + n, np.uint8)}, np.zeros((0, 6), np.float32)) for n in range(4)]
    seen: set[int] = set()
    for seed in range(30):
        changed, _ = mosaic_of(parts, SIZE, np.random.default_rng(seed))
        values = set(np.unique(changed["i"]).tolist())
        assert values <= {114, 200, 201, 202, 203} and {200, 201, 202, 203} <= values
        seen |= values
    assert 114 in seen


def pictures(count: int = 6) -> list[tuple[dict[str, Array], Array]]:
    random = np.random.default_rng(5)
    made = []
    for number in range(count):
        own = np.concatenate([chance_box(random, most=30) for _ in range(number % 4)] or [np.zeros((0, 6), np.float32)])
        made.append(({"i": painted(own)}, own))
    return made


def test_a_mosaic_that_is_changed_further_still_agrees() -> None:
    nothing = np.zeros((0, 6), np.float32)
    split = [({"i": painted(nothing, 4)}, nothing)] * 5
    settings = strengths(mosaic=1.0, shift=0.1, scale=0.3, rotation=15.0, **FLIPS)
    random, left = np.random.default_rng(0), 0
    for epoch in range(80):
        given = chance_box(random)
        split[0] = ({"i": painted(given, 4)}, given)
        often = [0.0, 1, 1, 1, 1]  # the others are never the first once more
        changed, found = changed_picture(split.__getitem__, often, settings, size=SIZE, seed=2, epoch=epoch, index=0)
        left += agree(changed["i"], found, given, 4.0)
    assert left >= 20


def test_mixup_blends_two_pictures_and_keeps_the_boxes_of_both() -> None:
    first, second = box(10, 10, 40, 40, 0), box(60, 50, 100, 80, 1, 1)
    images, found = blended(({"i": painted(first)}, first), ({"i": painted(second)}, second), 0.6)
    assert found.tolist() == [*first.tolist(), *second.tolist()]
    assert (images["i"][20, 20, 0], images["i"][60, 80, 0], images["i"][0, 0, 0]) == (153, 102, 0)


def test_mixup_draws_its_ratio_around_a_half() -> None:
    white, black = np.full((*SIZE, 3), 255, np.uint8), np.zeros((*SIZE, 3), np.uint8)
    split = [({"i": white}, box(1, 1, 9, 9)), ({"i": black}, box(20, 20, 40, 40, 1))]
    values = []
    for epoch in range(200):
        changed, found = changed_picture(
            split.__getitem__, [0.0, 1.0], strengths(mixup=1.0), size=SIZE, seed=0, epoch=epoch, index=0
        )
        assert found[:, 4].tolist() == [0, 1]
        values.append(float(changed["i"].mean()) / 255)
    assert 0.48 <= np.mean(values) <= 0.52
    assert 0.05 <= np.std(values) <= 0.075  # of Beta(32, 32): 0.062


def test_a_picture_is_a_function_of_where_it_comes() -> None:
    split, settings = pictures(), strengths(mosaic=0.6, mixup=0.5, noise=0.1, **MOVES["all"])
    before = [image["i"].copy() for image, _ in split]

    def made(**place: int) -> tuple[Array, Array]:
        where = {"seed": 1, "epoch": 2, "index": 3, "copy": 0} | place
        changed, found = changed_picture(split.__getitem__, [1.0] * 6, settings, size=SIZE, **where)  # type: ignore[arg-type]
        return changed["i"], found

    first = made()
    again = made()
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    for other in ({"seed": 2}, {"epoch": 3}, {"index": 4}, {"copy": 1}):
        assert not np.array_equal(first[0], made(**other)[0])
    assert all(np.array_equal(image["i"], kept) for (image, _), kept in zip(split, before, strict=True))


def test_without_composition_a_picture_is_the_same_as_without_mosaic_and_mixup() -> None:
    split = pictures()
    moved = strengths(**MOVES["all"])
    mixed = strengths(mosaic=1.0, mixup=1.0, **MOVES["all"])
    for index in range(6):
        closed = changed_picture(
            split.__getitem__, [1.0] * 6, mixed, size=SIZE, seed=1, epoch=0, index=index, composed=False
        )
        plain = augment_boxes(*split[index], moved, size=SIZE, key=training_key(1, epoch=0, index=index))
        assert np.array_equal(closed[0]["i"], plain[0]["i"]) and np.array_equal(closed[1], plain[1])


def test_other_pictures_are_drawn_as_often_as_they_are_to_be_seen() -> None:
    asked: list[int] = []
    image = np.zeros((*SIZE, 3), np.uint8)

    def fetch(place: int) -> tuple[dict[str, Array], Array]:
        asked.append(place)
        return {"i": image}, np.zeros((0, 6), np.float32)

    for epoch in range(200):
        changed_picture(fetch, [1.0, 3.0, 0.0, 1.0], strengths(mosaic=1.0), size=SIZE, seed=0, epoch=epoch, index=2)
    others = np.bincount(asked, minlength=4) - [0, 0, 200, 0]
    assert others[2] == 0
    assert others.sum() == 600
    assert 310 <= others[1] <= 410


def test_a_mosaic_of_too_many_boxes_keeps_the_largest() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 60, (200, 2))
    many = np.concatenate([low, low + random.uniform(2, 30, (200, 2)), np.zeros((200, 2))], axis=1).astype(np.float32)
    image = np.zeros((*SIZE, 3), np.uint8)
    counts = []
    for epoch in range(6):
        _, found = changed_picture(
            lambda place: ({"i": image}, many),
            [1.0] * 4,
            strengths(mosaic=1.0),
            size=SIZE,
            seed=0,
            epoch=epoch,
            index=0,
        )
        counts.append(len(found))
    assert max(counts) == MOST
    assert rows(200, strengths(mosaic=1.0)) == MOST
    assert rows(500, strengths(mosaic=1.0)) == 500
    assert rows(10, strengths(mosaic=1.0)) == 40
    assert rows(10, strengths(mixup=1.0)) == 20
    assert rows(10, strengths(mosaic=0.1, mixup=0.1)) == 80
    assert rows(10, strengths()) == 10
