"""The contract: what a model's inputs and outputs mean, kept as JSON beside every model and copied to every export."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, get_args

from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.files import sha256_bytes, write_text
from leakdet_tf.core.images import Geometry, ImageSpec, Pixels
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.registry import task_path

FORMAT = 1
Activation = Literal["softmax", "sigmoid", "linear"]
Outputs = Literal["raw", "decoded", "final"]

PALETTE = ("#f58231", "#4363d8", "#ffe119", "#3cb44b", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#a9a9ff", "#9a6324")
"""Colours given to painted classes in their order. Red is kept for errors."""


@dataclass(frozen=True)
class ClassSpec:
    """A class: its name, and its colour ``#rrggbb`` in pictures, None for one that is not painted (background)."""

    name: str
    color: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ContractError(f"a class needs a name, not {self.name!r}")
        if self.color is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", self.color):
            raise ContractError(f"class '{self.name}': colour '{self.color}' is not of the form #rrggbb")

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """The colour as three bytes."""
        if self.color is None:
            return None
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True)
class Contract:
    """Task, inputs by name, classes in the order of the output channels, head activation, and whose weights they are.

    ``weights_sha256`` identifies the trained weights (not one file: every export of a model shares the contract).
    ``parent`` is the id of the contract that this one was derived from by later knowledge, such as calibration:
    ``temperature`` divides a classifier's logits before its activation, and an answer whose largest score is below
    ``abstain`` is "unsure".

    A detector's boxes below ``threshold`` are left out, so are those that overlap a better one of their class by more
    than ``nms_iou``, and no more than ``max_boxes`` are given. ``outputs`` says how much of that the model's own graph
    does: see :mod:`leakdet_tf.core.tasks.detect`.
    """

    task: str
    inputs: dict[str, ImageSpec]
    classes: tuple[ClassSpec, ...]
    activation: Activation = "softmax"
    experiment: str = ""
    weights_sha256: str = ""
    parent: str | None = None
    temperature: float = 1.0
    abstain: float = 0.0
    threshold: float = 0.25
    nms_iou: float = 0.7
    max_boxes: int = 300
    outputs: Outputs = "raw"

    def __post_init__(self) -> None:
        if task_path(self.task) is None:
            raise ContractError(
                f"unknown task '{self.task}'", remedy="update leakdet_tf, or install the task's package"
            )
        if self.activation not in get_args(Activation):
            raise ContractError(f"unknown activation '{self.activation}'")
        if not self.inputs or not all(self.inputs):
            raise ContractError("a contract needs at least one input, and a name for each")
        task = self._rules
        least = task.LEAST_CLASSES
        if not least <= len(self.classes) <= IGNORE:
            raise ContractError(f"a contract needs {least} to {IGNORE} classes, has {len(self.classes)}")
        if len(set(self.class_names)) != len(self.classes):
            raise ContractError(f"class names repeat: {', '.join(self.class_names)}")
        for key in ("experiment", "weights_sha256", "parent"):
            value = getattr(self, key)
            if not isinstance(value, str) and not (key == "parent" and value is None):
                raise ContractError(f"{key} must be text, is {value!r}")
        for key, (low, high) in _RANGES.items():
            value = getattr(self, key)
            if type(value) not in (int, float) or not low <= value <= high:
                raise ContractError(f"{key} must be from {low:g} to {high:g}, is {value!r}")
        if type(self.max_boxes) is not int or not 1 <= self.max_boxes <= 10_000:
            raise ContractError(f"max_boxes must be an integer from 1 to 10000, is {self.max_boxes!r}")
        if self.outputs not in get_args(Outputs):
            raise ContractError(f"unknown outputs '{self.outputs}'")
        if self.activation not in task.ACTIVATIONS:
            raise ContractError(
                f"a model to {self.task} ends in {' or '.join(task.ACTIVATIONS)}, not {self.activation}",
                remedy="set model.activation, or see docs/extend-a-factory.md",
            )
        for key, usual in _OF_TASKS.items():
            if key not in task.FIELDS and getattr(self, key) != usual:
                raise ContractError(f"{key} has no meaning to {self.task}")

    @property
    def _rules(self) -> Any:
        # The task's module on this floor, which itself takes contracts: found by name when the first one is made.
        return import_module(str(task_path(self.task)).format(floor="core"))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the output channels."""
        return tuple(item.name for item in self.classes)

    @property
    def primary(self) -> str:
        """The input in whose pixels answers are given: the first."""
        return next(iter(self.inputs))

    @cached_property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the JSON; the order of inputs counts, because the first is primary."""
        return sha256_bytes(json.dumps(self.to_dict()).encode())[:16]

    def prepare(self, images: Mapping[str, Pixels]) -> tuple[dict[str, Pixels], Geometry]:
        """Original frames (H, W, C) by input name → what the model takes, (h, w, C) by input name, and where the
        primary frame lies in it.

        Raises:
            ContractError: a frame is not what its input takes, missing, or of no input.
        """
        self.check_frames(images)
        fitted = {name: spec.apply(images[name], name=name) for name, spec in self.inputs.items()}
        return {name: pixels for name, (pixels, _) in fitted.items()}, fitted[self.primary][1]

    def check_frames(self, frames: Mapping[str, Any]) -> None:
        """Check that there is a frame for each input and no other.

        Raises:
            ContractError: not so.
        """
        if set(frames) != set(self.inputs):
            raise ContractError(
                f"the model takes {sorted(self.inputs)}, got {sorted(frames)}",
                remedy=f"give a picture for each: {{{', '.join(f'{name!r}: ...' for name in self.inputs)}}}",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the format's number. What only calibration sets is left out until it has, and what
        is a detector's of other tasks."""
        fields = dataclasses.asdict(self)
        for key, usual in (("temperature", 1.0), ("abstain", 0.0)):
            if fields[key] == usual:
                del fields[key]
        for key in _OF_TASKS:
            if key in fields and key not in self._rules.FIELDS:
                del fields[key]
        return {"format": FORMAT, **fields}

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def from_dict(cls, data: Any, *, where: str = "contract") -> Contract:
        """The inverse of :meth:`to_dict`.

        Raises:
            ContractError: an unknown format, a missing or unknown key, or a value that breaks a rule.
        """
        if not isinstance(data, dict):
            raise ContractError(f"{where}: not a contract but {type(data).__name__}")
        found = data.get("format")
        if type(found) is not int or found != FORMAT:
            raise ContractError(
                f"{where}: contract format {found!r}, this version reads {FORMAT}", remedy="update leakdet_tf"
            )
        if missing := {"task", "inputs", "classes"} - set(data):
            raise ContractError(f"{where}: '{min(missing)}' is missing")
        fields = {key: value for key, value in data.items() if key != "format"}
        try:
            fields["inputs"] = {name: ImageSpec(**spec) for name, spec in fields["inputs"].items()}
            fields["classes"] = tuple(ClassSpec(**item) for item in fields["classes"])
            return cls(**fields)
        except ContractError as error:
            raise ContractError(f"{where}: {error.args[0]}", remedy=error.remedy) from error
        except (TypeError, AttributeError) as error:
            raise ContractError(f"{where}: malformed contract ({error})") from error

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "contract") -> Contract:
        """Read a contract's JSON text."""
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ContractError(f"{where}: not JSON ({error})") from error
        return cls.from_dict(parsed, where=where)

    @classmethod
    def load(cls, path: Path) -> Contract:
        """Read ``contract.json``."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ContractError(
                f"{path}: cannot be read ({error.strerror})", remedy="is this a run or a bundle?"
            ) from error
        return cls.from_bytes(data, where=str(path))


_RANGES = {"temperature": (1e-3, 1e3), "abstain": (0.0, 1.0), "threshold": (0.0, 1.0), "nms_iou": (0.0, 1.0)}
_OF_TASKS = {
    "temperature": 1.0,
    "abstain": 0.0,
    "threshold": 0.25,
    "nms_iou": 0.7,
    "max_boxes": 300,
    "outputs": "raw",
}
"""Fields that not every task has, and what they are where they were not set."""


def classes_of(names: list[str], colors: dict[str, str] | None = None) -> tuple[ClassSpec, ...]:
    """Class specs from names: ``background`` is not painted, the others take ``colors``' or a colour of the palette.

    A painted class's place in the palette does not depend on whether others have a colour of their own, except that
    a palette colour named in ``colors`` is not given twice. Past its end the palette repeats.
    """
    colors = colors or {}
    used = {color.lower() for color in colors.values()}
    palette = cycle([color for color in PALETTE if color not in used] or PALETTE)
    specs = []
    for name in names:
        fallback = None if name == "background" else next(palette)
        specs.append(ClassSpec(name, colors.get(name, fallback)))
    return tuple(specs)
