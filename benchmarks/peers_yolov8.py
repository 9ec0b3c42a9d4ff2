"""What ``peers.py`` compares of YOLOv8n (one class): the peer is KerasCV's detector as its documentation compiles it,
fitted by Keras on arrays in memory. Its loss is another: it knows neither edge distributions nor ignored regions.

Our network is the native one; the side ``kerascv`` has KerasCV's layers and everything else as ``usual``. ``--rows`` is
how many rows the targets have, ``--boxes`` how many of them hold a box.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from leakdet_tf.core.tasks.detect import VOID

SIZE = 256
OURS = ("kerascv",)
"""Sides of ours that other models have not."""


def network(name: str, given: argparse.Namespace) -> Any:
    """Our network."""
    from leakdet_tf.models.detector import yolov8

    implementation = "kerascv" if name == "kerascv" else "native"
    return yolov8((given.size, given.size, 3), 1, "n", implementation=implementation, seed=0)


def prepare(name: str, given: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Our network, its contract, and the pictures as our pipeline takes them."""
    from leakdet_tf.core.contract import Contract, classes_of
    from leakdet_tf.core.images import ImageSpec
    from leakdet_tf.data.cache import Cache

    images, targets = data(given)
    contract = Contract("detect", {"image": ImageSpec(given.size, given.size)}, classes_of(["hot"]), "linear")
    cache = Cache(tuple(map(str, range(len(images)))), {"image": images}, targets, ((),) * len(images))
    return network(name, given), contract, cache


def theirs(name: str, given: argparse.Namespace) -> Callable[[int], list[float]]:
    """KerasCV's detector as its documentation compiles it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import keras_cv

    from leakdet_tf.models.detector import SIZES

    images, targets = data(given)
    channels, depths = SIZES["n"]
    backbone = keras_cv.models.YOLOV8Backbone(
        stackwise_channels=list(channels),
        stackwise_depth=list(depths),
        include_rescaling=True,
        input_shape=images.shape[1:],
    )
    detector = keras_cv.models.YOLOV8Detector(
        backbone=backbone, num_classes=1, bounding_box_format="xyxy", fpn_depth=depths[0]
    )
    detector.compile(optimizer=keras.optimizers.Adam(1e-3), classification_loss="binary_crossentropy", box_loss="ciou")
    inputs, there = images.astype(np.float32), targets[..., 4:5] != VOID
    boxes, classes = np.where(there, targets[..., :4], -1), targets[..., 4]

    def work(steps: int) -> list[float]:
        count = steps * given.batch
        truth = {"boxes": boxes[:count], "classes": classes[:count]}
        detector.fit(inputs[:count], truth, batch_size=given.batch, epochs=1, shuffle=False, verbose=0)
        return []

    return work


OTHERS = {"theirs": theirs}
"""Sides that are not ours: from name and arguments to what takes so many steps."""


def data(given: argparse.Namespace) -> tuple[Any, Any]:
    """Noise uint8 (N, S, S, 3) and targets float32 (N, M, 6)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (given.count, given.size, given.size, 3), dtype=np.uint8)
    targets = np.zeros((given.count, given.rows, 6), np.float32)
    targets[..., :2] = random.uniform(0, given.size * 0.7, (given.count, given.rows, 2))
    targets[..., 2:4] = targets[..., :2] + random.uniform(8, given.size * 0.3, (given.count, given.rows, 2))
    targets[:, given.boxes :, 4] = VOID
    return images, targets
