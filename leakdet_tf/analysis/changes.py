"""The figure that shows pictures before and after augmentation, with their masks or boxes outlined."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from leakdet_tf.config.data import Augment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Labels, Pixels, resize_nearest
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.tasks.segment import viewable

_INK, _MUTED, _SET = "#222222", "#777777", "#ffffff"
_VEIL = (0.6, 0.6, 0.6, 0.6)  # over pixels that do not count
_PANEL_IN = (1.75, 3.0)  # least and largest width in inches; between them a pixel is drawn as one
_DPI = 110  # as figures.save writes them
_PERCENT = ("shift", "brightness", "contrast", "hue", "saturation")


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture to draw: inputs by name (h, w, C), its mask uint8 (H, W), and words to stand under it.

    Where its truth is ``boxes``, float32 (N, 6) of BOX_COLUMNS, these are drawn, and the mask is their frame alone.
    """

    inputs: Mapping[str, Pixels]
    truth: Labels
    caption: str = ""
    boxes: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """A picture as it was read, and what was made of it."""

    label: str
    before: Panel
    after: Sequence[Panel]


def changes(
    rows: Sequence[Row], heads: Sequence[str], contract: Contract, *, title: str, note: str = "", blocks: int = 1
) -> Figure:
    """A line of panels for each row and input, the unchanged picture first, masks outlined in the classes' colours.

    Args:
        rows: with at most as many panels as there are ``heads``.
        heads: what stands over the columns after the first.
        contract: inputs and classes. 16-bit inputs are shown between the least and the largest value of the unchanged
            picture, so that a change of brightness is seen.
        title: what stands over the figure.
        note: what stands under it.
        blocks: how many rows stand side by side.
    """
    names = list(contract.inputs)
    lines = [(row, name) for row in rows for name in names]
    blocks = min(blocks, len(lines))
    down, across = math.ceil(len(lines) / blocks), 1 + len(heads)
    height, width = contract.inputs[contract.primary].size
    wide = min(_PANEL_IN[1], max(_PANEL_IN[0], width / _DPI))
    tall = wide * min(2.0, max(0.4, height / width))
    captions = any(panel.caption for row in rows for panel in row.after)
    noted = textwrap.fill(note, round(14 * wide * across * blocks))
    inches = down * (tall + (0.24 if captions else 0.06)) + 1.1 + 0.14 * noted.count("\n")
    spacing = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=((wide * across + 0.35) * blocks + 0.2, inches), layout=spacing)
    axes = figure.subplots(down, across * blocks, squeeze=False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for number, (row, name) in enumerate(lines):
        line = axes[number % down][number // down * across :][:across]
        bounds = _bounds(row.before.inputs[name])
        for axis, panel in zip(line, (row.before, *row.after), strict=False):
            axis.imshow(_seen(panel.inputs[name], bounds), interpolation="nearest" if wide * _DPI >= width else "auto")
            if panel.boxes is None:
                _outline(axis, resize_nearest(panel.truth, panel.inputs[name].shape[:2]), contract)
            else:
                _framed(axis, panel.boxes, panel.inputs[name].shape, panel.truth.shape, contract)
            axis.set_xlabel(panel.caption, fontsize=8, color=_INK, labelpad=3)
        line[0].set_ylabel(row.label if len(names) == 1 else f"{row.label}\n{name}", fontsize=8.5, color=_INK)
    for place, axis in enumerate(axes[0]):
        first = place % across == 0
        head = "as read" if first else heads[place % across - 1]
        axis.set_title(head, fontsize=9, color=_INK, fontweight="bold" if first else "normal")
    figure.suptitle(title, fontsize=11, color=_INK)
    below = {"title": noted or None, "title_fontsize": 7.5, "fontsize": 8.5, "frameon": False, "handlelength": 1.5}
    legend = figure.legend(handles=_legend(rows, contract), loc="outside lower center", ncols=6, **below)
    legend.get_title().set(color=_MUTED, multialignment="center")
    return figure


def points(settings: Augment, name: str) -> list[tuple[float, str]]:
    """Where in a change's range to show it, and in words what it is there: both ends, or half and all of it.

    The points are those of :func:`leakdet_tf.data.augmentation.augment_alone`.
    """
    strength = getattr(settings, name)
    if name in ("flip_horizontal", "flip_vertical", "mosaic", "mixup"):
        return [(1.0, f"comes in {strength:.0%}")]
    if name in _PERCENT:
        return [(0.0, f"−{strength:.3g}"), (1.0, f"+{strength:.3g}")]
    if name == "rotation":
        return [(0.0, f"−{strength:.3g}°"), (1.0, f"+{strength:.3g}°")]
    if name in ("scale", "gamma"):
        sign = "×" if name == "scale" else "power "
        return [(0.0, f"{sign}{1 / (1 + strength):.2f}"), (1.0, f"{sign}{1 + strength:.2f}")]
    if name == "jpeg":
        return [(point, f"quality {max(1, round(100 * (1 - strength * point)))}") for point in (0.5, 1.0)]
    unit = " px" if name in ("blur", "motion_blur") else ""
    return [(point, f"{strength * point:.3g}{unit}") for point in (0.5, 1.0)]


def _bounds(image: Pixels) -> tuple[int, int]:
    return (0, 255) if image.dtype == np.uint8 else (int(image.min()), max(int(image.max()), int(image.min()) + 1))


def _seen(image: Pixels, bounds: tuple[int, int]) -> npt.NDArray[np.uint8]:
    low, high = bounds
    if (low, high) == (0, 255):
        return viewable(image.astype(np.uint8))
    shown = (image.astype(np.float32) - low) * np.float32(255 / (high - low))
    return viewable(shown.clip(0, 255).round().astype(np.uint8))


def _outline(axis: Any, labels: Labels, contract: Contract) -> None:
    # Lines between pixels, thinner than a pixel, so that what lies under them stays visible.
    for inside, color, style in _regions(labels, contract):
        framed = np.pad(inside.astype(np.float32), 1, mode="constant" if inside.all() else "edge")
        height, width = labels.shape
        axis.contour(
            np.arange(-1, width + 1), np.arange(-1, height + 1), framed, [0.5], colors=[color], linewidths=1.1,
            linestyles=style,
        )  # fmt: skip
    if (labels == IGNORE).any():
        veil = np.zeros((*labels.shape, 4), np.float32)
        veil[labels == IGNORE] = _VEIL
        axis.imshow(veil, interpolation="nearest")
    axis.set_xlim(-0.5, labels.shape[1] - 0.5)
    axis.set_ylim(labels.shape[0] - 0.5, -0.5)


def _framed(axis: Any, boxes: npt.NDArray[np.float32], shown: Any, size: Any, contract: Contract) -> None:
    # Edges are between pixels, whose middles matplotlib counts.
    edges = boxes[:, :4] * np.tile([shown[1] / size[1], shown[0] / size[0]], 2)
    for (x1, y1, x2, y2), (label, ignored) in zip(edges, boxes[:, 4:], strict=True):
        color = contract.classes[int(label)].color or _SET
        look = {"facecolor": _VEIL, "linestyle": "dotted"} if ignored else {"facecolor": "none"}
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, edgecolor=color, linewidth=1.1, **look))


def _regions(labels: Labels, contract: Contract) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
    count = len(contract.classes)
    found = [(labels == index, item.color or "", "solid") for index, item in enumerate(contract.classes) if item.rgb]
    found.append(((labels >= count) & (labels != IGNORE), _SET, "dotted"))
    return [(inside, color, style) for inside, color, style in found if inside.any()]


def _legend(rows: Sequence[Row], contract: Contract) -> list[Any]:
    labels = np.unique(np.concatenate([np.unique(row.before.truth) for row in rows]))
    handles: list[Any] = [
        Line2D([], [], color=item.color, label=item.name) for item in contract.classes if item.rgb is not None
    ]
    if ((labels >= len(contract.classes)) & (labels != IGNORE)).any():
        handles.append(Line2D([], [], color=_MUTED, linestyle="dotted", label="one of several classes"))
    boxes = [row.before.boxes for row in rows if row.before.boxes is not None]
    if (labels == IGNORE).any() or any(own[:, 5].any() for own in boxes):
        handles.append(Patch(facecolor=_VEIL[:3], label="ignored"))
    return handles
