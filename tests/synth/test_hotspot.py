"""The generator ``hotspot``: faults that say nothing of the rest of the picture, exact masks, confusers everywhere."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError
from leakdet_tf.synth.hotspot import faults, glare, modules, thermal
from leakdet_tf.synth.hotspot import generator as hotspot
from leakdet_tf.synth.scenery.streams import streams_of
from tests.synth.test_leak import spread

SIZE = (96, 96)


@lru_cache(maxsize=1)
def many() -> list[hotspot.Layers]:
    """Scenes of the first 240 seeds."""
    return [hotspot.compose(seed, (64, 64)) for seed in range(240)]


def faulty(count: int) -> list[int]:
    """The first seeds with a fault."""
    return [seed for seed, layers in enumerate(many()) if layers.faults][:count]


def seen_near(layers: hotspot.Layers) -> NDArray[np.bool_]:
    """Where a change of ``touched`` pixels can be seen after blur and JPEG."""

    class Lens:
        blur_px, motion_px = layers.imager.blur_px, 0.0

    return spread(layers.touched, Lens)


def test_same_seed_same_bytes_and_other_seeds_other_pictures() -> None:
    first = hotspot.render(faulty(1)[0], SIZE)
    hotspot.render(99, (48, 80))
    again = hotspot.render(faulty(1)[0], SIZE)
    assert again.image.tobytes() == first.image.tobytes()
    assert again.mask.tobytes() == first.mask.tobytes()
    assert (again.parameters, again.boxes) == (first.parameters, first.boxes)
    assert json.loads(json.dumps(first.parameters, allow_nan=False)) == first.parameters
    assert len({hotspot.render(seed, SIZE).image.tobytes() for seed in (0, 1, 2, 2**52)}) == 4


@pytest.mark.parametrize("size", [(32, 32), (48, 96), (100, 70), (512, 96)])
def test_sizes_from_32_up(size: tuple[int, int]) -> None:
    for seed in range(3):
        rendered = hotspot.render(seed, size, no_hotspot=0.0)
        assert rendered.image.shape == (*size, 3)
        assert rendered.image.std() > 1
        assert rendered.mask.any() == (rendered.labels == ("faulty",))
    for wrong in ((31, 64), (64, 2049)):
        with pytest.raises(DataError, match=r"32\.\.2048"):
            hotspot.render(0, wrong)
    with pytest.raises(DataError, match="negative"):
        hotspot.render(-1, size)


def test_the_picture_does_not_know_whether_there_are_faults() -> None:
    spared = 0
    for seed in faulty(12):
        with_it, without = hotspot.compose(seed, (128, 128)), hotspot.compose(seed, (128, 128), faulty=False)
        assert np.array_equal(with_it.heat[~with_it.touched], without.heat[~with_it.touched])
        assert with_it.touched[with_it.mask != 0].all()
        assert (with_it.ends, with_it.imager) == (without.ends, without.imager)
        differs = {key for key, value in without.parameters.items() if with_it.parameters[key] != value}
        assert {"has_hotspot", "contrasts_k"} < differs <= {"has_hotspot", "contrasts_k", "hotspots", "diodes"}
        elsewhere = ~seen_near(with_it)
        pictures = hotspot.finish(seed, with_it), hotspot.finish(seed, without)
        assert pictures[1].labels == ("healthy",)
        assert pictures[1].boxes == ()
        assert np.array_equal(pictures[0].image[elsewhere], pictures[1].image[elsewhere])
        spared += int(elsewhere.sum())
    assert spared > 20_000


def test_boxes_are_the_faults_and_every_one_is_hot() -> None:
    diodes = hotspots = 0
    for seed in range(40):
        layers = hotspot.compose(seed, (128, 128), no_hotspot=0.0, diodes=0.4)
        clean = hotspot.compose(seed, (128, 128), faulty=False)
        rendered = hotspot.finish(seed, layers)
        assert rendered.boxes is not None
        rise = layers.heat - clean.heat
        span = layers.ends[1] - layers.ends[0]
        found = []
        for fault in layers.faults:
            rows, columns = np.flatnonzero(fault.where.any(axis=1)), np.flatnonzero(fault.where.any(axis=0))
            x0, y0, x1, y1 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
            found.append((fault.kind, x0, y0, x1, y1))
            assert min(x1 - x0, y1 - y0) >= 3  # 6 at 256 pixels
            part = (rendered.mask == hotspot.CLASSES.index(fault.kind)) & fault.where
            assert np.array_equal(part, fault.where)
            assert fault.contrast >= max(3.0, hotspot.LEAST_SHOWN * span)
            assert rise[fault.where].mean() > 0.4 * fault.contrast  # heat that spreads leaves small ones cooler
            assert rise[fault.where].mean() > 1.5
        assert sorted(found) == sorted(rendered.boxes)
        assert sum(fault.where.sum() for fault in layers.faults) == np.count_nonzero(rendered.mask)
        assert (len(layers.faults) > 0) == layers.parameters["has_hotspot"]
        hotspots += int(str(layers.parameters["hotspots"]))
        diodes += int(str(layers.parameters["diodes"]))
        assert len(found) == int(str(layers.parameters["hotspots"])) + int(str(layers.parameters["diodes"]))
    assert hotspots > 15
    assert diodes > 15


def test_a_hot_spot_is_brighter_in_the_picture() -> None:
    brighter = []
    for seed in faulty(30):
        shown = [hotspot.render(seed, (128, 128), look="grey", no_hotspot=share) for share in (0.0, 1.0)]
        change = shown[0].image[..., 0].astype(int) - shown[1].image[..., 0]
        brighter.append(change[shown[0].mask != 0].mean())
    assert min(brighter) > 5
    assert np.median(brighter) > 35


def test_faults_follow_their_shares_and_not_the_confusers() -> None:
    labels = np.array([bool(layers.faults) for layers in many()])
    assert labels.mean() == pytest.approx(0.75, abs=0.08)
    for tag in glare.TAGS:
        shown = np.array([tag in str(layers.parameters["confusers"]) for layers in many()])
        assert shown[labels].any()
        assert shown[~labels].any()
        assert shown[labels].mean() == pytest.approx(shown[~labels].mean(), abs=0.16)
    kinds = [fault.kind for layers in many() for fault in layers.faults]
    assert kinds.count("diode") / len(kinds) == pytest.approx(0.25, abs=0.07)
    assert {str(layers.parameters["ground"]) for layers in many()} == {*modules.GROUNDS, "none"}
    assert {hotspot.render(seed, SIZE, no_hotspot=1.0).labels for seed in range(8)} == {("healthy",)}
    for share, kind in ((0.0, "hotspot"), (1.0, "diode")):
        found = [hotspot.compose(seed, SIZE, no_hotspot=0.0, diodes=share).faults for seed in range(12)]
        assert {fault.kind for one in found for fault in one} == {kind}


@pytest.mark.parametrize("tag", glare.TAGS)
def test_a_confuser_is_seen_and_is_never_labelled(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [seed for seed, layers in enumerate(many()) if tag in str(layers.parameters["confusers"])][:16]
    shown = [hotspot.compose(seed, SIZE, faulty=False) for seed in seeds]
    real = glare.put
    monkeypatch.setattr(glare, "put", lambda rng, site, heat, one: heat if one == tag else real(rng, site, heat, one))
    bare = [hotspot.compose(seed, SIZE, faulty=False) for seed in seeds]
    changes = [float(np.abs(a.heat - b.heat).max()) for a, b in zip(shown, bare, strict=True)]
    assert np.median(changes) > 0.5
    assert not any(layers.mask.any() for layers in shown)


def test_a_string_is_a_third_of_a_module_and_a_fault_stays_within_one() -> None:
    thirds = 0
    for seed in range(30):
        streams = streams_of(seed, ("layout", "view", "faults"), 1)
        layout = modules.draw_layout(streams("layout"), 4.0)
        site = modules.draw_site(streams("view"), (128, 128), 4.0, layout)
        assert sum(layout.cells) in (16, 18)
        for fault in faults.draw_faults(streams("faults"), site, 1.0, 3.0):
            assert len(np.unique(site.module[fault.where])) == 1
            own = site.module == site.module[fault.where][0]
            whole = own & (site.inside > modules.FRAME + 0.02)
            axis, count = (1, layout.cells[0]) if layout.upright else (0, layout.cells[1])
            assert count == 6
            strings = np.unique(site.cell[axis][fault.where] // 2)
            thirds += len(strings) == 1
            assert np.array_equal(np.isin(site.cell[axis][whole] // 2, strings), fault.where[whole])
            other = site.cell[1 - axis][fault.where]
            assert other.min() >= 0
            assert other.max() < max(layout.cells)
    assert thirds > 10


def test_faults_beside_one_another_do_not_touch() -> None:
    several = 0
    for seed in range(40):
        streams = streams_of(seed, ("layout", "view", "faults"), 1)
        site = modules.draw_site(streams("view"), SIZE, 2.0, modules.draw_layout(streams("layout"), 2.0))
        found = faults.draw_faults(streams("faults"), site, 0.8, 3.0)
        several += len(found) > 1
        for index, fault in enumerate(found):
            near = cv2.dilate(fault.where.astype(np.uint8), np.ones((3, 3), np.uint8)) != 0
            assert not any((near & other.where).any() for other in found[index + 1 :])
    assert several > 15


def test_a_fault_that_the_edge_cuts_in_two_or_too_thin_does_not_fit() -> None:
    where = np.zeros((20, 20), np.bool_)
    where[3:9, 2:8] = True
    assert faults.fits(where, 6.0)
    assert not faults.fits(where, 6.5)
    where[9, 8] = True  # a corner connects
    assert faults.fits(where, 6.0)
    where[15, 15] = True
    assert not faults.fits(where, 6.0)
    assert not faults.fits(np.zeros((20, 20), np.bool_), 2.0)


def test_cells_lie_in_their_modules() -> None:
    layout = modules.Layout((1.0, 1.7), (6, 10), 2, 0.02, 1.0, (-1, 2), (0, 0), (0.5, 1.0))
    site = modules.draw_site(np.random.default_rng(3), (200, 200), 9.0, layout)
    inner = site.inside > modules.FRAME + 0.02
    for cells, count in zip(site.cell, (10, 6), strict=True):
        assert cells[inner].min() == 0
        assert cells[inner].max() == count - 1
        assert set(np.unique(cells[site.inside < modules.FRAME])) - set(range(count))
    assert len(np.unique(site.module[inner])) == 2 * 4  # two rows of the modules -1..2
    area = float((site.reach[inner] ** 2).sum()) / (8 * (1.0 - 0.1) * (1.7 - 0.1))
    assert area == pytest.approx(1.0, abs=0.4)  # a leaning pixel spans more than its reach one way
    assert not (site.glass[site.bare == 1.0]).any()


@pytest.mark.parametrize("look", thermal.LOOKS)
def test_palettes_are_ordered_and_one_scene_has_all_looks(look: str) -> None:
    rendered = hotspot.render(faulty(1)[0], SIZE, look=look)
    other = hotspot.render(faulty(1)[0], SIZE)
    assert rendered.image.shape == (*SIZE, 1 if look == "grey" else 3)
    assert np.array_equal(rendered.mask, other.mask)
    assert rendered.boxes == other.boxes
    if look != "grey":
        table = thermal.palette(look).astype(int)
        assert len(np.unique(table, axis=0)) > 200
        assert np.abs(np.diff(table, axis=0)).max() < 12
    if look == "iron":
        light = cv2.cvtColor(thermal.palette(look)[np.newaxis], cv2.COLOR_RGB2GRAY)[0].astype(int)
        assert (np.diff(light) >= 0).all()


def test_large_and_plain_faults_can_be_asked_for() -> None:
    sides, seen = [], []
    for seed in range(30):
        layers = hotspot.compose(seed, (128, 128), no_hotspot=0.0, least_side=0.08, least_shown=0.5)
        sides += [min(np.ptp(where) + 1 for where in np.nonzero(fault.where)) for fault in layers.faults]
        seen += [fault.contrast / (layers.ends[1] - layers.ends[0]) for fault in layers.faults]
    assert len(sides) >= 20
    assert min(sides) >= 0.08 * 128
    assert min(seen) >= 0.5


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"no_hotspot": -0.1}, "no_hotspot is -0.1"),
        ({"diodes": 1.5}, "diodes is 1.5"),
        ({"diodes": float("nan")}, "diodes is nan"),
        ({"no_hotspot": None}, "from 0 to 1"),
        ({"least_shown": 1.1}, "least_shown is 1.1"),
        ({"least_side": 0.2}, "least_side is 0.2"),
        ({"least_side": float("nan")}, "least_side is nan"),
        ({"look": "gray"}, "look is 'gray'"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], shown: str) -> None:
    with pytest.raises(DataError, match=shown) as caught:
        hotspot.render(1, SIZE, **options)
    assert caught.value.remedy
