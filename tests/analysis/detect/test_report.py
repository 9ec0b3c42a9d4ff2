"""A detector's report and its pictures: what stands in them is what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from leakdet_tf.analysis.detect import figures as box_figures
from leakdet_tf.analysis.detect.answers import Answers
from leakdet_tf.analysis.detect.figures import examples, precision_recall, sheet, shown_of
from leakdet_tf.analysis.detect.metrics import Measured, map_of, measure, quick_map
from leakdet_tf.analysis.detect.report import lines, report
from leakdet_tf.analysis.figures import save
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.records import Origin, Sample

Told = Callable[..., Answers]
SETTINGS = Evaluate(resamples=100, worst=2)
TRUE = [[10, 10, 50, 40, 0, 0], [60, 20, 100, 60, 1, 0], [110, 70, 150, 110, 0, 1]]
FOUND = [[10, 10, 50, 40, 0, 0.9], [5, 80, 30, 100, 1, 0.8], [111, 71, 140, 100, 0, 0.7], [1, 1, 9, 9, 0, 0.1]]


def measured_of(told: Told, **rest: tuple[str, ...]) -> Measured:
    return measure(told([TRUE, [], TRUE[:1]], [FOUND, FOUND[1:2], FOUND[:1]], **rest), SETTINGS, seed=0, threshold=0.5)


def test_the_report_is_json_and_says_what_was_measured(told: Told) -> None:
    measured = measured_of(told)
    found = json.loads(json.dumps(report(measured, SETTINGS, {"kind": "keras", "split": "test"}), allow_nan=False))
    assert (found["format"], found["task"], found["kind"], found["split"]) == (1, "detect", "keras", "test")
    assert (found["pictures"], found["empty_pictures"], found["groups"], found["ignored"]) == (3, 1, 3, 1)
    assert found["truth"] == {"leak": 2, "crack": 1}
    assert sum(found["truth_by_size"].values()) == 3
    figures = map_of(measured.answers)
    for key in ("map", "map50", "map75", "ar", "map_medium"):
        assert found["metrics"][key]["value"] == pytest.approx(float(figures[key]))
        assert found["metrics"][key]["low"] <= found["metrics"][key]["value"] <= found["metrics"][key]["high"]
    assert found["metrics"]["map_large"] == {"value": None, "low": None, "high": None}
    assert found["metrics"]["ap50"]["leak"]["value"] == pytest.approx(figures["ap50"][0])
    at = found["at_threshold"]
    assert (at["threshold"], at["iou"]) == (0.5, 0.5)
    assert at["counts"] == {
        "leak": {"hits": 2, "false_alarms": 0, "misses": 0},
        "crack": {"hits": 0, "false_alarms": 2, "misses": 1},
    }
    assert (at["recall"]["leak"]["value"], at["f1"]["crack"]["value"], at["mean_f1"]["value"]) == (1, 0, 0.5)
    assert (at["false_alarms"]["value"], at["empty_alarmed"]["value"]) == (pytest.approx(2 / 3), 1)
    assert found["worst"] == [
        {"id": "p0", "boxes": 2, "misses": 1, "false_alarms": 1},
        {"id": "p1", "boxes": 0, "misses": 0, "false_alarms": 1},
    ]
    assert found["intervals"] == {"method": "bootstrap over pictures", "confidence": 0.95, "resamples": 100}
    assert found["rules"]["sizes_px2"]["medium"] == [1024, 9216]
    assert "sources" not in found


def test_sources_and_groups_are_told(told: Told) -> None:
    measured = measured_of(told, sources=("a", "b", "a"), groups=("x", "y", "y"))
    found = report(measured, SETTINGS, {})
    assert found["intervals"]["method"] == "bootstrap over groups of pictures"
    assert found["sources"]["a"]["pictures"] == 2
    assert found["sources"]["a"]["map50"] == quick_map(measured.answers.take([0, 2]))["map50"]
    assert found["sources"]["b"] == {"pictures": 1, "map": None, "map50": None, "mean_f1": None, "false_alarms": 1.0}
    text = "\n".join(lines(found))
    assert "3 pictures in 2 groups" in text
    assert "b: 1 pictures, mAP .5 absent, F1 absent, false alarms 1.0000" in text


def test_the_text_holds_each_class_and_the_means(told: Told) -> None:
    text = lines(report(measured_of(told), SETTINGS, {}))
    assert text[0].split() == ["boxes", "AP", ".5:.95", "AP", ".5", "precision", "recall", "F1"]
    assert [line.split()[:2] for line in text[1:4]] == [["leak", "2"], ["crack", "1"], ["mean", "3"]]
    assert any("small (0 boxes) absent" in line for line in text)
    assert any(line.startswith("1 pictures without a box: 1.0000 [1.0000, 1.0000] false alarms each") for line in text)
    assert any(line.startswith("false alarms per picture: 0.6667 [") for line in text)


def test_a_report_on_nothing_found_and_nothing_true_is_still_a_report(told: Told) -> None:
    for truth, found in (([], []), (TRUE, []), ([], FOUND)):
        measured = measure(told([truth, []], [found, []]), SETTINGS, seed=0, threshold=0.5)
        whole = report(measured, SETTINGS, {})
        json.dumps(whole, allow_nan=False)
        assert lines(whole)
        FigureCanvasAgg(precision_recall(measured, "nothing")).draw()


def boxes_of(figure: Figure) -> list[tuple[str, str, list[float]]]:
    """Colour, line style and edges of the outlines drawn on a sheet, by axis."""
    names = {to_rgb(getattr(box_figures, f"_{name}")): name for name in ("FOUND", "HIT", "WRONG", "MISSED", "VOID")}
    return [
        (names[to_rgb(patch.get_edgecolor())], str(patch.get_linestyle()), [*patch.get_xy(), *patch.get_corners()[2]])
        for axis in figure.axes
        for patch in axis.patches
        if isinstance(patch, Rectangle)
    ]


def test_a_sheet_paints_right_wrong_and_missed(told: Told, tmp_path: Path) -> None:
    measured = measured_of(told)
    sample = Sample("p0", {"image": np.zeros((120, 160, 3), np.uint8)}, measured.answers.truths[0], Origin("p0"))
    figure = sheet([shown_of(measured, sample, place, "image") for place in measured.worst(2)], "worst")
    drawn = boxes_of(figure)
    assert sorted(name for name, _, _ in drawn) == ["FOUND", "HIT", "MISSED", "VOID", "VOID", "WRONG", "WRONG"]
    by_name = {name: (style, edges) for name, style, edges in drawn}
    assert by_name["HIT"] == ("-", [10, 10, 50, 40])
    assert by_name["FOUND"] == ("--", [10, 10, 50, 40])
    assert by_name["MISSED"] == ("--", [60, 20, 100, 60])
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "p0\n1 of 2 found, 1 false alarm",
        "p1\n0 of 0 found, 1 false alarm",
    ]
    words = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(words) == ["crack", "crack 0.80", "leak 0.90"]
    save(figure, tmp_path / "worst.png")
    pixels = np.asarray(Image.open(tmp_path / "worst.png").convert("RGB")).reshape(-1, 3).astype(int)
    for color in ("_HIT", "_WRONG", "_MISSED"):
        wanted = np.array(to_rgb(getattr(box_figures, color))) * 255
        assert (np.abs(pixels - wanted).max(1) < 40).sum() > 50, color


def test_examples_are_judged_on_their_own(told: Told) -> None:
    answers = told([TRUE, []], [FOUND, []])
    samples = [
        Sample(name, {"image": np.zeros((120, 160, 1), np.uint16)}, truth, Origin(name))
        for name, truth in zip(answers.ids, answers.truths, strict=True)
    ]
    figure = examples(samples, answers.predictions, "some", "image", threshold=0.5)
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert labels == ["p0\n1 of 2 found, 1 false alarm", "p1\n0 of 0 found, 0 false alarms"]
    one = examples(samples, answers.predictions, "some", "image")
    assert one.axes[0].get_xlabel().endswith("2 false alarms")


def test_curves_go_through_what_was_measured(told: Told) -> None:
    measured = measured_of(told)
    left, right = precision_recall(measured, "curves").axes
    lines_ = {line.get_label(): line for line in left.get_lines()}
    recall, precision = lines_["leak: AP .5 1.000"].get_data()
    np.testing.assert_array_equal(recall, np.linspace(0, 1, 101))
    np.testing.assert_array_equal(precision, measured.curves.precision[0, :, 0, 0])
    f1 = {line.get_label(): line for line in right.get_lines()}["F1"].get_data()
    assert f1[1][100] == pytest.approx(float(measured.figures["mean_f1"]))  # at .5


def test_names_are_text_and_many_classes_fit(by_chance: Callable[..., Answers], told: Told) -> None:
    names = tuple(f"$a_{number}$ and a name that is rather long for a legend" for number in range(12))
    rows = [[10 * number, 10, 10 * number + 8, 40, number, 0] for number in range(12)]
    found = [[*row[:5], 0.05 * (place + 1)] for place, row in enumerate(rows)]
    measured = measure(told([rows, rows], [found, found], names), SETTINGS, seed=0, threshold=0.3)
    measured = replace(measured, answers=replace(measured.answers, ids=("$x^", "y" * 90)))
    sample = Sample("x", {"image": np.zeros((120, 160, 3), np.uint8)}, measured.answers.truths[0], Origin("x"))
    for figure in (
        precision_recall(measured, "$t^"),
        sheet([shown_of(measured, sample, i, "image") for i in (0, 1)], "$t^"),
    ):
        FigureCanvasAgg(figure).draw()


def test_a_single_class_is_named_once_and_small_misses_are_ringed(told: Told) -> None:
    small = [80, 60, 84, 64, 0, 0]
    measured = measure(told([[TRUE[0], small]], [FOUND[:1]]), SETTINGS, seed=0, threshold=0.5)
    sample = Sample("x", {"image": np.zeros((120, 160, 3), np.uint8)}, measured.answers.truths[0], Origin("x"))
    figure = sheet([shown_of(measured, sample, 0, "image")], "one")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.90"]
    assert figure.legends[0].get_texts()[-1].get_text() == "all boxes: leak"
    (x1, y1, x2, y2) = next(edges for name, _, edges in boxes_of(figure) if name == "MISSED")
    assert x1 < 80 < 84 < x2
    assert y1 < 60 < 64 < y2
