"""What each strength does to pixels: by its description in the settings, within its limit, and in 8 and 16 bits."""

from __future__ import annotations

import colorsys
from typing import Any

import cv2
import numpy as np
import pytest

from leakdet_tf.config.data import Augment
from leakdet_tf.data.augmentation import augment, training_key

NONE = {"flip_horizontal": 0.0, "flip_vertical": 0.0, "brightness": 0.0, "contrast": 0.0, "chance": 1.0}
STRENGTHS = {"brightness": 0.3, "contrast": 0.3, "gamma": 0.5, "hue": 0.2, "saturation": 0.6, "equalize": 0.8}
STRENGTHS |= {"blur": 2.0, "motion_blur": 6.0, "sharpen": 1.5, "noise": 0.1, "sensor": 0.1, "jpeg": 0.7}
GEOMETRY = {"flip_horizontal", "flip_vertical", "shift", "scale", "rotation", "crop"}
Array = np.ndarray[Any, Any]


def picture(size: tuple[int, ...] = (33, 46), dtype: str = "uint8", channels: int = 3, *, seed: int = 0) -> Array:
    """Smooth blobs over the whole range."""
    noise = np.random.default_rng(seed).random((*size, channels)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0).reshape(noise.shape)
    spread = (smooth - smooth.min()) / max(1e-6, float(np.ptp(smooth)))
    return (spread * np.iinfo(dtype).max).astype(dtype)


def changed(image: Array, key: int = 0, **strengths: float) -> Array:
    mask = np.arange(image.shape[0] * image.shape[1]).reshape(image.shape[:2]).astype(np.uint8)
    settings = Augment.model_validate(NONE | strengths)
    found, labels = augment({"image": image}, mask, settings, key=training_key(7, epoch=3, index=key))
    np.testing.assert_array_equal(labels, mask)
    assert (found["image"].dtype, found["image"].shape) == (image.dtype, image.shape)
    return found["image"]


def many(image: Array, count: int = 60, **strengths: float) -> list[Array]:
    """The picture as floats after each of several draws, over the full range of 1."""
    top = float(np.iinfo(image.dtype).max)
    return [changed(image, key=key, **strengths) / top for key in range(count)]


def share(image: Array) -> Array:
    return np.asarray(image / float(np.iinfo(image.dtype).max))


def spanning(image: Array) -> Array:
    """The picture with a corner of the darkest and the brightest value there is: its range is then all of the bits."""
    image = image.copy()
    image[0, 0], image[0, 1] = 0, np.iinfo(image.dtype).max
    return image


@pytest.mark.parametrize("name", STRENGTHS)
def test_every_strength_does_something(name: str) -> None:
    image = picture()
    assert sum(not np.array_equal(changed(image, key, **{name: STRENGTHS[name]}), image) for key in range(8)) >= 6


def test_the_settings_hold_no_strength_that_is_not_tested_here() -> None:
    assert set(Augment.model_fields) == {*STRENGTHS, *GEOMETRY, "chance", "mosaic", "mosaic_close", "mixup"}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_brightness_shifts_all_pixels_alike(dtype: str) -> None:
    image = picture(dtype=dtype)
    before, shifts = share(image), []
    for after in many(image, brightness=0.3):
        inside = (after > 0) & (after < 1)
        shift = (after - before)[inside]
        assert np.ptp(shift) <= 1.01 / np.iinfo(dtype).max
        shifts.append(shift.mean())
    assert 0.25 < np.max(shifts) <= 0.302
    assert -0.302 <= np.min(shifts) < -0.25


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_contrast_keeps_the_mean_and_scales_about_it(dtype: str) -> None:
    image = (picture(dtype=dtype) // 4 + np.iinfo(dtype).max // 3).astype(dtype)
    before, gains = share(image), []
    for after in many(image, contrast=0.5):
        gain = np.polyfit(before.ravel(), after.ravel(), 1)[0]
        np.testing.assert_allclose(after, before.mean() + gain * (before - before.mean()), atol=0.004)
        gains.append(gain)
    assert 0.49 < min(gains) < 0.6
    assert 1.4 < max(gains) < 1.51


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_gamma_is_a_power(dtype: str) -> None:
    image = spanning((picture(dtype=dtype) // 2 + np.iinfo(dtype).max // 4).astype(dtype))
    powers = []
    for after in many(image, gamma=0.3):
        powers.append(np.median(np.log(after[1:]) / np.log(share(image)[1:])))
        np.testing.assert_allclose(after, share(image) ** powers[-1], atol=0.004)
    assert 1 / 1.31 < min(powers) < 0.82
    assert 1.22 < max(powers) < 1.31


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_values_are_clipped_and_never_wrap_around(dtype: str) -> None:
    image = np.zeros((6, 8, 3), dtype)
    image[:, 4:] = np.iinfo(dtype).max
    for strengths in ({"brightness": 1.0, "contrast": 1.0}, {"sharpen": 5.0}, {"brightness": 1.0, "blur": 0.01}):
        found = many(image, **strengths)
        assert all((after[:, -1] >= after[:, 0]).all() for after in found)
        assert any((after[:, -1] == 1).all() for after in found)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_hue_turns_the_colour_circle_either_way(dtype: str) -> None:
    image = np.empty((4, 5, 3), dtype)
    image[:] = np.array([0.8, 0.2, 0.2]) * np.iinfo(dtype).max
    turns = []
    for after in many(image, hue=0.1):
        hue, saturation, value = colorsys.rgb_to_hsv(*after[0, 0])
        assert (saturation, value) == (pytest.approx(0.75, abs=0.02), pytest.approx(0.8, abs=0.01))
        turns.append((hue + 0.5) % 1 - 0.5)
    assert -0.103 < min(turns) < -0.08
    assert 0.08 < max(turns) < 0.103
    assert abs(np.mean(turns)) < 0.03


def test_saturation_scales_the_distance_from_grey() -> None:
    image = picture(dtype="uint16") // 2 + 16000
    grey = share(image) @ [0.299, 0.587, 0.114]
    factors = []
    for after in many(image, saturation=0.6):
        inside = ((after > 0) & (after < 1)).all(axis=2)
        away = (share(image) - grey[..., None])[inside]
        factors.append((away * (after - grey[..., None])[inside]).sum() / (away**2).sum())
        np.testing.assert_allclose(after[inside], grey[inside][:, None] + factors[-1] * away, atol=0.001)
    assert 0.39 < min(factors) < 0.5
    assert 1.5 < max(factors) < 1.61


@pytest.mark.parametrize("name", ["hue", "saturation"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_has_no_colour_keeps_its_pixels(name: str, channels: int) -> None:
    image = picture(channels=channels)
    image = image[..., :1].repeat(3, axis=2) if channels == 3 else image
    for key in range(5):
        assert np.abs(changed(image, key=key, **{name: 1.0}).astype(int) - image).max() <= (channels == 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_mixes_in_the_picture_with_an_even_histogram(dtype: str, channels: int) -> None:
    image = (picture((61, 70), dtype, 1) // 2 + np.iinfo(dtype).max // 4).astype(dtype).repeat(channels, axis=2)
    image = spanning(image)
    grey = share(image)[..., 0]
    below = np.searchsorted(np.sort(grey.ravel()), grey, side="right")
    even = (below - below.min()) / (below.max() - below.min())
    amounts = []
    for after in many(image, equalize=0.8):
        assert (np.ptp(after, axis=2) == 0).all()
        amounts.append(((after[..., 0] - grey) * (even - grey)).sum() / ((even - grey) ** 2).sum())
        np.testing.assert_allclose(after[..., 0], grey + amounts[-1] * (even - grey), atol=0.01)
    assert -0.01 < min(amounts) < 0.1
    assert 0.7 < max(amounts) < 0.81


def impulse(*, count: int, **strengths: float) -> list[tuple[float, Array]]:
    """For one bright pixel in black: the sum, and the covariance (2, 2) in pixels, of what each draw makes of it."""
    image = np.zeros((61, 61, 1), np.uint16)
    image[30, 30] = 65535
    y, x = np.mgrid[:61, :61] - 30
    found = []
    for after in many(image, count, **strengths):
        mass = after[..., 0]
        cross = (mass * x * y).sum()
        found.append((mass.sum(), np.array([[(mass * x * x).sum(), cross], [cross, (mass * y * y).sum()]])))
    return found


def test_blur_is_gaussian_and_keeps_the_light() -> None:
    found = impulse(count=40, blur=3.0)
    for total, spread in found:
        assert total == pytest.approx(1, abs=0.02)
        np.testing.assert_allclose(spread, np.eye(2) * spread[0, 0], atol=0.02 * max(1, spread[0, 0]))
    sigmas = np.sqrt([spread[0, 0] for _, spread in found])
    assert 2.6 < sigmas.max() < 3.05
    assert sigmas.min() < 0.4


def test_motion_blur_is_a_straight_line_of_any_direction() -> None:
    found = impulse(count=40, motion_blur=20.0)
    lengths, angles = [], []
    for total, spread in found:
        assert total == pytest.approx(1, abs=0.02)
        values, vectors = np.linalg.eigh(spread)
        assert values[0] < 0.35  # the width of a pixel
        lengths.append(np.sqrt(12 * max(0, values[1])))
        angles.append(np.arctan2(vectors[1, 1], vectors[0, 1]) % np.pi)
    assert 17 < max(lengths) < 21.5
    assert np.histogram(angles, bins=4, range=(0, np.pi))[0].min() >= 3


def test_sharpen_adds_the_fine_detail() -> None:
    image = picture(dtype="uint16") // 4 + 20000
    fine = share(image) - cv2.GaussianBlur(share(image), (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    amounts = []
    for after in many(image, sharpen=2.0):
        amounts.append(((after - share(image)) * fine).sum() / (fine**2).sum())
        np.testing.assert_allclose(after, share(image) + amounts[-1] * fine, atol=1e-3)
    assert -0.01 < min(amounts) < 0.2
    assert 1.8 < max(amounts) < 2.01


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_noise_is_gaussian_and_every_pixels_own(dtype: str) -> None:
    image = spanning(np.full((90, 80, 3), np.iinfo(dtype).max // 2, dtype))
    found = [(after - share(image))[1:] for after in many(image, noise=0.1)]
    sizes = [noise.std() for noise in found]
    assert 0.09 < max(sizes) < 0.102
    assert min(sizes) < 0.01
    strong = found[int(np.argmax(sizes))]
    normal = strong / strong.std()
    assert abs(normal.mean()) < 0.03
    for limit, expected in ((1, 0.317), (2, 0.0455), (3, 0.0027)):
        assert (np.abs(normal) > limit).mean() == pytest.approx(expected, rel=0.25)
    for other in (np.roll(normal, 1, 0), np.roll(normal, 1, 1), np.roll(normal, 1, 2)):
        assert abs((normal * other).mean()) < 0.03


def test_a_thermal_picture_is_changed_within_what_it_holds() -> None:
    """Thirty degrees of a radiometric camera are a few hundredths of its 16 bits."""
    image = (picture(dtype="uint16", channels=1) // 40 + 30000).astype(np.uint16)
    span = float(np.ptp(image.astype(np.int64)))
    for strengths in ({"brightness": 0.1}, {"contrast": 0.2}, {"noise": 0.02}, {"sensor": 0.02}, {"gamma": 0.2}):
        moved = [np.abs(changed(image, key, **strengths).astype(np.int64) - image).mean() / span for key in range(20)]
        assert 0.005 < max(moved) < 0.12, strengths


def test_sensor_gives_stripes_and_a_few_dead_pixels() -> None:
    image = spanning(np.full((91, 80, 3), 32768, np.uint16))
    dead, columns, rows = [], [], []
    for whole in many(image, sensor=0.08):
        after = whole[1:]
        assert (np.ptp(after, axis=2) == 0).all()
        gone = (after == 0) | (after == 1)
        dead.append(gone[..., 0].mean())
        noise = np.ma.masked_array(after - share(image)[1:], gone)[..., 0]
        down, across = np.ma.median(noise, axis=0), np.ma.median(noise, axis=1)
        columns.append(down.std())
        rows.append(across.std())
        plane = down[None] + across[:, None] - np.ma.median(noise)
        assert np.abs(noise - plane).mean() < 0.012
    assert 0.005 < max(dead) <= 0.0082
    for spread in (columns, rows):
        assert 0.06 < max(spread) < 0.1
    assert abs(np.corrcoef(columns, rows)[0, 1]) < 0.5


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_loses_detail_but_not_colour(channels: int) -> None:
    image = picture((40, 51), channels=channels)
    slight, strong = (np.mean([np.abs(a - share(image)).mean() for a in many(image, 20, jpeg=j)]) for j in (0.1, 0.95))
    assert 0 < slight < 0.02
    assert 1.5 * slight < strong < 0.1
    if channels == 3:
        red = np.zeros((16, 16, 3), np.uint8)
        red[..., 0] = 200
        np.testing.assert_allclose(many(red, 1, jpeg=0.1)[0], share(red), atol=0.03)


def test_jpeg_leaves_16_bits_alone() -> None:
    image = picture(dtype="uint16")
    np.testing.assert_array_equal(changed(image, jpeg=0.9), image)
