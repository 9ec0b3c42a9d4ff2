"""What a graph does after the logits is what NumPy does: distances, edges, and which boxes are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.boxes import overlaps, pairs
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import Geometry, ImageSpec
from leakdet_tf.core.tasks import detect
from leakdet_tf.formats import boxes


def contract_of(size: tuple[int, int], classes: int, **keys: Any) -> Contract:
    names = classes_of([f"class {number}" for number in range(classes)])
    return Contract("detect", {"image": ImageSpec(*size)}, names, "linear", outputs="decoded", **keys)


def answers(contract: Contract, number: int, *, ties: bool = False, seed: int = 0) -> np.ndarray:
    """Decoded outputs (number, A, 4 + C) whose boxes overlap in clusters; with ``ties`` many scores are equal."""
    random = np.random.default_rng(seed)
    size = contract.inputs["image"].size
    anchors = detect.anchors_of(size)
    middles = random.uniform(0, min(size), (12, 2))[random.integers(0, 12, (number, anchors))]
    middles += random.normal(0, 3, middles.shape)
    half = random.uniform(8, 20, (number, anchors, 2))
    scores = random.uniform(0, 1, (number, anchors, len(contract.classes)))
    if ties:
        scores = np.round(scores * 8) / 8
    return np.concatenate([middles - half, middles + half, scores], axis=-1).astype(np.float32)


def both(decoded: np.ndarray, contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """``final`` outputs (B, M, 6) of the graph for TFLite and of that for ONNX."""
    single = np.concatenate([np.asarray(boxes.one_suppressed(one[None], contract)) for one in decoded])
    return single, np.asarray(boxes.batch_suppressed(decoded, contract))


CASES = {
    "one class": ((64, 64), 1, {}),
    "classes": ((64, 96), 5, {}),
    "all candidates": ((64, 64), 3, {"threshold": 0.0}),
    "strict": ((64, 64), 3, {"threshold": 0.75, "nms_iou": 0.3}),
    "no overlap": ((64, 64), 2, {"nms_iou": 0.0}),
    "nothing suppressed": ((64, 64), 2, {"nms_iou": 1.0}),
    "few boxes": ((64, 64), 3, {"max_boxes": 7}),
    "more boxes than anchors": ((32, 32), 2, {"max_boxes": 50, "threshold": 0.1}),
    "nothing": ((64, 64), 3, {"threshold": 1.0}),
    "more candidates than are looked at": ((576, 576), 2, {"threshold": 0.001, "nms_iou": 0.2}),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("size", "classes", "keys"), CASES.values(), ids=CASES.keys())
def test_the_same_boxes_are_kept_in_the_same_order(size: tuple[int, int], classes: int, keys: Any, ties: bool) -> None:
    contract = contract_of(size, classes, **keys)
    decoded = answers(contract, 2, ties=ties)
    geometry = Geometry(size, size, size)
    final = replace(contract, outputs="final")
    single, batch = both(decoded, contract)
    for one, given, together in zip(decoded, single, batch, strict=True):
        expected = detect.decode(one, contract, geometry)
        assert given.shape == together.shape == (contract.max_boxes, 6)
        theirs = detect.decode(given, final, geometry)
        np.testing.assert_array_equal(theirs.boxes, expected.boxes)
        np.testing.assert_array_equal(theirs.scores, expected.scores)
        np.testing.assert_array_equal(theirs.labels, expected.labels)
        assert not given[np.flatnonzero(given[:, 4] == 0)].any(), "rows past the last box are 0"
        if not ties:  # among equals TensorFlow's combined operator puts the lower class first, ONNX has its own order
            np.testing.assert_array_equal(together, given)


def test_the_cases_suppress_and_do_not() -> None:
    """Of what the cases above are made, or they show nothing."""
    contract = contract_of((64, 64), 3)
    (decoded,) = answers(contract, 1)
    found, scores, labels = detect.candidates(decoded, contract)
    kept = detect.decode(decoded, contract, Geometry((64, 64), (64, 64), (64, 64)))
    same = (labels[:, None] == labels[None]) & ~np.eye(len(labels), dtype=bool)
    assert (overlaps(found, found)[same] > contract.nms_iou).any()
    assert 5 < len(kept) < len(scores)


@pytest.mark.parametrize("size", [(64, 96), (96, 32)])
def test_decoded_boxes_are_numpy_s(size: tuple[int, int]) -> None:
    contract = replace(contract_of(size, 3), outputs="raw")
    raw = np.random.default_rng(0).normal(0, 6, (2, *detect.output_shape(size, 3))).astype(np.float32)
    graph = np.asarray(boxes.decoded(raw, size))
    for given, one in zip(graph, raw, strict=True):
        np.testing.assert_allclose(given, detect.decoded(one, contract), atol=2e-4)
        ours = detect.decode(one, contract, Geometry(size, size, size))
        theirs = detect.decode(given, replace(contract, outputs="decoded"), Geometry(size, size, size))
        assert len(ours) == len(theirs) > 5
        assert (pairs(ours, theirs) >= 0).all()
