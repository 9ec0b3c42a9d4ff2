"""``coco.json`` of a rendered folder: what the manifest says, as the reader of boxes understands it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.errors import DataError
from leakdet_tf.data.box_files import parse_coco
from leakdet_tf.data.box_truth import box_table, boxes_of
from leakdet_tf.synth.folder.coco import coco_text
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import check_folder, render_folder

CLASSES = {"leak": ["oil", "water"], "crack": ["crack"], "hotspot": ["hotspot", "diode"]}
OWN = """
import numpy as np
from leakdet_tf.synth.scenery.rendered import Rendered

def fickle(seed, size):
    boxes = () if seed % 2 else None
    return Rendered(np.zeros((*size, 1), np.uint8), np.zeros(size, np.uint8), {}, ("dry", "wet"), None, boxes)
"""


def _asked(generator: str, **changes: Any) -> Request:
    counts = {"train": 6, "val": 2}
    asked: dict[str, Any] = {"generator": generator, "counts": counts, "size": (48, 64), "seed": 4}
    return Request(**(asked | changes))


def _fill(root: Path, request: Request) -> None:
    list(render_folder(root, request, workers=1))


def _manifest(root: Path) -> dict[str, Any]:
    found = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("generator", sorted(CLASSES))
def test_the_reader_of_boxes_finds_each_region_of_the_masks(tmp_path: Path, generator: str) -> None:
    request = _asked(generator)
    _fill(tmp_path / "r", request)
    check_folder(tmp_path / "r", request)
    names = CLASSES[generator]
    table = box_table({}, names, "coco")
    total = 0
    for split, count in (("train", 6), ("val", 2), ("test", 0)):
        folder = tmp_path / "r" / split
        content = (folder / "coco.json").read_bytes()
        said = parse_coco(content, name="coco.json")
        assert sorted(said) == sorted(path.name for path in (folder / "images").iterdir())
        assert len(said) == count
        listed = json.loads(content)
        assert listed["categories"] == [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
        assert [one["id"] for one in listed["annotations"]] == list(range(1, len(listed["annotations"]) + 1))
        for name, written in said.items():
            truth, faults = boxes_of(written, (48, 64), table)
            assert not faults
            with Image.open(folder / "masks" / name) as image:
                mask = np.asarray(image)
            expected = set()
            for label in range(len(names)):
                _, _, stats, _ = cv2.connectedComponentsWithStats((mask == label + 1).astype(np.uint8), connectivity=8)
                expected |= {(x, y, x + w, y + h, label, 0) for x, y, w, h, _ in stats[1:].tolist()}
            assert {tuple(int(value) for value in row) for row in truth} == expected
            assert len(truth) == len(expected)
            total += len(expected)
    assert total > 2


def test_boxes_to_be_ignored_are_read_so(tmp_path: Path) -> None:
    request = _asked("leak", counts={"train": 12}, options={"join": 0.05, "least_extent": 0.1})
    _fill(tmp_path / "r", request)
    check_folder(tmp_path / "r", request)
    table = box_table({}, CLASSES["leak"], "coco")
    said = parse_coco((tmp_path / "r/train/coco.json").read_bytes(), name="coco.json")
    ignored = {}
    for one in _manifest(tmp_path / "r")["pictures"]:
        truth, faults = boxes_of(said[Path(one["file"]).name], (48, 64), table)
        assert not faults
        assert truth[truth[:, 5] == 0, :4].tolist() == [box[1:] for box in one["boxes"]]
        ignored[one["file"]] = truth[truth[:, 5] == 1, :4].tolist()
        assert ignored[one["file"]] == [box[1:] for box in one.get("ignored", [])]
    assert any(ignored.values())


def test_a_file_of_boxes_is_written_out_in_full() -> None:
    pictures: list[dict[str, Any]] = [
        {"file": "val/images/a.png", "boxes": [["b", 0, 0, 1, 1], ["c", 2, 3, 10, 5]]},
        {"file": "val/images/d.png", "boxes": [], "ignored": [["b", 4, 5, 7, 9]]},
    ]
    listed = json.loads(coco_text(pictures, ["background", "b", "c"], [20, 30]))
    assert listed == {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 30, "height": 20},
            {"id": 2, "file_name": "d.png", "width": 30, "height": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [2, 3, 8, 2], "area": 16, "iscrowd": 0},
            {"id": 3, "image_id": 2, "category_id": 1, "bbox": [4, 5, 3, 4], "area": 12, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "b"}, {"id": 2, "name": "c"}],
    }


@pytest.mark.parametrize("how", ["missing", "edited", "manifest"])
def test_boxes_that_say_otherwise_are_named(tmp_path: Path, how: str) -> None:
    root, request = tmp_path / "h", _asked("hotspot")
    _fill(root, request)
    file = root / "train" / "coco.json"
    if how == "missing":
        file.unlink()
    elif how == "edited":
        file.write_text(file.read_text(encoding="utf-8").replace('"iscrowd": 0', '"iscrowd": 1', 1), encoding="utf-8")
    else:
        manifest = _manifest(root)
        next(one["boxes"] for one in manifest["pictures"] if one["boxes"])[0][1] -= 1
        (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError, match=r"train.coco\.json: is not what") as caught:
        check_folder(root, request)
    assert "render it again" in caught.value.remedy


@pytest.mark.parametrize("boxes", [[["nothing", 0, 0, 1, 1]], [["hotspot", 0, 0, 1]], [["hotspot", "a", 0, 1, 1]], 3])
def test_a_manifest_with_odd_boxes_is_refused_in_one_line(tmp_path: Path, boxes: Any) -> None:
    root, request = tmp_path / "h", _asked("hotspot", counts={"val": 1})
    _fill(root, request)
    manifest = _manifest(root)
    manifest["pictures"][0]["boxes"] = boxes
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.json: not a manifest of rendered pictures"):
        check_folder(root, request)


def test_a_folder_of_an_earlier_version_stays_as_it_is(tmp_path: Path) -> None:
    root, request = tmp_path / "c", _asked("crack")
    _fill(root, request)
    manifest = _manifest(root)
    assert manifest.pop("boxes") == "coco.json"
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for split in ("train", "val", "test"):
        (root / split / "coco.json").unlink()
    check_folder(root, request)
    assert list(render_folder(root, request)) == []
    assert not list(root.rglob("coco.json"))


def test_no_boxes_no_file_and_not_on_some_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path / "gas", _asked("gas"))
    assert not list((tmp_path / "gas").rglob("coco.json"))
    assert "boxes" not in _manifest(tmp_path / "gas")
    (tmp_path / "own_boxes.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match="boxes on some and none on other pictures"):
        _fill(tmp_path / "f", _asked("own_boxes:fickle", counts={"train": 8}))
    assert not (tmp_path / "f").exists()
