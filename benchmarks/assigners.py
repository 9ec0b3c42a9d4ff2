"""Which true boxes does a YOLOv8 learn at all, and what does it cost to find out? KerasCV's assigner against ours.

    python benchmarks/assigners.py [--size 256] [--batch 16] [--boxes 4] [--rounds 5]

The score that a box's best anchor is to have is the box's best IoU (KerasCV's: complete IoU) times what an epsilon in
the division leaves of it, which is what differs. Boxes are squares of some sides at random places, one a picture; the
anchors' own boxes are those of a network that knows nothing (15 cells wide), and of one that has begun to learn (2
cells), with a probability of .02 each. Prints the highest score that any anchor is to have, as a share of the best IoU,
the median over boxes, by side; then the processor time of a batch's assignment by the rows of its targets, most of
which hold no box, ours as a share of KerasCV's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_cv
import numpy as np
import tensorflow as tf
from by_turns import seconds

from leakdet_tf.core.boxes import overlaps
from leakdet_tf.core.tasks.detect import STRIDES, VOID, grid
from leakdet_tf.training.box_assign import assign

SIDES = (3, 5, 8, 12, 24, 48)
CELLS = {"a fresh network": 15.0, "one that has begun to learn": 2.0}
ROWS = (16, 100, 300)
LOGIT = -4.0
"""Of every anchor's class."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("size", 256), ("batch", 16), ("boxes", 4), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    middles, strides = grid((given.size, given.size))
    ways = {"KerasCV's": theirs(middles), "ours": ours(middles)}
    for words, cells in CELLS.items():
        half = cells / 2 * strides[:, None]
        boxes = np.concatenate([middles - half, middles + half], axis=1)
        for side in SIDES:
            targets = truth(given, side, 1)
            shares = ", ".join(f"{name} {left(way, targets, boxes):.3f}" for name, way in ways.items())
            print(f"boxes of {side} px, {words}: {shares}", flush=True)
    for rows in ROWS:
        targets = truth(given, 24, rows)
        for way in ways.values():
            way(targets, boxes)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(given.rounds):
            for name in ways if number % 2 == 0 else reversed(ways):
                times[name].append(seconds(partial(ways[name], targets, boxes))[1])
        peer, own = (statistics.median(found) for found in times.values())
        print(f"{rows} rows: KerasCV's {peer:.3f} s of the processor a batch, ours {own:.3f}: {own / peer:.2f} of it")
    return 0


def left(way: Callable[[Any, Any], Any], targets: Any, boxes: Any) -> float:
    """The highest score of a picture's anchors over the best IoU of its one box, the median over pictures."""
    scores, found = way(targets, boxes), []
    for picture, wanted in zip(targets, scores, strict=True):
        true = picture[:, :4]
        middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        slack = np.maximum(STRIDES[0] - (true[:, 2:] - true[:, :2]), 0) / 2  # of boxes that hold no middle at all
        held = ((middles >= true[:, :2] - slack) & (middles <= true[:, 2:] + slack)).all(axis=-1)  # (A, 1)
        found.append(wanted.max() / overlaps(boxes, true)[held].max())
    return float(np.median(found))


def theirs(middles: Any) -> Callable[[Any, Any], Any]:
    """From targets (B, M, 6) and boxes (A, 4) to scores (B, A), by KerasCV."""
    encoder = keras_cv.models.yolov8.LabelEncoder(num_classes=1)

    def one(targets: Any, boxes: Any, scores: Any) -> Any:
        there = targets[..., 4:5] >= 0
        edges = tf.where(there, targets[..., :4], -1.0)
        return encoder(scores, boxes, tf.constant(middles), targets[..., 4], edges, there)[1][..., 0]

    traced = tf.function(one)

    def way(targets: Any, boxes: Any) -> Any:
        batch = len(targets)
        scores = np.full((batch, len(boxes), 1), 1 / (1 + np.exp(-LOGIT)), np.float32)
        return traced(tf.constant(targets), tf.constant(np.repeat(boxes[None], batch, axis=0)), scores).numpy()

    return way


def ours(middles: Any) -> Callable[[Any, Any], Any]:
    """The same, by our assigner."""

    def one(targets: Any, boxes: Any, logits: Any) -> Any:
        return assign(targets, boxes, logits, middles).score

    traced = tf.function(one)

    def way(targets: Any, boxes: Any) -> Any:
        batch = len(targets)
        logits = np.full((batch, len(boxes), 1), LOGIT, np.float32)
        return traced(tf.constant(targets), tf.constant(np.repeat(boxes[None], batch, axis=0)), logits).numpy()

    return way


def truth(given: argparse.Namespace, side: int, rows: int) -> Any:
    """float32 (B, ``rows``, 6): squares in the first ``--boxes`` rows of each picture, none in the others."""
    random = np.random.default_rng(side)
    targets = np.zeros((given.batch, rows, 6), np.float32)
    targets[..., :2] = random.uniform(0, given.size - side, (given.batch, rows, 2))
    targets[..., 2:4] = targets[..., :2] + side
    targets[:, given.boxes :, 4] = VOID
    return targets


if __name__ == "__main__":
    sys.exit(main())
