"""What the generator ``gas`` promises about its scenes: sizes, confusers, looks, distance, and clips."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from leakdet_tf.synth.gas import confusers, light
from leakdet_tf.synth.gas import generator as gas
from leakdet_tf.synth.gas.light import draw_view
from leakdet_tf.synth.gas.plume import Simulation, draw_plume
from leakdet_tf.synth.scenery.noise import draw_eddies

SIZE = (64, 64)
WIDE = (96, 96)


@lru_cache(maxsize=1)
def _many() -> list[gas.Layers]:
    return [gas.compose(seed, WIDE) for seed in range(400)]


def _tagged(tag: str, count: int, look: str = "infrared") -> list[int]:
    """Seeds of scenes with a confuser."""
    found = [seed for seed, layers in enumerate(_many()) if tag in _list(layers.parameters["confusers"])]
    assert len(found) >= count, (tag, look)
    return found[:count]


def _list(value: Any) -> list[str]:
    assert isinstance(value, list)
    return value


def test_sizes_go_from_a_few_pixels_to_half_the_frame_and_a_third_are_small() -> None:
    fractions = []
    for layers in _many():
        share = float(np.mean(layers.mask == 1))
        assert layers.parameters["gas_fraction"] == share
        assert layers.parameters["has_gas"] is (share > 0)
        if share:
            fractions.append(share)
    assert 5 <= min(fractions) * 96**2 <= 12
    assert 0.42 < max(fractions) <= 0.5 + 1 / 96**2
    assert 0.29 <= np.mean(np.array(fractions) < 0.02) <= 0.38  # 1/3; the window is two standard deviations
    assert 0.76 <= len(fractions) / 400 <= 0.84


def test_small_leaks_are_nearly_a_third_by_construction_and_far_ones_look_small() -> None:
    views = [draw_view(np.random.default_rng(seed)) for seed in range(6000)]
    fractions = np.array([view.fraction for view in views])
    assert np.mean(fractions < light.SMALL_FRACTION) == pytest.approx(light.SMALL_SHARE, abs=0.02)
    distances = np.array([view.distance_m for view in views])
    assert 5 <= distances.min() < 6
    assert 180 < distances.max() <= 200
    assert np.corrcoef(np.log(distances), np.log(fractions))[0, 1] < -0.4


def test_pictures_without_gas_mostly_hold_confusers_and_some_with_gas_do() -> None:
    counts: dict[bool, list[int]] = {True: [], False: []}
    for layers in _many():
        tags = _list(layers.parameters["confusers"])
        assert set(tags) <= set(confusers.TAGS)
        assert len(set(tags)) == len(tags) <= 2
        assert "cloud" not in tags or layers.parameters["backdrop"] == "yard"
        counts[bool(layers.parameters["has_gas"])].append(len(tags))
    assert np.mean(np.array(counts[False]) > 0) > 0.8
    assert 0.25 < np.mean(np.array(counts[True]) > 0) < 0.5


@pytest.mark.parametrize("look", gas.LOOKS)
@pytest.mark.parametrize("tag", confusers.TAGS)
def test_a_confuser_is_seen_and_is_never_labelled(tag: str, look: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = _tagged(tag, 6, look)
    shown = [gas.compose(seed, WIDE, look=look, leak=False) for seed in seeds]
    pictures = [gas.finish(seed, layers).image.astype(float) for seed, layers in zip(seeds, shown, strict=True)]
    monkeypatch.setattr(confusers, "paint", lambda rng, at, tag: None)
    monkeypatch.setattr(confusers, "cloud", lambda rng, sky, radiance: None)
    changes = []
    for seed, layers, picture in zip(seeds, shown, pictures, strict=True):
        bare = gas.compose(seed, WIDE, look=look, leak=False)
        if tag == "dead_pixels":
            assert layers.stuck is not None
            object.__setattr__(bare, "stuck", None)
        assert not np.any(layers.mask == 1)
        assert np.array_equal(layers.mask, bare.mask)  # what is behind a confuser keeps its class
        changes.append(np.abs(picture - gas.finish(seed, bare).image).max())
    assert np.median(changes) > 25


def test_a_cloud_stays_in_the_sky_and_steam_is_opaque_and_hot() -> None:
    for seed in _tagged("steam", 4):
        layers = gas.compose(seed, WIDE, leak=False)
        assert layers.clean.max() > 0.85
    sky, radiance = np.zeros((64, 64)), np.full((64, 64), 0.2)
    sky[:40] = 1.0
    confusers.cloud(np.random.default_rng(1), sky, radiance)
    assert radiance[:40].max() > 0.26
    assert np.array_equal(radiance[40:], np.full((24, 64), 0.2))


def test_a_clip_is_one_plume_in_one_scene_seen_later() -> None:
    ratios, seeds = [], [seed for seed, layers in enumerate(_many()) if layers.parameters["has_gas"]][:24]
    for seed in seeds:
        first, second, fourth = (gas.compose(seed, WIDE, frame=frame) for frame in (0, 1, 3))
        assert np.array_equal(first.machine, second.machine)
        assert second.tau_threshold == first.tau_threshold
        still = {"frame", "gas_fraction", "has_gas"}
        assert {k: v for k, v in first.parameters.items() if k not in still} == {
            k: v for k, v in second.parameters.items() if k not in still
        }
        near, far = (np.corrcoef(first.tau.ravel(), later.tau.ravel())[0, 1] for later in (second, fourth))
        assert near < 0.9999
        ratios.append((near, far))
    assert np.median([near for near, _ in ratios]) > 0.85
    assert np.mean([near > far for near, far in ratios]) > 0.8


def test_what_does_not_move_in_a_clip_is_the_same_and_the_noise_is_not() -> None:
    plain = [s for s, one in enumerate(_many()) if not one.parameters["has_gas"] and not one.parameters["confusers"]]
    first, second = (gas.render(plain[0], WIDE, frame=frame) for frame in (0, 1))
    assert np.array_equal(first.mask, second.mask)
    assert not np.array_equal(first.image, second.image)
    layers = gas.compose(plain[0], WIDE)
    apart = (first.image.astype(float) - second.image).std()
    assert apart == pytest.approx(255 * np.sqrt(2) * layers.sensor.noise, rel=0.1)  # nothing else differs


def test_the_visible_look_is_the_same_geometry_in_colour() -> None:
    saturated = []
    for seed in range(12):
        infrared, visible = gas.compose(seed, SIZE), gas.compose(seed, SIZE, look="visible")
        assert np.array_equal(infrared.machine, visible.machine)
        assert visible.clean.shape == (64, 64, 3)
        assert visible.parameters["machine_kinds"] == infrared.parameters["machine_kinds"]
        assert visible.parameters["delta_t_k"] == 0.0
        assert visible.parameters["look"] == "visible"
        saturated.append(float(np.ptp(visible.clean, axis=2).mean()))
        rendered = gas.finish(seed, visible)
        assert rendered.image.shape == (64, 64, 3)
    assert 0.02 < np.median(saturated) < 0.3


def test_kelvin_grey_and_distance_agree() -> None:
    for layers in _many()[:40]:
        found = layers.parameters
        if found["has_gas"]:
            kelvin, delta = float(str(found["delta_t_k"])), float(str(found["delta"]))
            transmission, span = float(str(found["transmission"])), float(str(found["span_k"]))
            assert abs(kelvin) * transmission / span == pytest.approx(delta)
            assert 15 <= span <= 60
            assert np.exp(-0.002 * 200) <= transmission < 1


def test_the_wind_turns_a_plume_and_more_of_it_flattens_it() -> None:
    low, high = [], []
    for seed in range(30):
        plume = draw_plume(np.random.default_rng(seed), 0.1)
        puffs = Simulation(np.random.default_rng(seed), plume).puffs()
        middle = float(np.average(puffs.x, weights=puffs.mass))
        if plume.wind_m_s > 1.5 and plume.jet_reach < 0.2:
            assert np.sign(middle) == plume.wind_side
        if plume.buoyancy > 0.2:
            rise = -float(np.average(puffs.y, weights=puffs.mass)) / max(abs(middle), 1e-3)
            (high if plume.wind_m_s > 2.0 else low).append(rise)
    assert np.median(low) > np.median(high)


def test_puffs_move_with_the_wind_and_moving_noise_changes_smoothly() -> None:
    plume = draw_plume(np.random.default_rng(3), 0.1)
    blowing = Simulation(np.random.default_rng(3), plume)
    before = blowing.puffs()
    blowing.advance(0.05)
    after = blowing.puffs()
    assert blowing.time == pytest.approx(0.05)
    assert abs(len(after.x) - len(before.x)) < 40
    eddies = draw_eddies(np.random.default_rng(0), 3, 0.5)
    place = np.linspace(0.0, 6.0, 80)
    now, soon, late = (eddies.at(place, place, time=time, coarsest_px=13.0) for time in (0.0, 0.1, 3.0))
    assert 0.5 < now.std() < 1.5
    assert np.corrcoef(now.ravel(), soon.ravel())[0, 1] > 0.97
    assert np.corrcoef(now.ravel(), late.ravel())[0, 1] < 0.6
