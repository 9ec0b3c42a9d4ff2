"""Backgrounds are cut, puddles drawn, and pictures joined so that nothing outside a mask changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.diffusion import Inpaint
from leakdet_tf.core.errors import DataError
from leakdet_tf.synth.diffusion.repaint import Place, Places, join, puddle


def _photo(path: Path, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def _mask(path: Path, height: int, width: int, *, rows: slice = slice(0, 0)) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.zeros((height, width), np.uint8)
    pixels[rows] = 7
    Image.fromarray(pixels).save(path)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_puddles_keep_to_their_area_and_to_the_floor() -> None:
    shares, rows = [], []
    for seed in range(60):
        mask, drawn = puddle(_rng(seed), (120, 160), (0.03, 0.1))
        assert mask.shape == (120, 160)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        shares.append(float((mask != 0).mean()))
        rows.append(float(np.nonzero(mask)[0].mean()))
        assert 0.03 <= drawn["share"] <= 0.1
    assert 0.01 < min(shares) < 0.04  # some are cut off at the edge
    assert 0.06 < max(shares) < 0.115  # the outline's own pixels count too
    assert min(rows) > 50
    assert len({round(share, 6) for share in shares}) > 50


def test_a_puddle_is_the_same_for_the_same_seed_and_never_empty() -> None:
    again = [puddle(_rng(4), (64, 64), (0.05, 0.1))[0] for _ in range(2)]
    assert np.array_equal(*again)
    assert all(puddle(_rng(seed), (8, 8), (0.001, 0.001))[0].any() for seed in range(30))


def test_a_window_has_the_proportions_of_the_size(tmp_path: Path) -> None:
    _photo(tmp_path / "b" / "wide.png", 60, 200)
    places = Places(Inpaint(backgrounds=str(tmp_path / "b")))
    seen = set()
    for seed in range(12):
        place = places.draw(_rng(seed), (32, 48))
        assert place.image.shape == (32, 48, 3)
        assert place.mask.shape == (32, 48)
        top, left, height, width = place.parameters["window"]
        assert (top, height, width) == (0, 60, 90)
        seen.add(left)
    assert len(seen) > 6
    assert max(seen) <= 110


def test_the_cut_shows_the_photograph(tmp_path: Path) -> None:
    pixels = _photo(tmp_path / "b" / "a.png", 40, 64)
    place = Places(Inpaint(backgrounds=str(tmp_path / "b"))).draw(_rng(), (40, 64))
    assert np.array_equal(place.image, pixels)
    assert place.parameters["background"] == "a.png"


def test_a_mask_of_the_user_draws_the_window_to_it(tmp_path: Path) -> None:
    _photo(tmp_path / "b" / "a.png", 160, 40)
    _mask(tmp_path / "m" / "a.png", 160, 40, rows=slice(100, 110))
    place = Places(Inpaint(backgrounds=str(tmp_path / "b"), masks=str(tmp_path / "m"))).draw(_rng(), (40, 40))
    assert (place.mask != 0).sum() == 10 * 40
    assert set(np.unique(place.mask)) == {0, 255}
    top = place.parameters["window"][0]
    assert 70 <= top <= 100
    assert place.parameters["mask"] == "a.png"


def test_faults_of_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"none: no such folder; set inpaint\.backgrounds"):
        Places(Inpaint(backgrounds=str(tmp_path / "none")))
    with pytest.raises(DataError, match="empty: holds no pictures"):
        Places(Inpaint(backgrounds=str(tmp_path / "empty")))
    _photo(tmp_path / "b" / "a.png", 40, 40)
    with pytest.raises(DataError, match=r"has no mask for .*a\.png \(1 lack one\)"):
        _mask(tmp_path / "m" / "other.png", 40, 40)
        Places(Inpaint(backgrounds=str(tmp_path / "b"), masks=str(tmp_path / "m")))
    _photo(tmp_path / "b" / "a.jpg", 40, 40)
    with pytest.raises(DataError, match=r"has the same stem"):
        Places(Inpaint(backgrounds=str(tmp_path / "b")))


def test_faults_of_masks_are_named(tmp_path: Path) -> None:
    _photo(tmp_path / "b" / "a.png", 40, 40)
    places = Inpaint(backgrounds=str(tmp_path / "b"), masks=str(tmp_path / "m"))
    _mask(tmp_path / "m" / "a.png", 40, 48, rows=slice(0, 9))
    with pytest.raises(DataError, match=r"is 40 x 48 pixels, but .* is 40 x 40"):
        Places(places).draw(_rng(), (40, 40))
    _mask(tmp_path / "m" / "a.png", 40, 40)
    with pytest.raises(DataError, match="nothing to paint over"):
        Places(places).draw(_rng(), (40, 40))


def test_pictures_of_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), 4000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has 16 bits a pixel"):
        Places(Inpaint(backgrounds=str(tmp_path))).draw(_rng(), (40, 40))


def test_grey_photographs_become_colour(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(tmp_path / "a.png")
    assert np.all(Places(Inpaint(backgrounds=str(tmp_path))).draw(_rng(), (16, 16)).image == 90)


def test_a_changed_file_changes_the_digest(tmp_path: Path) -> None:
    _photo(tmp_path / "b" / "a.png", 40, 40)
    before = Places(Inpaint(backgrounds=str(tmp_path / "b"))).digest()
    assert Places(Inpaint(backgrounds=str(tmp_path / "b"))).digest() == before
    _photo(tmp_path / "b" / "a.png", 40, 41)
    assert Places(Inpaint(backgrounds=str(tmp_path / "b"))).digest() != before


@pytest.mark.parametrize("feather", [0.0, 4.0])
def test_outside_the_mask_not_a_bit_changes(feather: float) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:50] = 255
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    painted = np.full((40, 60, 3), 200, np.uint8)
    joined = join(Place(image, mask, {}), painted, feather)
    assert joined.dtype == np.uint8
    assert np.array_equal(joined[mask == 0], image[mask == 0])
    assert np.all(joined[16:24, 16:44] == 200)
    edge = joined[10, 30].astype(int)
    wanted = 200 if feather == 0 else np.round(image[10, 30] + (200.0 - image[10, 30]) / 5)
    assert np.all(edge == wanted)
