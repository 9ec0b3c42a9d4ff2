"""What comparisons of any task share: metrics' names, settings that differ, tables, a page and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib.figure import Figure

from leakdet_tf.analysis.stats.significance import LEVEL
from leakdet_tf.analysis.tables import markdown_table, text_table

OF_PIXELS = {
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice (F1)",
    "pixel_accuracy": "pixel accuracy",
    "mean_boundary_f1": "boundary F1",
}
"""Metrics that segmenters are compared in, beside ``iou:<class>``."""
OF_BOXES = {"map50": "mAP .5", "map": "mAP .5:.95"}
"""Metrics that detectors are compared in, beside ``ap50:<class>``."""
_OF_CLASSES = {"iou": "IoU", "ap50": "AP .5"}
_INK, _MUTED, _HOLDS = "#222222", "#999999", "#4c72b0"
_NOTE = (
    "The sample is the pictures: intervals and p-values say what other pictures of this kind would change, for these "
    "very weights. Training again with another seed may change more."
)


Table = TypeVar("Table")


@dataclass(frozen=True, eq=False)
class Run(Generic[Table]):
    """A measured run: its name in tables, its folder, its report, what was found on each picture, and its settings by
    dotted key."""

    name: str
    folder: Path
    report: dict[str, Any]
    table: Table
    settings: dict[str, Any]


def label_of(metric: str) -> str:
    """A metric's name for people."""
    key, _, name = metric.partition(":")
    return f"{_OF_CLASSES[key]} of {name}" if name else (OF_PIXELS | OF_BOXES)[key]


def differing(runs: Sequence[Any]) -> list[str]:
    """The settings in which runs differ."""
    # ``kind`` apart, what has no experiment (a bundle carried away, a baseline) differs in nothing that can be named.
    known = [run.settings for run in runs if set(run.settings) - {"kind"}] or [run.settings for run in runs]
    absent = object()
    kinds = {run.settings.get("kind") for run in runs}
    keys = dict.fromkeys(key for settings in known for key in settings if key != "kind")
    found = [key for key in keys if any(one.get(key, absent) != known[0].get(key, absent) for one in known)]
    return [*(["kind"] if len(kinds) > 1 else []), *found]


def lines(found: dict[str, Any]) -> list[str]:
    """A comparison as text: the table of runs, each pair's test, and what holds."""
    head, rows = _rows(found, "{value:.4f}\n[{low:.3f}, {high:.3f}]")
    text = text_table(head, rows)
    if found["pairs"]:
        text += ["", *text_table(*_pair_rows(found)), "", *conclusions(found), "", _NOTE]
    return text


def markdown(found: dict[str, Any]) -> str:
    """A comparison as a page of Markdown."""
    where = f"{found['pictures']} pictures, {found['split']} of {found['data']}"
    page = ["# Comparison", "", f"Measured on {where}. Brackets are 95 % intervals over pictures.", ""]
    page += markdown_table(*_rows(found, "{value:.4f} [{low:.4f}, {high:.4f}]"))
    page += ["", f"## Differences in {label_of(found['metric'])}", "", *markdown_table(*_pair_rows(found)), ""]
    page += [*(f"- {line}" for line in conclusions(found)), "", _NOTE, ""]
    page += [
        f"Intervals: {found['intervals']['method']}, {found['intervals']['resamples']} resamples. "
        f"Test: {found['test']['method']}, level {LEVEL:.0%}."
    ]
    return "\n".join(page) + "\n"


def conclusions(found: dict[str, Any]) -> list[str]:
    """For each pair a sentence that says whether its difference holds."""
    name = label_of(found["metric"])
    several = len([pair for pair in found["pairs"] if pair["p"] is not None]) > 1
    said = []
    for pair in found["pairs"]:
        first, second, value = pair["first"], pair["second"], pair["value"]
        if pair["p"] is None:
            said.append(f"{first} and {second}: no test, {name} is undefined")
            continue
        odds = f"p = {pair['p_holm']:.4f}" + (" after Holm's correction" if several else "")
        if not pair["holds"]:
            said.append(f"{first} and {second}: their difference in {name} does not hold at {LEVEL:.0%} ({odds})")
            continue
        better, worse = (first, second) if value > 0 else (second, first)
        said.append(
            f"{better} is better than {worse} by {abs(value):.4f} in {name}; this holds at {LEVEL:.0%} ({odds})"
        )
    return said


def _rows(found: dict[str, Any], form: str) -> tuple[list[str], list[list[str]]]:
    first = found["runs"][0]
    keys = list(first["settings"])
    head = ["run", *keys, *_figures_by_label(first["metrics"])]
    rows = []
    for run in found["runs"]:
        shown = [_shown(run["settings"][key]) for key in keys]
        rows.append([run["name"], *shown, *(_cell(one, form) for one in _figures_by_label(run["metrics"]).values())])
    return head, rows


def _figures_by_label(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    each = {f"{word} {name}": one for key, word in _OF_CLASSES.items() for name, one in metrics.get(key, {}).items()}
    return {label_of(key): figure for key, figure in metrics.items() if key not in _OF_CLASSES} | each


def _pair_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["pair", f"difference in {label_of(found['metric'])}", "p", "p (Holm)", f"holds at {LEVEL:.0%}"]
    rows = [
        [
            f"{pair['first']} − {pair['second']}",
            _cell(pair, "{value:+.4f} [{low:+.4f}, {high:+.4f}]"),
            *("–" if pair[key] is None else f"{pair[key]:.4f}" for key in ("p", "p_holm")),
            "yes" if pair["holds"] else "no",
        ]
        for pair in found["pairs"]
    ]
    return head, rows


def _cell(figure: dict[str, Any], form: str) -> str:
    if figure["value"] is None:
        return "absent"
    return form.format(**figure) if figure["low"] is not None else f"{figure['value']:.4f}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "–" if value is None else str(value)


def draw(found: dict[str, Any]) -> Figure:
    """Forest plot: each run's metric with its interval, and each pair's difference; filled where it holds."""
    runs, pairs, name = found["runs"], found["pairs"], label_of(found["metric"])
    key, _, of = found["metric"].partition(":")
    figures = [run["metrics"][key][of] if of else run["metrics"][key] for run in runs]
    figure = Figure(figsize=(10.5, 1.7 + 0.34 * max(len(runs), len(pairs), 2)), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, one in enumerate(figures):
        _interval(left, place, one, _HOLDS, filled=True)
        if one["value"] is not None:
            left.annotate(f"{one['value']:.4f}", (one["value"], place), (0, 6), **_ABOVE)
    for place, pair in enumerate(pairs):
        _interval(right, place, pair, _HOLDS if pair["holds"] else _MUTED, filled=pair["holds"])
        if pair["p"] is not None:
            text = f"{pair['value']:+.4f}, p = {pair['p_holm']:.4f}"
            right.annotate(text, (pair["value"], place), (0, 6), **_ABOVE)
    right.axvline(0, color=_INK, linewidth=0.8, zorder=0)
    _dress(left, [run["name"] for run in runs], name)
    _dress(right, [f"{pair['first']}\n− {pair['second']}" for pair in pairs], f"difference in {name}")
    how = "p corrected by Holm; " if len(pairs) > 1 else ""
    right.set_title(f"{how}filled: holds at {LEVEL:.0%}", fontsize=8, color=_INK)
    left.set_title("95 % intervals over pictures", fontsize=8, color=_INK)
    figure.suptitle(f"{found['pictures']} pictures, {found['split']} of {found['data']}", fontsize=10, color=_INK)
    return figure


_ABOVE: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 7, "color": _INK}


def _interval(axis: Any, place: int, figure: dict[str, Any], color: str, *, filled: bool) -> None:
    if figure["value"] is None:
        axis.text(0.5, place, "undefined", transform=axis.get_yaxis_transform(), ha="center", fontsize=8, color=_MUTED)
        return
    if figure["low"] is not None:
        axis.plot([figure["low"], figure["high"]], [place, place], color=color, linewidth=2, solid_capstyle="butt")
    face = color if filled else "white"
    axis.plot(figure["value"], place, "o", markersize=7, markeredgewidth=1.6, color=color, markerfacecolor=face)


def _dress(axis: Any, labels: list[str], name: str) -> None:
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.4, -0.75)
    axis.set_xlabel(name, fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.12)
