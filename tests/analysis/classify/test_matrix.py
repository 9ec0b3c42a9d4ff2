"""Every model on every test set: McNemar by hand and by SciPy, gaps, runs of one name, strangers, and refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from leakdet_tf.analysis.classify.matrix import Entry, report, told
from leakdet_tf.analysis.classify.matrix_text import conclusions, lines, markdown
from leakdet_tf.analysis.classify.report import measure
from leakdet_tf.analysis.classify.report import report as class_report
from leakdet_tf.analysis.classify.scores import Answers
from leakdet_tf.analysis.stats.significance import mcnemar, wilson
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.errors import DataError

NAMES = ("ok", "leak")
SETTINGS = Evaluate(resamples=300)


def answers(right: Any, prefix: str = "p", sure: float = 0.9, groups: Any = (), truth: Any = None) -> Answers:
    """Pictures of both classes in turn, answered rightly or not, all with one certainty."""
    right = np.asarray(right, np.bool_)
    number = len(right)
    shown = np.arange(number) % 2
    said = np.where(right, shown, 1 - shown)
    scores = np.where(np.arange(2) == said[:, None], sure, 1 - sure).astype(np.float32)
    truth = np.eye(2)[shown] if truth is None else truth
    ids = tuple(f"{prefix}{i}" for i in range(number))
    return Answers(ids, np.asarray(truth, np.uint8), scores, NAMES, "softmax", groups=tuple(groups))


def strangers(number: int, sure: Any, activation: str = "softmax", groups: Any = ()) -> Answers:
    sure = np.broadcast_to(np.asarray(sure, np.float32), number)
    scores = np.stack([sure, 1 - sure], axis=1)
    ids = tuple(f"s{i}" for i in range(number))
    return Answers(ids, np.zeros((number, 2), np.uint8), scores, NAMES, activation, groups=tuple(groups))


def shares(number: int, hits: int) -> np.ndarray:
    return np.arange(number) < hits


def made(entries: list[Entry], **about: Any) -> dict[str, Any]:
    found = report(entries, SETTINGS, seed=0, about=about)
    json.dumps(found, allow_nan=False)
    return found


def test_mcnemar_as_worked_by_hand() -> None:
    """One alone is right on four pictures, the other on none: two of 2**4 = 16 ways are as extreme, 0.125."""
    first, second = shares(10, 8), shares(10, 4)
    assert mcnemar(first, second, tuple("abcdefghij")) == (4, 0, 0.125)
    assert mcnemar(second, first, tuple("abcdefghij")) == (0, 4, 0.125)
    assert mcnemar(first, first, tuple("abcdefghij")) == (0, 0, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_is_a_binomial_test(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.uniform(size=(2, 3000)) < np.array([[0.8], [0.78]])
    ahead, behind, p = mcnemar(first, second, tuple(map(str, range(3000))))
    assert (ahead, behind) == ((first & ~second).sum(), (second & ~first).sum())
    assert p == pytest.approx(binomtest(ahead, ahead + behind).pvalue, abs=1e-9)


def test_a_group_counts_once() -> None:
    """Three crops of a for the first, one for the second; b is drawn; c for the second: 1 against 1."""
    first = np.array([1, 1, 1, 0, 1, 0, 0], np.bool_)
    second = np.array([0, 0, 0, 1, 0, 1, 1], np.bool_)
    assert mcnemar(first, second, tuple("aaaabbc")) == (1, 1, 1.0)
    assert mcnemar(first, second, tuple("abcdefg")) == (4, 3, pytest.approx(1))


def test_a_hand_worked_matrix() -> None:
    """80 of 100 right at home and 50 of 100 away: 30 points. Normal theory: 1.96 * sqrt(.16 + .25) * 10 = 12.5."""
    one = Entry("a", {"home": answers(shares(100, 80)), "away": answers(shares(100, 50), "q")}, home="home")
    found = made([one], data="x")
    (model,) = found["models"]
    assert (found["format"], found["data"], model["label"], model["home"]) == (1, "x", "a", "home")
    away = {"pictures": 100, "rendered": 0, "groups": 100, "classes": ["ok", "leak"], "truth": {"ok": 50, "leak": 50}}
    assert found["tests"]["away"] == away
    assert model["tests"]["home"]["accuracy"]["value"] == pytest.approx(0.8)
    assert model["tests"]["home"]["accuracy_wilson"]["low"] == pytest.approx(wilson(80, 100, 0.95)[0])
    assert model["tests"]["away"]["mean_f1"]["value"] == pytest.approx(0.5)
    (gap,) = model["gaps"].values()
    assert gap["points"] == pytest.approx(30)
    assert gap["low"] == pytest.approx(30 - 12.5, abs=2.5)
    assert gap["high"] == pytest.approx(30 + 12.5, abs=2.5)
    assert found["pairs"] == []
    assert conclusions(found) == []
    assert "+30.0 [" in "\n".join(lines(found))
    assert "| a | 0.8000 [" in markdown(found)
    assert "]* |" in markdown(found)


def test_a_cell_by_hand() -> None:
    """Of 3 dry and 3 leaking pictures the first 4 are right: one dry and one leaking taken for the other."""
    found = made([Entry("a", {"x": answers(shares(6, 4))})])
    cell = found["models"][0]["tests"]["x"]
    assert found["tests"]["x"]["truth"] == {"ok": 3, "leak": 3}
    assert cell["confusion"] == [[2, 1], [1, 2]]
    for key in ("precision", "recall", "f1"):
        assert {name: part["value"] for name, part in cell[key].items()} == pytest.approx({"ok": 2 / 3, "leak": 2 / 3})
        assert cell[f"mean_{key}"]["value"] == pytest.approx(2 / 3)
        assert cell[key]["ok"]["low"] < 2 / 3 < cell[key]["ok"]["high"]
    page = markdown(found)
    assert "## Macro precision" in page
    assert "## Macro recall" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| a | x | leak |")]
    assert row.count(" | 0.6667 [") == 3
    assert row.endswith(" | ok 1, leak 2 |")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_cell_says_what_the_class_report_says(activation: str) -> None:
    random = np.random.default_rng(4)
    scores = random.dirichlet([1, 1], 40).astype(np.float32)
    one = Answers(
        tuple(map(str, range(40))), np.eye(2, dtype=np.uint8)[random.integers(0, 2, 40)], scores, NAMES, activation
    )
    found = made([Entry("a", {"x": one}, temperature=1.5, abstain=0.6)])
    cell = found["models"][0]["tests"]["x"]
    other = class_report(measure(one, SETTINGS, seed=(0, 0), temperature=1.5, abstain=0.6), SETTINGS, {})
    assert cell["confusion"] == other["confusion"]
    assert {key: cell[key] for key in other["metrics"]} == other["metrics"]
    assert (cell["coverage"], cell["answered_accuracy"]) == (other["abstain"]["coverage"], other["abstain"]["accuracy"])
    assert cell["accuracy_wilson"] == other["accuracy_wilson"]
    if activation == "sigmoid":
        (_, false), (missed, right) = other["confusion"]["leak"]
        assert f"found {right}, missed {missed}, false {false} |" in markdown(found)


def test_rendered_pictures_are_told() -> None:
    sets = {name: answers(shares(9, 5), name) for name in ("plant", "drawn", "mixed")}
    found = report([Entry("a", sets)], SETTINGS, seed=0, about={}, rendered={"drawn": 9, "mixed": 4})
    assert {name: part["rendered"] for name, part in found["tests"].items()} == {"plant": 0, "drawn": 9, "mixed": 4}
    for text in ("\n".join(lines(found)), markdown(found)):
        assert all(head in text for head in ("plant (9)", "drawn (9, rendered)", "mixed (9, 4 rendered)"))
        assert [line.removeprefix("- ") for line in text.splitlines() if "are rendered" in line] == [
            "mixed: 4 of 9 pictures are rendered: the figures are not those of photographs, nor those of rendered "
            "pictures alone"
        ]


def test_equal_sets_are_drawn_by_themselves() -> None:
    """Were both sides of a gap drawn alike, two equal sets would have a gap without any spread."""
    right = shares(100, 70)
    (model,) = made([Entry("a", {"x": answers(right), "y": answers(right, "q")}, home="x")])["models"]
    assert model["gaps"]["y"]["points"] == 0
    assert model["gaps"]["y"]["high"] - model["gaps"]["y"]["low"] > 15


def test_pairs_are_corrected_together() -> None:
    entries = [
        Entry("a", {"x": answers(shares(60, 50)), "y": answers(shares(40, 30), "q")}),
        Entry("b", {"x": answers(shares(60, 42)), "y": answers(shares(40, 10), "q")}),
        Entry("c", {"x": answers(shares(60, 50))}),
    ]
    found = made(entries)
    told_of = {(pair["test"], pair["first"], pair["second"]): pair for pair in found["pairs"]}
    assert set(told_of) == {("x", "a", "b"), ("x", "a", "c"), ("x", "b", "c"), ("y", "a", "b")}
    first = told_of["x", "a", "b"]
    assert (first["only_first"], first["only_second"], first["points"]) == (8, 0, pytest.approx(100 * 8 / 60))
    assert first["p"] == pytest.approx(2 / 2**8)
    assert first["p_holm"] == pytest.approx(3 * 2 / 2**8)  # the second smallest of four, with its equal
    assert told_of["y", "a", "b"]["p_holm"] == pytest.approx(4 * 2 / 2**20)
    assert (told_of["x", "a", "c"]["p"], told_of["x", "a", "c"]["holds"]) == (1, False)
    said = conclusions(found)
    assert "x: c is better than b, alone right 8 times against 0" in "\n".join(said)
    assert "y: a is better than b" in "\n".join(said)
    assert "(p < 0.0001 after Holm's correction)" in "\n".join(said)
    assert said[-1] == "1 of 4 differences between models do not hold"
    assert "–" in "\n".join(lines(found))


def test_runs_of_one_name_are_summed_up_and_not_tested() -> None:
    entries = [Entry("a", {"x": answers(shares(100, hits))}, run=f"seed {hits}") for hits in (70, 80, 90)]
    entries.append(Entry("b", {"x": answers(shares(100, 60))}))
    found = made(entries)
    one = found["names"]["a"]["x"]
    assert (one["runs"], found["names"]["b"]["x"]["runs"]) == (3, 1)
    assert one["accuracy"] == {"mean": pytest.approx(0.8), "least": 0.7, "most": 0.9}
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        (f"a (seed {hits})", "b") for hits in (70, 80, 90)
    ]
    text = "\n".join(lines(found))
    assert "0.8000 (0.7000 to 0.9000), 3 runs" in text
    assert "1 run" not in text  # a name with one run alone needs no summary


def test_ten_groups_hold_no_difference_among_nine_runs_of_three_names() -> None:
    """3 * 3 pairs of runs for each of 3 pairs of names. All ten groups for one model: 2 / 2**10, 27 times .0527."""
    groups = [f"photograph{i // 4}" for i in range(40)]
    entries = [
        Entry(name, {"x": answers(np.full(40, name != "c"), groups=groups)}, run=f"seed {seed}")
        for name in "abc"
        for seed in (1, 2, 3)
    ]
    pairs = made(entries)["pairs"]
    assert len(pairs) == 27
    assert min(pair["p"] for pair in pairs) == pytest.approx(2 / 2**10)
    assert min(pair["p_holm"] for pair in pairs) == pytest.approx(27 * 2 / 2**10)
    assert not any(pair["holds"] for pair in pairs)


def test_strangers_that_are_told_to_be_of_a_class() -> None:
    """At 0.7 those of 0.9 and 0.8 are told, that of 0.6 is unsure: 2 of 3."""
    found = told(strangers(3, [0.9, 0.8, 0.6]), 1.0, 0.7, 0.95)
    low, high = wilson(2, 3, 0.95)
    assert found == {
        "pictures": 3,
        "told": 2,
        "value": pytest.approx(2 / 3),
        "low": low,
        "high": high,
        "by_class": {"ok": 2, "leak": 0},
    }
    assert told(strangers(3, [0.9, 0.8, 0.6]), 1.0, 0.0, 0.95)["told"] == 3
    assert told(strangers(3, [0.9, 0.8, 0.6]), 3.0, 0.7, 0.95)["told"] == 0  # odds of 9 become 2.1: 0.68
    entry = Entry("a", {"x": answers(shares(9, 8))}, strangers={"garden": strangers(3, 0.9)}, abstain=0.7)
    assert "3 of 3" in "\n".join(lines(made([entry])))


def test_sigmoid_may_say_that_a_stranger_is_nothing() -> None:
    scores = np.array([[0.1, 0.2], [0.1, 0.9], [0.45, 0.9]], np.float32)
    one = Answers(("a", "b", "c"), np.zeros((3, 2), np.uint8), scores, NAMES, "sigmoid")
    assert told(one, 1.0, 0.0, 0.95)["told"] == 2
    assert told(one, 1.0, 0.6, 0.95)["told"] == 1


def test_groups_of_strangers_count_once_in_the_interval() -> None:
    alone, together = (told(strangers(40, 0.9, groups=groups), 1.0, 0.0, 0.95) for groups in ((), ["a", "b"] * 20))
    assert (together["told"], together["value"]) == (40, 1)
    assert together["low"] == pytest.approx(wilson(2, 2, 0.95)[0])
    assert together["low"] < alone["low"]


def test_a_single_picture_has_no_interval() -> None:
    found = made([Entry("a", {"x": answers([True]), "y": answers(shares(9, 5), "q")}, home="x")])
    (model,) = found["models"]
    assert model["tests"]["x"]["accuracy"] == {"value": 1, "low": None, "high": None}
    assert model["gaps"]["y"] == {"points": pytest.approx(400 / 9), "low": None, "high": None}
    assert "+44.4\n" in "\n".join(lines(found))


BASE = answers(shares(6, 4))
SHOWN = np.eye(2)[np.arange(6) % 2]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "there are no models"),
        ([Entry("a", {})], "there are no models"),
        ([Entry("a", {"x": BASE}), Entry("a", {"x": BASE})], "'a' stands twice"),
        ([Entry("a", {"x": BASE}, home="y")], "'a': has no answers on its own test set 'y'"),
        (
            [Entry("a", {"x": BASE}), Entry("b", {"x": answers(shares(5, 4))})],
            "'a' and 'b' on 'x': only one of them has 'p5'; evaluate both",
        ),
        (
            [Entry("a", {"x": BASE}), Entry("b", {"x": answers(shares(6, 4), "q")})],
            "only one of them has 'p0', 'p1', 'p2' and 9 more",
        ),
        ([Entry("a", {"x": BASE}), Entry("b", {"x": BASE.take([1, 0, 2, 3, 4, 5])})], "in another order"),
        (
            [Entry("a", {"x": BASE}), Entry("b", {"x": answers(shares(6, 4), truth=SHOWN[[0, 0, 2, 3, 4, 5]])})],
            "the truth of picture 'p1' was another",
        ),
        ([Entry("a", {"x": BASE}), Entry("b", {"x": answers(shares(6, 4), groups="aabbcc")})], "grouped otherwise"),
        (
            [
                Entry("a", {"x": BASE}),
                Entry("b", {"x": Answers(BASE.ids, BASE.truth, BASE.scores, ("ok", "rust"), "softmax")}),
            ],
            r"other classes \(ok, leak and ok, rust\)",
        ),
        ([Entry("a", {"x": BASE}, strangers={"z": BASE})], "'z' are to show none of the classes, but 'p0' has one"),
        ([Entry("a", {"x": strangers(3, 0.9)})], "'s0' has no class to measure against"),
    ],
)
def test_what_cannot_stand_side_by_side_is_refused_in_one_line(entries: list[Entry], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        report(entries, SETTINGS, seed=0, about={})
    assert len(str(caught.value).splitlines()) == 1
