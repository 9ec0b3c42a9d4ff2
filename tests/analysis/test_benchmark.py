"""A benchmark's figures: pooled over rounds, and told as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.analysis.benchmark import case, figures, lines, metric_of, row
from leakdet_tf.core.errors import LeakdetError

METRIC = {"name": "mean_iou", "value": 0.7321, "low": 0.7012, "high": 0.7634}


def measured(invoke: list[float], outside: float = 1.0, rss: dict[str, int] | None = None) -> dict[str, Any]:
    predict = [one + outside for one in invoke]
    return {"load_s": 0.5, "invoke_ms": invoke, "predict_ms": predict, "rss": rss, "windows": []}


@pytest.fixture
def report() -> dict[str, Any]:
    memory = {"before": 40_000_000, "peak": 61_500_000, "grow": 21_500_000}
    cases = [case(count, [measured([8.0 / count, 9.0 / count], rss=memory)] * 2, "x") for count in (1, 2)]
    clock = {"temps_c": {}, "mhz": 2400.0, "throttled": 0}
    windows = [
        {"end_s": 0.0, "answers": 0, "temp_c": 48.0, **clock},
        {"end_s": 1.0, "answers": 9, "invoke_ms": [8.0, 9.0], "predict_ms": [9.0, 9.9], "temp_c": 60.0, **clock},
        {"end_s": 2.0, "answers": 6, "invoke_ms": [12.0, 30.0], "predict_ms": [13.0, 31.0], "temp_c": 81.0}
        | clock
        | {"mhz": 1500.0, "throttled": 0x40004},
    ]
    names = ("tflite_float32", "tflite_int8")
    bundles = [
        {
            "name": name,
            "model_bytes": 1_234_567,
            "metric": metric,
            "cases": cases,
            "sustained": sustained,
            "engine": None,
        }
        for name, metric, sustained in zip(
            names, (METRIC, None), (None, {"threads": 2, "windows": windows}), strict=True
        )
    ]
    machine = {"board": "a board", "cpu": None, "cores": 4, "system": "an OS", "architecture": "aarch64"}
    return {
        "machine": {**machine, "governor": "ondemand", "load_average": 0.3},
        "settings": {"runs": 4, "rounds": 2, "frames": "golden ones at 640x480"},
        "bundles": bundles,
    }


def test_percentiles_are_those_of_all_rounds_together() -> None:
    times = np.random.default_rng(0).gamma(3, 2, 90)
    found = case(2, [measured(times[start : start + 30].tolist()) for start in (0, 30, 60)], "x")
    assert found["answers"] == 90
    assert found["invoke_ms"]["p50"] == pytest.approx(np.median(times))
    ordered = np.sort(times)
    assert found["invoke_ms"]["p95"] == pytest.approx(ordered[84] + 0.55 * (ordered[85] - ordered[84]))
    assert found["invoke_ms"]["min"] == times.min()
    assert found["predict_ms"]["p50"] == pytest.approx(np.median(times) + 1)


def test_the_share_outside_is_what_invoke_leaves_of_the_whole() -> None:
    found = case(1, [measured([4.0, 4.0, 4.0], outside=1.0)], "x")
    assert found["outside"] == pytest.approx(0.2)
    assert found["outside"] == pytest.approx(1 - found["invoke_ms"]["p50"] / found["predict_ms"]["p50"])


def test_memory_is_the_most_of_the_rounds_and_load_their_median() -> None:
    rounds = [measured([1.0], rss={"before": 10, "peak": peak, "grow": peak - 10}) for peak in (30, 50, 40)]
    for one, load_s in zip(rounds, (3.0, 1.0, 1.2), strict=True):
        one["load_s"] = load_s
    found = case(1, rounds, "x")
    assert (found["rss_peak_bytes"], found["rss_grow_bytes"], found["load_s"]) == (50, 40, 1.2)
    assert case(1, [measured([1.0])], "x")["rss_peak_bytes"] is None


@pytest.mark.parametrize("times", [[], [1.0, float("nan")], [1.0, float("inf")], [0.0, 1.0], [-1.0]])
def test_what_is_no_time_is_refused(times: list[float]) -> None:
    with pytest.raises(LeakdetError, match="a bundle: the times measured are no times"):
        figures(times, "a bundle")


def test_the_table_tells_the_figures_of_the_json(report: dict[str, Any]) -> None:
    kept = json.loads(json.dumps(report, allow_nan=False))
    text = lines(kept)
    for bundle in kept["bundles"]:
        for one in bundle["cases"]:
            (line,) = [line for line in text if re.match(rf"{bundle['name']} +{one['threads']} ", line)]
            numbers = [float(word.strip("%[],")) for word in line.split()[1:] if re.match(r"[\[\d]", word)]
            expected = [
                one["threads"],
                *(one[key][part] for key in ("invoke_ms", "predict_ms") for part in ("p50", "p95", "min")),
                100 * one["outside"],
                one["load_s"],
                one["rss_peak_bytes"] / 1e6,
                one["rss_grow_bytes"] / 1e6,
                bundle["model_bytes"] / 1e6,
                *([METRIC["value"], METRIC["low"], METRIC["high"]] if bundle["metric"] else []),
            ]
            assert numbers == pytest.approx(expected, abs=0.051)
    assert any("mean_iou 0.732 [0.701, 0.763]" in line for line in text)


def test_the_machine_stands_above(report: dict[str, Any]) -> None:
    assert lines(report)[0] == "a board, 4 cores, an OS, aarch64, governor ondemand, load 0.3 at the start"
    report["machine"]["load_average"] = 3.1
    assert lines(report)[0].endswith("load 3.1 at the start: other work spoils this")


def test_what_was_not_told_is_a_dash_and_a_column_of_dashes_is_left_out(report: dict[str, Any]) -> None:
    bundle = report["bundles"][1]
    assert row(bundle, bundle["cases"][0] | {"rss_peak_bytes": None})[-1] == "-"
    assert "metric" in "".join(lines(report))
    report["bundles"] = [bundle]
    assert "metric" not in "".join(lines(report))


def test_a_sustained_run_is_one_line_with_heat_and_throttling(report: dict[str, Any]) -> None:
    assert lines(report)[-1] == (
        "tflite_int8, 2 threads, 2 s without a pause: invoke p50 8.00 ms at first, 12.00 ms at last (1.50 times), "
        "worst p95 30.00 ms; 48 → 81 °C; 2400 → 1500 MHz; throttled, throttled since boot"
    )
    for one in report["bundles"][1]["sustained"]["windows"]:
        one |= {"temp_c": None, "mhz": None, "throttled": None}
    assert lines(report)[-1].endswith("; the machine tells no temperature")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"gate": {"metric": METRIC}}, METRIC),
        ({"gate": {"metric": METRIC | {"low": None}}}, METRIC | {"low": None}),
        ({"gate": {"metric": {"name": "map50", "value": 1}}}, {"name": "map50", "value": 1, "low": None, "high": None}),
        ({}, None),
        ({"gate": None}, None),
        ({"gate": {"metric": [1]}}, None),
        ({"gate": {"metric": METRIC | {"value": float("nan")}}}, None),
        ({"gate": {"metric": METRIC | {"value": True}}}, None),
        ({"gate": {"metric": METRIC | {"name": 3}}}, None),
    ],
)
def test_the_metric_is_the_card_s_if_it_has_one(card: dict[str, Any], expected: Any) -> None:
    assert metric_of(card) == expected


def test_a_metric_without_interval_is_told_alone(report: dict[str, Any]) -> None:
    bundle = report["bundles"][0] | {"metric": METRIC | {"low": None}}
    assert row(bundle, bundle["cases"][0])[-1] == "mean_iou 0.732"


def test_the_plot_has_a_bar_a_case_and_the_temperature_on_an_axis_of_its_own(
    report: dict[str, Any], tmp_path: Path
) -> None:
    from leakdet_tf.analysis.benchmark_figures import draw, save

    figure = draw(report)
    bars, curves, heat = figure.axes
    widths = sorted(patch.get_width() for patch in bars.patches if patch.get_width() > 0)
    pairs = [(o["invoke_ms"]["p50"], o["predict_ms"]["p50"]) for bundle in report["bundles"] for o in bundle["cases"]]
    expected = [part for invoke, predict in pairs for part in (invoke, predict - invoke)]
    assert widths == pytest.approx(sorted(expected))
    assert curves.lines[0].get_ydata().tolist() == [8.0, 12.0]
    assert heat.lines[0].get_ydata().tolist() == [48.0, 60.0, 81.0]
    save(figure, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_sustained_runs_or_temperature_the_plot_is_smaller(report: dict[str, Any]) -> None:
    from leakdet_tf.analysis.benchmark_figures import draw

    for one in report["bundles"][1]["sustained"]["windows"]:
        one["temp_c"] = None
    assert len(draw(report).axes) == 2
    report["bundles"][1]["sustained"] = None
    assert len(draw(report).axes) == 1
