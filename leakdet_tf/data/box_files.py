"""What files say of boxes, as they say it: YOLO's text, Pascal VOC's XML, COCO's JSON.

Each has its own coordinates, of pictures turned as their EXIF orientation says; :mod:`.box_truth` makes them the
project's and judges them. YOLO: middle, width and height as shares of the picture's sides. VOC: first and last pixel,
counted from 1. COCO: upper left corner, width and height in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import Size

YOLO, VOC, COCO = "yolo", "voc", "coco"
SUFFIXES = {YOLO: ".txt", VOC: ".xml"}
"""Of the files that lie beside pictures, one for each."""
_EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Entry:
    """A box as it was written.

    ``place`` is where: ``line 3``, ``object 2``, ``annotation 17``. ``word`` is the class's number or name.
    ``numbers`` are what stood there, not yet known to be four numbers. ``ignored``: VOC's difficult, COCO's iscrowd;
    what stood there where that says neither yes nor no.
    """

    place: str
    word: str
    numbers: tuple[Any, ...]
    ignored: Any = False


@dataclass(frozen=True)
class Written:
    """What is written of one picture: boxes in the ``form``'s own coordinates, and its size where it is told."""

    form: str
    entries: tuple[Entry, ...]
    size: Size | None = None


def form_of(labels: str) -> str:
    """The form of files that a value of ``data.labels`` names."""
    return labels if labels in SUFFIXES else COCO


def parse(content: bytes, form: str, *, name: str) -> Written:
    """A picture's YOLO or VOC file; nothing at all in a YOLO file says that nothing is there.

    Raises:
        DataError: it is no such file; the message begins with ``name``.
    """
    return _yolo(content, name) if form == YOLO else _voc(content, name)


def _yolo(content: bytes, name: str) -> Written:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is not UTF-8 text", remedy="save it as UTF-8") from error
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
    return Written(YOLO, tuple(Entry(f"line {n}", words[0], tuple(words[1:])) for n, words in lines if words))


def _voc(content: bytes, name: str) -> Written:
    root = _tree(content, name)
    entries = []
    for number, thing in enumerate(root.findall("object"), start=1):
        frame = thing.find("bndbox")
        edges = () if frame is None else tuple((frame.findtext(key) or "").strip() for key in _EDGES)
        mark = (thing.findtext("difficult") or "").strip()
        difficult = {"": False, "0": False, "1": True}.get(mark, mark)
        entries.append(Entry(f"object {number}", (thing.findtext("name") or "").strip(), edges, difficult))
    told = [(root.findtext(f"size/{key}") or "").strip() for key in ("height", "width")]
    height, width = (int(text) if text.isascii() and text.isdigit() else 0 for text in told)
    return Written(VOC, tuple(entries), (height, width) if height and width else None)


def _tree(content: bytes, name: str) -> Element:
    # Expat itself, not ElementTree's parser, because it can refuse entities: a short file may unfold to gigabytes.
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: Any) -> None:
        raise DataError(f"{name}: has a DOCTYPE, which is not read", remedy="remove it: annotations need no entities")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DataError(f"{name}: is not XML ({error})", remedy="fix it, or write it again") from error
    root = builder.close()
    if root.tag != "annotation":
        raise DataError(f"{name}: is no Pascal VOC file, it begins with <{root.tag}>", remedy="check data.annotations")
    return root


def parse_coco(content: bytes, *, name: str) -> dict[str, Written]:
    """A COCO file, as what it says of each picture by ``file_name``, in the file's order.

    Raises:
        DataError: it is no such file, or what concerns more than a picture is wrong: two pictures of one id or name, an
            annotation of no picture, two categories of one id. The message begins with ``name``.
    """
    try:
        table = json.loads(content.decode("utf-8-sig"))
        images, annotations = _objects(table, "images"), _objects(table, "annotations")
        categories = _by_id(_objects(table, "categories"), "categories")
        pictures = _by_id(images, "images")
        entries: dict[Any, list[Entry]] = {key: [] for key in pictures}
        for number, one in enumerate(annotations):
            place = f"annotation {one.get('id', f'number {number + 1}')}"
            if one.get("image_id") not in entries:
                raise ValueError(f"{place} belongs to image {one.get('image_id')}, which is not listed")
            category = categories.get(one.get("category_id"))
            word = f"category {one.get('category_id')}" if category is None else str(category["name"])
            box = one.get("bbox")
            numbers = tuple(box) if isinstance(box, list) else ()
            crowd = one.get("iscrowd", 0)
            entries[one["image_id"]].append(Entry(place, word, numbers, bool(crowd) if crowd in (0, 1) else crowd))
        found: dict[str, Written] = {}
        for key, picture in pictures.items():
            file = picture["file_name"]
            if not isinstance(file, str) or not _inside(file):
                raise ValueError(f"image {key}: its file_name {file!r} is not the name of a file in the folder")
            if file in found:
                raise ValueError(f"'{file}' is listed twice")
            height, width = (side if type(side) is int else 0 for side in (picture.get("height"), picture.get("width")))
            found[file] = Written(COCO, tuple(entries[key]), (height, width) if min(height, width) > 0 else None)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{name}: is not JSON ({error})", remedy="fix it, or write it again") from error
    except KeyError as error:
        raise DataError(f"{name}: not a COCO file (an entry lacks {error})", remedy="fix it") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{name}: not a COCO file ({error})", remedy="fix it, or write it again") from error
    return found


def _objects(table: Any, key: str) -> list[dict[str, Any]]:
    listed = table.get(key) if isinstance(table, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ValueError(f"it has no list '{key}'")
    return listed


def _by_id(listed: Sequence[dict[str, Any]], what: str) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for one in listed:
        if one["id"] in found:
            raise ValueError(f"two {what} have the id {one['id']}")
        found[one["id"]] = one
    return found


def _inside(name: str) -> bool:
    place = PurePosixPath(name)
    return bool(place.name) and not place.is_absolute() and ".." not in place.parts and "\\" not in name
