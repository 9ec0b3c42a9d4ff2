"""Classification: what is on a picture as a whole.

With softmax a picture shows one class, the one of the largest output. With sigmoid each class is there or not by
itself, at one half. Scores are those of the logits divided by the contract's temperature (Guo et al. 2017, arXiv
1706.04599); an answer whose largest score is below the contract's ``abstain`` is "unsure".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ContractError, DataError
from leakdet_tf.core.images import Geometry, Pixels, Size
from leakdet_tf.core.records import IGNORE, Classification
from leakdet_tf.core.tasks.output import output_of
from leakdet_tf.core.tasks.protocol import Changes, Outputs, Things, Truth
from leakdet_tf.core.tasks.segment import viewable

TRUTH: Truth = "labels"
LEAST_CLASSES = 2
ACTIVATIONS = ("softmax", "sigmoid")
FIELDS = ("temperature", "abstain")
LOSSES = ("cross_entropy",)
LOSS_KIND = "label_loss"
WEIGHED_BY = COUNTED = "pictures"
TARGET_DTYPE: type = np.uint8
FLOAT_OUTPUT = False
UNITS = ("decisions", "decisions")
CHANGES: Callable[..., Changes] | None = None
IMAGES: Mapping[str, Callable[[Any], npt.NDArray[np.uint8]]] = {}
THINGS: Things | None = None
PRESENT = 0.5
"""The score from which a sigmoid model says that a class is there."""
UNSURE = -1
"""The decision of an answer that is unsure."""
TINY = 1e-30
"""float32 probabilities round to 0 below: logarithms are kept finite."""
BESIDE_ONE = 2.0**-25
"""The least distance from 1 that float32 may have rounded to 0."""
_ROUNDING = 1e-3  # of single probabilities
_GREY = (90, 90, 90)


def target_shape(size: Size, classes: int) -> tuple[int, ...]:
    """Shape of one picture's :func:`targets`: a value a class."""
    return (classes,)


def output_shape(size: Size, classes: int) -> tuple[int, ...]:
    """Shape of a model's output for one picture: (C,)."""
    return (classes,)


def amounts(targets: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Pictures by class, int64 (256,), in targets uint8 (N, C) or (C,); rows of IGNORE are counted there."""
    rows = np.atleast_2d(targets)
    ignored = rows[:, 0] == IGNORE
    found = np.zeros(256, np.int64)
    found[: rows.shape[1]] = rows[~ignored].sum(0, dtype=np.int64)
    found[IGNORE] = ignored.sum()
    return found


def targets(truth: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Truth uint8 (C,), 1 for each class that is there → the same: a picture's size does not change it."""
    return truth


def tempered(scores: npt.ArrayLike, temperature: float, activation: str) -> npt.NDArray[np.float64]:
    """Probabilities (..., C) → those of the logits divided by the temperature, float64 (..., C).

    softmax(logits / T) = softmax(log p / T), as the logits are log p but for what all classes share; sigmoid(logit / T)
    with logit = log p - log(1 - p). What float32 has rounded to 0 or to 1 counts as the nearest value that it may have
    been.
    """
    given = np.clip(np.asarray(scores, np.float64), 0.0, 1.0)
    if temperature == 1:
        return given
    if activation == "softmax":
        powers = np.log(np.maximum(given, TINY)) / temperature
        powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits_of(given) / temperature)))


def logits_of(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A sigmoid's probabilities → its logits, finite also where float32 has rounded to 0 or 1."""
    return np.asarray(np.log(np.maximum(scores, TINY)) - np.log(np.maximum(1.0 - scores, BESIDE_ONE)))


def decided(scores: npt.NDArray[np.float32], activation: str) -> npt.NDArray[np.bool_]:
    """Scores (..., C) → bool (..., C): the class of the largest score (of equals the first), or all from one half."""
    if activation == "sigmoid":
        return np.asarray(scores >= PRESENT)
    return np.asarray(np.arange(scores.shape[-1]) == scores.argmax(axis=-1)[..., None])


def certainty(scores: npt.NDArray[np.float32], activation: str) -> npt.NDArray[np.float32]:
    """Scores (..., C) → (...): the largest score; for sigmoid that of the least certain class, the least max(p, 1 - p).

    An answer whose certainty is below a contract's ``abstain`` is "unsure".
    """
    both = np.maximum(scores, 1 - scores)
    return np.asarray(both.min(axis=-1) if activation == "sigmoid" else scores.max(axis=-1))


def calibrated(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.float32]:
    """A model's probabilities (..., C) → :func:`tempered` by the contract, float32 (..., C).

    Raises:
        ContractError: an output is NaN, infinite or no probability.
    """
    scores = np.asarray(outputs, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ContractError("the model's output holds NaN or infinity", remedy="do not use this model")
    if not ((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)).all():
        raise ContractError("the model's output is not made of probabilities", remedy="do not use this model")
    return tempered(scores, contract.temperature, contract.activation).astype(np.float32)


def chosen(scores: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[np.bool_]:
    """Calibrated scores (..., C) → bool (..., C), the classes decided for; none where the answer is unsure."""
    return decided(scores, contract.activation) & ~unsure(scores, contract)[..., None]


def unsure(scores: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[np.bool_]:
    """Calibrated scores (..., C) → bool (...): whether the contract asks for more certainty."""
    return np.asarray(certainty(scores, contract.activation) < contract.abstain)


def decisions(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[Any]:
    """What is decided for a picture's outputs (C,), one value a decision: the class or UNSURE, int64 (1,); for sigmoid
    whether each class is there, int64 (C,)."""
    scores = calibrated(outputs, contract)
    there = chosen(scores, contract)
    if unsure(scores, contract):
        return np.full(there.size if contract.activation == "sigmoid" else 1, UNSURE)
    return there.astype(np.int64) if contract.activation == "sigmoid" else np.array([int(scores.argmax())])


def margins(outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.float32]:
    """By how much each of :func:`decisions` was taken, float32 of its shape: the lead over the second class (for
    sigmoid the distance from one half), or the distance from ``abstain`` where that is nearer."""
    scores = calibrated(outputs, contract)
    if contract.activation == "sigmoid":
        margin = np.abs(scores - PRESENT)
    else:
        top = np.sort(scores)
        margin = top[-1:] - top[-2:-1]
    if contract.abstain:
        margin = np.minimum(margin, abs(certainty(scores, contract.activation) - contract.abstain))
    return np.asarray(margin, np.float32)


def decode(outputs: Outputs, contract: Contract, geometry: Geometry) -> Classification:
    """A model's output float (C,) for one picture → what is on it.

    Raises:
        ContractError: the shape is not the contract's, or a value is no probability.
    """
    size, classes = contract.inputs[contract.primary].size, len(contract.classes)
    array = output_of(outputs, output_shape(size, classes))
    scores = calibrated(array, contract)
    there = chosen(scores, contract)
    return Classification(
        scores=scores,
        classes=contract.class_names,
        size=geometry.source,
        labels=tuple(name for name, inside in zip(contract.class_names, there, strict=True) if inside),
        unsure=bool(unsure(scores, contract)),
        model=contract.id,
    )


def draw(image: Pixels, prediction: Classification, contract: Contract) -> npt.NDArray[np.uint8]:
    """Picture (H, W, C) and answer → uint8 (H, W, 3) with a line of text in a bar of the first label's colour below it.

    The bar covers the picture's lower edge; its height is a tenth of the picture's, at least 12 pixels.

    Raises:
        ContractError: the answer is for a picture of another size.
    """
    if image.shape[:2] != prediction.size:
        raise ContractError(f"an answer for {prediction.size} px cannot be drawn on a picture of {image.shape[:2]} px")
    canvas = Image.fromarray(viewable(image))
    colors = {item.name: item.rgb or _GREY for item in contract.classes}
    color = colors[prediction.labels[0]] if prediction.labels else _GREY
    height = max(12, canvas.height // 10)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, canvas.height - height, canvas.width, canvas.height), fill=color)
    light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
    text = f"{prediction.answer} {prediction.scores.max():.2f}"
    font = ImageFont.load_default(size=0.7 * height)
    middle = canvas.height - height / 2
    pen.text((0.3 * height, middle), text, fill="black" if light else "white", font=font, anchor="lm")
    return np.asarray(canvas)


def columns(classes: Sequence[str]) -> list[str]:
    """What is said, and the score of each class."""
    return ["answer", *(f"score_{name}" for name in classes)]


def row(prediction: Classification) -> dict[str, Any]:
    """A classification's values by column."""
    scores = zip(prediction.classes, prediction.scores, strict=True)
    return {"answer": prediction.answer} | {f"score_{name}": f"{score:.4f}" for name, score in scores}


def _check_truth(truth: npt.NDArray[np.uint8], contract: Contract) -> None:
    """A softmax model learns one label a picture.

    Raises:
        DataError: there are none, or several.
    """
    if contract.activation == "softmax" and truth.sum() != 1:
        raise DataError(
            f"has {truth.sum()} labels, a softmax model learns one a picture",
            remedy='set model.activation = "sigmoid", or fix the labels',
        )


CHECK_TRUTH: Callable[[Any, Contract], None] | None = _check_truth
