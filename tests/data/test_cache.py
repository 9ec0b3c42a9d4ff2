"""The decoded split: the same pixels and labels as ``core`` gives, digests of the files, and named faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.data import Data
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError, ImageError
from leakdet_tf.core.files import sha256_file
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.tasks import task_of
from leakdet_tf.data import cache as room
from leakdet_tf.data.cache import Cache, bytes_needed, fill
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_items, read, truth_tables

VALUES = {"0": "background", "1": "blob", "255": "ignore"}
SETTINGS = Data.model_validate({"root": "x", "values": VALUES, "inputs": {"image": {"size": [8, 8]}}})
TABLES = truth_tables(SETTINGS, ["background", "blob"])
Make = Callable[..., Any]


def found_in(folder: Path, data: Data) -> list[Item]:
    return find_items(folder, data.sources[0], data.inputs)


def contract(**specs: ImageSpec) -> Contract:
    return Contract("segment", specs, classes_of(["background", "blob"]))


def filled(items: list[Item], agreed: Contract) -> Cache:
    *counted, found = fill(items, agreed, TABLES)
    assert counted == list(range(1, len(items) + 1))
    assert isinstance(found, Cache)
    return found


@pytest.fixture
def items(tmp_path: Path, fill_folder: Make, settings: Make) -> list[Item]:
    """Nine pictures of 12x10 pixels and three of 20x30."""
    fill_folder(tmp_path, [f"a{i}" for i in range(9)])
    fill_folder(tmp_path, ["b0", "b1", "b2"], size=(20, 30), seed=1)
    return found_in(tmp_path, settings(tmp_path))


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_the_cache_equals_core_one_by_one(items: list[Item], fit: Any) -> None:
    agreed = contract(image=ImageSpec(8, 16, 3, fit=fit, pad=7))
    found = filled(items, agreed)
    assert len(found) == 12
    assert found.ids == tuple(item.id for item in items)
    assert found.inputs["image"].shape == (12, 8, 16, 3)
    assert found.targets.shape == (12, 8, 16)
    for position, item in enumerate(items):
        sample = read(item, TABLES["data"]).sample
        pixels, geometry = agreed.inputs["image"].apply(sample.images["image"])
        np.testing.assert_array_equal(found.inputs["image"][position], pixels)
        np.testing.assert_array_equal(found.targets[position], task_of(agreed).targets(sample.truth, geometry))


def test_letterbox_padding_is_ignored(items: list[Item]) -> None:
    found = filled(items[:1], contract(image=ImageSpec(24, 40, 3, fit="letterbox", pad=9)))
    outside = np.ones((24, 40), bool)
    outside[:, 10:30] = False  # 12x10 becomes 24x20, in the middle
    assert (found.targets[0][outside] == IGNORE).all()
    assert (found.inputs["image"][0][outside] == 9).all()
    assert (found.targets[0][~outside] != IGNORE).any()


def test_two_inputs_of_different_size_and_depth(tmp_path: Path, write: Make, settings: Make) -> None:
    thermal = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8, 1)
    write(tmp_path / "rgb" / "a.png", np.full((6, 8, 3), 50, np.uint8))
    write(tmp_path / "thermal" / "a.png", thermal)
    write(tmp_path / "masks" / "a.png", np.ones((6, 8), np.uint8))
    keys = {"rgb": {"folder": "rgb", "size": [8, 8]}, "thermal": {"folder": "thermal", "size": [3, 4]}}
    (item,) = found_in(tmp_path, settings(tmp_path, inputs=keys))
    agreed = contract(rgb=ImageSpec(8, 8, 3), thermal=ImageSpec(3, 4, 1, "uint16"))
    found = filled([item], agreed)
    assert found.targets.shape == (1, 8, 8)
    assert found.inputs["thermal"].dtype == np.uint16
    np.testing.assert_array_equal(found.inputs["thermal"][0], agreed.inputs["thermal"].apply(thermal)[0])
    assert bytes_needed(1, agreed) == 8 * 8 * 3 + 3 * 4 * 2 + 8 * 8


def test_the_digest_changes_with_any_file_and_any_name(items: list[Item], tmp_path: Path, fill_folder: Make) -> None:
    agreed = contract(image=ImageSpec(8, 8))
    before = filled(items, agreed)
    assert before.digests[3] == (sha256_file(items[3].images["image"]), sha256_file(items[3].mask))
    assert filled(items, agreed).sha256 == before.sha256
    for path in (items[5].images["image"], items[7].mask):
        original = path.read_bytes()
        path.write_bytes(original + b"\0")  # behind the picture's end: the pixels stay the same
        after = filled(items, agreed)
        np.testing.assert_array_equal(after.inputs["image"], before.inputs["image"])
        assert after.sha256 != before.sha256
        path.write_bytes(original)
    assert filled(items, agreed).sha256 == before.sha256
    assert filled(items[:-1], agreed).sha256 != before.sha256
    assert filled(list(reversed(items)), agreed).sha256 != before.sha256


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", b"no picture at all"])
def test_a_damaged_file_is_named_before_anything_is_given_out(items: list[Item], damage: bytes) -> None:
    broken = items[6].images["image"]
    broken.write_bytes(damage)
    seen: list[int | Cache] = []
    with pytest.raises(ImageError) as caught:
        seen.extend(fill(items, contract(image=ImageSpec(8, 8)), TABLES))
    assert str(caught.value).startswith(f"{broken}: ")
    assert not any(isinstance(step, Cache) for step in seen)


def test_a_truncated_file_and_an_unknown_value_are_named(items: list[Item], write: Make) -> None:
    broken = items[2].images["image"]
    broken.write_bytes(broken.read_bytes()[:-60])
    odd = write(items[4].mask, np.full((12, 10), 77, np.uint8))
    agreed = contract(image=ImageSpec(8, 8))
    with pytest.raises(ImageError) as caught:
        list(fill(items, agreed, TABLES))
    assert str(caught.value).startswith(f"{broken}: ")
    with pytest.raises(DataError) as wrong:
        list(fill(items[3:], agreed, TABLES))
    assert str(wrong.value).startswith(f"{odd}: ")


def test_a_picture_of_the_wrong_kind_is_named(items: list[Item], write: Make) -> None:
    deep = write(items[8].images["image"], np.full((12, 10), 300, np.uint16))
    with pytest.raises(DataError) as caught:
        list(fill(items, contract(image=ImageSpec(8, 8)), TABLES))
    assert str(caught.value).startswith(f"{deep}: has uint16 pixels")
    with pytest.raises(DataError) as channels:
        list(fill(items[:1], contract(image=ImageSpec(8, 8, 2)), TABLES))
    assert str(items[0].images["image"]) in str(channels.value)
    assert "3 channels" in str(channels.value)


def test_no_pictures_are_an_error() -> None:
    with pytest.raises(DataError, match="no pictures"):
        list(fill([], contract(image=ImageSpec(8, 8)), TABLES))


def test_a_picture_that_vanishes_before_it_is_read_is_named(items: list[Item]) -> None:
    gone = items[5].images["image"]
    gone.unlink()
    with pytest.raises(DataError, match=gone.name) as caught:
        list(fill(items, contract(image=ImageSpec(8, 8)), TABLES))
    assert str(caught.value).isprintable()


def test_too_little_memory_is_said_before_reading(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    agreed = contract(image=ImageSpec(8, 8))
    needed = bytes_needed(len(items), agreed)
    assert needed == 12 * 8 * 8 * 4
    monkeypatch.setattr(room, "free_bytes", lambda: needed)
    for item in items:
        item.mask.unlink()
    with pytest.raises(DataError, match=r"12 pictures take .* of memory .* are free; set data\.cache = \"disk\""):
        next(fill(items, agreed, TABLES))


def test_enough_memory_or_no_figure_of_it_is_no_error(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    agreed = contract(image=ImageSpec(8, 8))
    for free in (bytes_needed(len(items), agreed) * 2, None):
        monkeypatch.setattr(room, "free_bytes", lambda free=free: free)
        assert len(filled(items, agreed)) == 12


def test_giving_up_half_way_leaves_no_threads_at_work(items: list[Item]) -> None:
    work = fill(items, contract(image=ImageSpec(8, 8)), TABLES)
    assert next(work) == 1
    work.close()  # type: ignore[attr-defined]
