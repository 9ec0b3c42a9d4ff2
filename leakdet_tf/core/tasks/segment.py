"""Segmentation: a class for each pixel.

The decision is made at the model's resolution, as the class with the largest output, and carried to the original
picture by nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from leakdet_tf.core.confusion_matrix import Counts, confusion
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import Geometry, Labels, Pixels, Size, as_channels
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE, Mask
from leakdet_tf.core.tasks.output import output_of
from leakdet_tf.core.tasks.protocol import Changes, Outputs, Things, Truth

TRUTH: Truth = "masks"
LEAST_CLASSES = 2
ACTIVATIONS = ("linear", "sigmoid", "softmax")
FIELDS: tuple[str, ...] = ()
LOSSES = ("cross_entropy", "dice")
LOSS_KIND = "loss"
WEIGHED_BY = COUNTED = "pixels"
TARGET_DTYPE: type = np.uint8
FLOAT_OUTPUT = False
UNITS = ("pixels", "pixels")
CHANGES: Callable[..., Changes] | None = None
CHECK_TRUTH: Callable[[Any, Contract], None] | None = None
IMAGES: Mapping[str, Callable[[Any], npt.NDArray[np.uint8]]] = {"mask": attrgetter("labels")}
THINGS: Things | None = None
OVERLAY_OPACITY = 0.45


def target_shape(size: Size, classes: int) -> tuple[int, ...]:
    """Shape of one picture's :func:`targets` at the model's size (h, w): its pixels."""
    return size


def output_shape(size: Size, classes: int) -> tuple[int, ...]:
    """Shape of a model's output for one picture: (h, w, C)."""
    return (*size, classes)


def amounts(targets: Labels) -> npt.NDArray[np.int64]:
    """Pixels by label, int64 (256,), in targets of any shape."""
    return np.bincount(targets.ravel(), minlength=256)


def targets(truth: Labels, geometry: Geometry) -> Labels:
    """Truth uint8 (H, W) of the original picture → uint8 (h, w) at the model's size; padding becomes IGNORE."""
    return geometry.to_target(truth, fill=IGNORE)


def decide(outputs: npt.NDArray[Any]) -> tuple[Labels, npt.NDArray[np.float32]]:
    """Outputs float (..., C) → uint8 (...) index of the largest (the first among equals) and its float32 value.

    Raises:
        ContractError: an output is NaN, infinite, or too large for float32, in which the decision is made.
    """
    with np.errstate(over="ignore"):
        outputs = np.asarray(outputs, dtype=np.float32)
    if not np.isfinite(outputs).all():
        raise ContractError("the model's output holds NaN or infinity", remedy="do not use this model")
    scores = outputs[..., 0].copy()
    labels = np.zeros(scores.shape, np.uint8)
    for index in range(1, outputs.shape[-1]):
        plane = outputs[..., index].copy()  # side by side in memory, which halves the time of what follows
        np.putmask(labels, plane > scores, np.uint8(index))
        np.maximum(scores, plane, out=scores)
    return labels, scores


def decisions(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[Any]:
    """What is decided for a picture's outputs, one value a decision: uint8 (h, w) class indices."""
    return decide(outputs)[0]


def margins(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.float32]:
    """By how much each of :func:`decisions` was taken: float32 (h, w), the largest output less the second."""
    top = np.sort(np.asarray(outputs, np.float32), axis=-1)
    margin: npt.NDArray[np.float32] = top[..., -1] - top[..., -2]
    return margin


def decode(outputs: Outputs, contract: Contract, geometry: Geometry) -> Mask:
    """A model's output float (h, w, C) for one picture → its mask in the original picture's pixels.

    Raises:
        ContractError: the shape is not the contract's, or a value is not finite.
    """
    size, classes = contract.inputs[contract.primary].size, len(contract.classes)
    array = output_of(outputs, output_shape(size, classes))
    labels, scores = decide(array)
    return Mask(
        labels=geometry.to_source(labels),
        scores=geometry.to_source(scores),
        classes=contract.class_names,
        model=contract.id,
    )


def score(truth: Labels, prediction: Mask, contract: Contract, labelling: Labelling | None = None) -> Counts:
    """Confusion counts int64 (L, C) of one picture, rows truth, at the original picture's size.

    ``labelling`` says what the truth's labels mean; without it they are the contract's classes.
    """
    labels = None if labelling is None else labelling.count
    return confusion(truth, prediction.labels, len(contract.classes), labels=labels)


def draw(image: Pixels, prediction: Mask, contract: Contract) -> npt.NDArray[np.uint8]:
    """Picture (H, W, C) and mask → uint8 (H, W, 3) with painted classes tinted and outlined.

    16-bit pictures are stretched between their darkest and brightest pixel for the eye; the mask is not affected.

    Raises:
        ContractError: picture and mask differ in size.
    """
    if image.shape[:2] != prediction.size:
        raise ContractError(f"a mask of {prediction.size} px cannot be drawn on a picture of {image.shape[:2]} px")
    canvas = viewable(image).astype(np.float32)
    for index, item in enumerate(contract.classes):
        if item.rgb is None:
            continue
        inside = prediction.labels == index
        if not inside.any():
            continue
        color = np.array(item.rgb, np.float32)
        canvas[inside] += OVERLAY_OPACITY * (color - canvas[inside])
        canvas[inside & ~_eroded(inside)] = color
    return np.round(canvas).astype(np.uint8)


def viewable(image: Pixels) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 1 or 3) of any bit depth → uint8 (H, W, 3) for the eye only."""
    if image.dtype == np.uint16:
        low, high = int(image.min()), int(image.max())
        image = ((image.astype(np.float32) - low) * (255.0 / max(1, high - low))).round().astype(np.uint8)
    return as_channels(image[..., :3] if image.shape[2] > 3 else image, 3).astype(np.uint8, copy=False)


def paint(labels: Labels, contract: Contract) -> npt.NDArray[np.uint8]:
    """Labels (H, W) → uint8 (H, W, 3) in the classes' colours: unpainted classes black, sets dark, IGNORE grey."""
    table = np.full((256, 3), 64, np.uint8)
    for index, item in enumerate(contract.classes):
        table[index] = item.rgb or (0, 0, 0)
    table[IGNORE] = (128, 128, 128)
    return table[labels]


def _eroded(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    shrunk = Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(3))
    return np.asarray(shrunk) > 0


def columns(classes: Sequence[str]) -> list[str]:
    """The share of each class, and the mean score."""
    return [*(f"share_{name}" for name in classes), "mean_score"]


def row(prediction: Mask) -> dict[str, Any]:
    """A mask's values by column."""
    shares = {f"share_{name}": f"{share:.6f}" for name, share in prediction.fractions().items()}
    return shares | {"mean_score": f"{float(prediction.scores.mean()):.4f}"}
