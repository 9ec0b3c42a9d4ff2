"""What a classifier's outputs mean: which classes are decided, how surely, when not at all, and how that is drawn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import IGNORE, Classification
from leakdet_tf.core.tasks import classify, task_named, task_of

CLASSES = ["crack", "leak", "sound"]
GEOMETRY = ImageSpec(8, 8).apply(np.zeros((30, 20, 3), np.uint8))[1]


def agreed(activation: Any = "softmax", **keys: Any) -> Contract:
    return Contract("classify", {"image": ImageSpec(8, 8)}, classes_of(CLASSES), activation=activation, **keys)


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_the_task_is_found_by_its_contract() -> None:
    assert task_of(agreed()) is classify is task_named("classify")
    assert (classify.target_shape((8, 8), 3), classify.output_shape((8, 8), 3)) == ((3,), (3,))


def test_softmax_answers_one_class_and_of_equals_the_first() -> None:
    found = classify.decode(scores(0.2, 0.7, 0.1), agreed(), GEOMETRY)
    assert (found.labels, found.unsure, found.size, found.answer) == (("leak",), False, (30, 20), "leak")
    assert found.model == agreed().id
    assert np.array_equal(found.scores, scores(0.2, 0.7, 0.1))
    assert classify.decode({"probabilities": scores(0.4, 0.2, 0.4)}, agreed(), GEOMETRY).labels == ("crack",)


def test_sigmoid_answers_each_class_from_one_half() -> None:
    contract = agreed("sigmoid")
    found = classify.decode(scores(0.5, 0.9, 0.49), contract, GEOMETRY)
    assert (found.labels, found.answer) == (("crack", "leak"), "crack+leak")
    none = classify.decode(scores(0.1, 0.2, 0.3), contract, GEOMETRY)
    assert (none.labels, none.unsure, none.answer) == ((), False, "none")


@given(arrays(np.float64, (5, 3), elements=st.floats(-12, 12)), st.floats(0.05, 20))
@settings(max_examples=40, deadline=None)
def test_temperature_divides_the_logits(logits: np.ndarray, temperature: float) -> None:
    one = classify.calibrated(softmax(logits), agreed(temperature=temperature))
    assert one.dtype == np.float32
    assert np.allclose(one, softmax(logits / temperature), atol=1e-6)
    probabilities = 1 / (1 + np.exp(-logits))
    each = classify.calibrated(probabilities, agreed("sigmoid", temperature=temperature))
    with np.errstate(over="ignore"):
        assert np.allclose(each, 1 / (1 + np.exp(-logits / temperature)), atol=1e-6)


def test_temperature_one_leaves_scores_as_they_are() -> None:
    for activation in ("softmax", "sigmoid"):
        given_scores = scores(0.1, 0.2, 0.7)
        assert np.array_equal(classify.calibrated(given_scores, agreed(activation)), given_scores)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("temperature", [1e-3, 0.01, 1e3])
def test_certain_scores_stay_finite_at_any_temperature(activation: str, temperature: float) -> None:
    found = classify.calibrated(scores(1, 0, 0), agreed(activation, temperature=temperature))
    assert np.isfinite(found).all()
    assert found[0] > found[1] == found[2]
    if temperature < 1:
        assert list(found) == [1, 0, 0]
    several = classify.calibrated(np.full((2, 4, 3), 0.25, np.float32), agreed(activation, temperature=temperature))
    assert several.shape == (2, 4, 3)


def test_below_abstain_softmax_is_unsure() -> None:
    contract = agreed(abstain=0.6)
    at = classify.decode(scores(0.6, 0.3, 0.1), contract, GEOMETRY)
    assert (at.labels, at.unsure) == (("crack",), False)
    below = classify.decode(scores(0.59, 0.31, 0.1), contract, GEOMETRY)
    assert (below.labels, below.unsure, below.answer) == ((), True, "unsure")
    # It is the calibrated score that counts.
    assert classify.decode(scores(0.6, 0.3, 0.1), agreed(abstain=0.6, temperature=2.0), GEOMETRY).unsure


def test_sigmoid_is_as_sure_as_its_least_sure_class() -> None:
    contract = agreed("sigmoid", abstain=0.8)
    assert classify.decode(scores(0.81, 0.1, 0.9), contract, GEOMETRY).labels == ("crack", "sound")
    assert classify.decode(scores(0.99, 0.1, 0.3), contract, GEOMETRY).unsure
    rows = np.stack([scores(0.81, 0.1, 0.9), scores(0.99, 0.1, 0.3)])
    assert list(classify.unsure(rows, contract)) == [False, True]
    assert classify.chosen(rows, contract).tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.01, 1.01, 7.0])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(ContractError, match=r"NaN or infinity|not made of probabilities"):
        classify.decode(scores(0.5, bad, 0.5), agreed(), GEOMETRY)


def test_rounding_beyond_0_and_1_is_forgiven() -> None:
    found = classify.decode(scores(1.0005, -0.0005, 0), agreed(temperature=2.0), GEOMETRY)
    assert found.labels == ("crack",)
    assert float(found.scores.max()) <= 1


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), (3, 1), ()])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match=r"the contract says \(3,\)"):
        classify.decode(np.full(shape, 0.3, np.float32), agreed(), GEOMETRY)
    with pytest.raises(ContractError, match="no output"):
        classify.decode({}, agreed(), GEOMETRY)


def test_decisions_and_by_how_much_they_were_taken() -> None:
    one = scores(0.2, 0.7, 0.1)
    assert classify.decisions(one, agreed()).tolist() == [1]
    assert classify.margins(one, agreed()) == pytest.approx([0.5])
    assert classify.decisions(one, agreed(abstain=0.75)).tolist() == [classify.UNSURE]
    assert classify.margins(one, agreed(abstain=0.75)) == pytest.approx([0.05])
    assert classify.margins(one, agreed(abstain=0.1)) == pytest.approx([0.5])
    several = agreed("sigmoid")
    assert classify.decisions(one, several).tolist() == [0, 1, 0]
    assert classify.margins(one, several) == pytest.approx([0.3, 0.2, 0.4])
    doubtful = agreed("sigmoid", abstain=0.75)
    assert classify.decisions(one, doubtful).tolist() == [classify.UNSURE] * 3
    assert classify.margins(one, doubtful) == pytest.approx([0.05] * 3)
    for contract in (agreed(), agreed(abstain=0.9), several, doubtful):
        assert classify.decisions(one, contract).shape == classify.margins(one, contract).shape


@given(arrays(np.float64, 3, elements=st.floats(-4, 4)), st.sampled_from([0.0, 0.5, 0.7]), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_no_change_below_half_a_margin_changes_a_decision(logits: np.ndarray, abstain: float, part: float) -> None:
    for contract, first in (
        (agreed(abstain=abstain), softmax(logits)),
        (agreed("sigmoid", abstain=abstain), 1 / (1 + np.exp(-logits))),
    ):
        room = 0.49 * float(classify.margins(first, contract).min()) - 1e-6
        moved = np.clip(first + max(0.0, room) * np.sign(np.sin(1000 * part + np.arange(3))), 0, 1)
        if room > 0:
            assert np.array_equal(classify.decisions(moved, contract), classify.decisions(first, contract))


def test_amounts_count_pictures_and_leave_out_ignored_rows() -> None:
    rows = np.array([[1, 0, 1], [0, 0, 1], [IGNORE] * 3, [0, 0, 0]], np.uint8)
    found = classify.amounts(rows)
    assert (found.shape, found.dtype) == ((256,), np.int64)
    assert (list(found[:3]), found[IGNORE], found.sum()) == ([1, 0, 2], 1, 4)
    assert list(classify.amounts(rows[0])[:3]) == [1, 0, 1]
    assert np.array_equal(classify.targets(rows[0], GEOMETRY), rows[0])


def answered(image: np.ndarray, contract: Contract, *values: float) -> Classification:
    return classify.decode(scores(*values), contract, ImageSpec(8, 8).apply(image)[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (11, 9), (24, 32), (700, 1200)])
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (1, np.uint8), (1, np.uint16)])
def test_the_answer_is_drawn_at_any_size(size: tuple[int, int], channels: int, dtype: Any) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, channels)).astype(dtype)
    spec = ImageSpec(8, 8, channels, np.dtype(dtype).name)
    contract = Contract("classify", {"image": spec}, classes_of(CLASSES))
    before = image.copy()
    drawn = classify.draw(image, classify.decode(scores(0.1, 0.8, 0.1), contract, spec.apply(image)[1]), contract)
    assert (drawn.shape, drawn.dtype) == ((*size, 3), np.uint8)
    assert np.array_equal(image, before)
    bar = max(12, size[0] // 10)
    if min(size) >= 24:
        color = contract.classes[1].rgb
        assert (drawn[-bar:].reshape(-1, 3) == color).all(-1).mean() > 0.3
        assert len(np.unique(drawn[-bar:].reshape(-1, 3), axis=0)) > 2  # letters
        if channels == 3:
            assert np.array_equal(drawn[: -bar - 1], image[: -bar - 1])


def test_what_is_drawn_says_what_was_answered() -> None:
    image = np.zeros((60, 200, 3), np.uint8)
    one, other = (classify.draw(image, answered(image, agreed(), *row), agreed()) for row in ((1, 0, 0), (0, 1, 0)))
    assert not np.array_equal(one, other)
    unsure = agreed(abstain=0.9)
    grey = classify.draw(image, answered(image, unsure, 0.5, 0.5, 0), unsure)
    assert tuple(grey[-1, -1]) == (90, 90, 90)
    none = agreed("sigmoid")
    assert tuple(classify.draw(image, answered(image, none, 0, 0, 0), none)[-1, -1]) == (90, 90, 90)
    with pytest.raises(ContractError, match="cannot be drawn"):
        classify.draw(image[:-1], answered(image, agreed(), 1, 0, 0), agreed())


def test_what_only_calibration_sets_is_left_out_of_the_contract_until_it_has() -> None:
    bare = agreed()
    assert not {"temperature", "abstain"} & set(bare.to_dict())
    later = agreed(temperature=1.5, abstain=0.7, parent=bare.id)
    assert (later.to_dict()["temperature"], later.to_dict()["abstain"]) == (1.5, 0.7)
    assert Contract.from_dict(json.loads(json.dumps(later.to_dict()))) == later
    assert later.id != bare.id
    with pytest.raises(ContractError, match="not linear"):
        agreed("linear")
    for keys in ({"temperature": 0.0}, {"temperature": np.nan}, {"abstain": 1.5}, {"abstain": True}):
        with pytest.raises(ContractError, match="must be from"):
            agreed(**keys)


def test_a_classification_checks_itself() -> None:
    with pytest.raises(ContractError, match=r"float32 \(2,\)"):
        Classification(scores=scores(0.5), classes=("a", "b"), size=(1, 1))
    with pytest.raises(ContractError, match="from 0 to 1"):
        Classification(scores=scores(0.5, np.nan), classes=("a", "b"), size=(1, 1))
    with pytest.raises(ContractError, match="'c' is not among"):
        Classification(scores=scores(0.5, 0.5), classes=("a", "b"), size=(1, 1), labels=("c",))
    with pytest.raises(ContractError, match="unsure has no labels"):
        Classification(scores=scores(0.5, 0.5), classes=("a", "b"), size=(1, 1), labels=("a",), unsure=True)
