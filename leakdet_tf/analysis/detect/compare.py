"""Two detectors on the same pictures: the difference of a figure with a paired interval and a paired test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.comparison import OF_BOXES, Run, differing
from leakdet_tf.analysis.detect.answers import Answers, joined
from leakdet_tf.analysis.detect.coco import IOUS, Matches, matches
from leakdet_tf.analysis.detect.metrics import Floats, averages, drawn_pictures, figures_of
from leakdet_tf.analysis.stats.intervals import number_or_none
from leakdet_tf.analysis.stats.significance import LEVEL, holm, swap_test
from leakdet_tf.core.errors import ConfigError, DataError, did_you_mean

RESAMPLES = PERMUTATIONS = 2000
EXACT = 10
"""Up to so many groups on which two detectors differ, all swaps are tried instead of a random choice of them."""
_BATCH = 250  # swaps at a time, to bound memory


def check_comparable(first: Answers, second: Answers) -> None:
    """Make sure that two detectors were measured on the same pictures with the same truth.

    Raises:
        DataError: they were not.
    """
    remedy = "evaluate both on the same pictures: leakdet-tf evaluate RUN --data DIR --split SPLIT"
    if first.classes != second.classes:
        what = f"other classes ({', '.join(first.classes)} and {', '.join(second.classes)})"
    elif first.ids != second.ids:
        what = f"measured on other pictures ({len(first.ids)} and {len(second.ids)}), or in another order"
    elif first.groups != second.groups:
        what = "their pictures are grouped otherwise"
    else:
        odd = [
            name
            for name, one, two in zip(first.ids, first.truths, second.truths, strict=True)
            if not np.array_equal(one, two)
        ]
        if not odd:
            return
        what = f"the boxes of picture '{odd[0]}' were others"
    raise DataError(f"two detectors: {what}", remedy=remedy)


def check_metric(metric: str, classes: tuple[str, ...]) -> None:
    """Make sure that there is such a metric: one of :data:`OF_BOXES`, or ``ap50:<class>``.

    Raises:
        ConfigError: there is not.
    """
    known = [*OF_BOXES, *(f"ap50:{name}" for name in classes)]
    if metric not in known:
        raise ConfigError(f"--metric {metric}: unknown", remedy=did_you_mean(metric, known))


def compare(runs: Sequence[Run[Answers]], metric: str, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The comparison as plain data, as :func:`leakdet_tf.analysis.segment.compare.compare` gives it of segmenters.

    Each run's figures and their intervals are those of its own report.

    Raises:
        DataError: the runs were not measured on the same pictures.
        ConfigError: there is no such metric.
    """
    first = runs[0]
    check_metric(metric, first.table.classes)
    for other in runs[1:]:
        check_comparable(first.table, other.table)
    pairs = [
        {
            "first": one.name,
            "second": two.name,
            **difference(one.table, two.table, metric, resamples=resamples, permutations=resamples),
        }
        for one, two in combinations(runs, 2)
    ]
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair |= {"p_holm": p, "holds": p is not None and p <= LEVEL}
    keys = differing(runs)
    return {
        "format": 1,
        "task": "detect",
        "metric": metric,
        **{key: first.report.get(key) for key in ("data", "split", "ids_sha256")},
        "pictures": len(first.table.ids),
        "classes": list(first.table.classes),
        "intervals": {
            "method": "paired bootstrap over pictures or their groups",
            "confidence": 1 - LEVEL,
            "resamples": resamples,
        },
        "test": {"method": "paired permutation, two-sided; Holm over pairs", "level": LEVEL, "seed": 0},
        "runs": [
            {
                "name": run.name,
                "folder": str(run.folder),
                "weights_sha256": run.report.get("weights_sha256"),
                "settings": {key: run.settings.get(key) for key in keys},
                "metrics": {key: run.report["metrics"][key] for key in (*OF_BOXES, "ap50")},
            }
            for run in runs
        ],
        "pairs": pairs,
    }


def difference(
    first: Answers,
    second: Answers,
    metric: str = "map50",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> dict[str, Any]:
    """First minus second as plain data: ``value``, ``low``, ``high``, ``p``, ``swaps``; undefined ones are null.

    The interval is that of percentiles of a bootstrap over groups of pictures, both detectors resampled by the same
    ones (Efron 1979). ``p`` is two-sided: if it does not matter which detector answered a group, every choice of groups
    whose answers are swapped is as likely as none; p is the share of choices that make the difference at least as
    large (Fisher 1935), of random ones (1 + larger) / (1 + tried) (Phipson & Smyth 2010). Swapping mixes the scores of
    both, so it asks whether the detectors are exchangeable, of which equal figures are but a part.

    Raises:
        DataError: they were not measured on the same pictures.
        ConfigError: there is no such metric.
        MissingExtraError: faster-coco-eval is not installed.
    """
    check_comparable(first, second)
    check_metric(metric, first.classes)
    both = _side_by_side(first, second, steps=len(IOUS) if metric == "map" else 1)
    number = len(first.ids)
    ones, none = np.ones((1, number)), np.zeros((1, number))
    value = float(_gap(both, ones, none, metric, first.classes)[0])
    nothing = {"value": number_or_none(value), "low": None, "high": None, "p": None, "swaps": 0}
    if np.isnan(value):
        return nothing
    spread = [
        _gap(both, part, np.zeros_like(part), metric, first.classes)
        for part in drawn_pictures(first.groups, resamples, seed=seed)
    ]
    known = np.concatenate(spread)[~np.isnan(np.concatenate(spread))] if spread else np.empty(0)
    low, high = np.quantile(known, [LEVEL / 2, 1 - LEVEL / 2]) if known.size else (np.nan, np.nan)
    p, swaps = _swapped(both, first, second, value, metric, seed=seed, permutations=permutations)
    return nothing | {"low": number_or_none(low), "high": number_or_none(high), "p": p, "swaps": swaps}


def _side_by_side(first: Answers, second: Answers, *, steps: int) -> Matches:
    # The pictures of the first, then those of the second: weights say whose answer counts on a picture.
    def renamed(answers: Answers, mark: str) -> Answers:
        ids = tuple(f"{mark}{name}" for name in answers.ids)
        return Answers(ids, answers.truths, answers.predictions, answers.classes)

    return matches(joined([renamed(first, "1 "), renamed(second, "2 ")]), overlaps=steps, sizes=False)


def _gap(both: Matches, own: Floats, swapped: Floats, metric: str, classes: tuple[str, ...]) -> Floats:
    # First minus second (R,) where each answers ``own`` pictures (R, P) itself and the other's ``swapped`` ones.
    one, two = (np.concatenate(pair, axis=1) for pair in ((own, swapped), (swapped, own)))
    found = []
    for weights in (one, two):
        figures = figures_of(*averages(both, weights))
        name, _, label = metric.partition(":")
        found.append(figures[name][..., classes.index(label)] if label else figures[name])
    gap: Floats = found[0] - found[1]
    return gap


def _swapped(
    both: Matches, first: Answers, second: Answers, seen: float, metric: str, *, seed: int, permutations: int
) -> tuple[float, int]:
    _, place = np.unique(np.array(first.groups), return_inverse=True)
    differ = np.zeros(int(place.max()) + 1, np.bool_)
    for group, one, two in zip(place, first.predictions, second.predictions, strict=True):
        same = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in ("boxes", "scores", "labels"))
        differ[group] |= not same
    groups = np.flatnonzero(differ)

    def gap(swaps: npt.NDArray[Any]) -> Floats:
        choice = np.zeros((len(swaps), len(differ)))
        choice[:, groups] = swaps
        weights = choice[:, place]
        return _gap(both, 1 - weights, weights, metric, first.classes)

    return swap_test(
        gap, seen, len(groups), exact=EXACT, seed=seed, permutations=permutations, batch=_BATCH, dtype=np.int64
    )
