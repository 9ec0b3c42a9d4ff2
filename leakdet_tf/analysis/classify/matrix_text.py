"""The matrix of models and test sets as text and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from leakdet_tf.analysis.classify.report import ABSENT, PER_CLASS
from leakdet_tf.analysis.stats.intervals import cell
from leakdet_tf.analysis.stats.significance import LEVEL
from leakdet_tf.analysis.tables import markdown_table, text_table
from leakdet_tf.data.items import note_on_rendered

_WORDS = {
    "accuracy": "accuracy",
    "mean_precision": "macro precision",
    "mean_recall": "macro recall",
    "mean_f1": "macro F1",
}
_NOTE = (
    "Intervals and p-values say what other pictures of these sets would change, for these very weights. The gap's "
    "interval takes the two sets as independent."
)


def lines(found: dict[str, Any]) -> list[str]:
    """A matrix as text: accuracy and macro averages of each model on each set, gaps, strangers, and what holds."""
    text: list[str] = []
    for key, word in _WORDS.items():
        text += [word, *text_table(*_rows(found, key)), ""]
    for title, head, rows in _further(found):
        text += [title, *text_table(head, rows), ""]
    return [*text, *conclusions(found), *mixtures(found), _NOTE]


def markdown(found: dict[str, Any]) -> str:
    """A matrix as a page of Markdown."""
    page = ["# Every model on every test set", ""]
    for key, word in _WORDS.items():
        page += [f"## {word[0].upper()}{word[1:]}", "", *markdown_table(*_rows(found, key)), ""]
    for title, head, rows in _further(found):
        page += [f"## {title[0].upper()}{title[1:]}", "", *markdown_table(head, rows), ""]
    page += [*(f"- {line}" for line in [*conclusions(found), *mixtures(found)]), "", _NOTE, ""]
    page += ["## Each class", "", *markdown_table(*_classes(found)), "", f"{ABSENT[0].upper()}{ABSENT[1:]}.", ""]
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


def mixtures(found: dict[str, Any]) -> list[str]:
    """A sentence for each test set that holds photographs and rendered pictures."""
    return [
        f"{name}: {note_on_rendered(test['rendered'], test['pictures'])}"
        for name, test in found["tests"].items()
        if 0 < test["rendered"] < test["pictures"]
    ]


def size_of(test: Mapping[str, Any]) -> str:
    """How many pictures a test set has, and how many of them are rendered if any are."""
    pictures, rendered = test["pictures"], test["rendered"]
    return f"{pictures}{', rendered' if rendered == pictures else f', {rendered} rendered' if rendered else ''}"


def _rows(found: dict[str, Any], key: str) -> tuple[list[str], list[list[str]]]:
    head = ["model", *(f"{name} ({size_of(part)})" for name, part in found["tests"].items())]
    rows = []
    for model in found["models"]:
        row = [model["label"]]
        for name in found["tests"]:
            mark = "*" if name == model["home"] else ""
            row.append(cell(model["tests"][name][key]) + mark if name in model["tests"] else "–")
        rows.append(row)
    return head, rows


def _classes(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Precision, recall and F1 of each class in each cell, and what its pictures were taken for."""
    rows = []
    for model in found["models"]:
        for test, part in model["tests"].items():
            truth = found["tests"][test]["truth"]
            for place, name in enumerate(truth):
                figures = [cell(part[key][name]) for key in PER_CLASS]
                rows.append([model["label"], test, name, str(truth[name]), *figures, _taken(part, place, name, truth)])
    return ["model", "test set", "class", "pictures", *("precision", "recall", "F1"), "taken for"], rows


def _taken(part: dict[str, Any], place: int, name: str, classes: Iterable[str]) -> str:
    if isinstance(part["confusion"], dict):  # each class by itself: [[TN, FP], [FN, TP]]
        (_, false), (missed, found) = part["confusion"][name]
        return f"found {found}, missed {missed}, false {false}"
    return ", ".join(f"{other} {n}" for other, n in zip(classes, part["confusion"][place], strict=True) if n) or "–"


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
