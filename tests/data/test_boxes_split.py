"""Pictures with boxes divided: pooled, balanced, taken from, and by a manifest of the part of each file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.data import Data, Split
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.errors import DataError
from leakdet_tf.data.findings import survey
from leakdet_tf.data.readers import find_splits, read, truth_tables
from leakdet_tf.data.splits import divide, groups_of, save_manifest
from leakdet_tf.jobs.evaluate import _items

BOX = "<object><name>hotspot</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"


def settings(root: Path, form: str, **keys: Any) -> Data:
    return Data.model_validate({"root": str(root), "labels": form, "inputs": {"image": {"size": [32, 32]}}} | keys)


def write(folder: Path, form: str) -> None:
    """``a`` with a box and ``b`` without any, in a form."""
    texts = {"yolo": ("0 .5 .5 .5 .5", ""), "voc": (f"<annotation>{BOX}</annotation>", "<annotation/>")}
    images, suffix = [], ".txt" if form == "yolo" else ".xml"
    for number, name in enumerate("ab"):
        for place in ("images", "labels"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (number, 0, 0)).save(folder / f"images/{name}.png")
        images.append({"id": number, "file_name": f"{name}.png"})
        if form in texts:
            (folder / f"labels/{name}{suffix}").write_text(texts[form][number])
    boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    table = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "hotspot"}]}
    (folder / "coco.json").write_text(json.dumps(table))


@pytest.mark.parametrize("form", ["yolo", "voc", "coco.json"])
def test_one_folder_can_be_divided_pooled_balanced_and_taken_from(tmp_path: Path, form: str) -> None:
    for part in SPLITS:
        write(tmp_path / part, form)
    parts = find_splits(settings(tmp_path, form))
    assert {name: [item.id for item in items] for name, items in parts.items()} == {name: ["a", "b"] for name in SPLITS}
    thirds = {"train": 0.34, "val": 0.33, "test": 0.33}
    for extra in ({}, {"balance": True}):
        pooled = find_splits(settings(tmp_path, form, split={"pool": True, **thirds, **extra}))
        assert sorted(item.id for items in pooled.values() for item in items) == sorted(
            f"{part}/{name}" for part in SPLITS for name in "ab"
        )
        if extra:  # each part has one picture with boxes and one without
            assert all(len({item.id[-1] for item in items}) == 2 for items in pooled.values())
    single = {"name": "s", "root": str(tmp_path), "labels": form, "take": 1}
    data = Data.model_validate({"source": [single], "inputs": {"image": {"size": [8, 8]}}})
    assert {name: len(items) for name, items in find_splits(data).items()} == {"train": 1, "val": 2, "test": 2}


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_folders_of_parts_may_lie_in_those_of_pictures_and_boxes(tmp_path: Path, form: str) -> None:
    root = tmp_path / "set"
    for part in SPLITS:
        write(tmp_path / part, form)
        for kind in ("images", "labels"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / kind).rename(root / kind / part)
    data = settings(root, form)
    parts = find_splits(data)
    assert {name: [item.id for item in items] for name, items in parts.items()} == {name: ["a", "b"] for name in SPLITS}
    assert parts["val"][0].boxes == root / f"labels/val/a{'.txt' if form == 'yolo' else '.xml'}"
    assert survey(data) == (parts, [])
    whole = find_splits(settings(root, form, split={"train": 0.5, "val": 0.25, "test": 0.25}))  # as it was
    assert sorted(item.id for items in whole.values() for item in items)[:2] == ["test/a", "test/b"]
    (root / "labels/test").rename(root / "labels/tests")
    assert [(one.split, one.detail) for one in survey(data)[1]] == [("test", "no such folder")]
    with pytest.raises(DataError, match=r"labels/test: no such folder"):
        find_splits(data)
    (root / "images").rename(root / "pictures")
    with pytest.raises(DataError, match="has no train, val and test folders"):
        find_splits(data)


def manifest(path: Path, split: Any, groups: Any = ()) -> Split:
    path.write_text(json.dumps({"split": split, "groups": groups}))
    return Split(manifest=str(path))


def test_a_manifest_may_name_the_part_of_each_file(tmp_path: Path) -> None:
    given = manifest(tmp_path / "m.json", {"a.jpg": "test", "b": "train", "day.1/c.png": "val", "d.v2": "train"})
    found = divide(["a", "b", "day.1/c", "d.v2"], given, where="x")
    assert found == {"train": ["b", "d.v2"], "val": ["day.1/c"], "test": ["a"]}


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"a.jpg": "train"}, "'b' is not named, yet in x"),
        ({"a.jpg": "train", "b": "val", "c.jpg": "val"}, "'c' is not in x"),
        ({"a.jpg": "train", "a.png": "val", "b": "val"}, "'a' stands there twice"),
        ({"a.jpg": "train", "b": "valid"}, "'b' belongs to 'valid'"),
        ({"a.jpg": "train", "b": ["val"]}, "not a split manifest"),
        (["a", "b"], "'split' says of each file"),
    ],
)
def test_such_a_manifest_names_each_picture_once(tmp_path: Path, split: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        divide(["a", "b"], manifest(tmp_path / "m.json", split), where="x")


PARTS = {"a.jpg": "test", "b.jpg": "test", "c.jpg": "train", "d.jpg": "val"}


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([["a.jpg", "b.jpg"], ["c.jpg"]], ["a.jpg", "a.jpg", "c.jpg", "d"]),
        ({"a.jpg": "roof", "b": "roof", "d.jpg": "d"}, ["roof", "roof", "c", "d"]),
    ],
)
def test_a_manifest_may_name_groups_which_stay_known(tmp_path: Path, groups: Any, names: list[str]) -> None:
    given = manifest(tmp_path / "m.json", PARTS, groups)
    parts = divide(["a", "b", "c", "d"], given, where="x")
    assert groups_of(["a", "b", "c", "d"], given, where="x") == names
    prefixed = groups_of(["s/b", "s/a"], given, where="x", prefix="s/")
    assert prefixed == [f"s/{names[1]}", f"s/{names[0]}"]
    save_manifest(tmp_path / "again.json", parts, given, "x")
    again = Split(manifest=str(tmp_path / "again.json"))
    assert divide(["a", "b", "c", "d"], again, where="x") == parts
    assert groups_of(["a", "b", "c", "d"], again, where="x") == names
    own = given.model_copy(update={"group": "(.)"})
    assert groups_of(["a", "b"], own, where="x") == ["a", "b"]


def test_groups_of_a_source_reach_what_is_measured(tmp_path: Path) -> None:
    from leakdet_tf.jobs.run.data import groups_of as measured_groups

    write(tmp_path / "root", "yolo")
    split = manifest(tmp_path / "m.json", {"a.png": "test", "b.png": "test"}, {"a": "roof", "b": "roof"})
    one = {"root": str(tmp_path / "root"), "labels": "yolo", "parts": ["test"], "split": split}
    sources = [{"name": name, **one} for name in ("north", "south")]
    data = Data.model_validate({"source": sources, "inputs": {"image": {"size": [8, 8]}}})
    settings: Any = SimpleNamespace(data=data)
    items = find_splits(data)["test"]
    assert measured_groups(settings, items[::-1]) == ("south/roof", "south/roof", "north/roof", "north/roof")
    elsewhere = [replace(item, images={"image": tmp_path / "other" / "a.png"}) for item in items]
    assert measured_groups(settings, elsewhere) == tuple(item.id for item in items)


def test_pictures_of_one_part_are_measured_where_a_root_holds_its_parts_within(tmp_path: Path) -> None:
    for part, names in (("train", "abc"), ("test", "de")):
        for folder in ("images", "labels"):
            (tmp_path / "r" / folder / part).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (8, 8)).save(tmp_path / "r" / "images" / part / f"{name}.png")
            (tmp_path / "r" / "labels" / part / f"{name}.txt").write_text("")
    settings: Any = SimpleNamespace(
        data=Data.model_validate({"root": "x", "labels": "yolo", "inputs": {"image": {"size": [8, 8]}}})
    )
    found, _ = _items(settings, str(tmp_path / "r"), "test", None, run=None, log=print)
    assert sorted(item.id for item in found) == ["d", "e"]
    with pytest.raises(DataError, match="val"):
        _items(settings, str(tmp_path / "r"), "val", None, run=None, log=print)


def test_the_expression_of_a_saved_division_is_used_again(tmp_path: Path) -> None:
    ids = [f"roof{number}_{frame}" for number in range(6) for frame in range(2)]
    split = Split(train=0.5, val=0.25, test=0.25, group="(roof.)_")
    save_manifest(tmp_path / "m.json", divide(ids, split, where="x"), split, "x")
    assert groups_of(ids, Split(manifest=str(tmp_path / "m.json")), where="x") == [key[:5] for key in ids]


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([["b.jpg", "c.jpg"]], r"group 'b\.jpg' is in test \('b'\) and in train \('c'\)"),
        ({"a": "roof", "d": "roof"}, r"group 'roof' is in test \('a'\) and in val \('d'\)"),
        ([["a.jpg"], ["b.jpg", "a.jpg"]], "'a.jpg' stands in two groups"),
        ([["a.jpg", "z.jpg"]], "'z' of group 'a.jpg' is not in x"),
        ({"a": 3}, "'a' belongs to group 3, which is no name"),
        ([["a", 3]], "so is a group"),
        ("roof", "'groups' says of each file"),
    ],
)
def test_groups_that_are_none_or_in_several_parts_are_refused(tmp_path: Path, groups: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        divide(["a", "b", "c", "d"], manifest(tmp_path / "m.json", PARTS, groups), where="x")
    assert str(caught.value).startswith(str(tmp_path / "m.json"))


def test_so_are_those_that_an_expression_makes_of_a_manifest(tmp_path: Path) -> None:
    given = manifest(tmp_path / "m.json", {"roof1_a": "test", "roof1_b": "train", "roof2_a": "val"})
    ids = ["roof1_a", "roof1_b", "roof2_a"]
    assert divide(ids, given, where="x")["test"] == ["roof1_a"]
    with pytest.raises(DataError, match=r"m\.json: group 'roof1' is in test \('roof1_a'\) and in train \('roof1_b'\)"):
        divide(ids, given.model_copy(update={"group": "(.*)_"}), where="x")


@pytest.mark.data
def test_the_real_hot_spots_are_read_as_their_readme_says(shared: Path) -> None:
    root = shared / "data" / "pv_hotspot"
    split = {"manifest": str(root / "split_grouped.json")}
    data = settings(root, "yolo", values={"0": "hotspot", "1": "background"}, split=split)
    parts = find_splits(data)
    assert {name: len(items) for name, items in parts.items()} == {"train": 708, "val": 152, "test": 151}
    table = truth_tables(data, ["hotspot"])["data"]
    for item in parts["test"]:
        sample = read(item, table).sample
        assert sample.truth is not None and item.boxes is not None
        lines = [line.split() for line in item.boxes.read_text().splitlines() if line.startswith("0 ")]
        assert len(sample.truth) == len(lines)
        for row, line in zip(sample.truth, lines, strict=True):
            x, y, wide, high = (416 * float(word) for word in line[1:])
            assert np.allclose(row[:4], [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], atol=1e-3)
    assert survey(data)[1] == []
    groups = groups_of([item.id for item in parts["test"]], data.split, where="x")
    assert len(set(groups)) == 71
