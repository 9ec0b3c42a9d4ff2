"""The figures of a classifier's reports: reliability, risk and coverage, confusion, the matrix, and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from leakdet_tf.analysis.classify.calibration import Curve
from leakdet_tf.analysis.classify.matrix_text import size_of
from leakdet_tf.core.images import Pixels
from leakdet_tf.core.tasks.segment import viewable

_INK, _MUTED, _LINE, _WRONG, _RIGHT = "#222222", "#888888", "#4c72b0", "#c44e52", "#3c8d4e"
_COLORS = (_LINE, "#dd8452", "#55a868", "#8172b3", "#937860", "#da8bc3", "#8c8c8c", "#64b5cd")
_LEAST_ACROSS, _ACROSS, _WIDE = 3, 6, 1.75  # places in a row of a contact sheet, and each one's width in inches
_CLEAR = 0.55  # from this share of the scale on, letters are white
_LONG = 22


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture (H, W, C) of a contact sheet, the lines under it, and whether its answer is right."""

    image: Pixels
    caption: Sequence[str]
    ok: bool


def reliability(parts: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """What was claimed against what was so, a panel for each of a report's ``calibration``, with its bins' numbers."""
    figure = Figure(figsize=(4.3 * len(parts), 4.9), layout="constrained")
    axes = figure.subplots(2, len(parts), squeeze=False, sharex=True, height_ratios=(4, 1))
    for (axis, below), part in zip(axes.T, parts, strict=True):
        axis.plot([0, 1], [0, 1], color=_MUTED, linestyle=":", linewidth=1)
        for row in part["reliability"]:
            inside = {"align": "edge", "width": row["to"] - row["from"], "edgecolor": "white", "linewidth": 0.5}
            axis.bar(row["from"], row["share"], color=_LINE, alpha=0.35, **inside)
            axis.plot([row["claimed"]] * 2, [row["low"], row["high"]], color=_INK, linewidth=1.1)
            axis.plot(row["claimed"], row["share"], "o", color=_INK, markersize=4, clip_on=False, zorder=3)
            below.bar(row["from"], row["number"], color=_MUTED, **inside)
        axis.set_ylim(0, 1.02)
        axis.set_xlim(0, 1)
        said = f"ECE {part['ece']:.3f}, NLL {part['nll']:.3f}, Brier {part['brier']:.3f}"
        axis.set_title(f"temperature {part['temperature']:.3g}\n{said}", fontsize=8.5, color=_INK)
        below.set_xlabel("claimed probability", fontsize=9)
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for one in (axis, below):
            _plain(one)
    axes[0][0].set_ylabel("share that was so", fontsize=9)
    axes[1][0].set_ylabel("number", fontsize=9)
    _head(figure, title)
    return figure


def risk_coverage(curves: Mapping[str, Curve], title: str, abstain: Mapping[str, Any] | None = None) -> Figure:
    """Share of wrong answers against the share of pictures answered, a line each, and the threshold in force.

    Args:
        curves: by name.
        title: over the figure.
        abstain: that part of a report; its threshold is marked, with the interval of the risk, unless it is 0.
    """
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        label = f"{name}: area {curve.aurc:.4f}"
        axis.plot(curve.coverage, curve.risk, color=color, linewidth=1.8, drawstyle="steps-pre", label=label)
    top = max(float(curve.risk[-1]) for curve in curves.values())
    if abstain is not None and abstain["threshold"]:
        share, right = abstain["coverage"]["value"], abstain["accuracy"]
        risk = np.nan if right["value"] is None else 1 - right["value"]  # None where no picture is answered
        label = f"answered from {abstain['threshold']:.3f}: {share:.1%} of pictures"
        axis.plot([share], [risk], "o", color=_INK, markersize=6, label=label)
        if right["low"] is not None:
            axis.plot([share] * 2, [1 - right["high"], 1 - right["low"]], color=_INK, linewidth=1.2)
            top = max(top, 1 - right["low"])
    axis.set_xlim(0, 1.01)
    axis.set_ylim(0, max(1.6 * top, 0.01))
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(PercentFormatter(1))
    axis.set_xlabel("share of pictures answered (coverage)", fontsize=9)
    axis.set_ylabel("wrong among the answered (risk)", fontsize=9)
    _plain(axis)
    legend = axis.legend(frameon=False, fontsize=8, loc="upper left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    _head(figure, title)
    return figure


def confusion(found: Mapping[str, Any], title: str) -> Figure:
    """A report's confusion: rows of the truth with numbers and shares; for sigmoid two rows and columns a class."""
    if found["activation"] == "softmax":
        names = found["classes"]
        side = 2.6 + 0.62 * len(names)
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        _matrix(figure.subplots(), np.array(found["confusion"], np.float64), names, "truth", "answer")
    else:
        parts = found["confusion"]
        across = min(4, len(parts))
        down = -(-len(parts) // across)
        figure = Figure(figsize=(2.5 * across + 0.4, 2.6 * down + 0.5), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis, (name, counts) in zip(axes, parts.items(), strict=False):
            _matrix(axis, np.array(counts, np.float64), ["not", "there"], "truth", "answer")
            axis.set_title(_short(name), fontsize=9, color=_INK, parse_math=False)
        for axis in axes[len(parts) :]:
            axis.set_axis_off()
    _head(figure, title)
    return figure


def _matrix(axis: Any, counts: Any, names: Sequence[str], rows: str, columns: str) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        number = int(counts[row, column])
        text = f"{number}\n{share:.0%}" if number else "0"
        ink = "white" if share > _CLEAR else _INK if number else _MUTED
        axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
    _names(axis, names, names)
    axis.set_xlabel(columns, fontsize=9)
    axis.set_ylabel(rows, fontsize=9)


def heat(found: Mapping[str, Any], key: str, title: str) -> Figure:
    """A matrix report's ``accuracy`` or ``mean_f1`` as coloured cells, models by test sets; a frame marks home."""
    tests, models = list(found["tests"]), found["models"]
    figure = Figure(figsize=(2.4 + 1.35 * len(tests), 1.7 + 0.55 * len(models)), layout="constrained")
    axis = figure.subplots()
    values = np.array(
        [[_value(model["tests"].get(name), key) for name in tests] for model in models], np.float64
    ).reshape(len(models), len(tests))
    known = values[~np.isnan(values)]
    least = float(known.min()) if known.size else 0.0
    low = min(least, 1.0 - 1e-6)
    axis.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=low - 0.25 * (1 - low), vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        part = models[row]["tests"].get(tests[column])
        if part is None or np.isnan(value):
            axis.text(column, row, "–" if part is None else "absent", ha="center", va="center", color=_MUTED)
            continue
        bounded = part[key]["low"] is not None
        text = f"{value:.3f}" + (f"\n[{part[key]['low']:.3f}, {part[key]['high']:.3f}]" if bounded else "")
        dark = (value - low) / (1 - low) > _CLEAR
        axis.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else _INK)
        if models[row]["home"] == tests[column]:
            axis.plot(
                column + 0.47 * np.array([-1, 1, 1, -1, -1]),
                row + 0.44 * np.array([-1, -1, 1, 1, -1]),
                color=_WRONG,
                linewidth=1.6,
            )
    heads = [f"{name}\n({size_of(found['tests'][name])})" for name in tests]
    _names(axis, heads, [model["label"].replace(" (", "\n(", 1) for model in models])  # a name, and its run
    axis.set_xlabel("test set (pictures)", fontsize=9)
    if any(model["home"] for model in models):
        axis.set_title("frame: the model's own domain", fontsize=8, color=_WRONG)
    _head(figure, title)
    return figure


def _value(part: Mapping[str, Any] | None, key: str) -> float:
    value = part[key]["value"] if part is not None else None
    return np.nan if value is None else float(value)


def sheet(pictures: Sequence[Shown], title: str) -> Figure:
    """A contact sheet, six pictures in a row, each with its lines; framed and written red where the answer is wrong."""
    across = max(_LEAST_ACROSS, min(_ACROSS, len(pictures)))
    down = max(1, -(-len(pictures) // across))
    most = max((len(item.caption) for item in pictures), default=0)
    tall = max((min(1.6, item.image.shape[0] / item.image.shape[1]) for item in pictures), default=1.0)
    inches = _WIDE * across + 0.2, (_WIDE * tall + 0.13 * most + 0.1) * down + 0.4
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, item in zip(axes, pictures, strict=False):
        color = _RIGHT if item.ok else _WRONG
        axis.imshow(viewable(item.image), interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set(color=color, linewidth=2)
        text = "\n".join(_short(line) for line in item.caption)
        axis.set_xlabel(text, fontsize=6.5, color=_INK if item.ok else _WRONG, parse_math=False)
    for axis in axes[len(pictures) :]:
        axis.set_axis_off()
    _head(figure, title)
    return figure


def _names(axis: Any, columns: Sequence[str], rows: Sequence[str]) -> None:
    slant = any(len(name) > 10 and "\n" not in name for name in columns)
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slant else {}
    told = [["\n".join(map(_short, name.split("\n"))) for name in names] for names in (columns, rows)]
    axis.set_xticks(range(len(columns)), told[0], fontsize=8, parse_math=False, **turned)
    axis.set_yticks(range(len(rows)), told[1], fontsize=8, parse_math=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _head(figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=10, color=_INK, parse_math=False)


def _plain(axis: Any) -> None:
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _short(text: str) -> str:
    return text if len(text) <= _LONG else "…" + text[-_LONG + 1 :]
