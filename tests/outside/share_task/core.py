"""What the truth, the targets and the outputs of ``share`` mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Geometry, Pixels, Size
from leakdet_tf.core.records import Prediction
from leakdet_tf.core.tasks.output import output_of
from leakdet_tf.core.tasks.protocol import Outputs
from leakdet_tf.core.tasks.segment import viewable

TRUTH = "masks"
LEAST_CLASSES = 2
ACTIVATIONS = ("sigmoid",)
FIELDS: tuple[str, ...] = ()
LOSSES: tuple[str, ...] = ()
LOSS_KIND = WEIGHED_BY = ""
COUNTED = "pictures"
TARGET_DTYPE = np.float32
FLOAT_OUTPUT = False
UNITS = ("shares", "shares")
CHANGES = CHECK_TRUTH = THINGS = None
IMAGES: dict[str, Any] = {}
STEPS = 10
"""A decision is one of so many equal parts of 0..1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Share(Prediction):
    """Which share of a picture of ``size`` is gas, 0..1."""

    share: float
    size: Size


def target_shape(size: Size, classes: int) -> tuple[int, ...]:
    return (1,)


def output_shape(size: Size, classes: int) -> tuple[int, ...]:
    return (1,)


def targets(truth: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.float32]:
    return np.array([(truth == 1).mean()], np.float32)


def amounts(targets: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    found = np.zeros(256, np.int64)
    found[:2] = len(targets)
    return found


def decisions(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.int64]:
    return np.minimum(outputs * STEPS, STEPS - 1).astype(np.int64)


def margins(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.float32]:
    return np.abs(outputs * STEPS - np.rint(outputs * STEPS)).astype(np.float32) / STEPS


def decode(outputs: Outputs, contract: Contract, geometry: Geometry) -> Share:
    return Share(share=float(output_of(outputs, (1,))[0]), size=geometry.source, model=contract.id)


def draw(image: Pixels, prediction: Share, contract: Contract) -> npt.NDArray[np.uint8]:
    drawn = viewable(image).copy()
    drawn[-2:, : round(prediction.share * drawn.shape[1])] = (255, 0, 0)
    return drawn


def columns(classes: Sequence[str]) -> list[str]:
    return ["share"]


def row(prediction: Share) -> dict[str, Any]:
    return {"share": f"{prediction.share:.4f}"}
