"""The records that flow from file to answer. Each checks itself, so that a wrong array fails where it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import Labels, Pixels, Size

IGNORE = 255
"""The label of pixels that count neither in loss nor in score."""

UNSURE = "unsure"
"""The answer of a classifier that is not certain enough."""


BOX_COLUMNS = ("x1", "y1", "x2", "y2", "label", "ignored")
"""The columns of a picture's true boxes, float32 (N, 6).

Edges are in pixels, x to the right and y down, from the picture's upper left corner: the whole of its first pixel is
0, 0, 1, 1. ``label`` is the class's index; ``ignored`` is 1 for a region that counts neither in loss nor in score.
"""


@dataclass(frozen=True)
class Origin:
    """Where a picture comes from: its file, and for rendered ones the generator, seed and what was drawn."""

    file: str
    kind: Literal["real", "rendered"] = "real"
    generator: str | None = None
    seed: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture, or one set of pictures taken together, with its truth.

    ``images`` maps input names to uint8 or uint16 (H, W, C); ``truth`` is what the task defines: for segmentation
    uint8 (H, W) labels (see :class:`~leakdet_tf.core.labels.Labelling`) with :data:`IGNORE`, for classification uint8
    (C,) with 1 for each class that is there, for detection float32 (N, 6) of :data:`BOX_COLUMNS`; None when unknown.
    """

    id: str
    images: dict[str, Pixels]
    truth: npt.NDArray[Any] | None
    origin: Origin

    def __post_init__(self) -> None:
        if not self.images:
            raise ContractError(f"{self.id}: a sample needs at least one picture")
        for name, image in self.images.items():
            if image.ndim != 3 or 0 in image.shape or image.dtype not in (np.uint8, np.uint16):
                raise ContractError(
                    f"{self.id}: '{name}' must be uint8 or uint16 (H, W, C), is {image.dtype} {image.shape}"
                )


class Batch(NamedTuple):
    """What Keras takes: inputs by name (B, H, W, C), targets, and one weight a picture, float32 (B,)."""

    inputs: dict[str, Any]
    targets: Any
    weights: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What every answer carries: the contract's id, and where the time went (milliseconds)."""

    model: str = ""
    total_ms: float = 0.0
    invoke_ms: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask(Prediction):
    """A class for each pixel of the original picture.

    ``labels``: uint8 (H, W) class indices. ``scores``: float32 (H, W), the model's output for that class there.
    """

    labels: Labels
    scores: npt.NDArray[np.float32]
    classes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.size == 0 or self.labels.dtype != np.uint8:
            raise ContractError(f"labels must be uint8 (H, W), are {self.labels.dtype} {self.labels.shape}")
        if self.scores.shape != self.labels.shape:
            raise ContractError(f"scores {self.scores.shape} and labels {self.labels.shape} differ in shape")
        if self.scores.dtype != np.float32:
            raise ContractError(f"scores must be float32, are {self.scores.dtype}")
        if self.classes and int(self.labels.max()) >= len(self.classes):
            raise ContractError(f"label {self.labels.max()} has no name among {len(self.classes)} classes")

    @property
    def size(self) -> Size:
        """(height, width) of the original picture."""
        return self.labels.shape[0], self.labels.shape[1]

    def fractions(self) -> dict[str, float]:
        """The share of the picture that each class covers; they sum to 1.

        Raises:
            ContractError: the mask was made without class names.
        """
        if not self.classes:
            raise ContractError("this mask carries no class names")
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {name: float(count) / self.labels.size for name, count in zip(self.classes, counts, strict=True)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification(Prediction):
    """What is on a picture as a whole.

    ``scores``: float32 (C,), each class's probability, calibrated where the contract is. ``labels``: the names of the
    classes that were decided for: one of a softmax model, any number of a sigmoid one. ``unsure``: the largest score
    is below what the contract asks for, and there are no labels. ``size``: (height, width) of the original picture.
    """

    scores: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    size: Size
    labels: tuple[str, ...] = ()
    unsure: bool = False

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.classes),) or self.scores.dtype != np.float32:
            raise ContractError(
                f"scores must be float32 ({len(self.classes)},), are {self.scores.dtype} {self.scores.shape}"
            )
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ContractError("scores are probabilities, from 0 to 1")
        if odd := [name for name in self.labels if name not in self.classes]:
            raise ContractError(f"'{odd[0]}' is not among the classes")
        if self.unsure and self.labels:
            raise ContractError("an answer that is unsure has no labels")

    @property
    def answer(self) -> str:
        """The labels as one text: ``oil_leak``, ``crack+rust``, ``unsure``, or ``none`` of a sigmoid model."""
        return UNSURE if self.unsure else "+".join(self.labels) or "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes(Prediction):
    """What was found on a picture, the most certain first.

    ``boxes``: float32 (N, 4) of x1, y1, x2, y2 in the original picture's pixels, as :data:`BOX_COLUMNS`. ``scores``:
    float32 (N,), 0..1. ``labels``: int64 (N,) class indices. ``size``: (height, width) of the original picture.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    size: Size

    def __post_init__(self) -> None:
        number = len(self.boxes)
        for name, wanted, dtype in (("boxes", (number, 4), "float32"), ("scores", (number,), "float32")):
            array = getattr(self, name)
            if array.shape != wanted or array.dtype != dtype:
                raise ContractError(f"{name} must be {dtype} {wanted}, are {array.dtype} {array.shape}")
        if self.labels.shape != (number,) or self.labels.dtype != np.int64:
            raise ContractError(f"labels must be int64 ({number},), are {self.labels.dtype} {self.labels.shape}")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ContractError("scores are probabilities, from 0 to 1")
        if not np.isfinite(self.boxes).all():
            raise ContractError("a box's edge is NaN or infinite")
        if number and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ContractError(f"a label has no name among {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> tuple[str, ...]:
        """Each box's class by name."""
        return tuple(self.classes[label] for label in self.labels)


AnyPrediction = Mask | Classification | Boxes | Prediction
"""What a predictor answers: one of the first three, or of a task from outside the package its own."""
