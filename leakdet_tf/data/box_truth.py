"""Boxes as written → the truth of a picture, and what is wrong with them: all of it, none dropped in silence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import ConfigError
from leakdet_tf.core.images import Size
from leakdet_tf.core.records import BOX_COLUMNS
from leakdet_tf.data.box_files import COCO, VOC, YOLO, Entry, Written

Boxes = npt.NDArray[np.float32]
Edges = tuple[float, float, float, float]
Aside = tuple[Counter[str], Counter[str]]

IGNORED, DROPPED = -1, -2
"""What a word may mean beside a class: a region that does not count, and nothing."""
OVER_PX, OVER_SHARE = 1.0, 1e-3
"""How far an edge may lie outside of the picture, in pixels or as a share of its side, to be rounding that is cut off.

A pixel: programs that count VOC's pixels from 0 write 0 where it means 1.
"""
SAME_PX = 1e-3
"""Two boxes of a class whose edges differ by no more pixels are one that was written twice."""
_COLUMNS = {YOLO: "class, x, y, width, height", VOC: "xmin, ymin, xmax, ymax", COCO: "x, y, width, height"}
_MARKS = {VOC: "difficult", COCO: "iscrowd"}


@dataclass(frozen=True)
class BoxTable:
    """What a source's boxes are read by: the class of each word, or IGNORED or DROPPED; and how many classes."""

    words: Mapping[str, int]
    classes: int


@dataclass(frozen=True)
class Fault:
    """Something wrong with one box, or where ``place`` is empty with all: where, what, and what to do."""

    place: str
    detail: str
    remedy: str
    kind: str = "mis-boxed"

    def __str__(self) -> str:
        return f"{self.place}: {self.detail}" if self.place else self.detail


def box_table(values: Mapping[str, str | list[str]], classes: Sequence[str], form: str) -> BoxTable:
    """``data.values`` as a table; without values YOLO's numbers, or others' names, are the classes in their order.

    Raises:
        ConfigError: a word means several classes.
    """
    if not values:
        names = [str(number) for number in range(len(classes))] if form == YOLO else classes
        return BoxTable({word: index for index, word in enumerate(names)}, len(classes))
    if several := [word for word, names in values.items() if isinstance(names, list) and len(names) > 1]:
        raise ConfigError(f"data.values: '{several[0]}' is a list of classes", remedy="a box has one class")
    known = {"ignore": IGNORED, "background": DROPPED} | {name: index for index, name in enumerate(classes)}
    listed = {word: names if isinstance(names, str) else names[0] for word, names in values.items()}
    return BoxTable({word: known[name] for word, name in listed.items()}, len(classes))


def boxes_of(written: Written, size: Size, table: BoxTable) -> tuple[Boxes, list[Fault]]:
    """What is written of a picture → its truth float32 (N, 6) of BOX_COLUMNS in its pixels, and what is wrong.

    An edge that lies outside by no more than OVER_PX or OVER_SHARE is put onto the picture's. What a word that means
    ``ignore`` marks is a region for every class; VOC's difficult and COCO's iscrowd make one for the box's own.

    Args:
        written: what the file says.
        size: (height, width) of the decoded picture.
        table: what its words mean.
    """
    faults: list[Fault] = []
    if written.size is not None and written.size != size:
        told, real = (f"{width}x{height}" for height, width in (written.size, size))
        detail = f"it says that the picture is {told} px, which is {real} px"
        faults.append(Fault("", detail, "fix it: its boxes are of another picture size", "mis-sized"))
    rows: list[tuple[float, ...]] = []
    seen: dict[tuple[int | str, int], list[tuple[Edges, str]]] = {}  # by what they mean and where they begin
    for entry in written.entries:
        label = table.words.get(entry.word)
        if label is None:
            detail = f"its class '{entry.word}' means nothing"
            faults.append(Fault(entry.place, detail, "name it in data.values, or in task.classes", "mis-valued"))
        if not isinstance(entry.ignored, bool):
            detail = f"its {_MARKS[written.form]} is {str(entry.ignored)[:40]!r}"
            faults.append(Fault(entry.place, detail, "write 0 or 1: it says whether the box is to be ignored"))
            continue
        found = edges_of(entry, written.form, size)
        if isinstance(found, Fault):
            faults.append(found)
            continue
        what = entry.word if label is None or label in (DROPPED, IGNORED) else label
        cell = math.floor(found[0] / (2 * SAME_PX))
        near = (one for step in (-1, 0, 1) for one in seen.get((what, cell + step), ()))
        if same := [place for edges, place in near if _apart(edges, found) <= SAME_PX]:
            faults.append(Fault(entry.place, f"is the box of {same[0]} once more", "remove one"))
            continue
        seen.setdefault((what, cell), []).append((found, entry.place))
        if label is None or label == DROPPED:
            continue
        if label == IGNORED:
            rows += [(*found, float(index), 1.0) for index in range(table.classes)]
        else:
            rows.append((*found, float(label), float(entry.ignored)))
    return np.array(rows, np.float32).reshape(-1, len(BOX_COLUMNS)), faults


def edges_of(entry: Entry, form: str, size: Size) -> Edges | Fault:
    """A box's x1, y1, x2, y2 in the pixels of a picture of (height, width), cut at its edges, or what is wrong.

    They are what float32 holds of them, for so the truth is kept: a box that is a line there is none.
    """
    if len(entry.numbers) != 4:
        ahead = 1 if form == YOLO else 0
        detail = f"has {len(entry.numbers) + ahead} values where a box has {4 + ahead} ({_COLUMNS[form]})"
        more = "; outlines and scores are not read" if len(entry.numbers) > 4 else ""
        return Fault(entry.place, detail, f"write these{more}")
    values = [_number(value) for value in entry.numbers]
    if odd := [given for given, value in zip(entry.numbers, values, strict=True) if not math.isfinite(value)]:
        return Fault(entry.place, f"{str(odd[0])[:40]!r} is not a finite number", "fix it")
    across, down = _spans(values, form, size)
    cut: list[float] = []
    for (low, high), side, name in ((across, size[1], "width"), (down, size[0], "height")):
        if high < low:
            return Fault(entry.place, f"its {name} is {high - low:g} px: its corners are swapped", "fix it")
        if not high > low:
            return Fault(entry.place, f"its {name} is 0: it holds nothing", "fix it, or remove it")
        slack = max(OVER_PX, OVER_SHARE * side)
        over = max(-low, high - side)
        if over > slack + 1e-6 or low >= side or high <= 0:
            detail = f"lies outside of the picture: its {name} goes from {low:.6g} to {high:.6g} of {side} px"
            return Fault(entry.place, detail, "fix it: only rounding is cut off")
        first, last = float(np.float32(max(0.0, low))), float(np.float32(min(side, high)))
        if not last > first:
            return Fault(entry.place, f"its {name} is {high - low:g} px: it holds nothing", "fix it, or remove it")
        cut += [first, last]
    x1, x2, y1, y2 = cut
    return x1, y1, x2, y2


def set_aside(written: Written, table: BoxTable) -> Aside:
    """How many of a picture's boxes are regions to be ignored, and how many are dropped, by their words."""
    ignored, dropped = Counter[str](), Counter[str]()
    for entry in written.entries:
        label = table.words.get(entry.word)
        if label == DROPPED:
            dropped[entry.word] += 1
        elif label == IGNORED or entry.ignored:
            ignored[entry.word] += 1
    return ignored, dropped


def _apart(edges: Edges, others: Edges) -> float:
    return max(abs(one - other) for one, other in zip(edges, others, strict=True))


def _spans(values: Sequence[float], form: str, size: Size) -> tuple[tuple[float, float], tuple[float, float]]:
    first, second, third, fourth = values
    if form == VOC:
        return (first - 1, third), (second - 1, fourth)
    if form == COCO:
        return (first, first + third), (second, second + fourth)
    x, wide, y, high = first * size[1], third * size[1], second * size[0], fourth * size[0]
    return (x - wide / 2, x + wide / 2), (y - high / 2, y + high / 2)


def _number(value: object) -> float:
    # NaN for what is none; true is not 1, nor is "1_0" 10.
    if isinstance(value, bool) or not isinstance(value, int | float | str) or "_" in str(value):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
