"""How fast does a YOLOv8 learn? Pictures/s and memory of our training against KerasCV's own, interleaved.

    python benchmarks/yolov8.py [--size 256] [--batch 16] [--rows 16] [--boxes 4] [--rounds 5] [--model n]

Three sides take the same pictures and boxes with the same optimizer: our plain layers and our loss, KerasCV's layers
and our loss, and KerasCV's detector as its documentation compiles it. ``--rows`` is how many rows the targets have,
``--boxes`` how many of them hold a box. Prints each side's rate, the ratios to KerasCV of each round, by the clock and
by processor time (which a busy machine disturbs less), and their medians; then the largest memory that a process of
each side alone came to. KerasCV's loss is another: it knows neither edge distributions nor ignored regions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from by_turns import peak_mb, seconds

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks.detect import VOID
from leakdet_tf.models.yolov8 import SIZES, yolov8
from leakdet_tf.training.loop import compiled

SIDES = ("native", "kerascv", "theirs")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("size", 256), ("batch", 16), ("rows", 16), ("boxes", 4), ("rounds", 5), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", choices=sorted(SIZES), default="n")
    parser.add_argument("--alone", choices=SIDES, help="train one side and print the process's memory")
    given = parser.parse_args()
    if given.alone:
        side(given.alone, given)()
        print(peak_mb())
        return 0
    work = {name: side(name, given) for name in SIDES}
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES[:2]}
    pictures = given.batch * given.steps
    for number in range(given.rounds):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        times = {name: seconds(work[name]) for name in order}
        for name, found in ratios.items():
            found.append((times["theirs"][0] / times[name][0], times["theirs"][1] / times[name][1]))
        rates = ", ".join(f"{name} {pictures / times[name][0]:.1f}" for name in SIDES)
        both = "; ".join(f"{name} {found[-1][0]:.2f} ({found[-1][1]:.2f})" for name, found in ratios.items())
        print(f"round {number + 1}: pictures/s {rates}; ratio to KerasCV (by processor time) {both}")
    for name, found in ratios.items():
        wall, processor = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name}: median ratio {wall:.2f}, by processor time {processor:.2f}")
    for name in SIDES:
        call = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
        print(f"{name}: {subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()} MB at most")
    return 0


def side(name: str, given: argparse.Namespace) -> Callable[[], None]:
    """Some steps of one side, traced already."""
    images, targets = data(given)
    shape = (given.size, given.size, 3)
    if name == "theirs":
        trained = theirs(shape, given.model)
        boxes = {"boxes": targets[..., :4], "classes": targets[..., 4]}
        boxes["boxes"][targets[..., 4] < 0] = -1
        stream = (images.astype(np.float32), boxes)
    else:
        model = yolov8(shape, 1, given.model, implementation=name, seed=0)
        contract = Contract("detect", {"image": ImageSpec(*shape)}, classes_of(["hot"]), "linear")
        trained, _ = compiled(model, contract, Train(learning_rate=1e-3))
        stream = (images, targets)

    def work() -> None:
        trained.fit(*stream, batch_size=given.batch, epochs=1, shuffle=False, verbose=0)

    work()
    return work


def theirs(shape: tuple[int, int, int], size: str) -> Any:
    """KerasCV's detector as its documentation compiles it."""
    import keras_cv

    channels, depths = SIZES[size]
    backbone = keras_cv.models.YOLOV8Backbone(
        stackwise_channels=list(channels), stackwise_depth=list(depths), include_rescaling=True, input_shape=shape
    )
    detector = keras_cv.models.YOLOV8Detector(
        backbone=backbone, num_classes=1, bounding_box_format="xyxy", fpn_depth=depths[0]
    )
    detector.compile(optimizer=keras.optimizers.Adam(1e-3), classification_loss="binary_crossentropy", box_loss="ciou")
    return detector


def data(given: argparse.Namespace) -> tuple[Any, Any]:
    """Noise uint8 (N, S, S, 3) and targets float32 (N, M, 6)."""
    random = np.random.default_rng(0)
    count = given.batch * given.steps
    images = random.integers(0, 256, (count, given.size, given.size, 3), dtype=np.uint8)
    targets = np.zeros((count, given.rows, 6), np.float32)
    targets[..., :2] = random.uniform(0, given.size * 0.7, (count, given.rows, 2))
    targets[..., 2:4] = targets[..., :2] + random.uniform(8, given.size * 0.3, (count, given.rows, 2))
    targets[:, given.boxes :, 4] = VOID
    return images, targets


if __name__ == "__main__":
    sys.exit(main())
