"""What an experiment file may say. Every key, its default and its meaning stand here and in its two neighbours.

The descriptions are the reference page ``docs/experiment-file.md``; a test compares the two.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from leakdet_tf.config.data import Data
from leakdet_tf.config.fields import MAX_CLASSES, Color, Count, Fraction, Line, Name, Positive, Table, Text
from leakdet_tf.config.train import Train
from leakdet_tf.core.registry import REGISTRY, TASKS, task_path
from leakdet_tf.core.tasks import task_named

_WANTED = {
    "labels": '"folders", or the name of a CSV file',
    "boxes": '"yolo", "voc", or the name of a COCO file',
}
"""What ``labels`` may say, by what truth is read from."""
_HOLDS = {"labels": "labels of whole pictures", "boxes": "boxes"}


class Task(Table):
    """What the model answers."""

    kind: Text = Field(
        default="segment",
        description="`segment`: a class for each pixel. `classify`: what is on a picture as a whole; with "
        '`model.activation = "sigmoid"` a picture may show several classes, or none. `detect`: a box around each '
        "thing. Or the name of a task that an installed package adds.",
    )
    classes: list[Text] = Field(
        min_length=1,
        max_length=MAX_CLASSES,
        description="Class names in the order of the model's output channels; two or more, to detect one or more.",
    )
    colors: dict[str, Color] = Field(
        default={},
        description="Colour of a class in pictures, `#rrggbb`; others are chosen. `background` is not painted.",
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if task_path(value) is None:
            raise ValueError(f"there is no such task; write one of {', '.join(TASKS)}")
        return value

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a class name stands twice")
        kind = info.data.get("kind")
        if kind is not None and len(value) < task_named(kind).LEAST_CLASSES:
            raise ValueError("name two or more; with one there is nothing to tell apart")
        if "ignore" in value:
            raise ValueError("'ignore' cannot name a class: in data.values it leaves pixels out")
        return value

    @field_validator("colors")
    @classmethod
    def _of_classes(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        classes = info.data.get("classes", value)
        if unknown := [name for name in value if name not in classes]:
            raise ValueError(f"'{unknown[0]}' is not among task.classes")
        return value


class Model(BaseModel):
    """The factory and its arguments. Every other key is an argument of the factory, checked against its signature."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    factory: Text = Field(
        description="Registered model (`unet`, `segmentation_models`, `resnet_classifier`, `mobilenet_classifier`, "
        "`yolov8`), or `package.module:function`."
    )
    weights: Line = Field(
        default="",
        description="Start from the weights of a run (`runs/NAME` takes its newest finished one) or of a `.keras` "
        "file. Layers are matched by name; what does not fit is named and starts from drawn weights.",
    )

    @model_validator(mode="after")
    def _can_be_written(self) -> Model:
        for key, value in self.arguments.items():
            if fault := _fault(value):
                raise ValueError(f"{key} {fault}")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """The factory's own keyword arguments."""
        return dict(self.model_extra or {})


class Evaluate(Table):
    """How a finished model is measured."""

    resamples: Annotated[int, Field(ge=100, lt=2**31)] = Field(
        default=1000, description="Bootstrap resamples of the pictures, for the intervals."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(default=0.95, description="Coverage of the intervals.")
    worst: Annotated[int, Field(ge=0, le=64)] = Field(
        default=6, description="How many of the worst pictures are drawn."
    )
    calibrate: bool = Field(
        default=True,
        description="After training, on the validation pictures alone: to classify, fit temperature and the score "
        "below which an answer is `unsure`; to detect, choose the score from which boxes are shown, where F1 is best.",
    )
    max_risk: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05,
        description="To classify: largest share of errors among the answers that are not `unsure`; what is held to it "
        "is its upper bound at `confidence`.",
    )
    nms_iou: Fraction = Field(
        default=0.7, description="To detect: boxes of one class that overlap by more are one thing; the best is kept."
    )
    max_boxes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=300, description="To detect: most boxes on a picture."
    )


class Export(Table):
    """Which files are made for devices, and what they must hold."""

    formats: list[
        Literal[
            "tflite_float32",
            "tflite_float16",
            "tflite_dynamic",
            "tflite_int8",
            "onnx_float32",
            "onnx_int8",
            "tensorrt",
        ]
    ] = Field(
        default=["tflite_float32"],
        description="Formats that `fit` exports when training ends; an empty list exports none. ONNX and TensorRT take "
        "the extra `[onnx]`.",
    )
    outputs: Literal["raw", "decoded", "final"] = Field(
        default="raw",
        description="To detect, how much the file itself does: `raw` logits, `decoded` boxes and scores, or `final` "
        "ones after non-maximum suppression. The answers are the same.",
    )
    max_changed: Fraction = Field(
        default=1e-5,
        description="Largest share of validation pixels (to classify: labels, to detect: anchors, of `final` outputs "
        "boxes) that may be decided otherwise than by the Keras model; of the float32 formats.",
    )
    max_drop: Fraction = Field(
        default=0.01,
        description="Most that the task's figure (mean IoU, accuracy, mAP50) may fall below the Keras model's on the "
        "validation pictures; of the other formats.",
    )
    max_turned: Fraction = Field(
        default=0.05,
        description="Largest share of those decisions (to detect: boxes) that the other formats may take otherwise "
        "than the Keras model: a figure on few pictures can hold by luck.",
    )
    max_float: Fraction = Field(
        default=0.25,
        description="Where int8 does not hold `max_drop` and `max_turned`, the largest share of layers that may stay "
        "in float, the most sensitive first and no more than it takes.",
    )
    calibration: Positive = Field(
        default=128,
        description="Most training pictures to choose int8's ranges by; 8-bit inputs get black and white ones besides.",
    )
    pictures: Positive = Field(
        default=256, description="Most validation pictures on which exported files are compared and measured."
    )
    key: Line = Field(
        default="",
        description="File of an Ed25519 private key (PEM) to sign bundles with; empty signs none. Takes the extra "
        "`[sign]`.",
    )
    golden: Annotated[int, Field(ge=1, le=16)] = Field(
        default=2, description="Frames with their answers kept in the bundle and replayed by the device at load."
    )


class Track(Table):
    """Who else is told what a run does."""

    mlflow: Line = Field(
        default="",
        description="Where MLflow keeps parameters, figures, files and the model of each run: a folder such as "
        "`mlruns`, or the address of a server (`http://…`). Empty: nowhere. Takes the extra `[mlflow]`. A server that "
        "fails is told of in one line, and training goes on.",
    )
    experiment: Line = Field(default="", description="MLflow's name for runs that belong together; empty: `name`.")

    @field_validator("mlflow")
    @classmethod
    def _without_password(cls, value: str) -> str:
        if "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("holds a user or password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return value


class Experiment(Table):
    """A whole experiment file."""

    name: Name = Field(description="Letters, digits, `_` and `-`; names the run's folder.")
    seed: Count = Field(default=42, description="Seed of weights, order and augmentation.")
    runs: Text = Field(default="runs", description="Folder that takes the run folders.")
    task: Task
    data: Data
    model: Model
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    export: Export = Field(default_factory=Export)
    track: Track = Field(default_factory=Track)

    @model_validator(mode="after")
    def _values_name_classes(self) -> Experiment:
        masks = task_named(self.task.kind).TRUTH == "masks"
        for source in self.data.sources:
            known = {*self.task.classes, "ignore", *(["background"] if source.of_boxes else [])}
            place = f"data.source '{source.name}': values" if self.data.source else "data.values"
            for value, names in source.values.items():
                listed = names if isinstance(names, list) else [names]
                if odd := [name for name in listed if name not in known]:
                    raise ValueError(f"{place}: {value} = '{odd[0]}' is not among task.classes")
                if masks and not source.labels and set(listed) >= set(self.task.classes):
                    raise ValueError(f'{place}: {value} may be any class, which says nothing; write "ignore"')
        return self

    @model_validator(mode="after")
    def _of_one_task(self) -> Experiment:
        kind, task = self.task.kind, task_named(self.task.kind)
        for source in self.data.sources:
            place = f"data.source '{source.name}': labels" if self.data.source else "data.labels"
            if task.TRUTH != "masks" and not source.labels:
                raise ValueError(f"{place}: missing; write {_WANTED[task.TRUTH]}")
            if task.TRUTH == "masks" and source.labels:
                raise ValueError(f'{place}: says what whole pictures are, which takes task.kind = "classify"')
            if source.truth != task.TRUTH:
                raise ValueError(
                    f"{place}: '{source.labels}' holds {_HOLDS[source.truth]}, which is not what there is to {kind}"
                )
        if self.train.loss and not task.LOSS_KIND:
            raise ValueError(f"train.loss: to {kind} it cannot be changed; remove it")
        if odd := set(self.train.loss) & set(REGISTRY["loss"]) - set(REGISTRY.get(task.LOSS_KIND, ())):
            raise ValueError(f"train.loss: '{min(odd)}' is for masks; use cross_entropy or focal")
        if self.train.class_weights != "none" and not task.WEIGHED_BY:
            raise ValueError(f"train.class_weights: is not for task.kind = '{kind}'")
        if self.train.class_weights in ("pixels", "pictures") and self.train.class_weights != task.WEIGHED_BY:
            raise ValueError(f"train.class_weights: '{self.train.class_weights}' is not counted to {kind}")
        if task.TRUTH != "boxes" and (self.data.augment.mosaic or self.data.augment.mixup):
            raise ValueError("data.augment: mosaic and mixup are for task.kind = 'detect'")
        if "outputs" not in task.FIELDS and self.export.outputs != "raw":
            raise ValueError("export.outputs: is for task.kind = 'detect'")
        if self.train.label_smoothing and task.TRUTH != "labels":
            raise ValueError("train.label_smoothing: is for task.kind = 'classify'")
        return self

    @model_validator(mode="after")
    def _agrees(self) -> Experiment:
        if self.data.augment.jpeg:
            for name, item in self.data.inputs.items():
                if item.dtype != "uint8":
                    raise ValueError(f"data.augment.jpeg: JPEG holds 8 bits, data.inputs.{name} has {item.dtype}")
        losses = self.train.loss or task_named(self.task.kind).LOSSES
        if self.train.loss_weights and len(self.train.loss_weights) != len(losses):
            raise ValueError(f"train.loss_weights: {len(self.train.loss_weights)} factors for {len(losses)} losses")
        weights = self.train.class_weights
        if isinstance(weights, list):
            if len(weights) != len(self.task.classes):
                raise ValueError(f"train.class_weights: {len(weights)} for {len(self.task.classes)} classes")
            if not any(weights):
                raise ValueError("train.class_weights: all are 0")
        return self


def _fault(value: Any, depth: int = 0) -> str:
    # What keeps a factory's argument from being written to the resolved file and read back the same.
    if isinstance(value, dict | list):
        if depth == 16:
            return "nests more than 16 deep"
        inner = value.values() if isinstance(value, dict) else value
        return next(filter(None, (_fault(item, depth + 1) for item in inner)), "")
    if isinstance(value, float) and not math.isfinite(value):
        return "holds nan or inf"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "holds an integer of more than 64 bits"
    return ""
