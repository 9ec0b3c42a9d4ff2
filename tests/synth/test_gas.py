"""The generator ``gas``: the same bytes for a seed, and a mask that is exactly what its docstring promises."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import leakdet_tf
from leakdet_tf.core.errors import DataError
from leakdet_tf.synth.gas import generator as gas
from leakdet_tf.synth.gas import light
from leakdet_tf.synth.gas.canvas import Canvas
from leakdet_tf.synth.scenery.noise import fractal
from leakdet_tf.synth.scenery.rendered import Rendered

SIZE = (64, 64)


def _digest(rendered: Rendered) -> str:
    return hashlib.sha256(rendered.image.tobytes() + rendered.mask.tobytes()).hexdigest()


def _grow(region: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    height, width = region.shape
    padded = np.pad(region, pixels)
    steps = range(2 * pixels + 1)
    grown = np.zeros_like(region)
    for down in steps:
        for right in steps:
            grown |= padded[down : down + height, right : right + width]
    return grown


def _with_gas(count: int, size: tuple[int, int] = SIZE, look: str = "infrared") -> list[tuple[int, gas.Layers]]:
    layers = [(seed, gas.compose(seed, size, look=look)) for seed in range(2 * count)]
    return [(seed, one) for seed, one in layers if one.parameters["has_gas"]][:count]


def test_same_seed_same_bytes_whatever_happened_before() -> None:
    first = gas.render(11, SIZE)
    np.random.default_rng(0).normal(size=100)
    gas.render(12, (48, 80))
    again = gas.render(11, SIZE)
    assert again.image.tobytes() == first.image.tobytes()
    assert again.mask.tobytes() == first.mask.tobytes()
    assert again.parameters == first.parameters


def test_same_seed_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from leakdet_tf.synth.gas.generator import render; r = render(11, (64, 64)); "
        "print(hashlib.sha256(r.image.tobytes() + r.mask.tobytes()).hexdigest())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(leakdet_tf.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == _digest(gas.render(11, SIZE))


def test_other_seeds_give_other_pictures() -> None:
    pictures = [gas.render(seed, SIZE).image for seed in (0, 1, 2, 2**32, 2**52)]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    apart = np.abs(pictures[0].astype(float) - pictures[1]).mean()
    assert apart > 10  # another scene, not merely other noise


@pytest.mark.parametrize("size", [(32, 32), (48, 96), (100, 70)])
def test_shapes_dtypes_and_ids(size: tuple[int, int]) -> None:
    rendered = gas.render(3, size)
    assert rendered.image.shape == (*size, 1)
    assert rendered.image.dtype == np.uint8
    assert rendered.mask.shape == size
    assert rendered.mask.dtype == np.uint8
    assert set(np.unique(rendered.mask)) <= {0, 1, 2}


@pytest.mark.parametrize("size", [(31, 64), (64, 2049), (0, 0)])
def test_a_size_out_of_range_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"32\.\.2048"):
        gas.render(0, size)


def test_a_negative_seed_or_frame_and_an_unknown_look_are_refused() -> None:
    with pytest.raises(DataError, match="negative"):
        gas.render(-1, SIZE)
    with pytest.raises(DataError, match="frame is -1"):
        gas.render(1, SIZE, frame=-1)
    with pytest.raises(DataError, match="did you mean 'infrared'"):
        gas.render(1, SIZE, look="infra")


def test_gas_is_where_the_optical_depth_reaches_the_threshold_and_nowhere_else() -> None:
    for seed, layers in _with_gas(12):
        rendered = gas.render(seed, SIZE)
        threshold = rendered.parameters["tau_threshold"]
        assert isinstance(threshold, float)
        deep = layers.tau >= threshold
        assert np.array_equal(rendered.mask == 1, deep)
        assert np.array_equal(rendered.mask == 2, layers.machine & ~deep)


def test_light_is_mixed_by_optical_depth() -> None:
    _, layers = _with_gas(1)[0]
    through = np.exp(-layers.tau)[:, :, np.newaxis]
    expected = through * layers.clean + (1 - through) * layers.gas_radiance
    assert np.allclose(layers.radiance, expected, rtol=0, atol=1e-12)
    assert layers.tau.min() >= 0
    assert layers.clean.min() >= 0
    assert layers.clean.max() <= 1


@pytest.mark.parametrize("look", gas.LOOKS)
def test_at_the_threshold_gas_shows_over_the_noise_in_three_quarters_of_the_plume(look: str) -> None:
    for _, layers in _with_gas(25, look=look):
        thickness, threshold = layers.parameters["optical_thickness"], layers.tau_threshold
        assert isinstance(thickness, float)
        plume = layers.tau > 0.1 * thickness
        apart = np.abs(light.luminance(layers.clean) - light.luminance(layers.gas_radiance))
        change = np.broadcast_to(apart, plume.shape)[plume] * (1 - np.exp(-threshold))
        promised = max(light.VISIBLE * layers.sensor.total_noise, light.LEAST_CHANGE)
        assert np.mean(change >= promised * (1 - 1e-9)) >= 0.75


def test_shutting_the_leak_changes_only_what_gas_covers() -> None:
    spared = []
    for seed, layers in _with_gas(10):
        leaking = gas.render(seed, SIZE)
        tight = gas.finish(seed, gas.compose(seed, SIZE, leak=False))
        assert tight.parameters["has_gas"] is False
        assert not np.any(tight.mask == 1)
        difference = np.abs(leaking.image.astype(float) - tight.image)[:, :, 0]
        covered = leaking.mask == 1
        untouched = ~_grow(layers.tau > 1e-10, 2)  # the optics blur two pixels wide
        if covered.sum() > 30:
            assert difference[covered].mean() > 255 * light.LEAST_CHANGE > 3 * difference[layers.tau < 1e-3].mean()
        spared.append(untouched.sum())
        assert not difference[untouched].any()
    assert sorted(spared)[-5] > 50


def test_the_sign_says_whether_gas_is_darker_or_brighter() -> None:
    signs = set()
    for _, layers in _with_gas(20):
        sign = layers.parameters["delta_sign"]
        change = (layers.radiance - layers.clean)[layers.mask == 1].mean()
        assert np.sign(change) == sign == np.sign(float(str(layers.parameters["delta_t_k"])))
        signs.add(sign)
    assert signs == {-1, 1}


def test_a_leak_starts_at_equipment() -> None:
    for seed, layers in _with_gas(15, (128, 128)):
        source = layers.parameters["source_xy"]
        assert isinstance(source, list)
        x, y = (int(float(part) * 128) for part in source)
        near = layers.machine[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
        assert near.any(), seed


def test_parameters_are_json() -> None:
    parameters = gas.render(5, SIZE).parameters
    assert json.loads(json.dumps(parameters, allow_nan=False)) == parameters
    always = {"noise_sigma", "backdrop", "machines", "machine_kinds", "gas_fraction", "has_gas", "confusers", "look"}
    always |= {"delta_t_k", "distance_m", "wind_m_s", "wind_side", "wind_direction_deg", "span_k", "transmission"}
    always |= {"frame", "frame_interval_s", "frame_m"}
    for seed in range(8):
        assert always <= set(gas.render(seed, SIZE).parameters)


def test_another_size_shows_the_same_scene() -> None:
    for seed in (1, 4, 9):
        small, large = gas.compose(seed, (64, 64)), gas.compose(seed, (128, 128))
        halved = large.clean.reshape(64, 2, 64, 2).mean(axis=(1, 3))
        assert np.corrcoef(small.clean.ravel(), halved.ravel())[0, 1] > 0.9
        coarse = large.machine.reshape(64, 2, 64, 2).mean(axis=(1, 3)) >= 0.5
        assert np.mean(coarse == small.machine) > 0.95
        assert large.parameters["machine_kinds"] == small.parameters["machine_kinds"]
        assert large.parameters["has_gas"] == small.parameters["has_gas"]


def test_a_pixel_is_machine_where_a_shape_covers_half_of_it() -> None:
    canvas = Canvas(np.zeros((40, 40)), slope=0.0, roll=0.0)
    canvas.box(10.4 / 40, 20.0 / 40, 20.6 / 40, 30.0 / 40, 1.0)
    expected = np.zeros((40, 40), dtype=bool)
    expected[20:30, 10:21] = True
    assert np.array_equal(canvas.machine, expected)
    assert np.allclose(canvas.radiance[25, [9, 10, 15, 20, 21]], [0.0, 0.6, 1.0, 0.6, 0.0])


def test_noise_leaves_its_generator_alike_for_every_shape() -> None:
    small, large = np.random.default_rng(1), np.random.default_rng(1)
    fractal(small, (16, 16), (8, 8), 4)
    field = fractal(large, (256, 256), (8, 8), 4)
    assert small.uniform() == large.uniform()
    assert 0.7 < field.std() < 1.3


def test_a_rendered_checks_itself() -> None:
    image, mask = np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), np.uint8)
    Rendered(image, mask, {})
    Rendered(np.zeros((4, 5, 3), np.uint8), mask, {})
    for wrong in (image[:, :, 0], np.zeros((4, 5, 2), np.uint8), image.astype(np.uint16)):
        with pytest.raises(DataError, match="image"):
            Rendered(wrong, mask, {})
    with pytest.raises(DataError, match="mask"):
        Rendered(image, mask.T, {})
    with pytest.raises(DataError, match="got 3"):
        Rendered(image, mask + np.uint8(3), {})
