"""Labels and boxes on disk: the table of each split says what the manifest does, whoever rendered."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.errors import ConfigError, DataError, ImageError
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import check_folder, render_folder
from leakdet_tf.synth.scenery.rendered import Rendered

OWN = """
import numpy as np
from leakdet_tf.synth.scenery.rendered import Rendered

def several(seed, size):
    labels = ("wet", "dirty, old") if seed % 2 else ()
    return Rendered(np.zeros((*size, 1), np.uint8), np.zeros(size, np.uint8), {}, ("dry",), labels)

def fickle(seed, size):
    labels = ("a",) if seed % 2 else None
    return Rendered(np.zeros((*size, 1), np.uint8), np.zeros(size, np.uint8), {}, ("dry",), labels)

def changing(seed, size):
    return Rendered(np.zeros((*size, 1), np.uint8), np.zeros(size, np.uint8), {}, ("dry", f"c{seed}"))
"""


def _asked(generator: str, **changes: Any) -> Request:
    counts = {"train": 5, "val": 2, "test": 1}
    return Request(**({"generator": generator, "counts": counts, "size": (40, 48), "seed": 3} | changes))


def _fill(root: Path, request: Request, workers: int | None = None) -> dict[str, Any]:
    list(render_folder(root, request, workers=workers))
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(manifest, dict)
    return manifest


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("generator", ["leak", "crack"])
def test_tables_manifest_and_masks_agree(tmp_path: Path, generator: str) -> None:
    request = _asked(generator)
    manifest = _fill(tmp_path / "one", request, workers=1)
    _fill(tmp_path / "two", request, workers=2)
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.is_file():
            assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()
    classes = manifest["classes"]
    assert classes == {"leak": ["background", "oil", "water"], "crack": ["background", "crack"]}[generator]
    for split in ("train", "val", "test"):
        rows = _rows(tmp_path / "one" / split / "labels.csv")
        listed = [picture for picture in manifest["pictures"] if picture["file"].startswith(f"{split}/")]
        assert [f"{split}/{row['file']}" for row in rows] == [picture["file"] for picture in listed]
        assert [row["label"] for row in rows] == [";".join(picture["labels"]) for picture in listed]
    for picture in manifest["pictures"]:
        with Image.open(tmp_path / "one" / picture["mask"]) as image:
            found = {classes[value] for value in np.unique(np.asarray(image)) if value}
        assert {box[0] for box in picture["boxes"]} == found
        (label,) = picture["labels"]
        assert label in ({f"{name}_leak" for name in found or {"no"}} | {"cracked" if found else "non_cracked"})
    check_folder(tmp_path / "one", request)


def test_gas_says_no_labels_and_no_boxes(tmp_path: Path) -> None:
    manifest = _fill(tmp_path / "gas", _asked("gas"))
    assert not list((tmp_path / "gas").rglob("labels.csv"))
    assert all(not {"labels", "boxes"} & set(picture) for picture in manifest["pictures"])


@pytest.mark.parametrize("how", ["missing", "edited"])
def test_a_table_that_says_otherwise_is_named(tmp_path: Path, how: str) -> None:
    request = _asked("crack")
    _fill(tmp_path / "c", request)
    table = tmp_path / "c" / "val" / "labels.csv"
    if how == "missing":
        table.unlink()
    else:
        table.write_text(table.read_text(encoding="utf-8") + "images/x.png,cracked\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.csv: is not what") as caught:
        check_folder(tmp_path / "c", request)
    assert str(table) in str(caught.value)


def test_a_generator_of_ones_own_gives_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_labels.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    manifest = _fill(tmp_path / "s", _asked("own_labels:several"), workers=2)
    assert manifest["classes"] == ["dry"]
    labels = {
        row["label"] for split in ("train", "val", "test") for row in _rows(tmp_path / "s" / split / "labels.csv")
    }
    assert labels == {"wet;dirty, old", ""}
    assert all("boxes" not in picture for picture in manifest["pictures"])
    for name, shown in (("fickle", "labels on some"), ("changing", "other classes")):
        with pytest.raises(DataError, match=shown):
            _fill(tmp_path / "f", _asked(f"own_labels:{name}"))
        assert not (tmp_path / "f").exists()


def test_a_folder_without_pictures_has_no_tables(tmp_path: Path) -> None:
    manifest = _fill(tmp_path / "none", _asked("leak", counts={}))
    assert manifest["classes"] == []
    check_folder(tmp_path / "none", _asked("leak", counts={}))


def test_unknown_options_clips_and_bad_photographs_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"x")
    options = {"backgrounds": str(tmp_path / "photos")}
    for generator in ("leak", "crack"):
        with pytest.raises(ConfigError, match="did you mean 'backgrounds'"):
            _fill(tmp_path / "x", _asked(generator, options={"background": "a"}))
        with pytest.raises(ConfigError, match="no argument 'frame'"):
            _fill(tmp_path / "x", _asked(generator, clip=2))
        for workers in (1, 2):
            with pytest.raises(ImageError, match=r"bad\.jpg"):
                _fill(tmp_path / "x", _asked(generator, options=options), workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_rendered_checks_labels_boxes_and_classes() -> None:
    image, mask = np.zeros((4, 5, 1), np.uint8), np.ones((4, 5), np.uint8)
    Rendered(image, mask, {}, ("a", "b"), ("x",), (("b", 0, 0, 5, 4),))
    Rendered(image, mask, {}, ("a", "b"), ("x",), (), (("b", 0, 0, 5, 4),))
    with pytest.raises(DataError, match=r"Rendered\.ignored.*is no box"):
        Rendered(image, mask, {}, ("a", "b"), ("x",), (), (("b", 0, 0, 5, 5),))
    with pytest.raises(DataError, match="without boxes to be found"):
        Rendered(image, mask, {}, ("a", "b"), ("x",), None, (("b", 0, 0, 5, 4),))
    for classes, labels, boxes, shown in (
        (("a",), None, None, "ids 0..0"),
        (("a", "a"), None, None, "names that differ"),
        (("a", "b"), ("x;y",), None, "'x;y'"),
        (("a", "b"), (" ",), None, "is empty"),
        (("a", "b"), None, (("c", 0, 0, 5, 4),), "no box"),
        (("a", "b"), None, (("b", 0, 0, 6, 4),), "no box"),
        (("a", "b"), None, (("b", 2, 0, 2, 4),), "no box"),
    ):
        with pytest.raises(DataError, match=shown):
            Rendered(image, mask, {}, classes, labels, boxes)
