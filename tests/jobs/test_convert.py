"""``data convert``: boxes in another form are the same boxes, but for rounding that is stated; a folder is whole."""

from __future__ import annotations

import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.cli import main
from leakdet_tf.config.data import Data
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.data.box_writers import Boxed, coco_table, voc_text, yolo_text
from leakdet_tf.data.readers import find_splits, read, truth_tables
from leakdet_tf.jobs.data_convert import convert

CLASSES = ["hot spot", "Riß <1>"]
FORMS = ["yolo", "voc", "coco"]
LIMITS = {"yolo": 1e-3, "coco": 1e-3, "voc": 0.5 + 1e-3}
"""How far an edge may move, in pixels."""
SIZE = (37, 61)


def truths(root: Path, form: str) -> dict[str, Any]:
    labels = "coco.json" if form == "coco" else form
    data = Data.model_validate({"root": str(root), "labels": labels, "inputs": {"image": {"size": [32, 32]}}})
    table = truth_tables(data, CLASSES)["data"]
    return {
        f"{split}/{item.id}": read(item, table).sample.truth
        for split, items in find_splits(data).items()
        for item in items
    }


def made(root: Path, *, ignored: bool = False) -> dict[str, Any]:
    """A COCO folder of three splits, with odd edges, tiny boxes, a picture in a sub-folder and one without boxes."""
    random = np.random.default_rng(0)
    told = {}
    for split in ("train", "val", "test"):
        pictures = []
        for name in ("a.png", "deep/b.jpg", "none.png"):
            path = root / split / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
            corners = np.sort(random.uniform(0, 1, (6, 2, 2)) * SIZE[::-1], axis=1).reshape(-1, 4)
            corners[0] = [SIZE[1] - 0.2, 3.4, SIZE[1], 3.5]
            corners[1] = [0, 0, *SIZE[::-1]]
            extra = np.stack([np.arange(6) % 2, np.arange(6) % 3 == 2 if ignored else np.zeros(6)], axis=1)
            boxes = np.concatenate([corners, extra], axis=1).astype(np.float32)[: 0 if name == "none.png" else 6]
            pictures.append(Boxed(name, SIZE, 3, boxes))
            told[f"{split}/{name.split('.')[0]}"] = boxes
        (root / split / "coco.json").write_text(json.dumps(coco_table(pictures, CLASSES)), encoding="utf-8")
    return told


def agree(found: dict[str, Any], wanted: dict[str, Any], limit: float) -> None:
    assert sorted(found) == sorted(wanted)
    for key, boxes in wanted.items():
        assert found[key].shape == boxes.shape, key
        if len(boxes):
            rounded = np.abs(found[key][:, :4] - boxes[:, :4])
            tiny = (boxes[:, 2:4] - boxes[:, :2]).min(axis=1) < 1
            assert rounded[~tiny].max() <= limit
            assert rounded.max() <= max(limit, 1.0 if limit > 0.1 else 0)
            assert np.array_equal(found[key][:, 4:], boxes[:, 4:])


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMS, 2)))
def test_there_and_back_again_the_boxes_are_the_same(tmp_path: Path, first: str, second: str) -> None:
    wanted = made(tmp_path / "coco")
    folder = tmp_path / "coco"
    limit = LIMITS["coco"]
    for number, (given, form) in enumerate(itertools.pairwise(["coco", first, second, first, "coco"])):
        if given == form:
            continue
        out = tmp_path / f"{number}-{form}"
        convert(str(folder), str(out), given=given, wanted=form, classes=CLASSES)
        folder, limit = out, max(limit, LIMITS[form])
        agree(truths(folder, form), wanted, limit)


def test_regions_that_do_not_count_go_to_voc_and_come_back(tmp_path: Path) -> None:
    wanted = made(tmp_path / "coco", ignored=True)
    convert(str(tmp_path / "coco"), str(tmp_path / "voc"), given="coco", wanted="voc", classes=CLASSES)
    convert(str(tmp_path / "voc"), str(tmp_path / "back"), given="voc", wanted="coco", classes=CLASSES)
    agree(truths(tmp_path / "back", "coco"), wanted, LIMITS["voc"])
    assert sum(boxes[:, 5].sum() for boxes in wanted.values()) == 12


def test_yolo_cannot_say_that_a_region_does_not_count(tmp_path: Path) -> None:
    wanted = made(tmp_path / "coco", ignored=True)
    root, forms = str(tmp_path / "coco"), {"given": "coco", "wanted": "yolo", "classes": CLASSES}
    with pytest.raises(DataError, match=r"a\.png: has regions .*4 such.*--ignored drop"):
        convert(root, str(tmp_path / "no"), **forms)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco"]
    convert(root, str(tmp_path / "drop"), **forms, ignored="drop")  # type: ignore[arg-type]
    agree(truths(tmp_path / "drop", "yolo"), {key: own[own[:, 5] == 0] for key, own in wanted.items()}, 1e-3)
    convert(root, str(tmp_path / "keep"), **forms, ignored="keep")  # type: ignore[arg-type]
    plain = {key: np.concatenate([own[:, :5], 0 * own[:, 5:]], axis=1) for key, own in wanted.items()}
    agree(truths(tmp_path / "keep", "yolo"), plain, 1e-3)


def test_the_folder_is_whole_and_pictures_take_no_room(tmp_path: Path) -> None:
    made(tmp_path / "coco")
    lines: list[str] = []
    out = convert(
        str(tmp_path / "coco"), str(tmp_path / "o/yolo"), given="coco", wanted="yolo", classes=CLASSES, log=lines.append
    )
    files = sorted(path.relative_to(out).as_posix() for path in (out / "val").rglob("*") if path.is_file())
    stems = [("a", "png"), ("deep/b", "jpg"), ("none", "png")]
    assert files == sorted([f"val/images/{s}.{x}" for s, x in stems] + [f"val/labels/{s}.txt" for s, _ in stems])
    assert (out / "classes.txt").read_text(encoding="utf-8").splitlines() == CLASSES
    assert (out / "val/labels/none.txt").read_text() == ""
    assert (out / "val/images/a.png").samefile(tmp_path / "coco/val/images/a.png")
    assert lines[0] == "train: 3 pictures, 12 boxes; 1 pictures without any"
    assert "hard links" in lines[3] and f'root = "{out}", labels = "yolo"' in lines[4]


def test_without_links_pictures_are_copied_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "coco")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    lines: list[str] = []
    forms = {"given": "coco", "wanted": "voc", "classes": CLASSES}
    out = convert(str(tmp_path / "coco"), str(tmp_path / "voc"), **forms, log=lines.append)  # type: ignore[arg-type]
    one, other = out / "test/images/a.png", tmp_path / "coco/test/images/a.png"
    assert one.read_bytes() == other.read_bytes() and not one.samefile(other)
    assert "pictures are copies" in lines


def test_a_root_that_is_not_divided_and_folders_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "in/JPEGImages").mkdir(parents=True)
    (tmp_path / "in/Annotations").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "in/JPEGImages/x.png")
    boxes = np.array([[2, 3, 9, 8, 1, 0]], np.float32)
    (tmp_path / "in/Annotations/x.xml").write_text(voc_text(Boxed("x.png", (10, 20), 1, boxes), CLASSES), "utf-8")
    forms: dict[str, Any] = {"given": "voc", "wanted": "boxes.json", "classes": CLASSES, "images": "JPEGImages"}
    (tmp_path / "out").mkdir()
    out = convert(str(tmp_path / "in"), str(tmp_path / "out"), **forms, annotations="Annotations")
    table = json.loads((out / "boxes.json").read_text("utf-8"))
    assert table["images"] == [{"id": 1, "file_name": "x.png", "width": 20, "height": 10}]
    assert table["categories"] == [{"id": 1, "name": CLASSES[0]}, {"id": 2, "name": CLASSES[1]}]
    wanted = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [2, 3, 7, 5], "area": 35, "iscrowd": 0}
    assert table["annotations"] == [wanted]
    assert (out / "images/x.png").is_file()


def test_texts_are_what_their_forms_say() -> None:
    picture = Boxed("d/x.png", (10, 20), 3, np.array([[2, 3, 9, 8, 1, 1], [0, 0, 20, 10, 0, 0]], np.float32))
    assert yolo_text(picture).splitlines() == [
        "1 0.275000000 0.550000000 0.350000000 0.500000000",
        "0 0.500000000 0.500000000 1.000000000 1.000000000",
    ]
    text = "".join(line.strip() for line in voc_text(picture, CLASSES).splitlines())
    assert "<filename>x.png</filename><size><width>20</width><height>10</height><depth>3</depth></size>" in text
    assert "<name>Riß &lt;1&gt;</name>" in text and "<difficult>1</difficult>" in text
    assert "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>" in text
    assert "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>" in text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"given": "csv"}, "--from csv: no such form"),
        ({"wanted": "a/b.json"}, "--to a/b.json: no such form"),
        ({"classes": ["a", "a"]}, "--classes: names each class once"),
        ({"classes": ["a", ""]}, "--classes"),
        ({"classes": []}, "--classes"),
        ({"ignored": "maybe"}, "--ignored maybe"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    made(tmp_path / "coco")
    asked = {"given": "coco", "wanted": "yolo", "classes": CLASSES} | keys
    with pytest.raises(ConfigError, match=said):
        convert(str(tmp_path / "coco"), str(tmp_path / "out"), **asked)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_and_a_faulty_box_leave_everything_as_it_was(tmp_path: Path) -> None:
    made(tmp_path / "coco")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("mine")
    forms: dict[str, Any] = {"given": "coco", "wanted": "yolo"}
    with pytest.raises(ConfigError, match="is there already"):
        convert(str(tmp_path / "coco"), str(tmp_path / "used"), **forms, classes=CLASSES)
    with pytest.raises(DataError, match=r"coco\.json: a\.png: annotation 2: its class 'Riß <1>' means nothing"):
        convert(str(tmp_path / "coco"), str(tmp_path / "out"), **forms, classes=CLASSES[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "used"]


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "coco")
    asked = ["data", "convert", str(tmp_path / "coco"), str(tmp_path / "out")]
    assert main([*asked, "--from", "coco", "--to", "voc", "--classes", ",".join(CLASSES)]) == 0
    assert f"written: {tmp_path / 'out'}" in capsys.readouterr().out
    assert main([*asked, "--from", "coco", "--to", "voc", "--classes", ",".join(CLASSES)]) == 2
    assert "is there already" in capsys.readouterr().err
