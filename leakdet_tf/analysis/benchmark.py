"""Figures of a benchmark: what children measured, pooled over rounds, as plain data and as tables. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leakdet_tf.analysis.tables import text_table
from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.edge.machine import throttle_words

_MB = 1e6
_HEAD = (
    "bundle",
    "threads",
    "invoke ms\np50",
    "\np95",
    "\nmin",
    "predict ms\np50",
    "\np95",
    "\nmin",
    "outside\ninvoke",
    "load s",
    "memory MB\npeak",
    "\ngrown",
    "precision",
    "model\nMB",
    "metric",
)


def figures(times_ms: Sequence[float], what: str) -> dict[str, float]:
    """p50, p95 (linear between the nearest) and the least of times in milliseconds.

    Raises:
        LeakdetError: there are none, or one is no time.
    """
    times = np.asarray(times_ms, dtype=np.float64)
    if not (times.size and np.isfinite(times).all() and (times > 0).all()):
        raise LeakdetError(f"{what}: the times measured are no times", remedy="measure again; is the clock being set?")
    p50, p95 = np.percentile(times, (50, 95)).tolist()
    return {"p50": p50, "p95": p95, "min": float(times.min())}


def case(threads: int, rounds: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
    """One bundle at one number of threads, from what :func:`leakdet_tf.edge.benchmark.measure` returned each round.

    Times are pooled; ``outside`` is 1 − p50 of invoke / p50 of predict; ``load_s`` is the median, memory the most of
    the rounds, in bytes.

    Raises:
        LeakdetError: the times are no times.
    """
    invoke = [time for one in rounds for time in one["invoke_ms"]]
    predict = [time for one in rounds for time in one["predict_ms"]]
    found: dict[str, Any] = {"threads": threads, "answers": len(predict), "rounds": len(rounds)}
    found |= {"invoke_ms": figures(invoke, what), "predict_ms": figures(predict, what)}
    found["outside"] = 1 - found["invoke_ms"]["p50"] / found["predict_ms"]["p50"]
    loads = [float(one["load_s"]) for one in rounds]
    found |= {"load_s": float(np.median(loads)), "loads_s": loads}
    resident = [one["rss"] for one in rounds if one["rss"]]
    for key in ("peak", "grow"):
        found[f"rss_{key}_bytes"] = max((one[key] for one in resident), default=None)
    return found | {"times_ms": {"invoke": invoke, "predict": predict}}


def metric_of(card: dict[str, Any]) -> dict[str, Any] | None:
    """The task's metric that the export's gate measured on this very file: name, value, low and high; None if unknown.

    A card comes from a bundle that may be older, so what is no metric counts as none.
    """
    gate = card.get("gate")
    found = gate.get("metric") if isinstance(gate, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str) or not _number(found.get("value")):
        return None
    ends = {key: found[key] if _number(found.get(key)) else None for key in ("low", "high")}
    return {"name": found["name"], "value": found["value"], **ends}


def lines(report: dict[str, Any]) -> list[str]:
    """The report for a terminal: the machine, a table of all cases, and a line for each sustained run."""
    machine, settings = report["machine"], report["settings"]
    told = [machine["board"], machine["cpu"], f"{machine['cores']} cores", machine["system"], machine["architecture"]]
    if machine["governor"]:
        told.append(f"governor {machine['governor']}")
    if machine["load_average"] is not None:
        busy = machine["load_average"] >= machine["cores"] / 2
        told.append(f"load {machine['load_average']:.1f} at the start" + (": other work spoils this" if busy else ""))
    rows = [row(bundle, one) for bundle in report["bundles"] for one in bundle["cases"]]
    keep = [place for place in range(len(_HEAD)) if any(cells[place] != "-" for cells in rows)]
    table = text_table([_HEAD[place] for place in keep], [[cells[place] for place in keep] for cells in rows])
    frames = f"{settings['runs']} answers each in {settings['rounds']} rounds; frames: {settings['frames']}"
    sustained = [line for bundle in report["bundles"] if bundle["sustained"] for line in _sustained(bundle)]
    return [", ".join(filter(None, told)), frames, "", *table, *([""] if sustained else []), *sustained]


def row(bundle: dict[str, Any], one: dict[str, Any]) -> list[str]:
    """A line of the table; what was not told is ``-``."""
    invoke, predict = one["invoke_ms"], one["predict_ms"]
    memory = (one["rss_peak_bytes"], one["rss_grow_bytes"])
    return [
        bundle["name"],
        str(one["threads"]),
        *(f"{times[key]:.2f}" for times in (invoke, predict) for key in ("p50", "p95", "min")),
        f"{one['outside']:.1%}",
        f"{one['load_s']:.2f}",
        *("-" if value is None else f"{value / _MB:.1f}" for value in memory),
        bundle["engine"]["precision"] if bundle["engine"] else "-",
        f"{bundle['model_bytes'] / _MB:.2f}",
        _metric(bundle["metric"]),
    ]


def _metric(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    ends = f" [{found['low']:.3f}, {found['high']:.3f}]" if None not in (found["low"], found["high"]) else ""
    return f"{found['name']} {found['value']:.3f}{ends}"


def _sustained(bundle: dict[str, Any]) -> list[str]:
    # the first full window beside the last: a machine that throttles shows it there
    run = bundle["sustained"]
    start, *windows = run["windows"]
    first, last = windows[0], windows[-1]
    text = (
        f"{bundle['name']}, {run['threads']} threads, {last['end_s']:.0f} s without a pause: invoke p50 "
        f"{first['invoke_ms'][0]:.2f} ms at first, {last['invoke_ms'][0]:.2f} ms at last "
        f"({last['invoke_ms'][0] / first['invoke_ms'][0]:.2f} times), worst p95 "
        f"{max(one['invoke_ms'][1] for one in windows):.2f} ms"
    )
    told = []
    for key, unit in (("temp_c", "°C"), ("mhz", "MHz")):
        if start[key] is not None and last[key] is not None:
            told.append(f"{start[key]:.0f} → {last[key]:.0f} {unit}")
    flags = [one["throttled"] for one in run["windows"] if one["throttled"] is not None]
    if flags:
        told.append(", ".join(throttle_words(int(np.bitwise_or.reduce(flags)))) or "not throttled")
    return [f"{text}; {'; '.join(told) if told else 'the machine tells no temperature'}"]


def _number(value: Any) -> bool:
    return type(value) in (int, float) and bool(np.isfinite(value))
