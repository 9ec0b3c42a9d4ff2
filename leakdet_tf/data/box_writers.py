"""True boxes → files: the inverse of :mod:`.box_files`, with what each form cannot hold.

YOLO knows nothing of regions that do not count. VOC's edges are whole pixels: an edge moves by half a pixel at most,
unless a box would vanish, which keeps one. What is written to the others is read again to within 0.001 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from leakdet_tf.core.images import Size
from leakdet_tf.data.box_truth import Boxes

_EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class Boxed:
    """A picture's name in its folder, its (height, width) and channels, and its boxes float32 (N, 6) in its pixels."""

    name: str
    size: Size
    channels: int
    boxes: Boxes


def yolo_text(picture: Boxed) -> str:
    """A line for each box: class number, middle, width and height as shares of the picture; ``ignored`` is lost."""
    height, width = picture.size
    lines = []
    for x1, y1, x2, y2, label, _ in picture.boxes.astype(np.float64):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join([str(int(label)), *(f"{share:.9f}" for share in shares)]) + "\n")
    return "".join(lines)


def voc_text(picture: Boxed, classes: Sequence[str]) -> str:
    """Pascal VOC's XML; what is ignored is marked difficult."""
    height, width = picture.size
    root = ElementTree.Element("annotation")
    _put(root, "filename", picture.name.rsplit("/", 1)[-1])
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", picture.channels)):
        _put(size, key, value)
    _put(root, "segmented", 0)
    for *edges, label, ignored in picture.boxes.astype(np.float64):
        thing = ElementTree.SubElement(root, "object")
        _put(thing, "name", classes[int(label)])
        _put(thing, "pose", "Unspecified")
        _put(thing, "truncated", 0)
        _put(thing, "difficult", int(ignored))
        frame = ElementTree.SubElement(thing, "bndbox")
        low = [min(round(edges[0]), width - 1), min(round(edges[1]), height - 1)]
        high = [max(round(edge), start + 1) for edge, start in zip(edges[2:], low, strict=True)]
        for key, value in zip(_EDGES, [low[0] + 1, low[1] + 1, *high], strict=True):
            _put(frame, key, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def coco_table(pictures: Sequence[Boxed], classes: Sequence[str]) -> dict[str, Any]:
    """COCO's lists, ids from 1 on; what is ignored is a crowd."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        height, width = picture.size
        images.append({"id": number, "file_name": picture.name, "width": width, "height": height})
        for x1, y1, x2, y2, label, ignored in picture.boxes.astype(np.float64):
            box = [round(float(value), 4) for value in (x1, y1, x2 - x1, y2 - y1)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": box,
                    "area": round(box[2] * box[3], 4),
                    "iscrowd": int(ignored),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _put(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)
