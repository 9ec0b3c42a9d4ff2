"""Random changes: masks follow geometry alone, movements keep to their strengths, a change is its key's alone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest

from leakdet_tf.config.data import Augment
from leakdet_tf.core.records import IGNORE
from leakdet_tf.data.augmentation import augment, training_key

NONE = {"flip_horizontal": 0.0, "flip_vertical": 0.0, "brightness": 0.0, "contrast": 0.0, "chance": 1.0}
FLIPS = {"flip_horizontal": 0.5, "flip_vertical": 0.5}
MOVES = {"shift": 0.3, "scale": 0.5, "rotation": 40.0, "crop": 0.4}
TONE = {"brightness": 0.3, "contrast": 0.3, "gamma": 0.5}
FURTHER = {"hue": 0.2, "saturation": 0.6, "equalize": 0.8, "blur": 2.0, "motion_blur": 6.0, "sharpen": 1.5}
SENSOR = {"noise": 0.1, "sensor": 0.1, "jpeg": 0.7}
ALL = FLIPS | MOVES | TONE | FURTHER | SENSOR
LABELS = np.array([0, 1, 2, 3, 7, IGNORE], np.uint8)
Array = np.ndarray[Any, Any]


def picture(size: tuple[int, ...] = (33, 46), dtype: str = "uint8", channels: int = 3, *, seed: int = 0) -> Array:
    """Smooth blobs over the whole range."""
    noise = np.random.default_rng(seed).random((*size, channels)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0).reshape(noise.shape)
    spread = (smooth - smooth.min()) / max(1e-6, float(np.ptp(smooth)))
    return (spread * np.iinfo(dtype).max).astype(dtype)


def truth(size: tuple[int, ...] = (33, 46), *, seed: int = 0) -> Array:
    """Patches of labels, some beyond the classes, and IGNORE."""
    small = np.random.default_rng(seed).choice(LABELS, (5, 5))
    return np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST)).reshape(size)


def changed(image: Array, mask: Array | None = None, key: int = 0, **strengths: float) -> tuple[Array, Array]:
    mask = np.zeros(image.shape[:2], np.uint8) if mask is None else mask
    settings = Augment.model_validate(NONE | strengths)
    found, labels = augment({"image": image}, mask, settings, key=training_key(7, epoch=3, index=key))
    assert (found["image"].dtype, found["image"].shape) == (image.dtype, image.shape)
    assert (labels.dtype, labels.shape) == (mask.dtype, mask.shape)
    return found["image"], labels


def share(image: Array) -> Array:
    return np.asarray(image / float(np.iinfo(image.dtype).max))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_no_strength_changes_nothing_and_a_tiny_one_rounds_to_nothing(dtype: str, channels: int) -> None:
    image, mask = picture(dtype=dtype, channels=channels), truth()
    for strengths in ({}, {"brightness": 1e-9, "contrast": 1e-9, "gamma": 1e-9, "noise": 1e-9, "sharpen": 1e-9}):
        found, labels = changed(image, mask, **strengths)
        np.testing.assert_array_equal(found, image)
        np.testing.assert_array_equal(labels, mask)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_probability_one_flips_every_picture_and_its_mask(dtype: str, channels: int) -> None:
    image, mask = picture(dtype=dtype, channels=channels), truth()
    for names, axes in ((["horizontal"], 1), (["vertical"], 0), (["horizontal", "vertical"], (0, 1))):
        found, labels = changed(image, mask, **{f"flip_{name}": 1.0 for name in names})
        np.testing.assert_array_equal(found, np.flip(image, axes))
        np.testing.assert_array_equal(labels, np.flip(mask, axes))


def test_flips_come_as_often_as_they_should_and_independently() -> None:
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    found = [changed(mask[..., None], mask, key, flip_horizontal=0.2, flip_vertical=0.5) for key in range(600)]
    firsts = [int(labels[0, 0]) for _, labels in found]
    assert all((image[..., 0] == labels).all() for image, labels in found)
    shares = np.bincount(firsts, minlength=4) / 600
    np.testing.assert_allclose(shares, [0.4, 0.1, 0.4, 0.1], atol=0.06)


def source(strengths: dict[str, float], key: int, size: tuple[int, int] = (40, 60)) -> tuple[Array, Array]:
    """Where the result's middle pixels came from: the matrix (2, 2) and offset from the middle, in pixels (x, y)."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    ramps = np.stack([x / (width - 1), y / (height - 1), 0 * x], axis=-1)
    found, _ = changed((ramps * 65535).round().astype(np.uint16), key=key, **strengths)
    window = np.s_[height // 2 - 3 : height // 2 + 3, width // 2 - 3 : width // 2 + 3]
    middle = np.array([width - 1, height - 1]) / 2
    places = found[window][..., :2].reshape(-1, 2) / 65535 * 2 * middle - middle
    own = np.stack([x[window].ravel() - middle[0], y[window].ravel() - middle[1], np.ones(36)], axis=1)
    solution, *_ = np.linalg.lstsq(own, places, rcond=None)
    np.testing.assert_allclose(own @ solution, places, atol=0.05)
    return solution[:2].T, solution[2]


def test_a_shift_moves_by_at_most_its_share_of_each_side() -> None:
    found = [source({"shift": 0.2}, key) for key in range(80)]
    for matrix, _ in found:
        np.testing.assert_allclose(matrix, np.eye(2), atol=0.01)
    moves = np.array([offset for _, offset in found]) / (60, 40)
    assert 0.15 < np.abs(moves).max(axis=0).min() <= np.abs(moves).max() < 0.202
    assert (np.abs(moves.mean(axis=0)) < 0.04).all()
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.4


def test_a_zoom_is_even_about_the_middle_and_as_often_in_as_out() -> None:
    found = [source({"scale": 0.25}, key) for key in range(80)]
    factors = np.array([1 / matrix[0, 0] for matrix, _ in found])
    for factor, (matrix, offset) in zip(factors, found, strict=True):
        np.testing.assert_allclose(matrix, np.eye(2) / factor, atol=0.01)
        np.testing.assert_allclose(offset, 0, atol=0.05)
    assert 1 / 1.26 < factors.min() < 0.85
    assert 1.18 < factors.max() < 1.26
    assert abs(np.log(factors).mean()) < 0.05


def test_a_rotation_turns_about_the_middle_without_stretching() -> None:
    found = [source({"rotation": 30.0}, key) for key in range(80)]
    angles = np.array([np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) for matrix, _ in found])
    for angle, (matrix, offset) in zip(np.radians(angles), found, strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        np.testing.assert_allclose(matrix, [[cos, -sin], [sin, cos]], atol=0.01)
        np.testing.assert_allclose(offset, 0, atol=0.05)
    assert -30.3 < angles.min() < -24
    assert 24 < angles.max() < 30.3


def test_a_crop_fills_the_frame_from_inside_the_picture() -> None:
    found = [source({"crop": 0.5}, key) for key in range(80)]
    kept = np.array([matrix[0, 0] for matrix, _ in found])
    for part, (matrix, offset) in zip(kept, found, strict=True):
        np.testing.assert_allclose(matrix, np.eye(2) * part, atol=0.01)
        assert (np.abs(offset) <= (1 - part) / 2 * np.array([60, 40]) + 0.05).all()
    assert 0.495 < kept.min() < 0.6
    assert 0.9 < kept.max() <= 1.005


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("size", [(37, 52), (64, 41)])
@pytest.mark.parametrize(
    "strengths",
    [{"shift": 1.0}, {"scale": 1.0}, {"rotation": 180.0}, {"crop": 0.9}, FLIPS | MOVES],
    ids=["shift", "scale", "rotation", "crop", "all"],
)
def test_picture_and_mask_stay_aligned_up_to_the_mirrored_border(
    dtype: str, size: tuple[int, int], strengths: dict[str, float]
) -> None:
    mask = np.zeros(size, np.uint8)
    mask[5:17, 8:30] = 1
    mask[22:31, 3:12] = 1
    image = mask[..., None].repeat(3, axis=2).astype(dtype) * np.iinfo(dtype).max
    for key in range(30):
        found, labels = changed(image, mask, key, **strengths)
        inside = share(found[..., 1]) > 0.5
        edge = cv2.dilate(labels, np.ones((3, 3))) != cv2.erode(labels, np.ones((3, 3)))
        wrong = inside != (labels > 0)
        assert not (wrong & ~edge).any()
        assert wrong.sum() <= 0.2 * edge.sum()


def test_inputs_of_other_sizes_move_with_the_mask() -> None:
    def scene(height: int, width: int) -> Array:
        y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
        wave = 0.5 + 0.25 * np.sin(5 * x + 2 * y) + 0.25 * np.cos(7 * y - x)
        return (wave * 65535).astype(np.uint16)[..., None]

    sizes = {"whole": (64, 80), "half": (32, 40), "wide": (64, 160)}
    settings = Augment.model_validate(NONE | FLIPS | MOVES)
    for key in range(20):
        inputs = {name: scene(*size) for name, size in sizes.items()}
        found, _ = augment(inputs, np.zeros((64, 80), np.uint8), settings, key=(1, key))
        for name, size in sizes.items():
            assert found[name].shape[:2] == size
            seen = cv2.resize(share(found[name]).astype(np.float32), (40, 32), interpolation=cv2.INTER_AREA)
            whole = cv2.resize(share(found["whole"]).astype(np.float32), (40, 32), interpolation=cv2.INTER_AREA)
            assert np.abs(seen - whole).mean() < 0.005
            assert np.abs(seen - whole).max() < 0.06


def test_no_label_is_invented_and_none_is_lost() -> None:
    mask = truth((64, 80))
    seen: set[int] = set()
    for key in range(20):
        _, labels = changed(picture((64, 80)), mask, key, **ALL)
        assert set(np.unique(labels)) <= set(LABELS.tolist())
        seen |= set(np.unique(labels).tolist())
    assert seen == set(LABELS.tolist())


def test_chance_decides_for_each_change_and_picture_but_not_over_tone() -> None:
    image = picture()
    assert all(np.array_equal(changed(image, key=k, chance=0.0, **FURTHER, **SENSOR)[0], image) for k in range(5))
    assert not any(np.array_equal(changed(image, key=k, chance=0.0, **TONE)[0], image) for k in range(5))
    strengths = {"noise": 0.1, "saturation": 0.9, "jpeg": 0.9}
    came = {
        name: [not np.array_equal(changed(image, key=k, chance=0.3, **{name: s})[0], image) for k in range(300)]
        for name, s in strengths.items()
    }
    assert all(0.2 < np.mean(own) < 0.4 for own in came.values())
    assert abs(np.corrcoef(list(came.values())) - np.eye(3)).max() < 0.2


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (33, 47)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_any_size_any_layout_and_what_is_given_stays_as_it_is(size: tuple[int, int], channels: int, dtype: str) -> None:
    image, mask = picture(size, dtype, channels), truth(size)
    odd = np.asfortranarray(image)[::-1]
    for array in (image, mask, odd):
        array.setflags(write=False)
    before, settings = image.copy(), Augment.model_validate(ALL | {"blur": 20.0, "motion_blur": 64.0})
    for key in range(6):
        found, labels = augment({"a": image, "b": odd[::-1]}, mask, settings, key=(key,))
        assert (found["a"].shape, found["a"].dtype, labels.shape) == (image.shape, image.dtype, size)
        same, _ = augment({"a": before}, mask, settings, key=(key,))
        np.testing.assert_array_equal(found["a"], same["a"])
    np.testing.assert_array_equal(image, before)


def test_two_inputs_draw_their_own_intensity() -> None:
    image = np.full((8, 9, 1), 100, np.uint8)
    found = [augment({"a": image, "b": image}, image[..., 0], Augment(brightness=0.3), key=(k,))[0] for k in range(20)]
    levels = np.array([[pair["a"][0, 0, 0], pair["b"][0, 0, 0]] for pair in found])
    assert abs(np.corrcoef(levels.T)[0, 1]) < 0.6


def test_the_same_key_gives_the_same_and_any_other_another() -> None:
    image, mask, settings = picture(), truth(), Augment.model_validate(ALL | {"chance": 0.5})

    def run(key: tuple[int, ...]) -> bytes:
        found, labels = augment({"image": image}, mask, settings, key=key)
        return found["image"].tobytes() + labels.tobytes()

    keys = [training_key(s, epoch=e, index=i, copy=c) for s in (0, 7) for e in (0, 4) for i in (0, 9) for c in (0, 1)]
    assert len(set(keys)) == 16
    first = [run(key) for key in keys]
    assert len(set(first)) == 16
    assert [run(key) for key in reversed(keys)] == first[::-1]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, keys * 4)) == first * 4


def test_no_global_state_is_read_or_left_changed() -> None:
    def after(seed: int) -> tuple[Any, ...]:
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        cv2.setRNGSeed(seed)
        found, _ = changed(picture(), **ALL)
        return found.tobytes(), (np.random.random(), random.random(), cv2.randu(np.zeros(4), 0, 1).tobytes())  # noqa: NPY002

    def untouched(seed: int) -> tuple[Any, ...]:
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        cv2.setRNGSeed(seed)
        return np.random.random(), random.random(), cv2.randu(np.zeros(4), 0, 1).tobytes()  # noqa: NPY002

    assert after(1)[0] == after(2)[0]
    assert after(3)[1] == untouched(3)


@pytest.mark.parametrize("name", sorted(ALL))
def test_switching_one_change_on_leaves_what_the_others_draw(name: str) -> None:
    image = (picture((64, 64), channels=1 if name == "jpeg" else 3) // 3 + 80).astype(np.uint8)
    base = FLIPS | MOVES | {"brightness": 0.1, "blur": 1.0, "noise": 0.03, "sensor": 0.03, "saturation": 0.3}
    tiny = 1e-9
    for key in range(4):
        found = [
            changed(image, truth((64, 64)), key, chance=0.7, **{k: v for k, v in base.items() if k != name}, **more)
            for more in ({}, {name: tiny})
        ]
        np.testing.assert_array_equal(found[0][1], found[1][1])
        assert np.abs(found[0][0].astype(int) - found[1][0]).mean() < (1.5 if name == "jpeg" else 0.01)
