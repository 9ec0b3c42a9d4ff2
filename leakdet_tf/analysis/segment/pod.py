"""What of a leak is found, and what is taken for one: probability of detection and false alarms on rendered pictures.

Only rendered pictures say how large, how warm and how far a leak is, and what stands beside it that looks like one.
Probability of detection (POD) is told as in MIL-HDBK-1823A (2009), Nondestructive Evaluation System Reliability
Assessment: hit or miss for each target, a logistic curve over its size fitted by maximum likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from leakdet_tf.analysis.stats.significance import wilson
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import Mask, Sample

FOUND_SHARE = 0.1
"""A target is detected when at least this share of its pixels is found."""
ALARM_SHARE = 0.001
"""A picture without a target is a false alarm when at least this share of its pixels is said to be one."""
AXES = {
    "size": ("share of the picture", True),
    "delta_t_k": ("temperature contrast |ΔT| in K", False),
    "distance_m": ("distance in m", False),
}
"""What POD is told against: its words, and whether the curve is fitted to its logarithm."""
LEAST = 10
"""Fewer targets than these get no curve."""
_BINS, _PER_BIN = 6, 5
_GOAL = 0.9
_INK, _MUTED, _LINE, _ALARM = "#222222", "#888888", "#4c72b0", "#c44e52"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """What was seen of one class on one picture.

    ``pixels``, ``true``, ``found`` and ``predicted`` are numbers of pixels: all that count, those of the class, those
    of them that were predicted as the class, and all that were. ``leak`` says whether the class was drawn at all.
    ``size`` is a share of the picture; ``delta_t_k`` in kelvin is without sign; None where the picture does not say.
    """

    id: str
    pixels: int
    true: int
    found: int
    predicted: int
    leak: bool
    size: float | None = None
    delta_t_k: float | None = None
    distance_m: float | None = None
    confusers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fit:
    """log(p / (1 - p)) = intercept + slope x, and the covariance (2, 2) of both (inverse Fisher information)."""

    intercept: float
    slope: float
    covariance: Floats


def collect(
    sample: Sample, answer: Mask, contract: Contract, class_name: str, labelling: Labelling | None = None
) -> Detection | None:
    """What an answer made of one picture; None unless it was rendered with parameters and has a truth for the class.

    A picture without a single pixel that counts has none: it is neither clean nor a target.

    The parameters are ``has_gas``, ``gas_fraction``, ``delta_t_k`` (0 where there is no such thing, as in visible
    light), ``distance_m`` and ``confusers``; all but the first may be missing. Pixels without a clear truth count
    nowhere: ignored ones, and those whose label is a set of classes with this one in it (any set when ``labelling``
    is left out).
    """
    said, names = sample.origin.parameters, contract.class_names
    if "has_gas" not in said or class_name not in names or sample.truth is None:
        return None
    index = names.index(class_name)
    clear = np.zeros(256, np.bool_)
    clear[: len(names)] = True
    if labelling is not None:
        clear[len(names) : labelling.count] = ~labelling.members[len(names) :, index]
    counted, inside = clear[sample.truth], sample.truth == index
    chosen = (answer.labels == index) & counted
    pixels, true = int(np.count_nonzero(counted)), int(np.count_nonzero(inside))
    if not pixels:
        return None
    size, contrast = _number(said.get("gas_fraction")), _number(said.get("delta_t_k"))
    tags = said.get("confusers") or ()
    return Detection(
        id=sample.id,
        pixels=pixels,
        true=true,
        found=int(np.count_nonzero(chosen & inside)),
        predicted=int(np.count_nonzero(chosen)),
        leak=bool(said["has_gas"]),
        size=size if size is not None and size > 0 else (true / pixels if true else None),
        delta_t_k=abs(contrast) if contrast else None,
        distance_m=_number(said.get("distance_m")),
        confusers=tuple(dict.fromkeys(map(str, [tags] if isinstance(tags, str) else tags))),
    )


def _number(value: Any) -> float | None:
    fit = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fit else None


def logistic(x: npt.ArrayLike, hit: npt.ArrayLike) -> Fit:
    """The curve of largest likelihood, by Newton's method with halved steps.

    Args:
        x: float (N,).
        hit: bool (N,).

    Raises:
        DataError: there is no such curve: all are hits, all are misses, or one x parts hits from misses, so that ever
            steeper curves are ever more likely (Albert & Anderson 1984).
    """
    values, hits = np.asarray(x, np.float64), np.asarray(hit, np.bool_)
    yes, no = values[hits], values[~hits]
    if not yes.size or not no.size:
        raise DataError("all were detected" if yes.size else "none was detected")
    if no.max() <= yes.min() or yes.max() <= no.min():
        raise DataError("one value parts hits from misses")
    centre, scale = float(values.mean()), float(values.std())
    design = np.stack([np.ones_like(values), (values - centre) / scale], axis=1)
    beta: Floats = np.zeros(2)
    step: Floats = np.zeros(2)
    best = -math.inf
    for _ in range(200):
        trial = beta + step
        likelihood = _log_likelihood(design @ trial, hits)
        if likelihood < best and np.abs(step).max() > 1e-13:
            step /= 2
            continue
        beta, best = trial, likelihood
        p = np.exp(-np.logaddexp(0, -design @ beta))
        information = (design * (p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(information, design.T @ (hits - p))
        if np.abs(step).max() < 1e-10:
            break
    else:
        raise DataError("no curve was found in 200 steps")
    back = np.array([[1, -centre / scale], [0, 1 / scale]])  # from the scaled x to the given one
    intercept, slope = back @ beta
    return Fit(float(intercept), float(slope), back @ np.linalg.inv(information) @ back.T)


def _log_likelihood(logit: Floats, hits: npt.NDArray[np.bool_]) -> float:
    return -float(np.logaddexp(0, np.where(hits, -logit, logit)).sum())


def report(
    detections: Sequence[Detection],
    confidence: float,
    *,
    found_share: float = FOUND_SHARE,
    alarm_share: float = ALARM_SHARE,
) -> dict[str, Any]:
    """POD and false alarms as plain data for JSON.

    A picture with pixels of the class is a target, detected when at least ``found_share`` of these are found. One
    without any, on which none was drawn either, is clean, and a false alarm when at least ``alarm_share`` of its
    pixels are predicted as the class. A leak that left no pixel in the mask is neither; it is counted as unseen.

    POD stands against size, contrast and distance: in bins of about as many targets each, with Wilson intervals, and
    as a logistic curve of the value (of its logarithm for size); ``no_fit`` says why there is none. ``a90`` is the
    size at which the curve reaches 0.9, where it rises. False alarms stand by what was drawn that looks like a leak
    (a picture counts for each of its confusers; ``none`` has none). ``stray`` is the share of other pixels that were
    predicted as the class, on pictures with targets.
    """
    targets = [item for item in detections if item.true]
    clean = [item for item in detections if not item.true and not item.leak]
    hits = [item.found >= found_share * item.true for item in targets]
    alarms = [item.predicted >= alarm_share * item.pixels and item.predicted > 0 for item in clean]
    tags = sorted({tag for item in clean for tag in item.confusers})
    groups = {"none": [not item.confusers for item in clean]}
    groups |= {tag: [tag in item.confusers for item in clean] for tag in tags}
    others = sum(item.pixels - item.true for item in targets)
    return {
        "confidence": confidence,
        "found_share": found_share,
        "alarm_share": alarm_share,
        "pictures": len(detections),
        "unseen": len(detections) - len(targets) - len(clean),
        "detected": _share(sum(hits), len(hits), confidence),
        "pod": {name: _curve(name, targets, hits, confidence) for name in AXES},
        "false_alarms": _share(sum(alarms), len(alarms), confidence),
        "by_confuser": {
            tag: _share(sum(a for a, m in zip(alarms, member, strict=True) if m), sum(member), confidence)
            for tag, member in groups.items()
        },
        "stray": sum(item.predicted - item.found for item in targets) / others if others else None,
    }


def _share(hits: int, number: int, confidence: float) -> dict[str, Any]:
    low, high = wilson(hits, number, confidence) if number else (None, None)
    return {"hits": hits, "pictures": number, "rate": hits / number if number else None, "low": low, "high": high}


def _curve(name: str, targets: Sequence[Detection], hits: Sequence[bool], confidence: float) -> dict[str, Any]:
    words, logarithmic = AXES[name]
    known = [(getattr(item, name), hit) for item, hit in zip(targets, hits, strict=True)]
    known = [(value, hit) for value, hit in known if value is not None]
    values, hit = np.array([pair[0] for pair in known], np.float64), np.array([pair[1] for pair in known], np.bool_)
    found: dict[str, Any] = {"words": words, "log": logarithmic, "targets": len(known), "bins": [], "fit": None}
    if known:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, max(1, min(_BINS, len(known) // _PER_BIN)) + 1)))
        place = np.searchsorted(edges[1:-1], values, side="right")
        for number in np.unique(place):
            inside = place == number
            ends = {"from": float(values[inside].min()), "to": float(values[inside].max())}
            ends["median"] = float(np.median(values[inside]))
            found["bins"].append(ends | _share(int(hit[inside].sum()), int(inside.sum()), confidence))
    if len(known) < LEAST:
        return found | {"no_fit": f"fewer than {LEAST} targets"}
    try:
        fit = logistic(np.log(values) if logarithmic else values, hit)
    except DataError as error:
        return found | {"no_fit": str(error)}
    found["fit"] = {"intercept": fit.intercept, "slope": fit.slope, "covariance": fit.covariance.tolist()}
    if name == "size":
        goal = (math.log(_GOAL / (1 - _GOAL)) - fit.intercept) / fit.slope if fit.slope > 0 else math.inf
        found["a90"] = math.exp(goal) if goal < 0 else None  # no target is larger than its picture
        found["a90_seen"] = found["a90"] is not None and bool(values.min() <= found["a90"] <= values.max())
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """A report as a few lines of text."""
    detected, alarms = found["detected"], found["false_alarms"]
    text = [
        f"detected (at least {found['found_share']:.0%} of its pixels found): {_said(detected)}",
        f"false alarms (at least {found['alarm_share']:.1%} of a clean picture): {_said(alarms)}",
    ]
    size = found["pod"]["size"]
    if size.get("a90"):
        beyond = "" if size["a90_seen"] else " (beyond the sizes seen)"
        text.append(f"size found with probability 0.9: {size['a90']:.3%} of the picture{beyond}")
    elif size["targets"]:
        why = size.get("no_fit") or "the fitted curve does not reach it"
        text.append(f"size found with probability 0.9: unknown, {why}")
    text += [
        f"  false alarms, {'no confuser' if tag == 'none' else tag}: {_said(part)}"
        for tag, part in found["by_confuser"].items()
        if part["pictures"] and len(found["by_confuser"]) > 1
    ]
    if found["stray"] is not None:
        text.append(f"pixels wrongly taken for it on pictures with targets: {found['stray']:.3%}")
    return text


def _said(part: dict[str, Any]) -> str:
    if part["rate"] is None:
        return "no such pictures"
    return f"{part['rate']:.1%} [{part['low']:.1%}, {part['high']:.1%}], {part['hits']} of {part['pictures']}"


def draw(found: dict[str, Any]) -> Figure:
    """Three panels of POD, and bars of false alarms by confuser."""
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for axis, name in zip(panels, AXES, strict=False):
        _draw_curve(axis, found["pod"][name], found["confidence"])
    panels[0].set_ylabel("probability of detection", fontsize=9)
    panels[2].set_ylabel("probability of detection", fontsize=9)
    _draw_alarms(panels[3], found["by_confuser"], found["alarm_share"])
    rate = found["detected"]
    heading = f"{rate['hits']} of {rate['pictures']} detected, at least {found['found_share']:.0%} of the pixels found"
    figure.suptitle(f"{heading}; {found['confidence']:.0%} intervals", fontsize=10, color=_INK)
    return figure


def _draw_curve(axis: Any, part: dict[str, Any], confidence: float) -> None:
    axis.set_xlabel(part["words"], fontsize=9)
    axis.set_ylim(-0.03, 1.06)
    _plain(axis)
    if not part["bins"]:
        axis.text(0.5, 0.5, "no pictures say it", transform=axis.transAxes, ha="center", fontsize=9, color=_MUTED)
        return
    if part["log"]:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        axis.xaxis.set_minor_locator(NullLocator())
    ends = part["bins"][0]["from"], part["bins"][-1]["to"]
    if part["fit"] is not None:
        _draw_fit(axis, part, ends, confidence)
    for item in part["bins"]:
        axis.plot([item["median"]] * 2, [item["low"], item["high"]], color=_INK, linewidth=1.1)
        axis.plot([item["from"], item["to"]], [item["rate"]] * 2, color=_INK, linewidth=1.1, alpha=0.35)
        axis.plot(item["median"], item["rate"], "o", color=_INK, markersize=4.5)
    note = f"no curve: {part['no_fit']}" if "no_fit" in part else ""
    if part.get("a90") and part["a90_seen"]:
        axis.plot([ends[0], part["a90"], part["a90"]], [_GOAL, _GOAL, -0.03], color=_ALARM, linewidth=1, linestyle="--")
        note = f"{part['targets']} targets; probability 0.9 at {part['a90']:.2%}"
    axis.set_title(note or f"{part['targets']} targets", fontsize=8, color=_MUTED if "no_fit" in part else _INK)


def _draw_fit(axis: Any, part: dict[str, Any], ends: tuple[float, float], confidence: float) -> None:
    fit, z = part["fit"], NormalDist().inv_cdf((1 + confidence) / 2)
    grid = np.geomspace(*ends, 200) if part["log"] else np.linspace(*ends, 200)
    design = np.stack([np.ones_like(grid), np.log(grid) if part["log"] else grid], axis=1)
    logit = design @ [fit["intercept"], fit["slope"]]
    spread = z * np.sqrt(np.einsum("ij,jk,ik->i", design, np.array(fit["covariance"]), design))
    low, middle, high = (
        1 / (1 + np.exp(-np.clip(value, -60, 60))) for value in (logit - spread, logit, logit + spread)
    )
    axis.fill_between(grid, low, high, color=_LINE, alpha=0.15, linewidth=0)
    axis.plot(grid, middle, color=_LINE, linewidth=2)


def _draw_alarms(axis: Any, groups: dict[str, Any], alarm_share: float) -> None:
    shown = {tag: part for tag, part in groups.items() if part["pictures"]}
    _plain(axis)
    axis.set_title(f"false alarms: at least {alarm_share:.1%} of a clean picture", fontsize=8, color=_INK)
    if not shown:
        axis.text(0.5, 0.5, "no clean pictures", transform=axis.transAxes, ha="center", fontsize=9, color=_MUTED)
        axis.set_yticks([])
        return
    for place, part in enumerate(shown.values()):
        axis.barh(place, part["rate"], color=_ALARM, alpha=0.75, height=0.6)
        axis.plot([part["low"], part["high"]], [place, place], color=_INK, linewidth=1.1)
        axis.text(
            part["high"] + 0.015, place, f"{part['hits']}/{part['pictures']}", va="center", fontsize=7, color=_INK
        )
    names = ["no confuser" if tag == "none" else tag for tag in shown]
    axis.set_yticks(range(len(shown)), names, fontsize=8)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlim(0, 1.12)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.set_xlabel("share of pictures", fontsize=9)


def _plain(axis: Any) -> None:
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
