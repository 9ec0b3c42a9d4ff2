"""A benchmark as a picture: latency of each bundle by threads, and sustained runs with the temperature."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from leakdet_tf.analysis.figures import save

__all__ = ["draw", "save"]
_INK, _MUTED, _HOT = "#222222", "#888888", "#b2182b"
_THREADS = ("#9ecae1", "#4292c6", "#08519c", "#041f3d")
_OUTSIDE = "#dddddd"
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 7, "loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
_SMALL: dict[str, Any] = {"fontsize": 7, "color": _MUTED}
_BUNDLES = ("#4c72b0", "#dd8452", "#55a868", "#8172b3", "#937860", "#64b5cd", "#8c8c8c")


def draw(report: dict[str, Any]) -> Figure:
    """Bars of ``invoke`` p50 with p95 as whiskers, the time outside stacked on them; beside them sustained runs."""
    bundles = report["bundles"]
    runs = [bundle for bundle in bundles if bundle["sustained"]]
    cases = sum(len(bundle["cases"]) for bundle in bundles)
    height = max(2.6, 1.2 + 0.28 * cases + 0.2 * len(bundles))
    figure = Figure(figsize=(12 if runs else 7.5, height), layout="constrained")
    axes = figure.subplots(1, 2 if runs else 1, squeeze=False)[0]
    _bars(axes[0], bundles)
    if runs:
        _curves(axes[1], runs)
    machine = report["machine"]
    title = ", ".join(filter(None, (machine["board"], machine["cpu"], f"{machine['cores']} cores")))
    figure.suptitle(title, fontsize=9, color=_INK)
    return figure


def _bars(axis: Any, bundles: list[dict[str, Any]]) -> None:
    counts = sorted({one["threads"] for bundle in bundles for one in bundle["cases"]})
    colours = {count: _THREADS[place % len(_THREADS)] for place, count in enumerate(counts)}
    place, middles = 0.0, []
    labelled: set[int] = set()
    top = max(one["predict_ms"]["p95"] for bundle in bundles for one in bundle["cases"])
    for bundle in bundles:
        first = place
        for one in bundle["cases"]:
            count, p50, p95 = one["threads"], one["invoke_ms"]["p50"], one["invoke_ms"]["p95"]
            name = f"invoke, {count} thread{'s' if count > 1 else ''}"
            axis.barh(place, p50, height=0.85, color=colours[count], label=None if count in labelled else name)
            axis.barh(place, max(one["predict_ms"]["p50"] - p50, 0), left=p50, height=0.85, color=_OUTSIDE)
            axis.plot([p50, p95], [place, place], color=_INK, linewidth=1, marker="|", markersize=4)
            end = max(p95, one["predict_ms"]["p50"]) + 0.015 * top
            axis.text(end, place, f"{p50:.1f} of {one['predict_ms']['p50']:.1f}", va="center", fontsize=7, color=_INK)
            labelled.add(count)
            place += 1
        middles.append((first + place - 1) / 2)
        place += 0.6
    axis.set_yticks(middles, [bundle["name"] for bundle in bundles], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.2 * top)
    axis.set_xlabel("ms a frame, p50: invoke of predict; whisker to invoke's p95")
    axis.spines[["top", "right"]].set_visible(False)
    axis.barh(0, 0, color=_OUTSIDE, label="outside invoke")
    axis.legend(**_LEGEND, ncols=len(counts) + 1)


def _curves(axis: Any, runs: list[dict[str, Any]]) -> None:
    hot = None
    for number, bundle in enumerate(runs):
        windows, colour = bundle["sustained"]["windows"], _BUNDLES[number % len(_BUNDLES)]
        answered = [one for one in windows if one["answers"]]
        times = [one["end_s"] for one in answered]
        axis.plot(
            times, [one["invoke_ms"][0] for one in answered], color=colour, marker=".", label=f"{bundle['name']} p50"
        )
        axis.plot(times, [one["invoke_ms"][1] for one in answered], color=colour, linewidth=0.8, alpha=0.5)
        warm = [(one["end_s"], one["temp_c"]) for one in windows if one["temp_c"] is not None]
        if warm:
            hot = hot or axis.twinx()
            hot.plot(*zip(*warm, strict=True), color=colour, linestyle=":", linewidth=1.4)
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    axis.set_xlabel("s without a pause")
    axis.set_ylabel("invoke, ms: p50, thin p95")
    axis.grid(alpha=0.25)
    axis.spines["top"].set_visible(False)
    axis.legend(**_LEGEND, ncols=2)
    if hot is None:
        axis.spines["right"].set_visible(False)
        axis.text(0.99, 0.02, "the machine tells no temperature", transform=axis.transAxes, ha="right", **_SMALL)
    else:
        hot.set_ylabel("dotted: temperature, °C", color=_HOT)
        hot.spines["top"].set_visible(False)
