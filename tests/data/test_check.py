"""Every kind of fault planted once and named; what is left out leaves the rest usable; clean folders say nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.data import Data
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks import segment
from leakdet_tf.data.cache import Cache, fill
from leakdet_tf.data.checks import Checked, cheap, check, without
from leakdet_tf.data.findings import Finding, survey
from leakdet_tf.data.readers import find_splits, truth_tables

CLASSES = ["background", "blob"]
Fill, Settings, Write = Callable[..., Path], Callable[..., Data], Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, fill_folder: Fill) -> Path:
    for seed, (split, count) in enumerate((("train", 6), ("val", 3), ("test", 3))):
        fill_folder(tmp_path / split, [f"{split}{i}" for i in range(count)], seed=seed)
    return tmp_path


def checked(data: Data, classes: list[str] = CLASSES, *, thumbnails: bool = False) -> Checked:
    parts, findings = survey(data)
    *counted, found = check(parts, findings, data, classes, thumbnails=thumbnails)
    assert counted == list(range(1, sum(map(len, parts.values())) + 1))
    assert isinstance(found, Checked)
    return found


def told(found: Checked) -> set[tuple[str, str, str, str]]:
    return {(one.level, one.kind, one.split, Path(one.file).name) for one in found.findings}


def test_a_clean_folder_has_no_findings(root: Path, settings: Settings) -> None:
    data = settings(root)
    found = checked(data, thumbnails=True)
    assert found.findings == ()
    assert found.usable() == find_splits(data)
    assert found.pixels("train", "data").sum() == 6 * 120
    assert found.decoded[0].small is not None
    assert len(found.sha256("val")) == 64
    assert found.sha256("val") == checked(data).sha256("val")


def test_every_faulty_file_is_named_at_once(root: Path, settings: Settings, write: Write) -> None:
    random = np.random.default_rng(5)
    images, masks = root / "train" / "images", root / "train" / "masks"
    (images / "train0.png").write_bytes((images / "train0.png").read_bytes()[:60])
    (images / "train1.png").write_bytes(b"")
    write(masks / "train2.png", np.zeros((7, 9), np.uint8))
    write(masks / "train3.png", np.full((12, 10), 7, np.uint8))
    (root / "train" / "masks" / "train4.png").unlink()
    write(root / "val" / "masks" / "lonely.png", np.zeros((12, 10), np.uint8))
    write(root / "val" / "masks" / "val0.png", np.full((12, 10), 255, np.uint8))
    write(root / "val" / "masks" / "val1.png", random.integers(0, 2, (12, 10, 3), dtype=np.uint8))
    (root / "test" / "masks" / "test0.png").write_bytes(b"no picture")
    write(root / "test" / "images" / "test1.png", random.integers(0, 60000, (12, 10), dtype=np.uint16))
    found = checked(settings(root))
    assert told(found) == {
        ("error", "undecodable", "train", "train0.png"),
        ("error", "empty", "train", "train1.png"),
        ("error", "mis-sized", "train", "train2.png"),
        ("error", "mis-valued", "train", "train3.png"),
        ("error", "unpaired", "train", "train4.png"),
        ("error", "unpaired", "val", "lonely.png"),
        ("error", "empty", "val", "val0.png"),
        ("error", "mis-valued", "val", "val1.png"),
        ("error", "undecodable", "test", "test0.png"),
        ("error", "mis-valued", "test", "test1.png"),
    }
    left = {split: [item.id for item in items] for split, items in found.usable().items()}
    assert left == {"train": ["train5"], "val": ["val2"], "test": ["test2"]}
    assert "9x7 px" in next(one.detail for one in found.findings if one.kind == "mis-sized")
    assert all("\n" not in str(one) and one.file in str(one) for one in found.findings)


def test_what_is_left_out_leaves_the_rest_usable(root: Path, settings: Settings) -> None:
    (root / "train" / "images" / "train0.png").write_bytes(b"")
    (root / "val" / "masks" / "val1.png").unlink()
    data = settings(root)
    parts = checked(data).usable()
    agreed = Contract("segment", {"image": ImageSpec(8, 8)}, classes_of(CLASSES))
    for items in parts.values():
        assert isinstance(list(fill(items, agreed, truth_tables(data, CLASSES)))[-1], Cache)


def test_equal_pixels_across_splits_are_errors_whatever_the_format(root: Path, settings: Settings) -> None:
    Image.open(root / "test" / "images" / "test1.png").save(root / "train" / "images" / "train2.bmp")
    (root / "train" / "images" / "train2.png").unlink()
    found = checked(settings(root))
    (one,) = found.findings
    assert (one.level, one.kind, one.split) == ("error", "duplicate", "train")
    assert one.file.endswith("train2.bmp")
    assert "test1.png" in one.detail
    assert "different masks" in one.detail
    assert len(found.usable()["test"]) == 3
    assert "train2" not in [item.id for item in found.usable()["train"]]


def test_of_a_picture_in_three_splits_the_test_copy_stays(root: Path, settings: Settings) -> None:
    for folder, suffix in (("images", "png"), ("masks", "png")):
        content = (root / "test" / folder / f"test0.{suffix}").read_bytes()
        (root / "train" / folder / "train0.png").write_bytes(content)
        (root / "val" / folder / "val0.png").write_bytes(content)
    found = checked(settings(root))
    assert told(found) == {
        ("error", "duplicate", "train", "train0.png"),
        ("error", "duplicate", "val", "val0.png"),
    }
    assert all("same mask" in one.detail for one in found.findings)


def test_copies_within_a_split_are_one_warning(root: Path, settings: Settings) -> None:
    content = (root / "train" / "images" / "train0.png").read_bytes()
    for name in ("train1", "train2"):
        (root / "train" / "images" / f"{name}.png").write_bytes(content)
    found = checked(settings(root))
    (one,) = found.findings
    assert (one.level, one.kind) == ("warning", "duplicate")
    assert one.detail.startswith("2 pictures of train")
    assert len(found.usable()["train"]) == 6


def test_a_class_that_no_training_mask_holds(root: Path, settings: Settings) -> None:
    found = checked(settings(root), [*CLASSES, "gas"])
    assert [(one.level, one.kind, one.split) for one in found.findings] == [
        ("fatal", "class-never-seen", "train"),
        ("warning", "class-never-seen", "val"),
        ("warning", "class-never-seen", "test"),
    ]
    assert "'gas'" in found.findings[0].detail


def test_a_set_that_allows_a_class_does_not_hold_it(root: Path, settings: Settings) -> None:
    data = settings(root, values={"0": "background", "1": ["blob", "gas"], "255": "ignore"})
    fatal = checked(data, [*CLASSES, "gas"]).at("fatal")
    assert [one.kind for one in fatal] == ["class-never-seen"] * 2
    assert "blob|gas" in fatal[0].detail


def test_a_class_seen_only_in_what_is_left_out_is_never_seen(root: Path, settings: Settings, write: Write) -> None:
    for index in range(1, 6):
        write(root / "train" / "masks" / f"train{index}.png", np.zeros((12, 10), np.uint8))
    (root / "train" / "images" / "train0.png").write_bytes(b"")
    found = checked(settings(root))
    assert {(one.kind, one.level) for one in found.findings} == {("empty", "error"), ("class-never-seen", "fatal")}


def test_missing_and_empty_folders_are_fatal(root: Path, settings: Settings) -> None:
    for file in (root / "val" / "images").iterdir():
        file.unlink()
    found = checked(settings(root, masks="labels"))
    assert told(found) == {("fatal", "folder", split, "labels") for split in ("train", "val", "test")}
    found = checked(settings(root))
    assert told(found) == {("fatal", "empty", "val", "images")}
    (only,) = checked(settings(root / "nowhere")).findings
    assert (only.kind, only.level, only.detail) == ("folder", "fatal", "no such folder")
    (only,) = checked(settings(root / "train")).findings
    assert "no train, val and test folders" in only.detail


def test_a_folder_without_rights_is_fatal(root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = root / "val" / "masks"
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed)  # rights do not bind a superuser
    (one,) = checked(settings(root)).findings
    assert (one.level, one.kind, one.split, one.file) == ("fatal", "folder", "val", str(closed))
    assert "rights" in one.detail


def test_a_dead_link_and_equal_stems_are_told(root: Path, settings: Settings) -> None:
    (root / "train" / "images" / "gone.png").symlink_to(root / "nothing.png")
    content = (root / "val" / "images" / "val0.png").read_bytes()
    (root / "val" / "images" / "val0.jpg").write_bytes(content)
    found = checked(settings(root))
    assert {(one.kind, one.level, one.split) for one in found.findings} == {
        ("folder", "fatal", "train"),
        ("folder", "fatal", "val"),
    }
    assert any("link to nothing" in one.detail for one in found.findings)


def test_a_split_of_which_nothing_is_left_is_fatal(root: Path, settings: Settings) -> None:
    for file in (root / "test" / "images").iterdir():
        file.write_bytes(b"")
    assert [one.split for one in checked(settings(root)).at("fatal")] == ["test"]


def test_one_folder_that_is_divided(tmp_path: Path, fill_folder: Fill, settings: Settings) -> None:
    fill_folder(tmp_path, [f"p{i:02d}" for i in range(20)])
    data = settings(tmp_path, split={"train": 0.5, "val": 0.25, "test": 0.25})
    assert checked(data).usable() == find_splits(data)
    (tmp_path / "masks" / "p03.png").unlink()
    found = checked(data)
    assert told(found) == {("error", "unpaired", "", "p03.png")}
    assert sum(map(len, found.usable().values())) == 19


def test_several_sources_and_inputs(tmp_path: Path, fill_folder: Fill, write: Write) -> None:
    random = np.random.default_rng(0)
    for seed, name in enumerate(("a", "b")):
        for number, split in enumerate(("train", "val", "test")):
            fill_folder(tmp_path / name / split, ["x", "y"], seed=10 * seed + number)
            for stem in ("x", "y"):
                heat = random.integers(0, 60000, (12, 10), dtype=np.uint16)
                write(tmp_path / name / split / "heat" / f"{stem}.png", heat)
    content = (tmp_path / "a" / "test" / "heat" / "x.png").read_bytes()
    (tmp_path / "b" / "train" / "heat" / "y.png").write_bytes(content)
    values = {"0": "background", "1": "blob", "255": "ignore"}
    data = Data.model_validate(
        {
            "inputs": {
                "image": {"size": [8, 8]},
                "thermal": {"size": [8, 8], "folder": "heat", "channels": 1, "dtype": "uint16"},
            },
            "source": [{"name": name, "root": str(tmp_path / name), "values": values} for name in ("a", "b")],
        }
    )
    found = checked(data)
    (one,) = found.findings
    assert (one.source, one.split, one.kind) == ("b", "train", "duplicate")
    assert one.file == str(tmp_path / "b" / "train" / "heat" / "y.png")
    assert [item.id for item in found.usable()["train"]] == ["a/x", "a/y", "b/x"]


def test_the_cheap_part_finds_duplicates_and_unseen_classes_in_memory(
    root: Path, settings: Settings, write: Write
) -> None:
    data, classes = settings(root), [*CLASSES, "gas"]
    Image.open(root / "val" / "images" / "val2.png").save(root / "train" / "images" / "train4.png")
    agreed = Contract("segment", {"image": ImageSpec(8, 8)}, classes_of(classes))
    parts, caches = find_splits(data), {}
    for split, items in parts.items():
        cache = list(fill(items, agreed, truth_tables(data, classes)))[-1]
        assert isinstance(cache, Cache)
        caches[split] = cache
    found = cheap(parts, caches, data, classes, segment)
    assert {(one.level, one.kind, one.split) for one in found} == {
        ("error", "duplicate", "train"),
        ("fatal", "class-never-seen", "train"),
        ("warning", "class-never-seen", "val"),
        ("warning", "class-never-seen", "test"),
    }
    assert [item.id for item in without(parts, found)["train"]] == [f"train{i}" for i in (0, 1, 2, 3, 5)]


def test_a_finding_is_one_line_whatever_the_file_is_called() -> None:
    assert "\n" not in str(Finding("empty", "data", "train", "a\nb\udcff.png", "holds no bytes"))


def test_pictures_equal_only_at_the_model_s_size_are_no_duplicates(
    root: Path, settings: Settings, write: Write
) -> None:
    picture = np.full((12, 10, 3), 90, np.uint8)
    write(root / "test" / "images" / "test0.png", picture)
    picture[0, 0, 0] = 91
    write(root / "train" / "images" / "train0.png", picture)
    agreed = Contract("segment", {"image": ImageSpec(2, 2)}, classes_of(CLASSES))
    data = settings(root)
    parts, tables = find_splits(data), truth_tables(data, CLASSES)
    caches = {split: list(fill(items, agreed, tables))[-1] for split, items in parts.items()}
    assert np.array_equal(caches["train"].inputs["image"][0], caches["test"].inputs["image"][0])  # type: ignore[union-attr]
    assert not [one for one in cheap(parts, caches, data, CLASSES, segment) if one.kind == "duplicate"]  # type: ignore[arg-type]
