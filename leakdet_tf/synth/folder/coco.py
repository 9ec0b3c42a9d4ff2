"""The boxes of rendered pictures as a COCO file, the form that detectors are trained from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any


def coco_text(pictures: Sequence[Mapping[str, Any]], classes: Sequence[str], size: Sequence[int]) -> str:
    """One split's boxes as COCO's JSON, a line for each picture and box.

    Categories are the classes but the background, numbered from 1 as in the masks. A ``file_name`` is that in the
    split's folder ``images``. ``bbox`` is the left and upper edge, width and height in pixels, so the whole first pixel
    is 0, 0, 1, 1; ``area`` is the box's.

    Args:
        pictures: entries of a manifest with ``file`` and ``boxes`` (class, x0, y0, x1, y1; half-open). Those of
            ``ignored``, where there are any, follow as crowds, which COCO's figures do not count.
        classes: names by mask id, the background first.
        size: (height, width) of all pictures.

    Raises:
        KeyError, TypeError or ValueError: an entry is none of a manifest.
    """
    numbers = {name: index for index, name in enumerate(classes) if index}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = size
    for number, picture in enumerate(pictures, start=1):
        name = PurePosixPath(picture["file"]).name
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        ignored = picture.get("ignored", [])
        for crowd, (kind, x0, y0, x1, y1) in [(0, box) for box in picture["boxes"]] + [(1, box) for box in ignored]:
            across, down = x1 - x0, y1 - y0
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": numbers[kind],
                    "bbox": [x0, y0, across, down],
                    "area": across * down,
                    "iscrowd": crowd,
                }
            )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    parts = {"images": images, "annotations": annotations, "categories": categories}
    return "{\n" + ",\n".join(f'"{key}": {_lines(records)}' for key, records in parts.items()) + "\n}\n"


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n]"
