"""Every model on every test set: what it loses away from home, which of two is better, and what strangers it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from leakdet_tf.analysis.classify.calibration import calibrated
from leakdet_tf.analysis.classify.report import Measured, decisions, measure, wilson_of
from leakdet_tf.analysis.classify.scores import Answers
from leakdet_tf.analysis.stats.intervals import bounded, bounds, number_or_none
from leakdet_tf.analysis.stats.significance import LEVEL, holm, mcnemar
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.tasks.classify import certainty, decided

_NAMED = 3  # ids that an error names


@dataclass(frozen=True, eq=False)
class Entry:
    """One trained model and its answers.

    ``name`` may stand several times, for one recipe trained with several seeds; ``run`` then tells them apart.
    ``tests``: answers by test set, with truth. ``home``: the test set of the domain it was trained on; empty for none.
    ``strangers``: answers by set on pictures that show none of the classes. ``temperature`` and ``abstain`` are those
    of its contract.
    """

    name: str
    tests: Mapping[str, Answers]
    home: str = ""
    run: str = ""
    strangers: Mapping[str, Answers] = field(default_factory=dict)
    temperature: float = 1.0
    abstain: float = 0.0

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"{self.name} ({self.run})" if self.run else self.name


def check_entries(entries: Sequence[Entry]) -> None:
    """Make sure that all models were measured on the same pictures of each test set, with the same truth.

    Raises:
        DataError: two were not, and the message names the pictures; or a name is not clear, or there is nothing.
    """
    if not entries or not any(entry.tests for entry in entries):
        raise DataError("there are no models with answers to put side by side", remedy="evaluate some first")
    for one, two in combinations(entries, 2):
        if one.label == two.label:
            raise DataError(f"'{one.label}' stands twice", remedy="give runs of one model different run names")
        for name in (key for key in one.tests if key in two.tests):
            if fault := _difference(one.tests[name], two.tests[name]):
                raise DataError(
                    f"'{one.label}' and '{two.label}' on '{name}': {fault}",
                    remedy="evaluate both on the same pictures",
                )
    for entry in entries:
        if entry.home and entry.home not in entry.tests:
            raise DataError(f"'{entry.label}': has no answers on its own test set '{entry.home}'")
        for name, answers in entry.strangers.items():
            if (odd := np.flatnonzero(answers.truth.any(1))).size:
                raise DataError(f"'{name}' are to show none of the classes, but '{answers.ids[int(odd[0])]}' has one")


def _difference(one: Answers, two: Answers) -> str:
    if one.classes != two.classes:
        return f"other classes ({', '.join(one.classes)} and {', '.join(two.classes)})"
    if one.ids != two.ids:
        apart = [name for name in one.ids if name not in set(two.ids)] + [
            name for name in two.ids if name not in set(one.ids)
        ]
        if not apart:
            return "the same pictures in another order"
        more = f" and {len(apart) - _NAMED} more" if len(apart) > _NAMED else ""
        return f"only one of them has {', '.join(repr(name) for name in apart[:_NAMED])}{more}"
    if (odd := np.flatnonzero((one.truth != two.truth).any(1))).size:
        return f"the truth of picture '{one.ids[int(odd[0])]}' was another"
    return "" if one.groups == two.groups else "their pictures are grouped otherwise"


def report(
    entries: Sequence[Entry],
    settings: Evaluate,
    *,
    seed: int,
    about: dict[str, Any],
    rendered: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Every model on every test set as plain data for JSON. Undefined figures are null.

    ``gaps`` are accuracy at home less accuracy elsewhere, in percentage points, with the interval of the difference of
    two independent bootstraps. ``pairs`` hold McNemar's test between models of different names on one test set, by
    :func:`mcnemar`, corrected by Holm over all of them together; a difference holds when its corrected p is at most
    5 %. ``names`` sum up the runs of one name. ``strangers`` are told by :func:`told`.

    Args:
        entries: the models; not all need to have answered all test sets.
        settings: the experiment's ``[evaluate]``.
        seed: of the bootstrap.
        about: further keys for the report.
        rendered: how many pictures of a test set are rendered; none of those that it leaves out.

    Raises:
        DataError: as :func:`check_entries`, or answers that cannot be measured.
    """
    check_entries(entries)
    tests = list(dict.fromkeys(name for entry in entries for name in entry.tests))
    cells = [
        {
            name: measure(
                answers,
                settings,
                seed=(seed, tests.index(name)),  # another for each set: the gaps' two sides are drawn by themselves
                temperature=entry.temperature,
                abstain=entry.abstain,
            )
            for name, answers in entry.tests.items()
        }
        for entry in entries
    ]
    first = {name: next(entry.tests[name] for entry in entries if name in entry.tests) for name in tests}
    return {
        "format": 1,
        **about,
        "tests": {
            name: {
                "pictures": len(answers.ids),
                "rendered": (rendered or {}).get(name, 0),
                "groups": len(set(answers.groups)),
                "classes": list(answers.classes),
                "truth": dict(zip(answers.classes, map(int, answers.truth.sum(0)), strict=True)),
            }
            for name, answers in first.items()
        },
        "models": [
            {
                "label": entry.label,
                "name": entry.name,
                "run": entry.run,
                "home": entry.home or None,
                "temperature": float(entry.temperature),
                "abstain": float(entry.abstain),
                "tests": {name: _figures(one, settings.confidence) for name, one in row.items()},
                "gaps": _gaps(entry.home, row, settings.confidence),
                "strangers": {
                    name: told(answers, entry.temperature, entry.abstain, settings.confidence)
                    for name, answers in entry.strangers.items()
                },
            }
            for entry, row in zip(entries, cells, strict=True)
        ],
        "names": _by_name(entries, cells, tests),
        "pairs": _pairs(entries, cells, tests),
        "intervals": {
            "method": "bootstrap over pictures, over groups of them where groups repeat",
            "confidence": settings.confidence,
            "resamples": settings.resamples,
        },
        "test": {"method": "McNemar, exact, two-sided; Holm over all pairs and test sets", "level": LEVEL},
    }


def _figures(one: Measured, confidence: float) -> dict[str, Any]:
    """A cell: pictures, confusion and figures as the class report has them, and what is answered."""
    said = decisions(one)
    return {
        "pictures": len(one.answers.ids),
        "confusion": said["confusion"],
        **said["metrics"],
        **{key: bounded(one, key) for key in ("coverage", "answered_accuracy")},
        "accuracy_wilson": wilson_of(one.right, one.answers.groups, confidence),
    }


def _gaps(home: str, row: Mapping[str, Measured], confidence: float) -> dict[str, Any]:
    gaps: dict[str, Any] = {}
    for name, away in row.items():
        if not home or name == home:
            continue
        own = row[home]
        points = {"accuracy": 100 * (own.figures["accuracy"] - away.figures["accuracy"])}
        known = own.drawn and away.drawn
        drawn = {"accuracy": 100 * (own.drawn["accuracy"] - away.drawn["accuracy"])} if known else {}
        low, high = bounds(drawn, points, confidence)
        gaps[name] = {
            side: number_or_none(part["accuracy"]) for side, part in (("points", points), ("low", low), ("high", high))
        }
    return gaps


def told(answers: Answers, temperature: float, abstain: float, confidence: float) -> dict[str, Any]:
    """How many pictures of no class were told to be of one: neither unsure, nor without any class as sigmoid allows."""
    scores = calibrated(answers, temperature)
    sure = ~(certainty(scores, answers.activation) < abstain)
    named = sure & decided(scores, answers.activation).any(axis=1)
    share = wilson_of(named, answers.groups, confidence)
    return {
        "pictures": len(answers.ids),
        "told": int(named.sum()),
        **share,
        "by_class": {
            name: int(number)
            for name, number in zip(
                answers.classes, (decided(scores, answers.activation) & named[:, None]).sum(0), strict=True
            )
        },
    }


def _pairs(
    entries: Sequence[Entry], cells: Sequence[Mapping[str, Measured]], tests: Sequence[str]
) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []
    for name in tests:
        for (a, one), (b, two) in combinations(zip(entries, cells, strict=True), 2):
            if a.name == b.name or name not in one or name not in two:
                continue
            rights = one[name].right, two[name].right
            ahead, behind, p = mcnemar(*rights, a.tests[name].groups)
            points = 100 * (float(rights[0].mean()) - float(rights[1].mean()))
            pairs.append(
                {
                    "test": name,
                    "first": a.label,
                    "second": b.label,
                    "points": points,
                    "only_first": ahead,
                    "only_second": behind,
                    "p": p,
                }
            )
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair |= {"p_holm": corrected, "holds": corrected is not None and corrected <= LEVEL}
    return pairs


def _by_name(
    entries: Sequence[Entry], cells: Sequence[Mapping[str, Measured]], tests: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(entry.name for entry in entries):
        rows = [row for entry, row in zip(entries, cells, strict=True) if entry.name == name]
        found[name] = {}
        for test in tests:
            figures = [row[test].figures for row in rows if test in row]
            if figures:
                spread = {key: _spread([float(one[key]) for one in figures]) for key in ("accuracy", "mean_f1")}
                found[name][test] = {"runs": len(figures), **spread}
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "least": min(values), "most": max(values)}
