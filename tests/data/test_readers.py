"""Finding and reading folders of pictures and masks: both layouts, and what is said about each fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.data import Data
from leakdet_tf.core.errors import DataError, ImageError
from leakdet_tf.core.files import sha256_file
from leakdet_tf.core.records import IGNORE, Origin
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_items, find_splits, read, truth_tables

CLASSES = ["background", "blob"]
TWO_INPUTS = {
    "rgb": {"folder": "rgb", "size": [8, 8]},
    "thermal": {"folder": "thermal", "size": [8, 8], "channels": 1, "dtype": "uint16"},
}
Make = Callable[..., Any]


def found_in(folder: Path, data: Data) -> list[Item]:
    return find_items(folder, data.sources[0], data.inputs)


def table_of(values: dict[str, str], classes: list[str]) -> np.ndarray:
    data = Data.model_validate({"root": "x", "values": values, "inputs": {"image": {"size": [8, 8]}}})
    return truth_tables(data, classes)["data"]


def table(**values: str) -> np.ndarray:
    return table_of({key.removeprefix("v").replace("_", "-"): name for key, name in values.items()}, CLASSES)


@pytest.fixture
def folder(tmp_path: Path, fill_folder: Make) -> Path:
    """One folder with three pictures and masks."""
    return fill_folder(tmp_path / "set", ["a", "b", "c"])


def fault(call: Callable[[], Any], kind: type[Exception] = DataError) -> str:
    """The message that the call fails with; one line."""
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_three_folders_are_taken_as_they_are(tmp_path: Path, fill_folder: Make, settings: Make) -> None:
    for number, name in enumerate(("train", "val", "test")):
        fill_folder(tmp_path / name, [f"{name}{i}" for i in range(number + 1)])
    parts = find_splits(settings(tmp_path))
    assert {name: [item.id for item in items] for name, items in parts.items()} == {
        "train": ["train0"],
        "val": ["val0", "val1"],
        "test": ["test0", "test1", "test2"],
    }


def test_one_folder_is_divided(tmp_path: Path, fill_folder: Make, settings: Make) -> None:
    names = [f"p{i:02d}" for i in range(20)]
    fill_folder(tmp_path, names)
    parts = find_splits(settings(tmp_path, split={"train": 0.5, "val": 0.25, "test": 0.25}))
    assert {name: len(items) for name, items in parts.items()} == {"train": 10, "val": 5, "test": 5}
    assert sorted(item.id for items in parts.values() for item in items) == names
    for items in parts.values():
        assert [item.id for item in items] == sorted(item.id for item in items)


def test_one_folder_without_a_split_table(folder: Path, settings: Make) -> None:
    message = fault(lambda: find_splits(settings(folder)))
    assert str(folder) in message
    assert "[data.split]" in message


def test_no_root(tmp_path: Path, settings: Make) -> None:
    message = fault(lambda: find_splits(settings(tmp_path / "nowhere")))
    assert str(tmp_path / "nowhere") in message
    assert "data.root" in message


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_a_missing_split_folder_is_named(tmp_path: Path, fill_folder: Make, settings: Make, missing: str) -> None:
    for name in {"train", "val", "test"} - {missing}:
        fill_folder(tmp_path / name, ["a"])
    assert f"no {missing} folder" in fault(lambda: find_splits(settings(tmp_path)))


def test_split_folders_and_a_split_table_contradict(tmp_path: Path, fill_folder: Make, settings: Make) -> None:
    for name in ("train", "val", "test"):
        fill_folder(tmp_path / name, ["a"])
    assert "[data.split]" in fault(lambda: find_splits(settings(tmp_path, split={})))


def test_items_are_paired_by_stem_whatever_the_suffix(tmp_path: Path, write: Make, settings: Make) -> None:
    mask = np.zeros((4, 4), np.uint8)
    for name in ("one.jpg", "two.JPEG", "a.b.bmp", "three.tif"):
        write(tmp_path / "images" / name, np.zeros((4, 4, 3), np.uint8))
        write(tmp_path / "masks" / f"{Path(name).stem}.png", mask)
    (tmp_path / "images" / "notes.txt").write_text("not a picture", encoding="utf-8")
    items = found_in(tmp_path, settings(tmp_path))
    assert [item.id for item in items] == ["a.b", "one", "three", "two"]
    assert [item.mask.name for item in items] == ["a.b.png", "one.png", "three.png", "two.png"]


def test_sub_folders_are_part_of_the_id(tmp_path: Path, fill_folder: Make, settings: Make) -> None:
    fill_folder(tmp_path, ["north/a", "south/a", "a"])
    items = found_in(tmp_path, settings(tmp_path))
    assert [item.id for item in items] == ["a", "north/a", "south/a"]
    assert items[1].images["image"] == tmp_path / "images" / "north" / "a.png"
    assert items[1].mask == tmp_path / "masks" / "north" / "a.png"


def test_hidden_files_and_folders_are_skipped(folder: Path, write: Make, settings: Make) -> None:
    write(folder / "images" / "._a.png", np.zeros((4, 4), np.uint8))
    write(folder / "images" / ".thumbnails" / "t.png", np.zeros((4, 4), np.uint8))
    (folder / "images" / "looks_like.png").mkdir()
    assert [item.id for item in found_in(folder, settings(folder))] == ["a", "b", "c"]


def test_a_picture_without_mask_is_named(folder: Path, settings: Make) -> None:
    (folder / "masks" / "b.png").unlink()
    message = fault(lambda: found_in(folder, settings(folder)))
    assert message.startswith(f"{folder / 'images' / 'b.png'}: ")
    assert str(folder / "masks") in message
    assert "(1 such file)" in message


def test_a_mask_without_picture_is_named(folder: Path, settings: Make) -> None:
    for name in ("a", "b"):
        (folder / "images" / f"{name}.png").unlink()
    message = fault(lambda: found_in(folder, settings(folder)))
    assert message.startswith(f"{folder / 'masks' / 'a.png'}: ")
    assert str(folder / "images") in message
    assert "(2 such files)" in message


def test_equal_stems_are_refused(folder: Path, write: Make, settings: Make) -> None:
    double = write(folder / "images" / "b.jpg", np.zeros((12, 10, 3), np.uint8))
    message = fault(lambda: found_in(folder, settings(folder)))
    assert "b.png" in message
    assert str(double.with_suffix("")) in message


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_empty_and_missing_folders_are_named(folder: Path, settings: Make, kind: str) -> None:
    for path in (folder / kind).iterdir():
        path.unlink()
    assert str(folder / kind) in fault(lambda: found_in(folder, settings(folder)))
    (folder / kind).rmdir()
    assert f"{folder / kind}: no such folder" in fault(lambda: found_in(folder, settings(folder)))


def test_a_link_to_nothing_is_named(folder: Path, settings: Make) -> None:
    link = folder / "images" / "d.png"
    link.symlink_to(folder / "gone.png")
    assert fault(lambda: found_in(folder, settings(folder))).startswith(f"{link}: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a name")
def test_a_name_that_is_not_utf8_is_named(folder: Path, settings: Make) -> None:
    (folder / "images" / "b.png").rename(folder / "images" / "b\udcff.png")
    assert "b\\udcff.png: its name is not UTF-8 text; rename it" in fault(lambda: found_in(folder, settings(folder)))


def test_values_ranges_and_ignore_become_classes(tmp_path: Path, write: Make, settings: Make) -> None:
    write(tmp_path / "images" / "a.png", np.zeros((2, 3, 3), np.uint8))
    write(tmp_path / "masks" / "a.png", np.array([[0, 9, 10], [128, 200, 255]], np.uint8))
    (item,) = found_in(tmp_path, settings(tmp_path))
    found = read(item, table(v0="background", v9="background", v10_199="blob", v200="ignore", v201_255="blob"))
    assert found.sample.truth is not None
    assert found.sample.truth.dtype == np.uint8
    np.testing.assert_array_equal(found.sample.truth, [[0, 0, 1], [1, IGNORE, 1]])


def test_every_mask_value_may_have_a_meaning() -> None:
    names = [f"c{i}" for i in range(255)]
    found = table_of({str(i): name for i, name in enumerate(names)} | {"255": "ignore"}, names)
    np.testing.assert_array_equal(found, [*range(255), IGNORE])


def test_unknown_mask_values_are_listed(folder: Path, settings: Make) -> None:
    item = found_in(folder, settings(folder))[1]
    message = fault(lambda: read(item, table(v0="background", v1="blob")))
    assert message.startswith(f"{item.mask}: ")
    assert "255" in message
    assert "data.values" in message
    message = fault(lambda: read(item, table(v7="blob")))
    assert "0, 1, 255" in message


def test_a_mask_of_another_size_is_named(folder: Path, write: Make, settings: Make) -> None:
    mask = write(folder / "masks" / "b.png", np.zeros((10, 12), np.uint8))
    item = found_in(folder, settings(folder))[1]
    message = fault(lambda: read(item, table(v0="background")))
    assert message.startswith(f"{mask}: is 12x10 px")
    assert "10x12" in message


def test_a_colour_mask_is_named(folder: Path, write: Make, settings: Make) -> None:
    mask = write(folder / "masks" / "b.png", np.zeros((12, 10, 3), np.uint8))
    item = found_in(folder, settings(folder))[1]
    assert fault(lambda: read(item, table(v0="background")), ImageError).startswith(f"{mask}: ")


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_that_vanishes_before_it_is_read(folder: Path, settings: Make, kind: str) -> None:
    item = found_in(folder, settings(folder))[0]
    gone = folder / kind / "a.png"
    gone.unlink()
    assert fault(lambda: read(item, table(v0="background"))).startswith(f"{gone}: ")


def test_the_digests_are_those_of_the_files(folder: Path, settings: Make) -> None:
    item = found_in(folder, settings(folder))[2]
    found = read(item, table(v0="background", v1="blob", v255="ignore"))
    assert found.sha256 == (sha256_file(item.images["image"]), sha256_file(item.mask))
    assert found.sample.id == "c"
    assert found.sample.origin == Origin(str(item.images["image"]))


def test_two_inputs(tmp_path: Path, write: Make, settings: Make) -> None:
    rgb = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    thermal = (np.arange(20, dtype=np.uint16) * 3000).reshape(4, 5, 1)
    for name in ("a", "b"):
        write(tmp_path / "rgb" / f"{name}.png", rgb)
        write(tmp_path / "thermal" / f"{name}.tiff", thermal)
        write(tmp_path / "masks" / f"{name}.png", np.ones((4, 5), np.uint8))
    data = settings(tmp_path, inputs=TWO_INPUTS)
    items = found_in(tmp_path, data)
    found = read(items[1], table(v1="blob"))
    np.testing.assert_array_equal(found.sample.images["rgb"], rgb)
    np.testing.assert_array_equal(found.sample.images["thermal"], thermal)
    assert found.sample.images["thermal"].dtype == np.uint16
    assert len(found.sha256) == 3

    (tmp_path / "thermal" / "b.tiff").unlink()
    message = fault(lambda: found_in(tmp_path, data))
    assert message.startswith(f"{tmp_path / 'rgb' / 'b.png'}: has no partner in {tmp_path / 'thermal'}")


def test_an_input_may_be_called_masks(tmp_path: Path, fill_folder: Make, settings: Make) -> None:
    fill_folder(tmp_path, ["a", "b"])
    data = settings(tmp_path, inputs={"masks": {"size": [8, 8]}})
    assert len(found_in(tmp_path, data)) == 2
    (tmp_path / "masks" / "b.png").unlink()
    assert str(tmp_path / "images" / "b.png") in fault(lambda: found_in(tmp_path, data))


def write_manifest(root: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "manifest.json").write_text(text, encoding="utf-8")


def test_rendered_pictures_carry_generator_and_seed(tmp_path: Path, fill_folder: Make, settings: Make) -> None:
    fill_folder(tmp_path / "val", ["g_1", "g_2", "own", "sub/g_1"])
    entries = [{"file": f"{part}/images/g_{i}.png", "seed": seed} for part, i, seed in (("val", 1, 11), ("val", 2, 12))]
    other = [{"file": "train/images/own.png", "seed": 13}]
    write_manifest(tmp_path, {"generator": "gas", "pictures": entries + other})
    origins = {item.id: item.origin for item in found_in(tmp_path / "val", settings(tmp_path))}
    assert origins["g_1"] == Origin("val/images/g_1.png", "rendered", "gas", 11)
    assert origins["g_2"] == Origin("val/images/g_2.png", "rendered", "gas", 12)
    assert origins["own"].kind == origins["sub/g_1"].kind == "real"


@pytest.mark.parametrize("by", ["link", "dot", "root"])
def test_rendered_pictures_are_known_however_their_folder_is_named(
    tmp_path: Path, fill_folder: Make, settings: Make, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    fill_folder(tmp_path / "made" / "val", ["a"])
    write_manifest(tmp_path / "made", {"generator": "gas", "pictures": [{"file": "val/images/a.png"}]})
    place = {"link": tmp_path / "link", "dot": Path(), "root": tmp_path / "root" / "val"}[by]
    if by == "dot":
        monkeypatch.chdir(tmp_path / "made" / "val")
    elif by == "link":
        place.symlink_to(tmp_path / "made" / "val")
    else:  # the split's folder lies elsewhere, and the manifest stands beside the link to it
        place.parent.mkdir()
        (tmp_path / "made" / "val").rename(tmp_path / "disk")
        place.symlink_to(tmp_path / "disk")
        (tmp_path / "made" / "manifest.json").rename(place.parent / "manifest.json")
    (item,) = found_in(place, settings(tmp_path))
    assert (item.origin.kind, item.origin.file) == ("rendered", "val/images/a.png")
    assert next(iter(item.images.values())).parent == place / "images"


def test_somebody_elses_manifest_is_left_alone(tmp_path: Path, fill_folder: Make, settings: Make) -> None:
    fill_folder(tmp_path / "val", ["a"])
    for content in ({"name": "an app", "icons": []}, ["a", "list"]):
        write_manifest(tmp_path, content)
        assert found_in(tmp_path / "val", settings(tmp_path))[0].origin.kind == "real"


@pytest.mark.parametrize(
    "content",
    [
        "{half",
        "\x00",
        {"generator": "gas"},
        {"generator": "gas", "pictures": [{}]},
        {"generator": "gas", "pictures": 3},
        {"generator": "gas", "pictures": ["a"]},
        {"generator": "gas", "pictures": [{"file": "a", "seed": float("inf")}]},
        "[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, fill_folder: Make, settings: Make, content: Any) -> None:
    fill_folder(tmp_path / "val", ["a"])
    write_manifest(tmp_path, content)
    message = fault(lambda: found_in(tmp_path / "val", settings(tmp_path)))
    assert message.startswith(f"{tmp_path / 'manifest.json'}: ")


@pytest.mark.data
def test_a_real_folder_is_found_and_read(shared: Path, settings: Make) -> None:
    data = settings(shared / "data" / "gas_smoke", values={"0": "background", "255": "gas"})
    parts = find_splits(data)
    assert {name: len(items) for name, items in parts.items()} == {"train": 839, "val": 240, "test": 120}
    classes = table_of(data.values, ["background", "gas"])
    for item in parts["test"][::10]:
        sample = read(item, classes).sample
        assert sample.truth is not None
        assert sample.truth.shape == sample.images["image"].shape[:2] == (256, 256)
        assert set(np.unique(sample.truth)) <= {0, 1}
