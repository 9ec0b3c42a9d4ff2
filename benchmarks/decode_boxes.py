"""Time from a detector's raw outputs to boxes, beside what a device spends on the model itself.

    python benchmarks/decode_boxes.py [--rounds 40] [--things 12] [--classes 2]

Outputs are made up: some things on a picture, each told by the anchors around it, over noise that is all below the
threshold of a device and partly above that of a measurement. The limit is a tenth of the fastest `invoke` of a YOLOv8n
at 416 px that LiteRT was seen to do on two desktop cores (11 to 17 ms). The peer of suppression keeps one box after the
other, with NumPy calls for each. All run interleaved; the least time of each is told, which a busy machine spoils
least.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.detect.answers import LOW
from leakdet_tf.core.boxes import overlaps, suppress
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import Geometry, ImageSpec
from leakdet_tf.core.tasks import detect

INVOKE_MS = 11.0
LIMIT = 0.1


def main() -> int:
    """Measure and print; the exit status says whether a device's decoding at 416 px holds the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("rounds", 40), ("things", 12), ("classes", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    share = np.inf
    for side in (416, 640):
        raw = made_up(side, given.things, given.classes)
        spec = {"image": ImageSpec(side, side)}
        contract = Contract(
            "detect", spec, classes_of([f"class_{i}" for i in range(given.classes)]), activation="linear"
        )
        geometry = Geometry((480, 640), (side, side), (side * 3 // 4, side), (side // 8, 0))
        for threshold in (contract.threshold, LOW):
            asked = replace(contract, threshold=threshold)
            boxes, scores, labels = detect.candidates(raw, asked)
            ours, peer = (
                partial(way, boxes, scores, labels, iou=asked.nms_iou, most=asked.max_boxes)
                for way in (suppress, plain)
            )
            if [*ours()] != [*peer()]:
                print("suppression and its peer keep different boxes")
                return 1
            whole, own, other = least_ms(given.rounds, partial(detect.decode, raw, asked, geometry), ours, peer)
            print(
                f"{side} px, {len(raw)} anchors, threshold {threshold}: {len(boxes)} candidates, "
                f"decode {whole:.2f} ms; suppression {own:.2f} ms, peer {other:.2f} ms, ratio {own / other:.2f}"
            )
            if (side, threshold) == (416, contract.threshold):
                share = whole / INVOKE_MS
    print(f"decode at 416 px is {share:.1%} of an invoke of {INVOKE_MS:.0f} ms, limit {LIMIT:.0%}")
    return 0 if share <= LIMIT else 1


def made_up(side: int, things: int, classes: int) -> npt.NDArray[np.float32]:
    """Raw outputs float32 (A, 64 + classes) of things that the anchors in their middles tell."""
    random = np.random.default_rng(0)
    middles, strides = detect.grid((side, side))
    raw = random.normal(0, 1, (len(middles), 4 * detect.BINS + classes)).astype(np.float32)
    raw[:, 4 * detect.BINS :] = random.normal(-7.5, 1.5, (len(middles), classes)).clip(max=-1.5)
    for _ in range(things):
        middle, half = random.uniform(0.15 * side, 0.85 * side, 2), random.uniform(10, 60, 2)
        inside = np.flatnonzero((np.abs(middles - middle) < np.maximum(half / 2, 8)).all(1))
        edges = np.concatenate([middles[inside] - middle + half, middle + half - middles[inside]], axis=1)
        cells = (edges / strides[inside, None]).clip(0, detect.BINS - 1).round().astype(int)
        for edge in range(4):
            raw[inside, edge * detect.BINS + cells[:, edge]] = 8
        raw[inside, 4 * detect.BINS + int(random.integers(classes))] = random.normal(1, 1, len(inside))
    return raw


def plain(boxes: Any, scores: Any, labels: Any, *, iou: float, most: int) -> list[int]:
    """Greedy suppression, one kept box at a time."""
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < most:
        first, left = left[0], left[1:]
        kept.append(int(first))
        left = left[(overlaps(boxes[first : first + 1], boxes[left])[0] <= iou) | (labels[left] != labels[first])]
    return kept


def least_ms(rounds: int, *works: Callable[[], Any]) -> list[float]:
    """The least time of each in milliseconds, interleaved, after one call of each that is not counted."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, seen in zip(works, times, strict=True):
            start = perf_counter()
            work()
            if number:
                seen.append(1e3 * (perf_counter() - start))
    return [min(seen) for seen in times]


if __name__ == "__main__":
    sys.exit(main())
