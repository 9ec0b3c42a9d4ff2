"""The figures of a detector's report: precision over recall, what a threshold does, and sheets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from leakdet_tf.analysis.detect.answers import Floats, answers_of
from leakdet_tf.analysis.detect.coco import HIT, IGNORED, RECALLS, matches
from leakdet_tf.analysis.detect.metrics import Judged, Measured, judged, sweep
from leakdet_tf.core.images import Pixels
from leakdet_tf.core.records import Boxes, Sample
from leakdet_tf.core.tasks.segment import viewable

_INK, _MUTED, _LINE = "#222222", "#888888", "#4c72b0"
_COLORS = (_LINE, "#dd8452", "#55a868", "#8172b3", "#937860", "#da8bc3", "#64b5cd", "#ccb974")
# apart from each other on grey photographs as on the yellows and purples of thermal ones
_FOUND, _HIT, _WRONG, _MISSED, _VOID = "#ffffff", "#39d353", "#ff3030", "#2fd5ff", "#b8c4d0"
_LEAST_ACROSS, _ACROSS, _WIDE = 2, 3, 4.1  # places in a row of a sheet, and each one's width in inches
_TALLEST = 1.6  # of a place, in its widths
_NAMED = 12  # boxes of a picture whose class and score are written
_SMALL = 0.07  # of a picture's side: smaller boxes have finer lines
_LONG = 40


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture (H, W, C) of a sheet, its true boxes (N, 6), what was found on it, and what of that is right."""

    name: str
    image: Pixels
    truth: Floats
    found: Boxes
    verdict: Judged


def precision_recall(measured: Measured, title: str) -> Figure:
    """Precision over recall of each class at an overlap of .5, and precision, recall and F1 over the threshold."""
    figure = Figure(figsize=(10.2, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves, names = measured.curves.precision[0, :, :, 0], measured.answers.classes
    known = [label for label in range(len(names)) if not np.isnan(curves[0, label])]
    many = len(known) > len(_COLORS)
    for place, label in enumerate(known):
        color = _MUTED if many else _COLORS[place % len(_COLORS)]
        said = None if many else f"{_short(names[label])}: AP .5 {measured.figures['ap50'][label]:.3f}"
        style = {"alpha": 0.4, "linewidth": 0.8} if many else {"linewidth": 1.7}
        left.plot(RECALLS, curves[:, label], color=color, label=said, **style)
        here = measured.figures["recall"][label], measured.figures["precision"][label]
        if not np.isnan(here).any():
            left.plot(*here, "o", color=color, markersize=3 if many else 6, clip_on=False, zorder=3)
    if len(known) > 1:
        whole = np.nanmean(curves[:, known], axis=1)
        left.plot(RECALLS, whole, color=_INK, linewidth=2, linestyle="--", label=_mean_of(measured, len(known)))
    left.plot([], [], "o", color=_MUTED, markersize=6, label=f"shown from a score of {measured.threshold:.3f}")
    left.set_xlabel("recall", fontsize=9)
    left.set_ylabel("precision", fontsize=9)
    _thresholds(right, measured)
    for axis in (left, right):
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.02)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        for text in axis.legend(frameon=False, fontsize=8, loc="best").get_texts():
            text.set_parse_math(False)
    figure.suptitle(title, fontsize=10, color=_INK, parse_math=False)
    return figure


def _mean_of(measured: Measured, classes: int) -> str:
    return f"mean of {classes} classes: {measured.figures['map50']:.3f}"


def _thresholds(axis: Any, measured: Measured) -> None:
    steps = np.linspace(0, 1, 201)
    found = sweep(measured.matches, steps)
    for name, color in (("precision", _COLORS[0]), ("recall", _COLORS[1]), ("f1", _COLORS[2])):
        axis.plot(steps, found[name], color=color, linewidth=1.7, label="F1" if name == "f1" else name)
    value = float(measured.figures["mean_f1"])
    said = f"threshold {measured.threshold:.3f}" + ("" if np.isnan(value) else f": F1 {value:.3f}")
    axis.axvline(measured.threshold, color=_INK, linestyle=":", linewidth=1.2, label=said)
    axis.set_xlabel("score from which on boxes are shown", fontsize=9)
    axis.set_ylabel("mean over classes, at an overlap of .5", fontsize=9)


def shown_of(measured: Measured, sample: Sample, position: int, primary: str) -> Shown:
    """The sample at a position of what was measured, by its input ``primary``, as a place of a :func:`sheet`."""
    answers = measured.answers
    image, verdict = sample.images[primary], measured.judged(position)
    return Shown(answers.ids[position], image, answers.truths[position], answers.predictions[position], verdict)


def examples(
    samples: Sequence[Sample], predictions: Sequence[Boxes], title: str, primary: str, *, threshold: float = 0.0
) -> Figure:
    """Some samples, of which the input ``primary`` is shown, with truth and what was found, as a :func:`sheet`.

    Raises:
        DataError: a sample has no truth.
        MissingExtraError: faster-coco-eval is not installed.
    """
    answers = answers_of(samples, predictions)
    found = matches(answers, overlaps=1, sizes=False)
    shown = [
        Shown(sample.id, sample.images[primary], truth, boxes, judged(answers, found, threshold, place))
        for place, (sample, truth, boxes) in enumerate(zip(samples, answers.truths, predictions, strict=True))
    ]
    return sheet(shown, title)


def sheet(shown: Sequence[Shown], title: str) -> Figure:
    """Pictures, three in a row: hits green, false alarms red, missed boxes dashed blue, found ones dashed white.

    Classes are named beside the boxes where there are several on the sheet, else once in the legend.
    """
    across = max(_LEAST_ACROSS, min(_ACROSS, len(shown)))
    down = max(1, -(-len(shown) // across))
    tall = max((min(_TALLEST, item.image.shape[0] / item.image.shape[1]) for item in shown), default=1.0)
    figure = Figure(figsize=(_WIDE * across + 0.2, (_WIDE * tall + 0.42) * down + 0.75), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    names = {item.found.classes[int(label)] for item in shown for label in item.truth[:, 4]}
    names |= {item.found.names[place] for item in shown for place in item.verdict.shown}
    for axis, item in zip(axes, shown, strict=False):
        _picture(axis, item, named=len(names) > 1)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    handles = [
        Line2D([], [], color=_HIT, linewidth=2, label="found, right"),
        Line2D([], [], color=_WRONG, linewidth=2, label="false alarm"),
        Line2D([], [], color=_MISSED, linewidth=2, linestyle="--", label="missed"),
        Line2D([], [], color=_FOUND, linewidth=1.4, linestyle="--", label="truth of what was found"),
        Line2D([], [], color=_VOID, linewidth=1.4, linestyle=":", label="does not count"),
    ]
    if len(names) == 1:
        handles.append(Line2D([], [], linestyle="none", label=f"all boxes: {_short(min(names))}"))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8, facecolor="#5a5a5a")
    for text in legend.get_texts():
        text.set_color("white")
        text.set_parse_math(False)
    figure.suptitle(title, fontsize=10, color=_INK, parse_math=False)
    return figure


def _picture(axis: Any, item: Shown, *, named: bool) -> None:
    height, width = item.image.shape[:2]
    axis.imshow(viewable(item.image), interpolation="nearest", extent=(0, width, height, 0))
    axis.set_xticks([])
    axis.set_yticks([])
    ignored = item.truth[:, 5] > 0
    for row, met, void in zip(item.truth, item.verdict.found, ignored, strict=True):
        color, style, line = (_VOID, ":", 1.3) if void else (_FOUND, "--", 1.1) if met else (_MISSED, "--", 2.0)
        _box(axis, row[:4], color, line, style, item.image.shape)
        if color == _MISSED and named:
            _word(axis, row[:4], item.found.classes[int(row[4])], color, below=True, size=item.image.shape)
    order = list(zip(item.verdict.shown, item.verdict.states, strict=True))
    for number, (place, state) in reversed(list(enumerate(order))):  # the most certain on top
        color = _HIT if state == HIT else _VOID if state == IGNORED else _WRONG
        box = item.found.boxes[place]
        _box(axis, box, color, 1.8, ":" if state == IGNORED else "-", item.image.shape)
        if number < _NAMED and state != IGNORED:
            name = f"{item.found.names[place]} " if named else ""
            text = f"{name}{item.found.scores[place]:.2f}"
            _word(axis, box, text, color, below=False, size=item.image.shape)
    number, right = int((~ignored).sum()), int((item.verdict.found & ~ignored).sum())
    wrong = int(sum(state not in (HIT, IGNORED) for state in item.verdict.states))
    text = f"{_short(item.name)}\n{right} of {number} found, {wrong} false alarm{'' if wrong == 1 else 's'}"
    axis.set_xlabel(text, fontsize=7, color=_INK if right == number and not wrong else "#b3261e", parse_math=False)


def _box(axis: Any, edges: Any, color: str, line: float, style: str, size: Sequence[int]) -> None:
    x1, y1, x2, y2 = (float(edge) for edge in edges)
    if min((x2 - x1) / size[1], (y2 - y1) / size[0]) < _SMALL:
        line *= 0.6
        if color == _MISSED:  # a ring around it: dashes on a box of few pixels would be specks
            ring = 0.012 * max(size[:2])
            x1, y1, x2, y2, line = x1 - ring, y1 - ring, x2 + ring, y2 + ring, 1.4
    rim = [withStroke(linewidth=line + 1.2, foreground="black", alpha=0.55)] if style == "-" else None
    axis.add_patch(
        Rectangle(
            (x1, y1), x2 - x1, y2 - y1, fill=False, color=color, linewidth=line, linestyle=style, path_effects=rim
        )
    )


def _word(axis: Any, edges: Any, text: str, color: str, *, below: bool, size: Sequence[int]) -> None:
    # Over or under its box where there is room, else inside; from its left edge, near the right border to its right.
    limit = np.array([size[1], size[0], size[1], size[0]])
    x1, y1, x2, y2 = (float(edge) for edge in np.clip(edges, 0, limit))
    room = 0.06 * size[0]
    under = y2 + room < size[0] if below else y1 < room
    right = x1 > 0.72 * size[1]
    axis.annotate(
        text if len(text) <= 22 else text[:10] + "…" + text[-11:],
        (x2 if right else x1, y2 if below else y1),
        xytext=(0, -1 if under else 1),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if under else "bottom",
        fontsize=5.8,
        color="black",
        bbox={"boxstyle": "square,pad=0.08", "facecolor": color, "edgecolor": "none", "alpha": 0.75},
        parse_math=False,
        annotation_clip=False,
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONG else "…" + text[-_LONG + 1 :]
