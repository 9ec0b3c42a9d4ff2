"""What a task says of itself on this floor: what its truth, its targets and a model's outputs mean. NumPy only.

A task is one module of the same name on each floor that needs it: here, in :mod:`leakdet_tf.training.tasks` and in
:mod:`leakdet_tf.jobs.tasks`. The registry names it once. Nothing else compares a task's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Geometry, Pixels, Size
from leakdet_tf.core.records import AnyPrediction

Truth = Literal["masks", "labels", "boxes"]
"""What a task's truth is read from: a label for each pixel, what is on the whole picture, or boxes."""
Array = npt.NDArray[Any]
Outputs = Mapping[str, Array] | Array
Near = tuple[float, float] | None
"""How near two boxes are that count as the same: they overlap by the first number, or their edges lie within the second
in the model's pixels. None: outputs should be the same."""


@dataclass(frozen=True, eq=False)
class Changes:
    """How a model's output for one picture differs from another's.

    ``decisions`` were taken; ``margins``, float32 (N,), says of each that is another one by how much the first took it.
    ``largest`` is the largest difference of the numbers themselves.
    """

    decisions: int
    margins: npt.NDArray[np.float32]
    largest: float


@dataclass(frozen=True)
class Things:
    """A table with a line for each thing on a picture: its name, its columns behind ``picture``, and its lines."""

    name: str
    columns: Sequence[str]
    lines: Callable[[Any], list[dict[str, str]]]


class Task(Protocol):
    """A module of ``core/tasks``."""

    @property
    def TRUTH(self) -> Truth: ...

    @property
    def LEAST_CLASSES(self) -> int:
        """Fewest classes that there can be."""

    @property
    def ACTIVATIONS(self) -> Sequence[str]:
        """What a model may end in. The last takes every truth."""

    @property
    def FIELDS(self) -> Sequence[str]:
        """Fields of the contract that are this task's own."""

    @property
    def LOSSES(self) -> Sequence[str]:
        """The losses of an experiment that names none."""

    @property
    def LOSS_KIND(self) -> str:
        """The registry's kind of losses that an experiment may name; empty where it may name none."""

    @property
    def WEIGHED_BY(self) -> str:
        """What ``train.class_weights`` may count: ``pixels`` or ``pictures``; empty where classes are not weighed."""

    @property
    def COUNTED(self) -> str:
        """What ``amounts`` counts, for people: ``pixels``, ``pictures`` or ``boxes``."""

    @property
    def TARGET_DTYPE(self) -> type:
        """dtype of ``targets``."""

    @property
    def FLOAT_OUTPUT(self) -> bool:
        """Whether eight bits are too few for the outputs: they stay in float in an int8 file."""

    @property
    def UNITS(self) -> tuple[str, str]:
        """What :func:`~leakdet_tf.core.tasks.changes` counts where a file should compute the same, and where not."""

    @property
    def CHANGES(self) -> Callable[..., Changes] | None:
        """How two outputs differ, with the arguments of :func:`~leakdet_tf.core.tasks.changes`; None: by decisions."""

    @property
    def CHECK_TRUTH(self) -> Callable[[Any, Contract], None] | None:
        """Raises DataError, without the file's name, where a model of a contract cannot learn a picture's truth."""

    @property
    def IMAGES(self) -> Mapping[str, Callable[[Any], npt.NDArray[np.uint8]]]:
        """What is kept of a prediction as PNG files, by the column of ``predictions.csv`` that names the file."""

    @property
    def THINGS(self) -> Things | None:
        """The table with a line for each thing that was found."""

    def target_shape(self, size: Size, classes: int) -> tuple[int, ...]:
        """Shape of one picture's ``targets``; -1 where it is as long as the longest."""

    def targets(self, truth: npt.NDArray[Any], geometry: Geometry) -> npt.NDArray[Any]:
        """A picture's truth → what training learns from, in the model's pixels."""

    def amounts(self, targets: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """What targets (N, ...) hold of each class and, at IGNORE, of what does not count: int64 (256,)."""

    def output_shape(self, size: Size, classes: int) -> tuple[int, ...]:
        """Shape of a model's output for one picture."""

    def decisions(self, outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[Any]:
        """What a picture's outputs decide, one value a decision."""

    def margins(self, outputs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.float32]:
        """By how much each of ``decisions`` was taken."""

    def decode(self, outputs: Outputs, contract: Contract, geometry: Geometry) -> AnyPrediction:
        """A model's output for one picture → a :class:`~leakdet_tf.core.records.Prediction`, in the original's pixels.

        Raises:
            ContractError: the shape is not the contract's, or a value is not finite.
        """

    def draw(self, image: Pixels, prediction: Any, contract: Contract) -> npt.NDArray[np.uint8]:
        """Picture (H, W, C) and prediction → uint8 (H, W, 3)."""

    def columns(self, classes: Sequence[str]) -> list[str]:
        """The columns of ``predictions.csv`` that are this task's own."""

    def row(self, prediction: Any) -> dict[str, Any]:
        """A prediction's values by column."""
