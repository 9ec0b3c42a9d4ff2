"""The generator ``crack``: a label that says nothing of the surface, exact masks, and confusers everywhere."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.errors import DataError
from leakdet_tf.synth.crack import generator as crack
from leakdet_tf.synth.crack import scars
from leakdet_tf.synth.crack.fissure import Line, coverage, truth
from tests.synth.test_leak import spread

SIZE = (64, 64)


@lru_cache(maxsize=1)
def many() -> list[crack.Layers]:
    """Scenes of the first 240 seeds."""
    return [crack.compose(seed, (48, 48)) for seed in range(240)]


def cracked(count: int) -> list[int]:
    """The first seeds with a crack."""
    return [seed for seed, layers in enumerate(many()) if layers.crack.any()][:count]


def test_same_seed_same_bytes_and_other_seeds_other_pictures() -> None:
    first = crack.render(cracked(1)[0], SIZE)
    crack.render(99, (48, 80))
    again = crack.render(cracked(1)[0], SIZE)
    assert again.image.tobytes() == first.image.tobytes()
    assert again.mask.tobytes() == first.mask.tobytes()
    assert (again.parameters, again.boxes) == (first.parameters, first.boxes)
    assert json.loads(json.dumps(first.parameters, allow_nan=False)) == first.parameters
    assert len({crack.render(seed, SIZE).image.tobytes() for seed in (0, 1, 2, 2**52)}) == 4


@pytest.mark.parametrize("size", [(32, 32), (48, 96), (100, 70), (512, 96)])
def test_sizes_from_32_up(size: tuple[int, int]) -> None:
    for seed in cracked(2):
        rendered = crack.render(seed, size)
        assert rendered.image.shape == (*size, 3)
        assert rendered.image.std() > 1
        assert rendered.labels == ("cracked",)
        assert rendered.mask.any()
    for wrong in ((31, 64), (64, 2049)):
        with pytest.raises(DataError, match=r"32\.\.2048"):
            crack.render(0, wrong)
    with pytest.raises(DataError, match="negative"):
        crack.render(-1, size)


def test_the_surface_does_not_know_whether_there_is_a_crack() -> None:
    spared = 0
    for seed in cracked(12):
        with_it, without = crack.compose(seed, (128, 128)), crack.compose(seed, (128, 128), crack=False)
        assert np.array_equal(with_it.radiance[~with_it.touched], without.radiance[~with_it.touched])
        assert with_it.touched[with_it.crack].mean() > 0.9  # a hairline may cover nothing of a pixel of its truth
        assert (with_it.gain, with_it.camera) == (without.gain, without.camera)
        differs = {key for key, value in without.parameters.items() if with_it.parameters[key] != value}
        assert differs == {"has_crack", "crack_fraction", "crack_width_px"}
        elsewhere = ~spread(with_it.touched, with_it.camera)
        pictures = crack.finish(seed, with_it), crack.finish(seed, without)
        assert pictures[1].labels == ("non_cracked",)
        assert np.array_equal(pictures[0].image[elsewhere], pictures[1].image[elsewhere])
        spared += int(elsewhere.sum())
    assert spared > 20_000


def test_a_crack_shows_and_is_mostly_darker() -> None:
    changes, signs = [], []
    for seed in cracked(30):
        with_it, without = crack.compose(seed, SIZE), crack.compose(seed, SIZE, crack=False)
        change = (with_it.radiance - without.radiance)[with_it.crack] / without.radiance[with_it.crack].mean()
        changes.append(np.abs(change).mean())
        signs.append(change.mean() < 0)
    assert min(changes) > 0.04
    assert np.mean(signs) > 0.9


def test_labels_follow_their_shares_and_not_the_confusers() -> None:
    labels = np.array([bool(layers.crack.any()) for layers in many()])
    assert labels.mean() == pytest.approx(0.5, abs=0.1)
    for tag in scars.TAGS:
        shown = np.array([tag in str(layers.parameters["confusers"]) for layers in many()])
        assert shown[labels].any()
        assert shown[~labels].any()
        assert shown[labels].mean() == pytest.approx(shown[~labels].mean(), abs=0.13)
    for label, layers in zip(labels, many(), strict=True):
        assert layers.parameters["has_crack"] is bool(label)
        assert layers.parameters["crack_fraction"] == float(layers.crack.mean())
    assert {str(layers.parameters["material"]) for layers in many()} == set(crack.SLABS)
    assert {crack.render(seed, (32, 32), no_crack=0.0).labels for seed in range(12)} == {("cracked",)}
    assert {crack.render(seed, (32, 32), no_crack=1.0).labels for seed in range(12)} == {("non_cracked",)}


@pytest.mark.parametrize("tag", scars.TAGS)
def test_a_confuser_is_seen_and_is_never_labelled(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [seed for seed, layers in enumerate(many()) if tag in str(layers.parameters["confusers"])][:8]
    shown = [crack.compose(seed, SIZE, crack=False) for seed in seeds]
    monkeypatch.setattr(scars, "put", lambda rng, at, tag: None)
    bare = [crack.compose(seed, SIZE, crack=False) for seed in seeds]
    changes = [np.abs(a.radiance - b.radiance).max() / b.radiance.mean() for a, b in zip(shown, bare, strict=True)]
    assert np.median(changes) > 0.08
    assert not any(layers.crack.any() for layers in shown)


def test_coverage_is_the_share_of_a_pixel() -> None:
    points = np.array([[-2.0, 10.25], [40.0, 10.25]])
    line = Line(points, np.array([1.5, 1.5]))
    covered = coverage([line], (20, 32))
    assert np.allclose(covered[:, 16], [0.0] * 9 + [0.5, 1.0] + [0.0] * 9, atol=0.15)
    assert covered.sum() == pytest.approx(1.5 * 32, rel=0.1)
    hair = Line(points + 0.1, np.array([0.25, 0.25]))
    assert not np.any(coverage([hair], (20, 32)) >= 0.5)
    assert np.array_equal(np.flatnonzero(truth([hair], (20, 32)).any(axis=1)), [10])
    assert not truth([Line(points, np.zeros(2))], (20, 32)).any()


def test_boxes_are_tight_and_hold_every_region() -> None:
    for seed in cracked(15):
        rendered = crack.render(seed, SIZE)
        assert rendered.boxes
        within = np.zeros(SIZE, bool)
        for name, x0, y0, x1, y1 in rendered.boxes:
            part = rendered.mask[y0:y1, x0:x1]
            assert name == "crack"
            assert part[0].any()
            assert part[-1].any()
            assert part[:, 0].any()
            assert part[:, -1].any()
            within[y0:y1, x0:x1] = True
        assert not rendered.mask[~within].any()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"no_crack": -0.1}, "no_crack is -0.1"),
        ({"no_crack": None}, "from 0 to 1"),
        ({"backgrounds": "x"}, "no folder"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], shown: str) -> None:
    with pytest.raises(DataError, match=shown) as caught:
        crack.render(1, SIZE, **options)
    assert caught.value.remedy


def test_photographs_as_backgrounds(tmp_path: Path) -> None:
    Image.fromarray(np.full((70, 90, 3), 150, np.uint8)).save(tmp_path / "wall.bmp")
    Image.fromarray(np.full((70, 90), 150 << 8, np.uint16)).save(tmp_path / "deep.png")
    files = set()
    for seed in range(10):
        layers = crack.compose(seed, SIZE, backgrounds=str(tmp_path), no_crack=0.0)
        files.add(layers.parameters["background_file"])
        if not layers.parameters["confusers"]:
            flat = layers.radiance[~layers.touched]
            assert flat.max() - flat.min() < 0.01
    assert files == {"wall.bmp", "deep.png"}
