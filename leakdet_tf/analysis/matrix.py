"""Every model on every test set: what it loses away from home, which of two is better, and what strangers it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from leakdet_tf.analysis.calibration import binomial_cdf, calibrated
from leakdet_tf.analysis.classification import Measured, measure, wilson_of
from leakdet_tf.analysis.compare import LEVEL, holm
from leakdet_tf.analysis.intervals import bounds, cell, number_or_none
from leakdet_tf.analysis.scores import Answers, Flags
from leakdet_tf.analysis.tables import markdown_table, text_table
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.tasks.classify import certainty, decided

FIGURES = ("accuracy", "mean_f1", "coverage", "answered_accuracy")
_WORDS = {"accuracy": "accuracy", "mean_f1": "macro F1"}
_NAMED = 3  # ids that an error names
_NOTE = (
    "Intervals and p-values say what other pictures of these sets would change, for these very weights. The gap's "
    "interval takes the two sets as independent."
)


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


def report(entries: Sequence[Entry], settings: Evaluate, *, seed: int, about: dict[str, Any]) -> dict[str, Any]:
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
                "groups": len(set(answers.groups)),
                "classes": list(answers.classes),
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
    sides = {"value": one.figures, "low": one.low, "high": one.high}
    found: dict[str, Any] = {"pictures": len(one.answers.ids)}
    found |= {key: {side: number_or_none(part[key]) for side, part in sides.items()} for key in FIGURES}
    return found | {"accuracy_wilson": wilson_of(one.right, one.answers.groups, confidence)}


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


def mcnemar(first: Flags, second: Flags, groups: Sequence[str]) -> tuple[int, int, float]:
    """Two-sided exact p that two models are right equally often (McNemar 1947), and on how much only one was.

    Of the pictures that one model alone has right, each is as likely the first's as the second's. Where groups repeat,
    a group counts once, for the model that has more of its pictures right, which makes it a sign test over groups.

    Args:
        first: bool (N,), whether the first model was right on each picture.
        second: the same of the second.
        groups: of each picture.
    """
    _, place = np.unique(np.array(groups), return_inverse=True)
    lead = np.rint(np.bincount(place, weights=first.astype(np.float64) - second))
    ahead, behind = int((lead > 0).sum()), int((lead < 0).sum())
    return ahead, behind, min(1.0, 2 * binomial_cdf(min(ahead, behind), ahead + behind, 0.5))


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


def lines(found: dict[str, Any]) -> list[str]:
    """A matrix as text: accuracy and macro F1 of each model on each set, gaps, strangers, and what holds."""
    text: list[str] = []
    for key, word in _WORDS.items():
        text += [word, *text_table(*_rows(found, key)), ""]
    for title, head, rows in _further(found):
        text += [title, *text_table(head, rows), ""]
    return [*text, *conclusions(found), _NOTE]


def markdown(found: dict[str, Any]) -> str:
    """A matrix as a page of Markdown."""
    page = ["# Every model on every test set", ""]
    for key, word in _WORDS.items():
        page += [f"## {word[0].upper()}{word[1:]}", "", *markdown_table(*_rows(found, key)), ""]
    for title, head, rows in _further(found):
        page += [f"## {title[0].upper()}{title[1:]}", "", *markdown_table(head, rows), ""]
    page += [*(f"- {line}" for line in conclusions(found)), "", _NOTE, ""]
    part = found["intervals"]
    page += [
        f"Brackets are {part['confidence']:.0%} intervals: {part['method']}, {part['resamples']} resamples. "
        f"Test: {found['test']['method']}, level {LEVEL:.0%}. An asterisk marks a model's own test set."
    ]
    return "\n".join(page) + "\n"


def conclusions(found: dict[str, Any]) -> list[str]:
    """For each pair whose difference holds a sentence, and one for all others."""
    said = []
    for pair in found["pairs"]:
        better, worse = pair["first"], pair["second"]
        alone = pair["only_first"], pair["only_second"]
        if alone[0] < alone[1]:
            better, worse, alone = worse, better, alone[::-1]
        if pair["holds"]:
            said.append(
                f"{pair['test']}: {better} is better than {worse}, alone right {alone[0]} times against {alone[1]}; "
                f"this holds at {LEVEL:.0%} (p {_odds(pair['p_holm'], '= ')} after Holm's correction)"
            )
    rest = len(found["pairs"]) - len(said)
    return [*said, f"{rest} of {len(found['pairs'])} differences between models do not hold"] if rest else said


def _rows(found: dict[str, Any], key: str) -> tuple[list[str], list[list[str]]]:
    head = ["model", *(f"{name} ({part['pictures']})" for name, part in found["tests"].items())]
    rows = []
    for model in found["models"]:
        row = [model["label"]]
        for name in found["tests"]:
            mark = "*" if name == model["home"] else ""
            row.append(cell(model["tests"][name][key]) + mark if name in model["tests"] else "–")
        rows.append(row)
    return head, rows


def _further(found: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    tests = list(found["tests"])
    several = {name: part for name, part in found["names"].items() if any(one["runs"] > 1 for one in part.values())}
    seeds = [[name, *(_seeds(part.get(test)) for test in tests)] for name, part in several.items()]
    gaps = [
        [m["label"], m["home"], *(_gap(m["gaps"].get(test)) for test in tests)] for m in found["models"] if m["gaps"]
    ]
    strangers = [
        [m["label"], name, f"{m['abstain']:.3f}", f"{part['told']} of {part['pictures']}", cell(part)]
        for m in found["models"]
        for name, part in m["strangers"].items()
    ]
    pairs = [
        [
            pair["test"],
            f"{pair['first']} − {pair['second']}",
            f"{pair['points']:+.1f}",
            f"{pair['only_first']} : {pair['only_second']}",
            *(_odds(pair[key]) for key in ("p", "p_holm")),
            "yes" if pair["holds"] else "no",
        ]
        for pair in found["pairs"]
    ]
    parts = [
        ("accuracy over runs: mean (least to most)", ["model", *tests], seeds),
        ("points of accuracy lost away from home", ["model", "home", *tests], gaps),
        ("pictures of no class that were told to be of one", ["model", "set", "threshold", "told", "share"], strangers),
        (
            "differences on the same pictures",
            ["test set", "pair", "points", "only one right", "p", "p (Holm)", f"holds at {LEVEL:.0%}"],
            pairs,
        ),
    ]
    return [part for part in parts if part[2]]


def _seeds(part: dict[str, Any] | None) -> str:
    if part is None:
        return "–"
    one = part["accuracy"]
    runs = f"{part['runs']} runs" if part["runs"] > 1 else "1 run"
    return f"{one['mean']:.4f} ({one['least']:.4f} to {one['most']:.4f}), {runs}"


def _odds(p: float, sign: str = "") -> str:
    return f"{sign}{p:.4f}" if p >= 0.0001 else "< 0.0001"


def _gap(part: dict[str, Any] | None) -> str:
    if part is None:
        return "–"
    known = part["low"] is not None
    return f"{part['points']:+.1f}" + (f" [{part['low']:+.1f}, {part['high']:+.1f}]" if known else "")
