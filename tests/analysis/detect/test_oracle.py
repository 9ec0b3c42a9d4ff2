"""A detector's figures are COCO's to the last digit: against pycocotools, and our resampling against the evaluator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from leakdet_tf.analysis.detect.answers import Answers, joined
from leakdet_tf.analysis.detect.coco import AREAS, IOUS, MOST, RECALLS, curves, matches
from leakdet_tf.analysis.detect.metrics import averages, figures_of, map_of, quick_map

CASES = 1000
EXACT = 1e-12


def peer(answers: Answers) -> dict[str, np.ndarray]:
    """Precision (T, 101, K, A) and recall (T, K, A) by pycocotools, NaN where it says -1."""
    annotations: list[dict[str, Any]] = []
    for place, truth in enumerate(answers.truths):
        for x1, y1, x2, y2, label, ignored in truth.astype(np.float64).tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            about = {"id": len(annotations) + 1, "image_id": place, "category_id": int(label), "bbox": box}
            annotations.append(about | {"area": box[2] * box[3], "iscrowd": int(ignored)})
    said = [
        {"image_id": place, "category_id": int(label), "score": float(score), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for place, found in enumerate(answers.predictions)
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes.astype(np.float64).tolist(), found.labels, found.scores, strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, results = COCO(), COCO()
        truth.dataset = {
            "images": [{"id": place} for place in range(len(answers.ids))],
            "categories": [{"id": label, "name": name} for label, name in enumerate(answers.classes)],
            "annotations": annotations,
        }
        truth.createIndex()
        if said:
            truth.dataset["info"] = {}
            results = truth.loadRes(said)
        else:
            results.dataset = truth.dataset | {"annotations": []}
            results.createIndex()
        tool = COCOeval(truth, results, "bbox")
        tool.params.maxDets = [MOST]
        tool.evaluate()
        tool.accumulate()
    assert np.array_equal(tool.params.iouThrs, IOUS)
    assert np.array_equal(tool.params.recThrs, RECALLS)
    assert [tuple(area) for area in tool.params.areaRng] == list(AREAS.values())
    assert tool.params.areaRngLbl == list(AREAS)
    return {key: np.where(tool.eval[key] == -1, np.nan, tool.eval[key])[..., 0] for key in ("precision", "recall")}


@pytest.mark.parametrize("part", range(4))
def test_the_evaluator_gives_what_pycocotools_gives(by_chance: Callable[..., Answers], part: int) -> None:
    seen = {"crowds": 0, "empty": 0, "absent": 0, "none": 0, "ties": 0}
    for seed in range(part * CASES // 4, (part + 1) * CASES // 4):
        answers = by_chance(seed, many=seed % 50 == 0)
        ours, theirs = curves(answers), peer(answers)
        np.testing.assert_allclose(ours.precision, theirs["precision"], rtol=0, atol=EXACT, err_msg=f"seed {seed}")
        np.testing.assert_allclose(ours.recall, theirs["recall"], rtol=0, atol=EXACT, err_msg=f"seed {seed}")
        scores = np.concatenate([found.scores for found in answers.predictions])
        seen["crowds"] += any((truth[:, 5] > 0).any() for truth in answers.truths)
        seen["empty"] += any(not len(truth) for truth in answers.truths)
        seen["absent"] += bool(np.isnan(ours.recall[0, :, 0]).any())
        seen["none"] += not len(scores)
        seen["ties"] += len(np.unique(scores)) < len(scores)
    assert min(seen.values()) >= 5, seen


@pytest.mark.parametrize("part", range(2))
def test_pictures_counted_once_are_what_the_evaluator_accumulates(by_chance: Callable[..., Answers], part: int) -> None:
    for seed in range(part, 200, 2):
        answers = by_chance(seed, many=seed % 50 == 0)
        whole = curves(answers)
        ap, recall = averages(matches(answers), np.ones((1, len(answers.ids))))
        np.testing.assert_allclose(ap[0], whole.ap, rtol=0, atol=EXACT, err_msg=f"seed {seed}")
        np.testing.assert_allclose(recall[0], whole.recall, rtol=0, atol=EXACT, err_msg=f"seed {seed}")


def apart(answers: Answers) -> Answers:
    """The same with no two scores equal: of equal ones the evaluator takes picture after picture, we box after box."""
    scores = np.concatenate([found.scores for found in answers.predictions])
    places = np.empty(len(scores))
    places[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    split = np.split((places / (len(scores) + 1)).astype(np.float32), np.cumsum([len(f) for f in answers.predictions]))
    pairs = zip(answers.predictions, split, strict=False)
    return replace(answers, predictions=tuple(replace(found, scores=part) for found, part in pairs))


@pytest.mark.parametrize("seed", range(25))
def test_a_picture_counted_twice_is_that_picture_evaluated_twice(by_chance: Callable[..., Answers], seed: int) -> None:
    answers = apart(by_chance(seed, skill=0.9))
    random = np.random.default_rng(seed)
    weights = random.multinomial(len(answers.ids), np.full(len(answers.ids), 1 / len(answers.ids)), size=4)
    drawn = averages(matches(answers), weights)
    for row, counts in enumerate(weights):
        copies = [
            replace(answers.take([place]), ids=(f"{place} {copy}",), groups=())
            for place, number in enumerate(counts)
            for copy in range(number)
        ]
        whole = curves(joined(copies))
        np.testing.assert_allclose(drawn[0][row], whole.ap, rtol=0, atol=EXACT)
        np.testing.assert_allclose(drawn[1][row], whole.recall, rtol=0, atol=EXACT)


def test_figures_are_those_that_coco_sums_up(by_chance: Callable[..., Answers]) -> None:
    answers = by_chance(11, pictures=20, skill=0.9)
    theirs, found = peer(answers), map_of(answers)

    def mean(array: np.ndarray) -> float:
        return float(np.nanmean(array))

    wanted = {"map": mean(theirs["precision"][..., 0]), "ar": mean(theirs["recall"][..., 0])}
    wanted |= {"map50": mean(theirs["precision"][0, ..., 0]), "map75": mean(theirs["precision"][5, ..., 0])}
    for place, size in enumerate(("small", "medium", "large"), start=1):
        wanted[f"map_{size}"] = mean(theirs["precision"][..., place])
        wanted[f"ar_{size}"] = mean(theirs["recall"][..., place])
    for name, value in wanted.items():
        assert 0 < value < 1
        assert float(found[name]) == pytest.approx(value, abs=EXACT), name
    np.testing.assert_allclose(found["ap"], theirs["precision"][..., 0].mean((0, 1)), atol=EXACT)
    np.testing.assert_allclose(found["ap50"], theirs["precision"][0, ..., 0].mean(0), atol=EXACT)
    wanted = {name: float(found[name]) for name in ("map", "map50")}
    assert quick_map(answers) == pytest.approx(wanted, abs=EXACT)


def test_some_overlaps_and_sizes_are_part_of_all(by_chance: Callable[..., Answers]) -> None:
    answers = by_chance(3, pictures=12, skill=0.9)
    weights = np.ones((1, 12))
    all_, one = matches(answers), matches(answers, overlaps=1, sizes=False)
    np.testing.assert_array_equal(one.state[0, 0], all_.state[0, 0])
    np.testing.assert_array_equal(one.partner, all_.partner)
    whole, part = figures_of(*averages(all_, weights)), figures_of(*averages(one, weights))
    assert part["map50"] == whole["map50"]
    assert not {"map75", "ap75", "map_small"} & set(part)
