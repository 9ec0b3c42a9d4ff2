"""Runs side by side on the same pictures: intervals, paired tests, and what of it may be called a difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from leakdet_tf.analysis.boundary import boundary_ratios
from leakdet_tf.analysis.intervals import drawn as drawn_pictures
from leakdet_tf.analysis.intervals import number_or_none, stacked
from leakdet_tf.analysis.tables import PerPicture, markdown_table, text_table
from leakdet_tf.core.confusion_matrix import Ratios, ratios
from leakdet_tf.core.errors import ConfigError, DataError, did_you_mean

METRICS = {
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice (F1)",
    "pixel_accuracy": "pixel accuracy",
    "mean_boundary_f1": "boundary F1",
}
_OF_BOXES = {"map50": "mAP .5", "map": "mAP .5:.95"}  # of detectors, which box_compare compares
_OF_CLASSES = {"iou": "IoU", "ap50": "AP .5"}
LEVEL = 0.05
RESAMPLES = PERMUTATIONS = 10_000
EXACT = 12
"""Up to so many pictures on which two runs differ, all swaps are tried instead of a random choice of them."""
_BATCH = 1000  # resamples or swaps at a time, to bound memory
_ROUNDING = 1e-12
_INK, _MUTED, _HOLDS = "#222222", "#999999", "#4c72b0"
_NOTE = (
    "The sample is the pictures: intervals and p-values say what other pictures of this kind would change, for these "
    "very weights. Training again with another seed may change more."
)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """A measured run: its name in tables, its folder, its report, its counts, and its settings by dotted key."""

    name: str
    folder: Path
    report: dict[str, Any]
    table: PerPicture
    settings: dict[str, Any]


def check_comparable(runs: Sequence[Run]) -> None:
    """Make sure that all runs were measured on the same pictures with the same truth.

    Raises:
        DataError: two were not; the message names them and what differs.
    """
    first = runs[0]
    for other in runs[1:]:
        if (what := _difference(first, other)) is not None:
            raise DataError(
                f"{first.folder} and {other.folder}: {what}",
                remedy="evaluate both on the same pictures: leakdet-tf evaluate RUN --data DIR --split SPLIT",
            )


def _difference(first: Run, other: Run) -> str | None:
    one, two = first.table, other.table
    for key, word in (("data", "other data"), ("split", "another split")):
        if (a := first.report.get(key)) != (b := other.report.get(key)):
            return f"measured on {word} ({a} and {b})"
    if one.classes != two.classes:
        return f"other classes ({', '.join(one.classes)} and {', '.join(two.classes)})"
    if one.ids != two.ids or first.report.get("ids_sha256") != other.report.get("ids_sha256"):
        return f"measured on other pictures ({len(one.ids)} and {len(two.ids)}), or in another order"
    if not np.array_equal(one.members, two.members):
        return "their masks' labels mean different sets of classes"
    odd = np.flatnonzero((one.counts.sum(2) != two.counts.sum(2)).any(1))
    return f"the mask of picture '{one.ids[odd[0]]}' was another" if odd.size else None


def check_metric(metric: str, classes: Sequence[str]) -> None:
    """Make sure that there is such a metric: one of :data:`METRICS`, or ``iou:<class>``.

    Raises:
        ConfigError: there is not.
    """
    known = [*METRICS, *(f"iou:{name}" for name in classes)]
    if metric not in known:
        raise ConfigError(f"--metric {metric}: unknown", remedy=did_you_mean(metric, known))


def label_of(metric: str) -> str:
    """A metric's name for people."""
    key, _, name = metric.partition(":")
    return f"{_OF_CLASSES[key]} of {name}" if name else (METRICS | _OF_BOXES)[key]


def compare(
    runs: Sequence[Run], metric: str, *, seed: int = 0, resamples: int = RESAMPLES, permutations: int = PERMUTATIONS
) -> dict[str, Any]:
    """The comparison as plain data for JSON: every run's figures with intervals, and each pair's difference in one.

    Intervals are percentiles of a bootstrap over pictures (Efron 1979); every run is resampled by the same pictures,
    so that the interval of a difference is paired. Of a pair, p is that of the two-sided test by :func:`paired_p`;
    several pairs are corrected by :func:`holm`. A difference holds when its corrected p is at most 5 %.

    Raises:
        ConfigError: there is no such metric.
        DataError: the runs were not measured on the same pictures.
    """
    check_comparable(runs)
    check_metric(metric, runs[0].table.classes)
    drawn = [_Drawn(run.table) for run in runs]
    number = len(runs[0].table.ids)
    for weights in drawn_pictures(number, resamples, seed=seed, batch=_BATCH):
        for one in drawn:
            one.add(weights.astype(np.float64))
    pairs: list[dict[str, Any]] = []
    for (i, a), (j, b) in combinations(enumerate(runs), 2):
        value = _pick(drawn[i].figures, metric, a.table) - _pick(drawn[j].figures, metric, b.table)
        spread = _pick(drawn[i].all(), metric, a.table) - _pick(drawn[j].all(), metric, b.table)
        p, tried = paired_p(a.table, b.table, metric, seed=seed, permutations=permutations)
        pairs.append({"first": a.name, "second": b.name, **_bounded(value, spread), "p": p, "swaps": tried})
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair |= {"p_holm": p, "holds": p is not None and p <= LEVEL}
    first, keys = runs[0], differing(runs)
    return {
        "format": 1,
        "metric": metric,
        **{key: first.report.get(key) for key in ("data", "split", "ids_sha256")},
        "pictures": number,
        "classes": list(first.table.classes),
        "intervals": {"method": "paired bootstrap over pictures", "confidence": 1 - LEVEL, "resamples": resamples},
        "test": {"method": "paired permutation, two-sided; Holm over pairs", "level": LEVEL, "seed": seed},
        "runs": [
            {
                "name": run.name,
                "folder": str(run.folder),
                "weights_sha256": run.report.get("weights_sha256"),
                "settings": {key: run.settings.get(key) for key in keys},
                "metrics": _metrics(one, run.table),
            }
            for run, one in zip(runs, drawn, strict=True)
        ],
        "pairs": pairs,
    }


def paired_p(
    first: PerPicture, second: PerPicture, metric: str, *, seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[float | None, int]:
    """Two-sided p that two runs differ in a metric, by swapping their counts picture by picture; and swaps tried.

    If it does not matter which run answered a picture, every choice of pictures to swap is as likely as none; p is
    the share of choices that make the difference at least as large (Fisher 1935; for segmentation metrics, which are
    ratios of sums, the counts are swapped and the metric drawn anew). Where the runs differ on at most :data:`EXACT`
    pictures all choices are tried, else ``permutations`` random ones: p = (1 + larger) / (1 + tried), which is never
    0 (Phipson & Smyth 2010). None when the metric is undefined for either run.
    """
    one, two = _flat(first), _flat(second)
    sums = one.sum(0), two.sum(0)
    seen = _pick(_figures(first, sums[0]), metric, first) - _pick(_figures(second, sums[1]), metric, second)
    if np.isnan(seen):
        return None, 0
    change = (two - one)[(one != two).any(1)]
    number = change.shape[0]
    exact = number <= EXACT
    generator = np.random.default_rng(seed)
    larger, tried, total = 0, 0, 2**number if exact else permutations
    for size in _batches(total):
        if exact:
            swaps = (np.arange(tried, tried + size)[:, None] >> np.arange(number)) & 1
        else:
            swaps = generator.integers(0, 2, (size, number), np.uint8)
        moved = swaps.astype(np.float64) @ change
        ours = _pick(_figures(first, sums[0] + moved), metric, first)
        theirs = _pick(_figures(second, sums[1] - moved), metric, second)
        # an undefined difference counts as a large one, which errs on the careful side
        larger += int(np.count_nonzero(~(np.abs(ours - theirs) < np.abs(seen) - _ROUNDING)))
        tried += size
    return (larger / tried if exact else (1 + larger) / (1 + tried)), tried


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm 1979); None stays and does not count."""
    order = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[place] = highest
    return corrected


class _Drawn:
    """A run's figures and those of its resamples."""

    def __init__(self, table: PerPicture) -> None:
        self._table, self._flat = table, _flat(table)
        self.figures = _figures(table, self._flat.sum(0))
        self._parts: list[Ratios] = []

    def add(self, weights: Floats) -> None:
        self._parts.append(_figures(self._table, weights @ self._flat))

    def all(self) -> Ratios:
        nothing = {key: np.empty((0, *np.shape(value))) for key, value in self.figures.items()}
        return stacked(self._parts) or nothing


def _batches(total: int) -> Iterator[int]:
    for start in range(0, total, _BATCH):
        yield min(_BATCH, total - start)


def _flat(table: PerPicture) -> Floats:
    number = len(table.ids)
    both = (table.counts.reshape(number, -1), table.boundary.reshape(number, -1))
    return np.concatenate(both, axis=1).astype(np.float64)


def _figures(table: PerPicture, flat: Floats) -> Ratios:
    labels, classes = table.members.shape
    lead, cut = flat.shape[:-1], labels * classes
    found = ratios(flat[..., :cut].reshape(*lead, labels, classes), table.members)
    return found | boundary_ratios(flat[..., cut:].reshape(*lead, classes, 4))


def _pick(figures: Ratios, metric: str, table: PerPicture) -> Floats:
    if metric in METRICS:
        return figures[metric]
    return figures["iou"][..., table.classes.index(metric.partition(":")[2])]


def _bounded(value: npt.ArrayLike, spread: Floats) -> dict[str, float | None]:
    spread = spread[~np.isnan(spread)]
    known = spread.size > 0 and not np.isnan(value)
    low, high = np.quantile(spread, [LEVEL / 2, 1 - LEVEL / 2]) if known else (np.nan, np.nan)
    return {"value": number_or_none(value), "low": number_or_none(low), "high": number_or_none(high)}


def _metrics(drawn: _Drawn, table: PerPicture) -> dict[str, Any]:
    def bounded(metric: str) -> dict[str, float | None]:
        found, spread = (_pick(part, metric, table) for part in (drawn.figures, drawn.all()))
        return _bounded(found, spread)

    return {key: bounded(key) for key in METRICS} | {"iou": {name: bounded(f"iou:{name}") for name in table.classes}}


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
