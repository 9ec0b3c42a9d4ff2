"""The report on a detector as plain data and as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from leakdet_tf.analysis.detect.answers import LOW
from leakdet_tf.analysis.detect.coco import AREAS, IOUS, MOST
from leakdet_tf.analysis.detect.metrics import ABSENT, AT_THRESHOLD, OVERALL, PER_CLASS, Measured, quick_map, ratios_at
from leakdet_tf.analysis.stats.intervals import bounded, cell, method, number_or_none
from leakdet_tf.analysis.tables import text_table
from leakdet_tf.config.schema import Evaluate

_OF_PICTURES = ("faultless", "false_alarms", "empty_false_alarms", "empty_alarmed")


def report(measured: Measured, settings: Evaluate, about: dict[str, Any]) -> dict[str, Any]:
    """The report as plain data for JSON. Undefined figures are null.

    Args:
        measured: from :func:`~.detect.metrics.measure`.
        settings: the experiment's ``[evaluate]``.
        about: what was measured on what: kind of model, contract, folder, split, pictures' digest.
    """
    answers, names = measured.answers, measured.answers.classes
    present = measured.counts[..., 2].sum(0)
    whole = {
        "format": 1,
        **about,
        "task": "detect",
        "pictures": len(answers.ids),
        "empty_pictures": int(measured.tally[:, 3].sum()),
        "groups": len(set(answers.groups)),
        "classes": list(names),
        "truth": {name: int(number) for name, number in zip(names, present, strict=True)},
        "truth_by_size": {size: int(measured.matches.truths[place].sum()) for place, size in enumerate(AREAS) if place},
        "ignored": int(sum((truth[:, 5] > 0).sum() for truth in answers.truths)),
        "metrics": {key: bounded(measured, key) for key in OVERALL}
        | {key: {name: bounded(measured, key, i) for i, name in enumerate(names)} for key in PER_CLASS},
        "at_threshold": {
            "threshold": float(measured.threshold),
            "iou": float(IOUS[0]),
            "counts": {
                name: dict(
                    zip(("hits", "false_alarms", "misses"), (int(hits), int(wrong), int(all_ - hits)), strict=True)
                )
                for name, (hits, wrong, all_) in zip(names, measured.counts.sum(0), strict=True)
            },
            **{f"mean_{key}": bounded(measured, f"mean_{key}") for key in AT_THRESHOLD},
            **{key: {name: bounded(measured, key, i) for i, name in enumerate(names)} for key in AT_THRESHOLD},
            **{key: bounded(measured, key) for key in _OF_PICTURES},
        },
        "rules": {
            "iou": [float(round(iou, 2)) for iou in IOUS],
            "most_of_a_class": MOST,
            "scores_from": LOW,
            "sizes_px2": {name: list(AREAS[name]) for name in AREAS if name != "all"},
        },
        "intervals": method(settings, groups=answers.repeats),
        "absent_classes": ABSENT,
        "worst": [_told(measured, i) for i in measured.worst(settings.worst)],
    }
    if len(set(answers.sources)) > 1:
        whole["sources"] = _by_source(measured)
    return whole


def _told(measured: Measured, position: int) -> dict[str, Any]:
    hits, alarms, present = (int(number) for number in measured.counts[position].sum(0))
    return {"id": measured.answers.ids[position], "boxes": present, "misses": present - hits, "false_alarms": alarms}


def _by_source(measured: Measured) -> dict[str, Any]:
    answers, found = measured.answers, {}
    for source in sorted(set(answers.sources)):
        chosen = np.flatnonzero([name == source for name in answers.sources])
        at = ratios_at(measured.counts[chosen].sum(0), measured.tally[chosen].sum(0))
        found[source] = {
            "pictures": len(chosen),
            **{key: number_or_none(value) for key, value in quick_map(answers.take(chosen)).items()},
            **{key: number_or_none(at[key]) for key in ("mean_f1", "false_alarms")},
        }
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The report as a few lines of text: each class, the means, sizes, and what a user of the threshold sees."""
    metrics, at = found["metrics"], found["at_threshold"]
    rows = [
        [
            name,
            str(found["truth"][name]),
            *(cell(metrics[key][name]) for key in ("ap", "ap50")),
            *(cell(at[key][name]) for key in AT_THRESHOLD),
        ]
        for name in found["classes"]
    ]
    means = [cell(metrics[key]) for key in ("map", "map50")] + [cell(at[f"mean_{key}"]) for key in AT_THRESHOLD]
    rows.append(["mean", str(sum(found["truth"].values())), *means])
    text = text_table(["", "boxes", "AP .5:.95", "AP .5", "precision", "recall", "F1"], rows)
    text.append(
        f"precision, recall and F1: boxes of a score from {at['threshold']:.3f} that overlap by {at['iou']:.1f}; "
        f"AP .75 {cell(metrics['map75'])}, recall .5:.95 {cell(metrics['ar'])}"
    )
    sizes = found["truth_by_size"]
    text.append(
        "AP by size: " + ", ".join(f"{size} ({sizes[size]} boxes) {cell(metrics[f'map_{size}'])}" for size in sizes)
    )
    of = "" if found["groups"] == found["pictures"] else f" in {found['groups']} groups"
    text.append(
        f"false alarms per picture: {cell(at['false_alarms'])}; without any error: {cell(at['faultless'])} of "
        f"{found['pictures']} pictures{of}"
    )
    if found["empty_pictures"]:
        text.append(
            f"{found['empty_pictures']} pictures without a box: {cell(at['empty_false_alarms'])} false alarms each, "
            f"with any: {cell(at['empty_alarmed'])}"
        )
    for name, part in found.get("sources", {}).items():
        each = [("mAP .5", part["map50"]), ("F1", part["mean_f1"]), ("false alarms", part["false_alarms"])]
        said = ", ".join(f"{label} {'absent' if value is None else f'{value:.4f}'}" for label, value in each)
        text.append(f"{name}: {part['pictures']} pictures, {said}")
    return text
