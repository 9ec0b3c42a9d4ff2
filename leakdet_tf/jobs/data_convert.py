"""``leakdet-tf data convert``: boxes from one form of files to another."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from leakdet_tf.config.data import Input, Source
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.data.box_files import COCO, SUFFIXES, VOC, YOLO, form_of
from leakdet_tf.data.box_truth import box_table
from leakdet_tf.data.box_writers import Boxed, coco_table, voc_text, yolo_text
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_items, read
from leakdet_tf.training.progress import track

Log = Callable[[str], None]

IMAGES, LABELS, CLASSES, BOXES = "images", "labels", "classes.txt", "coco.json"
"""The names of what is written: folders of pictures and of YOLO's or VOC's files, YOLO's class names, a COCO file."""
IGNORED = ("refuse", "drop", "keep")
"""What to do with regions that do not count where the form has none: stop, leave them out, make them boxes."""


@dataclass(frozen=True, eq=False)
class _Part:
    name: str  # of the split's folder; empty for a root that holds pictures itself
    items: list[Item]
    pictures: list[Boxed]


def convert(
    root: str,
    out: str,
    *,
    given: str,
    wanted: str,
    classes: Sequence[str],
    images: str = IMAGES,
    annotations: str = LABELS,
    ignored: str = IGNORED[0],
    log: Log = lambda line: None,
) -> Path:
    """Write the boxes of a folder in another form, in a folder that an experiment can be trained from.

    A root with ``train``, ``val`` or ``test`` keeps them. Pictures come along, so that the folder is whole: as hard
    links, which take no room, or where the disk has none as copies; a linked picture is the same file in both folders.
    Every box is checked as ``fit`` checks it. What a form cannot say is lost: outlines, poses, other people's fields;
    :mod:`leakdet_tf.data.box_writers` says by how much edges are rounded.

    Args:
        root: the folder to read.
        out: the folder to write; it may be empty, else it must not be there. Nothing is left of it after an error.
        given: the root's form: ``yolo``, ``voc``, ``coco`` (its files are ``coco.json``) or a COCO file's name.
        wanted: the form to write, likewise.
        classes: names; YOLO's numbers count them from 0.
        images: name of the root's folders of pictures.
        annotations: name of the root's folders of text or XML files.
        ignored: one of IGNORED: what to do with VOC's difficult and COCO's crowds where YOLO is written.
        log: takes lines for the user.

    Raises:
        ConfigError: a form, a class or ``ignored`` is none, or ``out`` is in use.
        DataError: something is wrong with a picture or a box, or YOLO is to hold what it cannot.
    """
    names = [name.strip() for name in classes]
    _check(given, wanted, names, ignored)
    target, labels = Path(out), _labels(given)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: is there already", remedy="name a folder that is not, or is empty")
    source = Source.model_validate({"name": "data", "root": root, "labels": labels, "annotations": annotations})
    parts = _read(source, names, images)
    if form_of(_labels(wanted)) == YOLO:
        parts = [_without_ignored(part, ignored, log) for part in parts]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".convert-") as scratch:
            place = Path(scratch) / "whole"
            copied = sum(_write(place / part.name, part, _labels(wanted), names, place) for part in parts)
            if target.exists():
                target.rmdir()
            place.rename(target)
    except OSError as error:
        raise DataError(
            f"{error.filename or target}: cannot be written ({error.strerror})", remedy="free it"
        ) from error
    for part in parts:
        boxes = sum(len(picture.boxes) for picture in part.pictures)
        empty = sum(not len(picture.boxes) for picture in part.pictures)
        log(f"{part.name or 'all'}: {len(part.items)} pictures, {boxes} boxes; {empty} pictures without any")
    log("pictures are " + ("copies" if copied else "hard links: the same files in both folders"))
    log(f'[data] of an experiment: root = "{target}", labels = "{_labels(wanted)}"')
    return target


def _labels(form: str) -> str:
    return BOXES if form == COCO else form


def _check(given: str, wanted: str, classes: Sequence[str], ignored: str) -> None:
    for option, form in (("--from", given), ("--to", wanted)):
        if form not in (YOLO, VOC, COCO) and not (form.endswith(".json") and Path(form).name == form):
            raise ConfigError(f"{option} {form}: no such form", remedy=f"{YOLO}, {VOC}, {COCO} or NAME.json")
    if not classes or not all(classes) or len(set(classes)) != len(classes):
        raise ConfigError(
            "--classes: names each class once, such as crack,rust", remedy="in the order of their numbers"
        )
    if ignored not in IGNORED:
        raise ConfigError(f"--ignored {ignored}: no such choice", remedy=f"one of {', '.join(IGNORED)}")


def _read(source: Source, classes: Sequence[str], images: str) -> list[_Part]:
    root = Path(source.root)
    inputs = {"image": Input.model_validate({"size": [1, 1], "folder": images})}
    table = box_table({}, classes, form_of(source.labels))
    found = [name for name in SPLITS if (root / name).is_dir()] or [""]
    listed = [(name, find_items(root / name, source, inputs)) for name in found]
    parts = []
    for name, items in listed:
        pictures = []
        for item in track(items, f"reading {name}".strip(), len(items)):
            sample = read(item, table).sample
            assert sample.truth is not None
            height, width, channels = sample.images["image"].shape
            place = item.images["image"].relative_to(root / name / images).as_posix()
            pictures.append(Boxed(place, (height, width), channels, np.asarray(sample.truth, np.float32)))
        parts.append(_Part(name, items, pictures))
    return parts


def _without_ignored(part: _Part, ignored: str, log: Log) -> _Part:
    having = [place for place, picture in enumerate(part.pictures) if picture.boxes[:, 5].any()]
    if not having or ignored == "keep":
        return part
    count = sum(int(picture.boxes[:, 5].sum()) for picture in part.pictures)
    if ignored == "refuse":
        first = part.items[having[0]].images["image"]
        raise DataError(
            f"{first}: has regions that do not count (difficult, crowd), which YOLO's text cannot say ({count} such)",
            remedy="--ignored drop leaves them out, --ignored keep makes them ordinary boxes",
        )
    log(f"{part.name or 'all'}: {count} regions that do not count are left out")
    kept = [
        Boxed(picture.name, picture.size, picture.channels, picture.boxes[picture.boxes[:, 5] == 0])
        for picture in part.pictures
    ]
    return _Part(part.name, part.items, kept)


def _write(folder: Path, part: _Part, labels: str, classes: Sequence[str], root: Path) -> int:
    # How many pictures had to be copied.
    form = form_of(labels)
    copied = 0
    for item, picture in zip(part.items, part.pictures, strict=True):
        place = folder / IMAGES / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        copied += not _linked(item.images["image"], place)
        if form != COCO:
            text = yolo_text(picture) if form == YOLO else voc_text(picture, classes)
            file = folder / LABELS / f"{item.id}{SUFFIXES[form]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    if form == COCO:
        table = coco_table(part.pictures, classes)
        (folder / labels).write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if form == YOLO:
        (root / CLASSES).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return copied


def _linked(source: Path, place: Path) -> bool:
    try:
        os.link(source.resolve(), place)
    except OSError:  # another disk, or one without links: the caller tells that these are copies
        shutil.copyfile(source, place)
        return False
    return True
