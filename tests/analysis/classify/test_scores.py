"""Answers of a classifier: what is decided, what is refused, and files that come back as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.analysis.classify.calibration import calibrated
from leakdet_tf.analysis.classify.scores import Answers, check_labelled, load_scores, save_scores
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks import classify
from leakdet_tf.core.tasks.classify import certainty, decided

NAMES = ("ok", "oil_leak", "crack")
FIELDS = ("ids", "truth", "scores", "classes", "activation", "sources", "groups")


def answers(number: int = 4, activation: str = "softmax", **changes: Any) -> Answers:
    """Random scores over three classes, and a truth that fits the activation."""
    random = np.random.default_rng(number)
    scores = random.dirichlet(np.ones(3), number) if activation == "softmax" else random.uniform(size=(number, 3))
    truth = np.eye(3)[random.integers(0, 3, number)] if activation == "softmax" else random.integers(0, 2, (number, 3))
    fields: dict[str, Any] = {
        "ids": tuple(f"p{i}" for i in range(number)),
        "truth": truth.astype(np.uint8),
        "scores": scores.astype(np.float32),
        "classes": NAMES,
        "activation": activation,
    }
    return Answers(**(fields | changes))


def test_what_is_left_out_is_filled_in() -> None:
    one = answers()
    assert (one.sources, one.groups, one.repeats) == (("data",) * 4, one.ids, False)
    assert answers(groups=("a", "a", "b", "c")).repeats


def test_decisions_as_worked_by_hand() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]], np.float32)
    np.testing.assert_array_equal(decided(scores, "softmax"), [[1, 0, 0], [1, 0, 0]])  # of equal scores the first
    np.testing.assert_array_equal(decided(scores, "sigmoid"), [[1, 0, 0], [0, 0, 0]])  # from one half on
    np.testing.assert_allclose(certainty(scores, "softmax"), [0.5, 0.4])
    np.testing.assert_allclose(certainty(scores, "sigmoid"), [0.5, 0.6])  # max(p, 1 - p): 0.5 0.7 0.8 and 0.6 0.6 0.8


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("temperature", "abstain"), [(1.0, 0.0), (2.5, 0.6), (0.4, 0.9)])
def test_reports_decide_as_devices_do(activation: Any, temperature: float, abstain: float) -> None:
    one = answers(200, activation)
    contract = Contract(
        "classify",
        {"image": ImageSpec(8, 8)},
        classes_of(list(NAMES)),
        activation=activation,
        temperature=temperature,
        abstain=abstain,
    )
    scores = calibrated(one, temperature)
    theirs = classify.calibrated(one.scores, contract)
    np.testing.assert_allclose(scores, theirs, atol=1e-6)
    unsure = certainty(theirs, activation) < abstain
    np.testing.assert_array_equal(unsure, classify.unsure(theirs, contract))
    np.testing.assert_array_equal(decided(theirs, activation) & ~unsure[:, None], classify.chosen(theirs, contract))


def test_some_answers_can_be_taken() -> None:
    part = answers(5, groups=tuple("aabbc"), sources=tuple("xxxyy")).take([4, 0])
    assert (part.ids, part.groups, part.sources) == (("p4", "p0"), ("c", "a"), ("y", "x"))
    np.testing.assert_array_equal(part.scores, answers(5).scores[[4, 0]])


NAN = answers().scores.copy()
NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": NAN}, "picture 'p2': NaN or infinity stands in its scores"),
        ({"scores": answers().scores.astype(np.float64)}, r"'scores' is float64 \(4, 3\), not float32"),
        ({"scores": answers().scores * 3}, "picture 'p0': its scores are no probabilities"),
        ({"scores": answers().scores * np.float32(0.5)}, "do not add up to 1"),
        ({"truth": np.zeros((4, 2), np.uint8)}, r"'truth' is uint8 \(4, 2\)"),
        ({"truth": np.full((4, 3), 255, np.uint8)}, "its truth is not made of 0 and 1"),
        ({"truth": np.ones((4, 3), np.uint8)}, "it has several classes"),
        ({"ids": ("a", "b", "c", "a")}, "a name stands twice"),
        ({"classes": ("a", "b", "a")}, "a name stands twice"),
        ({"groups": ("a",)}, "1 groups for 4 pictures"),
        ({"sources": ("a",) * 5}, "5 sources for 4 pictures"),
        ({"activation": "linear"}, "the activation is 'linear'"),
        ({"ids": (), "truth": np.zeros((0, 3), np.uint8), "scores": np.zeros((0, 3), np.float32)}, "there are none"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"answers of a classifier: .*{said}.*; run evaluate again") as caught:
        answers(**changes)
    assert len(str(caught.value).splitlines()) == 1


def test_softmax_needs_a_class_where_it_is_measured() -> None:
    truth = answers().truth.copy()
    truth[3] = 0
    with pytest.raises(DataError, match="picture 'p3' has no class"):
        check_labelled(answers(truth=truth))
    check_labelled(answers(activation="sigmoid", truth=np.zeros((4, 3), np.uint8)))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_scores_come_back_as_they_were_written(tmp_path: Path, activation: str) -> None:
    one = answers(6, activation, groups=tuple("aabbcc"), sources=tuple("xyxyxy"))
    save_scores(tmp_path / "scores.npz", one)
    two = load_scores(tmp_path / "scores.npz")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(two, name), getattr(one, name))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_damaged_scores_are_one_line_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    with pytest.raises(DataError, match=r"scores\.npz: missing; run evaluate again"):
        load_scores(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_scores(tmp_path)
    save_scores(path, answers())
    whole, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for number in range(120):
        data = bytearray(whole[: len(whole) // 2] if number == 0 else whole)
        for place in random.integers(0, len(data), 4):
            data[place] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(data))
        try:
            assert load_scores(path).ids == answers().ids  # a flipped byte may hit what nobody reads
        except DataError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
            assert "scores.npz: " in str(error)
            assert "run evaluate again" in str(error)
    assert refused > 80


def test_arrays_that_are_no_answers_are_refused(tmp_path: Path) -> None:
    one, path = answers(), tmp_path / "scores.npz"
    good = {name: np.array(getattr(one, name)) for name in FIELDS} | {"activation": np.array([one.activation])}
    wrong: dict[str, dict[str, Any]] = {
        "picture 'p2': NaN": {"scores": NAN},
        "'ids' are not names": {"ids": np.arange(4)},
        "'activation' are not names": {"activation": np.array("softmax")},
        "the activation is 'linear'": {"activation": np.array(["linear"])},
        "damaged": {"ids": np.array([{}] * 4, dtype=object)},
    }
    np.savez(path, **good)
    assert load_scores(path).ids == one.ids
    for said, change in wrong.items():
        np.savez(path, **(good | change))
        with pytest.raises(DataError, match=rf"scores\.npz: .*{said}"):
            load_scores(path)
    np.savez(path, **{name: value for name, value in good.items() if name != "groups"})
    with pytest.raises(DataError, match="groups"):
        load_scores(path)
