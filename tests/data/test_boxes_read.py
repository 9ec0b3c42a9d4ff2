"""Boxes from YOLO, VOC and COCO files: the same truth from each, and one clear line where it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.data import Data
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.files import sha256_file
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_items, read, truth_tables

CLASSES = ["hotspot", "diode"]
TRUTH = [[10, 5, 30, 15, 0, 0], [0, 0, 8, 20, 1, 0]]
"""The boxes of ``a.png``, which has 40x20 px; ``b.png`` has none."""
YOLO = "0 0.5 0.5 0.5 0.5\n\n1 0.1 0.5 0.2 1\n"
VOC = (
    "<annotation><filename>a.png</filename><size><width>40</width><height>20</height></size>"
    "<object><name>hotspot</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>"
    "<part><bndbox><xmin>1</xmin></bndbox></part></object>"
    "<object><name>diode</name><difficult>0</difficult>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 20},
        {"id": 5, "file_name": "b.png", "width": 40, "height": 20},
    ],
    "annotations": [
        {"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 5, 20, 10], "iscrowd": 0},
        {"id": 8, "image_id": 1, "category_id": 4, "bbox": [0, 0, 8, 20]},
    ],
    "categories": [{"id": 3, "name": "hotspot"}, {"id": 4, "name": "diode"}],
}
FORMS = ["yolo", "voc", "coco.json"]


def pictures(folder: Path, names: tuple[str, ...] = ("a", "b"), size: tuple[int, int] = (40, 20)) -> Path:
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{name}.png")
    return folder


def write(folder: Path, form: str, *, yolo: str = YOLO, voc: str = VOC, coco: Any = COCO) -> Path:
    """``a`` with its boxes and ``b`` without any, in a form."""
    pictures(folder)
    if form.endswith("json"):
        (folder / form).write_text(json.dumps(coco))
        return folder
    (folder / "labels").mkdir()
    suffix, texts = (".txt", (yolo, "")) if form == "yolo" else (".xml", (voc, "<annotation/>"))
    for name, text in zip("ab", texts, strict=True):
        (folder / "labels" / f"{name}{suffix}").write_text(text, newline="")
    return folder


def settings(root: Path, form: str, **keys: Any) -> Data:
    return Data.model_validate({"root": str(root), "labels": form, "inputs": {"image": {"size": [32, 32]}}} | keys)


def items_of(folder: Path, form: str, **keys: Any) -> list[Item]:
    data = settings(folder, form, **keys)
    return find_items(folder, data.sources[0], data.inputs)


def truth(item: Item, form: str, **keys: Any) -> Any:
    found = read(item, truth_tables(settings(Path("x"), form, **keys), CLASSES)["data"]).sample.truth
    assert found is not None and found.dtype == np.float32 and found.shape[1:] == (6,)
    return found.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_boxes_and_a_negative(tmp_path: Path, form: str) -> None:
    first, second = items_of(write(tmp_path, form), form)
    assert (first.id, second.id) == ("a", "b")
    assert truth(first, form) == TRUTH
    assert truth(second, form) == []


@pytest.mark.parametrize("form", FORMS)
def test_words_may_mean_classes_regions_to_ignore_or_nothing(tmp_path: Path, form: str) -> None:
    first = items_of(write(tmp_path, form), form)[0]
    hot, diode = ("0", "1") if form == "yolo" else ("hotspot", "diode")
    assert truth(first, form, values={hot: "diode", diode: "background"}) == [[10, 5, 30, 15, 1, 0]]
    region = [[0, 0, 8, 20, label, 1] for label in (0, 1)]  # one for each class: it counts for none
    assert truth(first, form, values={hot: "hotspot", diode: "ignore"}) == [TRUTH[0], *region]
    with pytest.raises(DataError, match=f"its class '{diode}' means nothing"):
        truth(first, form, values={hot: ["hotspot"]})
    with pytest.raises(ConfigError, match="a list of classes"):
        truth(first, form, values={hot: ["hotspot", "diode"]})


def test_difficult_and_crowds_are_regions_of_their_class(tmp_path: Path) -> None:
    marked = VOC.replace("<difficult>0", "<difficult>1")
    assert truth(items_of(write(tmp_path / "v", "voc", voc=marked), "voc")[0], "voc") == [TRUTH[0], [0, 0, 8, 20, 1, 1]]
    for number, (yes, no) in enumerate([(1, 0), (True, False)]):
        crowd = json.loads(json.dumps(COCO))
        crowd["annotations"][0]["iscrowd"], crowd["annotations"][1]["iscrowd"] = yes, no
        first = items_of(write(tmp_path / f"c{number}", "coco.json", coco=crowd), "coco.json")[0]
        assert truth(first, "coco.json") == [[10, 5, 30, 15, 0, 1], TRUTH[1]]


def test_digests_are_of_the_files_and_of_what_they_mean(tmp_path: Path) -> None:
    folder = write(tmp_path / "y", "yolo")
    first = items_of(folder, "yolo")[0]
    tables = truth_tables(settings(folder, "yolo"), CLASSES)
    before = read(first, tables["data"]).sha256
    assert before[:2] == tuple(map(sha256_file, first.files)) and len(before) == 3
    assert first.files == (folder / "images/a.png", folder / "labels/a.txt")
    (folder / "labels/a.txt").write_text(YOLO.strip())
    after = read(first, tables["data"]).sha256
    assert (after[0], after[2]) == (before[0], before[2]) and after[1] != before[1]
    folder = write(tmp_path / "c", "coco.json")
    table = truth_tables(settings(folder, "coco.json"), CLASSES)["data"]
    listed = items_of(folder, "coco.json")
    assert listed[0].files == (folder / "images/a.png",)  # the JSON is of all
    old = [read(item, table).sha256 for item in listed]
    changed = json.loads(json.dumps(COCO))
    changed["annotations"][0]["bbox"][0] = 11
    (folder / "coco.json").write_text(json.dumps(changed))
    new = [read(item, table).sha256 for item in items_of(folder, "coco.json")]
    assert (old[0] != new[0], old[1] == new[1]) == (True, True)


def test_pictures_and_texts_may_lie_deeper_and_elsewhere(tmp_path: Path) -> None:
    for name in ("images", "Annotations"):
        (tmp_path / name / "day1").mkdir(parents=True)
    Image.new("RGB", (10, 10)).save(tmp_path / "images/day1/x.png")
    (tmp_path / "Annotations/day1/x.txt").write_text("1 .5 .5 .2 .2\r\n")
    (tmp_path / "Annotations/classes.txt").write_text("hotspot\ndiode\n")
    (only,) = items_of(tmp_path, "yolo", annotations="Annotations")
    assert only.id == "day1/x"
    assert np.allclose(truth(only, "yolo"), [[4, 4, 6, 6, 1, 0]])


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_without_a_file_is_an_error_that_names_it(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path, form)
    Image.new("RGB", (40, 20)).save(folder / "images/lost.png")
    with pytest.raises(DataError, match=r"lost\.png: is not in .*1 such file.*nothing is"):
        items_of(folder, form)


def test_a_file_without_a_picture_is_one_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "y", "yolo")
    (folder / "labels/c.txt").write_text("")
    with pytest.raises(DataError, match=r"labels/c\.txt: has no partner in .*images .*boxes' files"):
        items_of(folder, "yolo")
    folder = write(tmp_path / "c", "coco.json")
    (folder / "images/b.png").unlink()
    with pytest.raises(DataError, match=r"coco\.json: names .*images/b\.png, which is not there"):
        items_of(folder, "coco.json")


OVER = 1.0 / 40  # a pixel of the width
YOLO_FAULTS = [
    ("0 .5 .5 .5", "line 1: has 4 values where a box has 5 (class, x, y, width, height)"),
    ("\n0 .5 .5 .5 .5 .9", "line 2: has 6 values where a box has 5"),
    ("0 .5 .5 nan .5", "line 1: 'nan' is not a finite number"),
    ("0 .5 x .5 .5", "line 1: 'x' is not a finite number"),
    ("0 .5 .5 1_0 .5", "line 1: '1_0' is not a finite number"),
    ("2 .5 .5 .5 .5", "line 1: its class '2' means nothing"),
    ("hotspot .5 .5 .5 .5", "line 1: its class 'hotspot' means nothing"),
    ("0 .5 .5 0 .5", "line 1: its width is 0"),
    ("0 .5 .5 .5 .00000001", "line 1: its height is 2e-07 px: it holds nothing"),
    ("0 .99999999 .5 .00000001 .5", "line 1: its width is 4e-07 px: it holds nothing"),
    ("0 .5 .5 .5 -.1", "line 1: its height is -2 px: its corners are swapped"),
    ("0 .5 .5 1.2 .5", "line 1: lies outside of the picture: its width goes from -4 to 44 of 40 px"),
    ("0 .5 1.5 .5 .2", "line 1: lies outside of the picture: its height goes from 28 to 32 of 20 px"),
    ("0 .5 .5 .5 .5\n0 .2 .2 .1 .1\n0 .5 .5 .5 .5", "line 3: is the box of line 1 once more"),
]


@pytest.mark.parametrize(("text", "said"), YOLO_FAULTS)
def test_a_faulty_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    first = items_of(write(tmp_path, "yolo", yolo=text), "yolo")[0]
    with pytest.raises(DataError) as caught:
        truth(first, "yolo")
    assert str(caught.value).startswith(f"{first.boxes}: {said}")
    assert caught.value.remedy


SAME = "0 .5 .5 .5 .5"
NEAR = [
    (f"{SAME}\n7 .5 .5 .5 .5", True),  # two words for one class
    (f"{SAME}\n1 .5 .5 .5 .5", False),
    (f"{SAME}\n8 .5 .5 .5 .5\n9 .5 .5 .5 .5", False),  # words that are dropped
    ("0 .50001249 .5 .5 .5\n0 .50001251 .5 .5 .5", True),  # from 10.0004996 and 10.0005004 px on
    (f"{SAME}\n0 .50002 .5 .5 .5", True),
    ("0 .5000325 .5 .5 .5\n0 .5 .5 .5 .5", False),
    (f"{SAME}\n0 .5 .5 .5 .5002", False),
]


@pytest.mark.parametrize(("text", "same"), NEAR)
def test_a_box_written_twice_is_known_by_its_class_and_its_distance(tmp_path: Path, text: str, same: bool) -> None:
    first = items_of(write(tmp_path, "yolo", yolo=text), "yolo")[0]
    values = {"0": "hotspot", "7": "hotspot", "1": "diode", "8": "background", "9": "background"}
    if same:
        with pytest.raises(DataError, match="line 2: is the box of line 1 once more"):
            truth(first, "yolo", values=values)
    else:
        assert len(truth(first, "yolo", values=values)) == len([line for line in text.split("\n") if line[0] in "01"])


def test_rounding_at_the_edge_is_cut_off_and_no_more(tmp_path: Path) -> None:
    text = f"0 {0.25 - OVER:.6f} 0.5 0.5 1.05"  # a pixel beyond the left, half of one above and below
    first = items_of(write(tmp_path / "cut", "yolo", yolo=text), "yolo")[0]
    assert np.allclose(truth(first, "yolo"), [[0, 0, 19, 20, 0, 0]], atol=1e-4)
    first = items_of(write(tmp_path / "not", "yolo", yolo=f"0 {0.25 - 1.1 * OVER:.6f} 0.5 0.5 1"), "yolo")[0]
    with pytest.raises(DataError, match="only rounding is cut off"):
        truth(first, "yolo")


def test_of_a_large_picture_a_thousandth_is_rounding(tmp_path: Path) -> None:
    pictures(tmp_path, ("a",), size=(4000, 10))
    (tmp_path / "labels").mkdir()
    for over, fine in ((3.9, True), (4.1, False)):
        (tmp_path / "labels/a.txt").write_text(f"0 {(2000 - over) / 4000:.8f} .5 1 .5")
        (only,) = items_of(tmp_path, "yolo")
        if fine:
            assert truth(only, "yolo")[0][0] == 0
        else:
            with pytest.raises(DataError, match="outside"):
                truth(only, "yolo")


VOC_FAULTS: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text.replace("<xmax>30", "<xmax>9"), "object 1: its width is -1 px: its corners are swapped"),
    (lambda text: text.replace("<xmax>8", "<xmax>0"), "object 2: its width is 0"),
    (lambda text: text.replace("<xmax>8<", "<xmax>49<"), "object 2: lies outside"),
    (lambda text: text.replace("<ymin>6</ymin>", ""), "object 1: '' is not a finite number"),
    (lambda text: text.replace("<name>diode", "<name>cell"), "object 2: its class 'cell' means nothing"),
    (lambda text: text.replace("<width>40", "<width>41"), "it says that the picture is 41x20 px, which is 40x20 px"),
    (lambda text: text.replace("<difficult>0", "<difficult>no"), "object 2: its difficult is 'no'"),
    (lambda text: text.replace("bndbox>", "polygon>"), "object 1: has 0 values where a box has 4"),
]


@pytest.mark.parametrize(("change", "said"), VOC_FAULTS)
def test_a_faulty_object_is_named(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    first = items_of(write(tmp_path, "voc", voc=change(VOC)), "voc")[0]
    with pytest.raises(DataError) as caught:
        truth(first, "voc")
    assert str(caught.value).startswith(f"{first.boxes}: {said}")


def test_vocs_pixels_may_be_counted_from_0(tmp_path: Path) -> None:
    first = items_of(write(tmp_path, "voc", voc=VOC.replace("<xmin>1<", "<xmin>0<")), "voc")[0]
    assert truth(first, "voc") == TRUTH


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((BOMB + VOC.replace("diode", "&c;")).encode(), "has a DOCTYPE, which is not read"),
        (("<?xml version='1.0' encoding='utf-16'?>" + BOMB + VOC).encode("utf-16"), "has a DOCTYPE"),
        (b"<annotation><object>", "is not XML"),
        (b"", "is not XML"),
        (b"<?xml version='1.0' encoding='klingon'?><annotation/>", "is not XML"),
        (b"<html/>", "is no Pascal VOC file"),
    ],
)
def test_xml_that_is_none_or_unfolds_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    folder = write(tmp_path, "voc")
    (folder / "labels/a.xml").write_bytes(content)
    first = items_of(folder, "voc")[0]
    with pytest.raises(DataError, match=said) as caught:
        truth(first, "voc")
    assert str(folder / "labels/a.xml") in str(caught.value)


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "yolo")
    (folder / "labels/a.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(DataError, match=r"a\.txt: is not UTF-8"):
        truth(items_of(folder, "yolo")[0], "yolo")


def coco(change: Callable[[Any], Any]) -> Any:
    table = json.loads(json.dumps(COCO))
    change(table)
    return table


COCO_FAULTS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda t: t["annotations"][0].update(bbox=[10, 5, 20]), "annotation 7: has 3 values where a box has 4"),
    (lambda t: t["annotations"][1].update(bbox=[10, 5, "a", 3]), "annotation 8: 'a' is not a finite number"),
    (lambda t: t["annotations"][1].update(bbox=[10, 5, True, 3]), "annotation 8: 'True' is not a finite number"),
    (lambda t: t["annotations"][1].update(bbox=[10, float("nan"), 3, 3]), "annotation 8: 'nan' is not a finite"),
    (lambda t: t["annotations"][0].pop("bbox"), "annotation 7: has 0 values"),
    (lambda t: t["annotations"][0].update(iscrowd="0"), "annotation 7: its iscrowd is '0'"),
    (lambda t: t["annotations"][1].update(iscrowd="false"), "annotation 8: its iscrowd is 'false'"),
    (lambda t: t["annotations"][1].update(iscrowd=None), "annotation 8: its iscrowd is 'None'"),
    (lambda t: t["annotations"][1].update(iscrowd=2), "annotation 8: its iscrowd is '2'"),
    (lambda t: t["annotations"][0].update(category_id=9), "annotation 7: its class 'category 9' means nothing"),
    (lambda t: t["annotations"][0].update(bbox=[10, 5, -3, 4]), "annotation 7: its width is -3 px"),
    (lambda t: t["images"][0].update(width=20, height=40), "it says that the picture is 20x40 px"),
]


@pytest.mark.parametrize(("change", "said"), COCO_FAULTS)
def test_a_faulty_annotation_is_named_with_its_picture(tmp_path: Path, change: Any, said: str) -> None:
    first = items_of(write(tmp_path, "coco.json", coco=coco(change)), "coco.json")[0]
    with pytest.raises(DataError) as caught:
        truth(first, "coco.json")
    assert str(caught.value).startswith(f"{tmp_path / 'coco.json'}: a.png: {said}")


COCO_BREAKS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda t: t.pop("images"), "it has no list 'images'"),
    (lambda t: t["images"].append(5), "it has no list 'images'"),
    (lambda t: t["images"][1].update(id=1), "two images have the id 1"),
    (lambda t: t["images"][1].update(file_name="a.png"), "'a.png' is listed twice"),
    (lambda t: t["images"][0].update(file_name="../a.png"), "is not the name of a file in the folder"),
    (lambda t: t["images"][0].pop("file_name"), "an entry lacks 'file_name'"),
    (lambda t: t["annotations"][0].update(image_id=99), "annotation 7 belongs to image 99, which is not listed"),
    (lambda t: t["annotations"][0].update(image_id=[]), "unhashable"),
    (lambda t: t["categories"][1].update(id=3), "two categories have the id 3"),
]


@pytest.mark.parametrize(("change", "said"), COCO_BREAKS)
def test_a_broken_coco_file_is_named(tmp_path: Path, change: Any, said: str) -> None:
    folder = write(tmp_path, "coco.json", coco=coco(change))
    with pytest.raises(DataError) as caught:
        items_of(folder, "coco.json")
    assert str(caught.value).startswith(f"{folder / 'coco.json'}: not a COCO file ({said}") or said in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"[]"])
def test_json_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path, "coco.json")
    (folder / "coco.json").write_bytes(content)
    with pytest.raises(DataError, match=r"coco\.json: (is not JSON|not a COCO file)"):
        items_of(folder, "coco.json")
    (folder / "coco.json").unlink()
    with pytest.raises(DataError, match=r"coco\.json: cannot be read .*data\.labels"):
        items_of(folder, "coco.json")


def test_two_inputs_share_boxes_and_must_share_a_size(tmp_path: Path) -> None:
    folder = write(tmp_path, "yolo")
    (folder / "thermal").mkdir()
    for name in "ab":
        Image.new("L", (40, 20)).save(folder / f"thermal/{name}.png")
    inputs = {"image": {"size": [8, 8]}, "thermal": {"size": [8, 8], "folder": "thermal", "channels": 1}}
    first = items_of(folder, "yolo", inputs=inputs)[0]
    assert truth(first, "yolo") == TRUTH
    Image.new("L", (20, 10)).save(folder / "thermal/a.png")
    with pytest.raises(DataError, match=r"thermal/a\.png: is 20x10 px, a\.png 40x20"):
        truth(first, "yolo")
