"""Segmentation from truth to target and from outputs to a mask, a score and a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakdet_tf.core.contract import ClassSpec, Contract
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import Geometry, ImageSpec, letterbox
from leakdet_tf.core.records import IGNORE, Mask
from leakdet_tf.core.tasks import segment, task_named, task_of

CONTRACT = Contract(
    task="segment",
    inputs={"image": ImageSpec(8, 12, fit="letterbox")},
    classes=(ClassSpec("background"), ClassSpec("gas", "#ff8000"), ClassSpec("machine", "#0000ff")),
)
SAME = Geometry((8, 12), (8, 12), (8, 12))


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels]


def mask_of(labels: np.ndarray) -> Mask:
    return Mask(labels=labels, scores=np.ones(labels.shape, np.float32), classes=CONTRACT.class_names)


def test_the_task_is_found_by_name() -> None:
    assert task_of(CONTRACT) is segment
    assert task_named("segment") is segment


def test_padding_is_ignored_in_targets() -> None:
    truth = np.ones((4, 12), np.uint8)
    found = segment.targets(truth, Geometry((4, 12), (8, 12), (4, 12), (2, 0)))
    assert found.dtype == np.uint8
    assert (found[2:6] == 1).all()
    assert (found[:2] == IGNORE).all()
    assert (found[6:] == IGNORE).all()


def test_the_largest_output_decides_and_ties_go_to_the_first() -> None:
    outputs = np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4], [0.0, 0.5, 0.5], [-3, -2, -9], [0, 0, 0]], np.float32)
    labels, scores = segment.decide(outputs)
    assert (labels.dtype, scores.dtype) == (np.uint8, np.float32)
    assert labels.tolist() == [1, 0, 1, 1, 0]
    np.testing.assert_array_equal(scores, np.array([0.7, 0.4, 0.5, -2, 0], np.float32))


@given(st.integers(1, 6), st.sampled_from(["float16", "float32", "float64", "int8"]), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_decision_is_argmax_in_float32(classes: int, dtype: str, seed: int) -> None:
    outputs = (np.random.default_rng(seed).integers(-9, 9, (3, 4, classes)) / 3).astype(dtype)
    before = outputs.copy()
    labels, scores = segment.decide(outputs)
    single = outputs.astype(np.float32)
    np.testing.assert_array_equal(labels, single.argmax(-1))
    np.testing.assert_array_equal(scores, single.max(-1))
    np.testing.assert_array_equal(outputs, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    for place in (0, 2):
        outputs = np.zeros((8, 12, 3), np.float64)
        outputs[3, 4, place] = value
        with pytest.raises(ContractError, match="NaN or infinity; do not use this model"):
            segment.decode(outputs, CONTRACT, SAME)


def test_a_mask_comes_back_in_the_pictures_own_pixels() -> None:
    image = np.zeros((16, 48, 3), np.uint8)
    boxed, geometry = letterbox(image, (8, 12))
    assert boxed.shape == (8, 12, 3)
    labels = np.zeros((8, 12), np.uint8)
    labels[:, 6:] = 2
    labels[: geometry.offset[0]] = 1  # whatever stands in the padding does not matter
    mask = segment.decode(one_hot(labels), CONTRACT, geometry)
    assert mask.size == (16, 48)
    assert (mask.labels[:, :24] == 0).all()
    assert (mask.labels[:, 24:] == 2).all()
    assert (mask.scores == 1).all()
    assert (mask.classes, mask.model) == (CONTRACT.class_names, CONTRACT.id)
    assert mask.fractions() == {"background": 0.5, "gas": 0.0, "machine": 0.5}


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_a_mask_has_the_size_of_any_picture(height: int, width: int, seed: int) -> None:
    _, geometry = CONTRACT.inputs["image"].apply(np.zeros((height, width, 3), np.uint8))
    mask = segment.decode(np.random.default_rng(seed).random((8, 12, 3)), CONTRACT, geometry)
    assert mask.size == (height, width)
    assert mask.scores.dtype == np.float32


def test_outputs_may_be_named() -> None:
    labels = np.zeros((8, 12), np.uint8)
    named = segment.decode({"mask": one_hot(labels)}, CONTRACT, SAME)
    np.testing.assert_array_equal(named.labels, labels)
    with pytest.raises(ContractError, match="the model gave no output"):
        segment.decode({}, CONTRACT, SAME)


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 2), (12, 8, 3), (1, 8, 12, 3)])
def test_outputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match=r"has shape .*, the contract says \(8, 12, 3\)"):
        segment.decode(np.zeros(shape, np.float32), CONTRACT, SAME)


def test_the_score_counts_pixels_of_the_original_picture() -> None:
    truth = np.array([[0, 1, 2, IGNORE]], np.uint8)
    assert segment.score(truth, mask_of(np.array([[0, 1, 1, 0]], np.uint8)), CONTRACT).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 1, 0],
    ]


def test_an_overlay_paints_classes_and_leaves_the_background() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    before = image.copy()
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:20] = 1
    drawn = segment.draw(image, mask_of(labels), CONTRACT)
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(drawn[labels == 0], image[labels == 0])
    inner = np.zeros_like(labels)
    inner[6:14, 6:19] = 1
    outline = (labels == 1) & (inner == 0)
    assert (drawn[outline] == (255, 128, 0)).all()
    mixed = image[inner == 1] + segment.OVERLAY_OPACITY * (np.array([255, 128, 0]) - image[inner == 1].astype(float))
    assert np.abs(drawn[inner == 1] - mixed).max() <= 0.51


def test_a_picture_without_painted_pixels_is_drawn_as_it_is() -> None:
    image = np.random.default_rng(1).integers(0, 256, (6, 7, 1), dtype=np.uint8)
    drawn = segment.draw(image, mask_of(np.zeros((6, 7), np.uint8)), CONTRACT)
    np.testing.assert_array_equal(drawn, np.repeat(image, 3, axis=2))


def test_16_bit_pictures_are_stretched_for_the_eye() -> None:
    image = np.linspace(7000, 9000, 60).astype(np.uint16).reshape(6, 10, 1)
    drawn = segment.draw(image, mask_of(np.zeros((6, 10), np.uint8)), CONTRACT)
    assert (drawn.min(), drawn.max(), drawn.shape) == (0, 255, (6, 10, 3))
    assert (np.diff(drawn[..., 0].ravel().astype(int)) >= 0).all()
    flat = segment.draw(np.full((6, 10, 1), 7000, np.uint16), mask_of(np.zeros((6, 10), np.uint8)), CONTRACT)
    assert (flat == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2)])
def test_tiny_pictures_can_be_drawn(size: tuple[int, int]) -> None:
    drawn = segment.draw(np.zeros((*size, 3), np.uint8), mask_of(np.full(size, 2, np.uint8)), CONTRACT)
    assert drawn.shape == (*size, 3)
    assert (drawn[..., 2] > 100).all()


def test_a_mask_of_another_size_is_not_drawn() -> None:
    with pytest.raises(ContractError, match="cannot be drawn"):
        segment.draw(np.zeros((5, 6, 3), np.uint8), mask_of(np.zeros((6, 5), np.uint8)), CONTRACT)


def test_paint_gives_the_classes_colours() -> None:
    painted = segment.paint(np.array([[0, 1, 2, IGNORE]], np.uint8), CONTRACT)
    assert painted.tolist() == [[[0, 0, 0], [255, 128, 0], [0, 0, 255], [128, 128, 128]]]
