"""Near-duplicates: planted ones are found through every change, other scenes of the same layout are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.images import resize
from leakdet_tf.data import similar as room
from leakdet_tf.data.similar import SIDE, TURNS, Pair, near_duplicates, thumbnail, turned

SIZE = 192


def scene(seed: int, *, plume: int | None = None) -> np.ndarray:
    """Sky over ground, the same in every scene, and a hundred things that differ."""
    random = np.random.default_rng(seed)
    rows = np.linspace(0, 1, SIZE)[:, None]
    base = np.where(rows < 0.4, 200 - 80 * rows, 90 + 30 * rows) * np.ones((1, SIZE))
    picture = np.repeat(base[..., None], 3, axis=2)
    for _ in range(110):
        top, left = random.integers(0, SIZE - 8, 2)
        height, width = random.integers(3, 40, 2)
        picture[top : top + height, left : left + width] = random.integers(0, 256, 3)
    if plume is not None:
        row, column = np.mgrid[:SIZE, :SIZE]
        place = np.random.default_rng(plume).integers(50, SIZE - 50, 2)
        share = np.exp(-((row - place[0]) ** 2 + (column - place[1]) ** 2) / (2 * 25**2))[..., None]
        picture = picture * (1 - share) + 40 * share
    return picture.astype(np.uint8)


def jpeg(picture: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def shift(picture: np.ndarray) -> np.ndarray:
    moved = np.pad(picture, ((SIZE, SIZE), (SIZE, SIZE), (0, 0)), "edge")
    return moved[SIZE - 9 : 2 * SIZE - 9, SIZE + 7 : 2 * SIZE + 7]


def crop(picture: np.ndarray) -> np.ndarray:
    return resize(np.ascontiguousarray(picture[3 : SIZE - 7, 8 : SIZE - 2]), (SIZE, SIZE))


def noise(picture: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(picture + random.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "nothing": (lambda p: p, "none"),
    "left-right": (lambda p: p[:, ::-1], "left-right"),
    "upside down": (lambda p: p[::-1], "upside down"),
    "half turn": (lambda p: p[::-1, ::-1], "half turn"),
    "quarter turn": (np.rot90, "quarter turn left"),
    "other quarter turn": (lambda p: np.rot90(p, -1), "quarter turn right"),
    "transposed": (lambda p: p.swapaxes(0, 1), "transposed"),
    "brighter": (lambda p: np.clip(p * 1.25 + 20, 0, 255).astype(np.uint8), "none"),
    "duller": (lambda p: (p * 0.6 + 20).astype(np.uint8), "none"),
    "jpeg": (jpeg, "none"),
    "shifted": (shift, "none"),
    "cropped": (crop, "none"),
    "noisy": (noise, "none"),
    "smaller": (lambda p: resize(p, (100, 100)), "none"),
    "all of it": (lambda p: jpeg(noise(crop(np.ascontiguousarray(p[:, ::-1])))), "left-right"),
}


def pairs_of(first: list[np.ndarray], second: list[np.ndarray]) -> list[Pair]:
    small = np.stack([thumbnail(np.ascontiguousarray(picture)) for picture in [*first, *second]])
    *steps, pairs = near_duplicates(small, np.repeat([0, 1], [len(first), len(second)]))
    assert steps == sorted(steps)
    assert steps[-1] <= len(small)
    assert isinstance(pairs, list)
    return pairs


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_is_found_with_its_turn(name: str) -> None:
    change, turn = CHANGES[name]
    scenes = [scene(seed) for seed in range(6)]
    found = pairs_of(scenes, [change(picture) for picture in scenes])
    assert [(pair.first, pair.second - 6, pair.turn) for pair in sorted(found, key=lambda pair: pair.first)] == [
        (place, place, turn) for place in range(6)
    ]
    assert all(pair.similarity > 0.7 for pair in found)


def test_the_same_scene_behind_another_plume_is_found() -> None:
    found = pairs_of([scene(seed, plume=1) for seed in range(5)], [scene(seed, plume=2) for seed in range(5)])
    assert {(pair.first, pair.second - 5) for pair in found} == {(place, place) for place in range(5)}


def test_other_scenes_of_the_same_layout_are_not_found() -> None:
    assert not pairs_of([scene(seed) for seed in range(40)], [scene(seed) for seed in range(40, 80)])


def test_one_plume_over_two_scenes_is_not_found() -> None:
    assert not pairs_of([scene(seed, plume=1) for seed in range(8)], [scene(seed, plume=1) for seed in range(8, 16)])


def test_pictures_without_detail_say_nothing() -> None:
    flat = [np.full((SIZE, SIZE, 3), value, np.uint8) for value in (0, 90, 255)]
    assert not pairs_of(flat, flat)


def test_copies_within_a_group_are_not_pairs() -> None:
    small = np.stack([thumbnail(scene(1))] * 2)
    assert list(near_duplicates(small, np.zeros(2)))[-1] == []


def test_nothing_to_compare() -> None:
    assert list(near_duplicates(np.empty((0, SIDE, SIDE), np.uint8), np.empty(0))) == [[]]


def test_16_bit_pictures_are_compared_over_their_own_range() -> None:
    counts = [(scene(seed)[..., :1].astype(np.uint16) * 3 + 21000) for seed in range(3)]
    found = pairs_of(counts, [(picture.astype(np.uint32) + 900).astype(np.uint16) for picture in counts])
    assert sorted((pair.first, pair.second) for pair in found) == [(0, 3), (1, 4), (2, 5)]


def test_blocks_hold_every_pair_of_groups_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_ROWS", 3)
    monkeypatch.setattr(room, "_COLUMNS", 4)
    groups = np.array([0, 1, 0, 2, 1, 0, 0, 2, 1, 1])
    seen = [(int(a), int(b)) for rows, others in room._blocks(groups) for a in rows for b in others]
    wanted = [(a, b) for a in range(10) for b in range(10) if groups[a] < groups[b]]
    assert sorted(seen) == sorted(wanted)
    scenes = [scene(seed) for seed in range(7)]
    assert len(pairs_of(scenes, scenes)) == 7


@pytest.mark.parametrize("turn", range(8))
def test_hashes_turn_with_the_picture(turn: int) -> None:
    picture = thumbnail(scene(3))
    own = room._codes(room._turned_coefficients(room._coefficients(picture)[None], turn))
    other = room._codes(room._coefficients(turned(picture, turn))[None])
    assert np.bitwise_count(own ^ other).sum(axis=-1).max() <= 4
    assert TURNS[turn]


def test_of_many_alike_the_nearest_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MOST", 3)
    monkeypatch.setattr(room, "_COLUMNS", 4)
    found = pairs_of([scene(1)], [scene(1)] * 10 + [noise(scene(1))])
    assert [pair.distance for pair in found] == [0, 0, 0]
