"""The generator ``leak``: a label that says nothing of the background, exact masks and boxes, confusers everywhere."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from leakdet_tf.core.errors import DataError, ImageError
from leakdet_tf.synth.leak import generator as leak
from leakdet_tf.synth.leak import litter, room
from leakdet_tf.synth.scenery.regions import boxes_of, divide

SIZE = (64, 64)
MCU = 16  # pixels of a JPEG's smallest independent block


@lru_cache(maxsize=1)
def many() -> list[leak.Layers]:
    """Scenes of the first 240 seeds."""
    return [leak.compose(seed, (40, 40)) for seed in range(240)]


def leaking(count: int) -> list[int]:
    """The first seeds with a leak."""
    return [seed for seed, layers in enumerate(many()) if layers.liquid][:count]


def spread(touched: NDArray[np.bool_], camera: Any) -> NDArray[np.bool_]:
    """Where a change of ``touched`` pixels can be seen after blur, smear and JPEG."""
    pixels = 1 + int(np.ceil(5 * camera.blur_px + camera.motion_px / 2 + 2))
    near = cv2.dilate(touched.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8))
    height, width = near.shape
    blocks = np.pad(near, ((0, -height % MCU), (0, -width % MCU)))
    blocks = blocks.reshape(blocks.shape[0] // MCU, MCU, -1, MCU).max(axis=(1, 3))
    whole = np.repeat(np.repeat(blocks, MCU, axis=0), MCU, axis=1)[:height, :width]
    return np.asarray(cv2.dilate(whole, np.ones((5, 5), np.uint8)), np.bool_)  # chroma is smoothed over the border


def test_same_seed_same_bytes_and_other_seeds_other_pictures() -> None:
    first = leak.render(leaking(1)[0], SIZE)
    leak.render(99, (48, 80))
    again = leak.render(leaking(1)[0], SIZE)
    assert again.image.tobytes() == first.image.tobytes()
    assert again.mask.tobytes() == first.mask.tobytes()
    assert (again.parameters, again.boxes) == (first.parameters, first.boxes)
    assert json.loads(json.dumps(first.parameters, allow_nan=False)) == first.parameters
    assert len({leak.render(seed, SIZE).image.tobytes() for seed in (0, 1, 2, 2**52)}) == 4


@pytest.mark.parametrize("size", [(32, 32), (48, 96), (100, 70), (512, 96)])
def test_sizes_from_32_up(size: tuple[int, int]) -> None:
    for seed in leaking(2):
        rendered = leak.render(seed, size)
        assert rendered.image.shape == (*size, 3)
        assert rendered.image.std() > 1
        assert rendered.mask.shape == size
        assert rendered.labels != ("no_leak",)
        assert rendered.mask.any()


def test_the_scene_does_not_know_whether_there_is_a_leak() -> None:
    spared = 0
    for seed in leaking(12):
        wet, dry = leak.compose(seed, (96, 96)), leak.compose(seed, (96, 96), leak=False)
        assert wet.touched.any()
        assert np.array_equal(wet.radiance[~wet.touched], dry.radiance[~wet.touched])
        assert np.all(wet.touched[wet.mask > 0])
        assert (wet.gain, wet.camera) == (dry.gain, dry.camera)
        same = {key for key, value in dry.parameters.items() if wet.parameters[key] == value}
        assert set(dry.parameters) - same == {"has_leak", "leak_fraction", "liquid", "shape"}
        elsewhere = ~spread(wet.touched, wet.camera)
        pictures = leak.finish(seed, wet), leak.finish(seed, dry)
        assert pictures[1].labels == ("no_leak",)
        assert not pictures[1].mask.any()
        assert np.array_equal(pictures[0].image[elsewhere], pictures[1].image[elsewhere])
        spared += int(elsewhere.sum())
    assert spared > 20_000


def test_the_shadow_of_a_leak_stays_near_it() -> None:
    for seed in leaking(12):
        layers = leak.compose(seed, (96, 96))
        near = cv2.dilate((layers.cover > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        hidden = layers.touched & ~near
        assert hidden.sum() <= 0.02 * layers.touched.sum() + 4  # along an edge of something in front


def test_a_leak_shows() -> None:
    changes = []
    for seed in leaking(30):
        wet, dry = leak.compose(seed, SIZE), leak.compose(seed, SIZE, leak=False)
        inside = wet.mask > 0
        assert np.array_equal(inside, wet.cover >= 0.5)
        changes.append(np.abs(wet.radiance - dry.radiance)[inside].mean() / dry.radiance[inside].mean())
    assert min(changes) > 0.06
    assert np.median(changes) > 0.2


def test_labels_follow_their_shares_and_not_the_confusers() -> None:
    liquids = np.array([layers.liquid for layers in many()])
    assert np.bincount(liquids, minlength=3) / 240 == pytest.approx([1 / 3] * 3, abs=0.1)  # over three deviations
    seen = {name: [name in str(layers.parameters["confusers"]) for layers in many()] for name in litter.TAGS}
    for shown in seen.values():
        rates = [np.mean(np.array(shown)[(liquids > 0) == leaks]) for leaks in (False, True)]
        assert rates[0] > 0.08
        assert rates[0] == pytest.approx(rates[1], abs=0.2)
    for liquid, layers in zip(liquids, many(), strict=True):
        assert layers.parameters["has_leak"] is bool(liquid)
        assert layers.parameters["leak_fraction"] == float(np.mean(layers.mask > 0))
        assert layers.parameters["liquid"] == ("none", "oil", "water")[liquid]
    assert {layers.parameters["shape"] for layers in many()} == {"none", "puddle", "run", "drip"}
    assert {layers.parameters["view"] for layers in many()} == set(room.KINDS)


def test_options_choose_liquids_and_share() -> None:
    for name in ("oil", "water"):
        labels = {leak.render(seed, (32, 32), liquids=[name], no_leak=0.0).labels for seed in range(12)}
        assert labels == {(f"{name}_leak",)}
    assert {leak.render(seed, (32, 32), no_leak=1.0).labels for seed in range(4)} == {("no_leak",)}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"liquids": []}, "liquids is"),
        ({"liquids": "oil"}, r"give a list"),
        ({"liquids": ["oi"]}, "did you mean 'oil'"),
        ({"no_leak": 1.2}, "no_leak is 1.2"),
        ({"no_leak": float("nan")}, "from 0 to 1"),
        ({"no_leak": True}, "no_leak is True"),
        ({"no_leak": "some"}, "no_leak is 'some'"),
        ({"backgrounds": "nowhere"}, "'nowhere' is no folder"),
        ({"backgrounds": 3}, "3 is no folder"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], shown: str) -> None:
    with pytest.raises(DataError, match=shown) as caught:
        leak.render(1, SIZE, **options)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(31, 64), (64, 2049)])
def test_a_size_out_of_range_and_a_negative_seed_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"32\.\.2048"):
        leak.render(0, size)
    with pytest.raises(DataError, match="negative"):
        leak.render(-1, SIZE)


def test_boxes_are_tight_and_hold_every_region() -> None:
    for seed in leaking(25):
        rendered = leak.render(seed, (80, 112))
        assert rendered.boxes
        within = np.zeros(rendered.mask.shape, bool)
        for name, x0, y0, x1, y1 in rendered.boxes:
            part = rendered.mask[y0:y1, x0:x1] == leak.CLASSES.index(name)
            assert part[0].any()
            assert part[-1].any()
            assert part[:, 0].any()
            assert part[:, -1].any()
            within[y0:y1, x0:x1] = True
        assert not np.any(rendered.mask[~within])
    assert boxes_of(np.zeros((4, 4), np.uint8), leak.CLASSES) == ()
    mask = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [1, 0, 0, 0]], np.uint8)
    assert set(boxes_of(mask, leak.CLASSES)) == {("oil", 0, 0, 2, 2), ("oil", 0, 3, 1, 4), ("water", 3, 0, 4, 2)}
    assert boxes_of(mask, leak.CLASSES, gap=3) == (("oil", 0, 0, 2, 4), ("water", 3, 0, 4, 2))


@pytest.mark.parametrize(("row", "column"), [(0, 9), (9, 0), (9, 9), (4, 9), (9, 3)])
@pytest.mark.parametrize("turned", [False, True])
def test_regions_share_a_box_up_to_the_gap_and_no_further(row: int, column: int, turned: bool) -> None:
    """Whichever of the two lies further left, and at the picture's edges too."""
    mask = np.zeros((12, 12), np.uint8)
    mask[1, 1] = mask[1 + row, 1 + column] = 1
    mask = mask[:, ::-1] if turned else mask
    between = max(row, column) - 1
    assert len(boxes_of(mask, ("dry", "wet"), gap=between - 1)) == 2
    (box,) = boxes_of(mask, ("dry", "wet"), gap=between)
    rows, columns = np.nonzero(mask)
    assert box == ("wet", columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_small_boxes_are_ignored_and_a_puddle_has_one_with_its_splashes() -> None:
    joined = ignored = 0
    for seed in leaking(40):
        plain = leak.render(seed, (80, 112))
        rendered = leak.render(seed, (80, 112), join=0.05, least_extent=0.05)
        assert np.array_equal(plain.image, rendered.image)
        assert np.array_equal(plain.mask, rendered.mask)
        assert plain.boxes is not None
        assert rendered.boxes is not None
        assert plain.ignored == ()
        together = boxes_of(plain.mask, leak.CLASSES, gap=4)
        assert rendered.boxes == tuple(one for one in together if (one[3] - one[1]) * (one[4] - one[2]) >= 16)
        for name, x0, y0, x1, y1 in {*together} - {*rendered.boxes}:
            around = [one for one in rendered.ignored if one[0] == name and x0 >= one[1] and y0 >= one[2]]
            assert any(x1 <= one[3] and y1 <= one[4] for one in around)
        joined += len(together) < len(plain.boxes)
        ignored += len(rendered.ignored)
    assert joined > 5
    assert ignored > 5
    for option in ({"join": 0.26}, {"least_extent": 0.11}, {"join": -0.1}):
        with pytest.raises(DataError, match=f"{next(iter(option))} is"):
            leak.render(1, (80, 112), **option)


@pytest.mark.parametrize(
    ("box", "grown"),
    [
        ((20, 30, 23, 33), (16, 26, 27, 37)),
        ((20, 9, 21, 58), (15, 9, 26, 58)),
        ((0, 57, 3, 60), (0, 53, 7, 60)),
        ((20, 9, 25, 57), None),
        ((20, 30, 30, 40), None),
    ],
)
def test_what_is_ignored_is_as_large_as_what_is_not(
    box: tuple[int, int, int, int], grown: tuple[int, int, int, int] | None
) -> None:
    """A streak is judged by its area, and most of what a detector may say of a speck lies in what is ignored."""
    found, ignored = divide([("oil", *box)], 10, (60, 80))
    assert found == (() if grown else (("oil", *box),))
    assert ignored == ((("oil", *grown),) if grown else ())
    if box == (20, 30, 23, 33):
        region = np.array(grown)
        for reach in (1.5, 2.5, 5.0, 7.5):
            said = np.array([21.5 - reach, 31.5 - reach, 21.5 + reach, 31.5 + reach])
            within = np.minimum(said[2:], region[2:]) - np.maximum(said[:2], region[:2])
            assert within.prod() >= 0.5 * (2 * reach) ** 2  # COCO's rule of crowds


def test_specks_that_grow_to_one_box_are_written_once() -> None:
    ring, dot, wide = ("oil", 20, 20, 26, 26), ("oil", 22, 22, 24, 24), ("oil", 18, 18, 28, 28)
    assert divide([ring, dot], 10, (60, 80)) == ((), (wide,))
    assert divide([ring, wide], 10, (60, 80)) == ((wide,), ())


@pytest.mark.parametrize("tag", litter.TAGS)
def test_a_confuser_is_seen_with_and_without_a_leak_and_is_never_labelled(
    tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [seed for seed, layers in enumerate(many()) if tag in str(layers.parameters["confusers"])]
    assert {many()[seed].liquid > 0 for seed in seeds} == {False, True}
    shown = [leak.compose(seed, SIZE, leak=False).radiance for seed in seeds[:8]]
    monkeypatch.setattr(litter, "put", lambda rng, at, tag: None)
    bare = [leak.compose(seed, SIZE, leak=False) for seed in seeds[:8]]
    changes = [np.abs(a - b.radiance).max() / b.radiance.mean() for a, b in zip(shown, bare, strict=True)]
    assert np.median(changes) > 0.1
    assert not any(layers.mask.any() for layers in bare)


def test_a_reflection_only_brightens_and_lies_on_floor_wall_and_pipe() -> None:
    reached: set[int] = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        place = room.trace(room.draw_view(rng, SIZE), SIZE)
        placed = litter.empty(place, np.full((*SIZE, 3), 0.3, np.float32))
        litter.put(rng, placed, "reflection")
        assert placed.glare.min() >= 0.0
        bright = placed.glare.max(axis=2) > 0.05
        reached |= set(np.unique(place.part[bright]))
        ratios = placed.glare[bright].max(axis=1) / placed.glare[bright].min(axis=1)
        assert ratios.size == 0 or np.ptp(ratios) < 1e-3  # one colour, no sheen
        assert not (placed.shade.any() or placed.dull.any() or placed.over.any())
        assert np.all(placed.gain == 1.0)
        assert np.median(placed.color) > 0.29
    assert reached == {room.FLOOR, room.WALL, room.PIPE}


def test_a_picture_without_a_reflection_does_not_know_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [leak.compose(seed, SIZE) for seed in range(20)]
    monkeypatch.setattr(litter, "REFLECTION", 0.0)
    for seed, layers in enumerate(shown):
        bare = leak.compose(seed, SIZE)
        tags = layers.parameters["confusers"]
        assert isinstance(tags, list)
        assert bare.parameters["confusers"] == [tag for tag in tags if tag != "reflection"]
        assert np.array_equal(bare.radiance, layers.radiance) is ("reflection" not in tags)
        assert np.array_equal(bare.mask, layers.mask)


def test_a_liquid_mirrors_what_the_dry_floor_below_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    glare = np.full((*SIZE, 3), 0.4, np.float32)
    monkeypatch.setattr(litter, "draw_tags", lambda rng: ["reflection"])
    for seed in leaking(4):
        monkeypatch.setattr(litter, "put", lambda rng, at, tag: None)
        plain = leak.compose(seed, SIZE)
        monkeypatch.setattr(litter, "put", lambda rng, at, tag: np.copyto(at.glare, glare))
        wet = plain.cover > 0.9
        assert np.median((leak.compose(seed, SIZE).radiance - plain.radiance)[wet]) > 0.2


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs of other sizes and modes, one in a sub-folder."""
    (tmp_path / "more").mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(90, 110, (60, 200, 3), np.uint8)).save(tmp_path / "red.png")
    Image.fromarray(rng.integers(190, 210, (300, 90), np.uint8)).save(tmp_path / "more" / "grey.jpg")
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    return tmp_path


def test_photographs_as_backgrounds(photos: Path) -> None:
    found = [leak.render(seed, SIZE, backgrounds=str(photos)) for seed in range(16)]
    files = {str(one.parameters["background_file"]) for one in found}
    assert files == {"red.png", "more/grey.jpg"}
    assert len({one.parameters["backgrounds_sha256"] for one in found}) == 1
    for one in found:
        level = np.median(one.image[one.mask == 0]) if (one.mask == 0).any() else 0
        assert (level > 140) == (one.parameters["background_file"] == "more/grey.jpg")
    wet = [seed for seed, one in enumerate(found) if one.mask.any()]
    assert wet
    for seed in wet:
        layers = leak.compose(seed, SIZE, backgrounds=str(photos))
        dry = leak.compose(seed, SIZE, backgrounds=str(photos), leak=False)
        assert np.array_equal(layers.radiance[~layers.touched], dry.radiance[~layers.touched])
    before = found[0].parameters["backgrounds_sha256"]
    (photos / "red.png").rename(photos / "blue.png")
    assert leak.render(0, SIZE, backgrounds=str(photos)).parameters["backgrounds_sha256"] != before


def test_a_bad_photograph_and_an_empty_folder_are_named(photos: Path, tmp_path: Path) -> None:
    for path in (photos / "red.png", photos / "more" / "grey.jpg"):
        path.write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"(red\.png|grey\.jpg): not a JPEG"):
        leak.render(0, SIZE, backgrounds=str(photos))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none: holds no picture"):
        leak.render(0, SIZE, backgrounds=str(tmp_path / "none"))
