"""The report's figures: intervals that cover, undefined classes, and pictures that are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.analysis.figures import curves, save
from leakdet_tf.analysis.segment.figures import examples, page
from leakdet_tf.analysis.segment.report import intervals, lines, measure, report
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.confusion_matrix import ratios
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import Mask, Origin, Sample
from leakdet_tf.edge import Predictor

CONTRACT = Contract("segment", {"image": ImageSpec(8, 8)}, classes_of(["background", "gas", "machine"]))


class Painted:
    """A runtime that reads its answer from the picture: channel 0 holds the class."""

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"output_0": np.eye(3, dtype=np.float32)[inputs["image"][..., 0]]}


def sample(key: str, truth: np.ndarray, answer: np.ndarray) -> Sample:
    image = np.repeat(answer[..., None], 3, axis=2).astype(np.uint8)
    return Sample(key, {"image": image}, truth.astype(np.uint8), Origin(f"{key}.png"))


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.over(Painted(), CONTRACT)


def half(left: int, right: int) -> np.ndarray:
    field = np.full((8, 8), left)
    field[:, 4:] = right
    return field


def test_a_hand_worked_report(predictor: Predictor) -> None:
    found = report(
        measure(
            predictor,
            [sample("a", half(0, 1), half(0, 1)), sample("b", half(0, 1), half(0, 0))],
            Evaluate(),
            seed=0,
        ),
        predictor,
        Evaluate(worst=1),
        {"kind": "keras"},
    )
    assert found["confusion"] == [[64, 0, 0], [32, 32, 0], [0, 0, 0]]
    metrics = found["metrics"]
    assert metrics["iou"]["background"]["value"] == pytest.approx(64 / 96)
    assert metrics["iou"]["gas"]["value"] == pytest.approx(0.5)
    assert metrics["dice"]["gas"]["value"] == pytest.approx(2 * 32 / (32 + 64))
    assert metrics["accuracy"]["background"]["value"] == 1
    assert metrics["iou"]["machine"] == {"value": None, "low": None, "high": None}
    assert metrics["mean_iou"]["value"] == pytest.approx((64 / 96 + 0.5) / 2)
    assert metrics["pixel_accuracy"]["value"] == pytest.approx(0.75)
    assert found["worst"] == [{"id": "b", "mean_iou": pytest.approx(0.25)}]
    assert "absent" in "\n".join(lines(found))


def test_no_pictures_is_an_error(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="no pictures"):
        measure(predictor, [], Evaluate(), seed=0)


def test_one_picture_has_no_interval(predictor: Predictor) -> None:
    found = report(
        measure(predictor, [sample("a", half(0, 1), half(0, 1))], Evaluate(), seed=0), predictor, Evaluate(), {}
    )
    assert found["metrics"]["mean_iou"] == {"value": 1.0, "low": None, "high": None}


def bounds(counts: np.ndarray, settings: Evaluate, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Intervals of counts whose boundaries nobody looked at."""
    number, classes = counts.shape[:2]
    edges = np.zeros((number, classes, 4), np.int64)
    return intervals(counts, settings, seed=seed, boundary=edges, labelling=Labelling(classes))


def test_intervals_are_repeatable_and_contain_the_figure() -> None:
    counts = np.random.default_rng(1).integers(0, 50, (30, 3, 3))
    settings = Evaluate(resamples=500)
    first, second = bounds(counts, settings, 3), bounds(counts, settings, 3)
    other = bounds(counts, settings, 4)
    value = ratios(counts.sum(0))["mean_iou"]
    assert first[0]["mean_iou"] == second[0]["mean_iou"] != other[0]["mean_iou"]
    assert first[0]["mean_iou"] < value < first[1]["mean_iou"]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Pictures all right or all wrong make a binomial share: 90 % intervals cover it about 90 times in 100."""
    generator = np.random.default_rng(0)
    settings = Evaluate(resamples=300, confidence=0.9)
    covered = 0
    for trial in range(150):
        right = generator.random(60) < 0.7
        counts = np.zeros((60, 2, 2), np.int64)
        counts[:, 0, 0], counts[:, 0, 1] = right * 10, ~right * 10
        low, high = bounds(counts, settings, trial)
        covered += bool(low["pixel_accuracy"] <= 0.7 <= high["pixel_accuracy"])
    assert 0.82 <= covered / 150 <= 0.97


def colors_in(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return {tuple(map(int, color)) for color in np.unique(pixels, axis=0)}


def test_examples_show_truth_prediction_and_errors_in_their_colours(tmp_path: Path, predictor: Predictor) -> None:
    shown = [sample("a", half(0, 1), half(2, 1))]
    answers = [predictor.predict(item.images) for item in shown]
    assert isinstance(answers[0], Mask)
    save(examples(shown, answers, CONTRACT, "title"), tmp_path / "examples.png")
    found = colors_in(tmp_path / "examples.png")
    assert {CONTRACT.classes[1].rgb, CONTRACT.classes[2].rgb, (200, 30, 30)} <= found


def test_curves_and_page_are_written_as_png(tmp_path: Path, predictor: Predictor) -> None:
    rows = [
        {"epoch": i, "loss": 1 / i, "val_loss": 2 / i, "mean_iou": 0.1 * i, "val_mean_iou": 0.05 * i} for i in (1, 2)
    ]
    save(curves(rows, 2, "t"), tmp_path / "curves.png")
    measured = measure(predictor, [sample("a", half(0, 1), half(0, 1))] * 3, Evaluate(), seed=0)
    about = {"kind": "keras", "split": "test", "data": "somewhere"}
    save(page(report(measured, predictor, Evaluate(), about), CONTRACT), tmp_path / "report.png")
    for name in ("curves.png", "report.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200
