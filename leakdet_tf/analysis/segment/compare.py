"""Runs side by side on the same pictures: intervals, paired tests, and what of it may be called a difference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.comparison import OF_PIXELS, Run, differing
from leakdet_tf.analysis.segment.boundary import boundary_ratios
from leakdet_tf.analysis.segment.counts import PerPicture
from leakdet_tf.analysis.stats.intervals import drawn as drawn_pictures
from leakdet_tf.analysis.stats.intervals import number_or_none, stacked
from leakdet_tf.analysis.stats.significance import LEVEL, holm, swap_test
from leakdet_tf.core.confusion_matrix import Ratios, ratios
from leakdet_tf.core.errors import ConfigError, DataError, did_you_mean

RESAMPLES = PERMUTATIONS = 10_000
EXACT = 12
"""Up to so many pictures on which two runs differ, all swaps are tried instead of a random choice of them."""
_BATCH = 1000  # resamples or swaps at a time, to bound memory
Floats = npt.NDArray[np.float64]


def check_comparable(runs: Sequence[Run[PerPicture]]) -> None:
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


def _difference(first: Run[PerPicture], other: Run[PerPicture]) -> str | None:
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
    """Make sure that there is such a metric: one of :data:`OF_PIXELS`, or ``iou:<class>``.

    Raises:
        ConfigError: there is not.
    """
    known = [*OF_PIXELS, *(f"iou:{name}" for name in classes)]
    if metric not in known:
        raise ConfigError(f"--metric {metric}: unknown", remedy=did_you_mean(metric, known))


def compare(
    runs: Sequence[Run[PerPicture]],
    metric: str,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
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
    ratios of sums, the counts are swapped and the metric drawn again). Where the runs differ on at most :data:`EXACT`
    pictures all choices are tried, else ``permutations`` random ones: p = (1 + larger) / (1 + tried), which is never
    0 (Phipson & Smyth 2010). None when the metric is undefined for either run.
    """
    one, two = _flat(first), _flat(second)
    sums = one.sum(0), two.sum(0)
    seen = _pick(_figures(first, sums[0]), metric, first) - _pick(_figures(second, sums[1]), metric, second)
    if np.isnan(seen):
        return None, 0
    change = (two - one)[(one != two).any(1)]

    def gap(swaps: npt.NDArray[Any]) -> Floats:
        moved = swaps.astype(np.float64) @ change
        ours = _pick(_figures(first, sums[0] + moved), metric, first)
        return ours - _pick(_figures(second, sums[1] - moved), metric, second)

    return swap_test(gap, float(seen), change.shape[0], exact=EXACT, seed=seed, permutations=permutations, batch=_BATCH)


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
    if metric in OF_PIXELS:
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

    return {key: bounded(key) for key in OF_PIXELS} | {"iou": {name: bounded(f"iou:{name}") for name in table.classes}}
