"""What is wrong with boxes, all of it told and left out; copies, and classes never or hardly seen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.data import Data
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks import detect
from leakdet_tf.data.cache import Cache, fill
from leakdet_tf.data.checks import Checked, cheap, check
from leakdet_tf.data.findings import Finding, survey
from leakdet_tf.data.readers import find_splits, truth_tables

CLASSES = ["hotspot", "diode"]
GOOD = "0 .5 .5 .5 .5\n1 .25 .25 .2 .2\n"


def settings(root: Path, labels: str = "yolo", **keys: Any) -> Data:
    return Data.model_validate({"root": str(root), "labels": labels, "inputs": {"image": {"size": [32, 32]}}} | keys)


def picture(path: Path, seed: int, size: tuple[int, int] = (30, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def put(root: Path, split: str, name: str, text: str = GOOD, *, seed: int | None = None) -> Path:
    """A picture with its text; the text's file."""
    picture(root / split / "images" / f"{name}.png", abs(hash((split, name))) if seed is None else seed)
    path = root / split / "labels" / f"{name}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three splits of three pictures, one of them without boxes."""
    for number, split in enumerate(SPLITS):
        for place in range(3):
            put(tmp_path / "root", split, f"p{place}", GOOD if place else "", seed=10 * number + place)
    return tmp_path / "root"


def checked(data: Data) -> Checked:
    parts, findings = survey(data)
    return [step for step in check(parts, findings, data, CLASSES) if isinstance(step, Checked)][-1]


def caches(data: Data) -> dict[str, Cache]:
    agreed = Contract("detect", {"image": ImageSpec(32, 32, 3)}, classes_of(CLASSES), "linear")
    found = {}
    for split, items in find_splits(data).items():
        *_, found[split] = fill(items, agreed, truth_tables(data, CLASSES))
    return found  # type: ignore[return-value]  # the last is the cache


def told(findings: Iterable[Finding]) -> list[tuple[str, str, str, str]]:
    return sorted((one.kind, one.level, one.split, Path(one.file).name) for one in findings)


def test_clean_boxes_have_no_findings_and_are_counted(root: Path) -> None:
    data = settings(root)
    found = checked(data)
    assert found.findings == ()
    assert list(found.pixels("train", "data")[:2]) == [2, 2]
    assert found.usable() == find_splits(data)
    assert cheap(find_splits(data), caches(data), data, CLASSES, detect) == []


def test_all_that_is_wrong_is_told_at_once_and_can_be_left_out(root: Path) -> None:
    faulty = put(
        root, "train", "bad", "0 .5 .5\n0 .5 .5 2 .5\n7 .1 .1 .1 .1\n0 .5 .5 .1 .1\n0 .5 .5 .1 .1\n0 nan 1 1 1"
    )
    put(root, "train", "text").write_bytes(b"\xff")
    picture(root / "train/images/lost.png", 77)
    (root / "val/labels/none.txt").write_text("")
    (root / "test/images/p1.png").write_bytes(b"no picture")
    data = settings(root)
    found = checked(data)
    assert told(found.findings) == [
        *[("mis-boxed", "error", "train", "bad.txt")] * 4,
        ("mis-valued", "error", "train", "bad.txt"),
        ("undecodable", "error", "test", "p1.png"),
        ("undecodable", "error", "train", "text.txt"),
        ("unpaired", "error", "train", "lost.png"),
        ("unpaired", "error", "val", "none.txt"),
    ]
    lines = [one.detail for one in found.findings if one.file == str(faulty)]
    assert {line.split(":")[0] for line in lines} >= {"line 2", "line 3", "line 6"}
    assert any(line.startswith("line 1: has 3 values where a box has 5") for line in lines)
    assert any("line 5: is the box of line 4 once more; remove one" in line for line in lines)
    left = found.usable()
    assert {name: len(items) for name, items in left.items()} == {"train": 3, "val": 3, "test": 2}
    agreed = Contract("detect", {"image": ImageSpec(32, 32, 3)}, classes_of(CLASSES), "linear")
    for items in left.values():
        assert isinstance(list(fill(items, agreed, truth_tables(data, CLASSES)))[-1], Cache)
    with pytest.raises(DataError, match=r"lost\.png"):
        find_splits(data)


def test_a_fault_in_a_coco_file_leaves_out_its_picture_alone(tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        images, annotations = [], []
        for place in range(3):
            picture(tmp_path / split / "images" / f"{place}.png", 10 * number + place)
            images.append({"id": place, "file_name": f"{place}.png"})
            box = [2, 2, 5, 5] if (split, place) != ("train", 1) else [18, 2, 5, 5]
            annotations.append({"id": 100 + place, "image_id": place, "category_id": place % 2, "bbox": box})
        categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES)]
        table = {"images": images, "annotations": annotations, "categories": categories}
        if split == "train":
            table["annotations"].append({"id": 7, "image_id": 2, "category_id": 1, "bbox": [1, 1, 9, 9]})
        (tmp_path / split / "boxes.json").write_text(json.dumps(table))
    found = checked(settings(tmp_path, "boxes.json"))
    assert told(found.findings) == [("mis-boxed", "error", "train", "1.png")]
    assert found.findings[0].detail.startswith("boxes.json: annotation 101: lies outside of the picture")
    assert len(found.usable()["train"]) == 2
    (tmp_path / "val" / "boxes.json").write_text("{}")
    fatal = checked(settings(tmp_path, "boxes.json")).at("fatal")
    assert [(one.kind, one.split) for one in fatal] == [("folder", "val")]
    assert "has no list 'images'" in fatal[0].detail


def test_folders_that_are_not_there_are_told(root: Path) -> None:
    (root / "val/labels").rename(root / "val/texts")
    (root / "test/images").rename(root / "test/pictures")
    found = checked(settings(root)).at("fatal")
    assert [(one.kind, one.split, Path(one.file).name) for one in found][:2] == [
        ("folder", "val", "labels"),
        ("folder", "test", "images"),
    ]


def test_copies_across_splits_and_copies_with_other_boxes(root: Path) -> None:
    put(root, "train", "seen", "1 .25 .25 .2 .2\n0 .5 .5 .5 .5", seed=21)  # test/p1, in another order
    put(root, "train", "other", "0 .5 .5 .5 .5", seed=22)  # test/p2
    first = put(root, "val", "one", "0 .5 .5 .5 .5", seed=500)
    put(root, "val", "two", "0 .4 .5 .5 .5", seed=500)
    put(root, "test", "three", GOOD, seed=600)
    put(root, "test", "four", GOOD, seed=600)
    data = settings(root)
    for findings in (checked(data).findings, cheap(find_splits(data), caches(data), data, CLASSES, detect)):
        found = {Path(one.file).name: one for one in findings}
        assert sorted(found) == ["one.png", "other.png", "p2.png", "seen.png", "three.png", "two.png"]
        assert "(train and test; same boxes)" in found["seen.png"].detail
        assert "(train and test; different boxes)" in found["other.png"].detail
        assert (found["p2.png"].kind, found["p2.png"].split) == ("conflict", "test")
        two = next(one for one in findings if one.kind == "conflict" and one.file.endswith("two.png"))
        assert two.detail == f"has other boxes than its copy {first.parents[1] / 'images/one.png'}"
        assert (two.level, found["three.png"].level) == ("error", "warning")


def test_classes_that_are_never_or_rarely_boxed(root: Path) -> None:
    for path in root.glob("val/labels/*"):
        path.write_text("1 .5 .5 .5 .5")
    lines = "\n".join(f"0 {x / 30:.3f} {y / 30:.3f} .02 .02" for x in range(2, 28, 2) for y in range(2, 5))
    put(root, "train", "many", lines, seed=900)
    data = settings(root)
    found = cheap(find_splits(data), caches(data), data, CLASSES, detect)
    assert sorted((one.kind, one.level, one.split) for one in found) == [
        ("class-never-seen", "warning", "val"),
        ("imbalance", "warning", "train"),
    ]
    assert "no box of val holds class 'hotspot'" in found[0].detail + found[1].detail
    assert any("2 training boxes are of 'diode', 41 of 'hotspot'" in one.detail for one in found)
    for path in root.glob("train/labels/*"):
        path.write_text("0 .5 .5 .5 .5")
    assert ("class-never-seen", "fatal", "train") in [
        (one.kind, one.level, one.split) for one in checked(data).findings
    ]


def test_validation_without_a_box_that_counts_is_fatal_and_a_test_is_not(root: Path) -> None:
    for path in (*root.glob("val/labels/*"), *root.glob("test/labels/*")):
        path.write_text("7 .5 .5 .5 .5" if path.stem == "p1" and "val" in path.parts else "")
    data = settings(root, values={"0": "hotspot", "1": "diode", "7": "ignore"})
    for findings in (checked(data).findings, cheap(find_splits(data), caches(data), data, CLASSES, detect)):
        assert sorted((one.kind, one.level, one.split) for one in findings) == [
            ("class-never-seen", "warning", "test"),
            ("class-never-seen", "warning", "test"),
            ("empty", "fatal", "val"),
        ]
        (fatal,) = (one for one in findings if one.level == "fatal")
        assert str(fatal).endswith("put pictures with boxes into val")
