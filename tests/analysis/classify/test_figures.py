"""Each of a classifier's figures is drawn, also of names with signs, of one picture, and of nothing to be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.special import expit, softmax

from leakdet_tf.analysis.classify import figures as class_figures
from leakdet_tf.analysis.classify.calibration import risk_coverage
from leakdet_tf.analysis.classify.figures import Shown
from leakdet_tf.analysis.classify.matrix import Entry
from leakdet_tf.analysis.classify.matrix import report as matrix_of
from leakdet_tf.analysis.classify.report import measure
from leakdet_tf.analysis.classify.report import report as report_of
from leakdet_tf.analysis.classify.scores import Answers
from leakdet_tf.analysis.figures import save
from leakdet_tf.config.schema import Evaluate

NAMES = ("ok", "oil_$leak$_of_a_long_name", "crack")
SETTINGS = Evaluate(resamples=100)


def answers(number: int, activation: str = "softmax", prefix: str = "p") -> Answers:
    random = np.random.default_rng(number)
    truth = (np.arange(3) == random.integers(0, 3, number)[:, None]).astype(np.uint8)
    logits = random.normal(0, 1, (number, 3)) + 3 * truth
    scores = softmax(logits, axis=1) if activation == "softmax" else expit(logits - 1.5)
    ids = tuple(f"{prefix}{i}" for i in range(number))
    return Answers(ids, truth, scores.astype(np.float32), NAMES, activation)


def drawn(figure: Figure, path: Path) -> Figure:
    save(figure, path)
    with Image.open(path) as picture:
        assert min(picture.size) > 150
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
    return figure


def words(figure: Figure) -> str:
    texts = [text for axis in figure.axes for text in (*axis.texts, axis.title, axis.xaxis.label)]
    return "\n".join(text.get_text() for text in texts)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("number", [1, 80])
def test_a_report_is_drawn(tmp_path: Path, activation: str, number: int) -> None:
    measured = measure(answers(number, activation), SETTINGS, seed=0, temperature=2.0)
    found = report_of(measured, SETTINGS, {})
    figure = drawn(class_figures.reliability(found["calibration"], "reliability"), tmp_path / "a.png")
    assert len(figure.axes) == 4  # before and after, each with its numbers below
    assert f"temperature 2\nECE {found['calibration'][1]['ece']:.3f}" in words(figure)
    figure = drawn(class_figures.confusion(found, "confusion"), tmp_path / "b.png")
    counts = np.array(found["confusion"] if activation == "softmax" else found["confusion"]["ok"])
    assert f"{counts.max()}\n" in words(figure)
    assert len(figure.axes) == (1 if activation == "softmax" else 3)


@pytest.mark.parametrize(("threshold", "marks"), [(0.0, 0), (0.6, 1), (1.0, 1)])
def test_risk_and_coverage_are_drawn_with_the_threshold_in_force(tmp_path: Path, threshold: float, marks: int) -> None:
    one = answers(200)
    curve = risk_coverage(one)
    measured = measure(one, SETTINGS, seed=0, abstain=threshold)
    abstain = report_of(measured, SETTINGS, {})["abstain"]
    figure = class_figures.risk_coverage({"$1": curve, "2$": curve}, "risk", abstain)
    axis = figure.axes[0]
    assert len(axis.get_legend().get_texts()) == 2 + marks
    points = [line.get_xydata()[0] for line in axis.lines if line.get_marker() == "o"]
    assert len(points) == marks
    if threshold == 0.6:
        place = np.flatnonzero(curve.threshold >= 0.6)[-1]
        np.testing.assert_allclose(points[0], [curve.coverage[place], curve.risk[place]])
        low, high = axis.lines[-1].get_ydata()
        assert low <= curve.risk[place] <= high
    drawn(figure, tmp_path / "a.png")


@pytest.mark.parametrize("key", ["accuracy", "mean_f1"])
def test_a_matrix_is_drawn(tmp_path: Path, key: str) -> None:
    entries = [
        Entry("$a", {"x": answers(40), "y$": answers(30, prefix="q")}, home="x"),
        Entry("crack_synthetic (20261128-133853)", {"x": answers(40)}),
    ]
    found = matrix_of(entries, SETTINGS, seed=0, about={})
    figure = drawn(class_figures.heat(found, key, "matrix"), tmp_path / "a.png")
    assert f"{found['models'][0]['tests']['y$'][key]['value']:.3f}\n[" in words(figure)
    assert "–" in words(figure)  # b was not tested on y
    assert len(figure.axes[0].lines) == 1  # one home is framed
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows == ["$a", "crack_synthetic\n(20261128-133853)"]  # whole, not cut


@pytest.mark.parametrize("number", [1, 7])
def test_a_contact_sheet_is_drawn(tmp_path: Path, number: int) -> None:
    random = np.random.default_rng(0)

    def shown(place: int) -> Shown:
        shape: Any = (30, 40, 3) if place % 2 else (40, 30, 1)
        return Shown(random.integers(0, 255, shape, np.uint8), ("a$b$.png", f"answer: ok 0.{place}"), place % 3 > 0)

    figure = drawn(class_figures.sheet([shown(place) for place in range(number)], "worst"), tmp_path / "a.png")
    assert words(figure).count("answer: ok") == number
    colors = [axis.spines["left"].get_edgecolor() for axis in figure.axes[:number]]
    assert len(set(colors)) == min(number, 2)
