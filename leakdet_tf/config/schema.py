"""What an experiment file may say. Every key, its default and its meaning stand here and nowhere else.

The descriptions below are the reference page ``docs/experiment-file.md``; a test compares the two.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

SPLITS = ("train", "val", "test")
MAX_CLASSES = 254  # 255 marks pixels that do not count, 254 mask values without a class


def _printable(value: str) -> str:
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", value):
        raise ValueError("holds a control character or bytes that are not UTF-8")
    return value


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return _printable(value)


Text = Annotated[str, AfterValidator(_filled)]
Line = Annotated[str, AfterValidator(_printable)]  # may be empty
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
Color = Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Pixels = Annotated[int, Field(ge=1, le=8192)]
Counts = dict[Literal["train", "val", "test"], Count]


class Table(BaseModel):
    """A TOML table that takes no keys but its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Task(Table):
    """What the model answers."""

    kind: Literal["segment"] = Field(default="segment", description="`segment`: a class for each pixel.")
    classes: list[Text] = Field(
        min_length=2, max_length=MAX_CLASSES, description="Class names in the order of the model's output channels."
    )
    colors: dict[str, Color] = Field(
        default={},
        description="Colour of a class in pictures, `#rrggbb`; others are chosen. `background` is not painted.",
    )

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a class name stands twice")
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


class Input(Table):
    """One input of the model: which pictures it takes and how they are fitted to it."""

    folder: Text = Field(default="images", description="Folder of this input's pictures inside each split's folder.")
    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = Field(
        description="Height and width in pixels that the model sees."
    )
    channels: Literal[1, 3] = Field(
        default=3, description="Grey or RGB; grey pictures are repeated to 3, colour becomes luma for 1."
    )
    dtype: Literal["uint8", "uint16"] = Field(
        default="uint8", description="Bits of a raw pixel; never converted in silence."
    )
    fit: Literal["stretch", "letterbox"] = Field(
        default="stretch", description="`stretch` to the size, or `letterbox`: keep proportions and pad."
    )
    pad: Count = Field(default=0, description="Pixel value of letterbox padding.")

    @field_validator("channels", mode="before")
    @classmethod
    def _not_bool(cls, value: Any) -> Any:
        if type(value) is not int:
            raise ValueError("input should be 1 or 3")  # true == 1 == 1.0 would pass
        return value

    @field_validator("pad")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        limit = 255 if info.data.get("dtype") == "uint8" else 65535
        if value > limit:
            raise ValueError(f"does not fit {info.data.get('dtype', 'uint16')}, whose largest value is {limit}")
        return value


class Synth(Table):
    """Pictures to render when `data.root` does not exist."""

    generator: Text = Field(description="Registered generator (`gas`), or `package.module:function`.")
    counts: Counts = Field(
        min_length=1, description="Pictures per split, such as `{train = 320, val = 80, test = 80}`."
    )
    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = Field(
        description="Height and width of the rendered pictures in pixels."
    )
    seed: Count = Field(default=0, description="Same seed, same bytes.")


class Split(Table):
    """How to divide one folder that has no `train`, `val` and `test` folders of its own."""

    train: Fraction = Field(
        default=0.7, description="Share of pictures (of groups, when `group` is given) to train on."
    )
    val: Fraction = Field(default=0.15, description="Share that chooses the best epoch.")
    test: Fraction = Field(default=0.15, description="Share that is only reported on.")
    seed: Count = Field(default=0, description="Seed of the shuffle.")
    group: Line = Field(
        default="",
        description="Regular expression with one pair of parentheses over the file's stem; pictures with the same "
        "captured text stay together. Empty: every picture on its own.",
    )
    manifest: Line = Field(default="", description="A `split.json` written by an earlier run, to be used as it is.")

    @field_validator("group")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from error
        if value and groups != 1:
            raise ValueError(f"needs exactly one pair of parentheses, has {groups}")
        return value

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        total = self.train + self.val + self.test
        if not abs(total - 1) <= 1e-6:
            raise ValueError(f"train + val + test must be 1, are {total:g}")
        return self


class Augment(Table):
    """Random changes to training pictures; each is a function of picture, seed and epoch alone."""

    flip_horizontal: Fraction = Field(default=0.5, description="Probability of a left-right flip.")
    flip_vertical: Fraction = Field(default=0.0, description="Probability of an upside-down flip.")
    brightness: Fraction = Field(default=0.1, description="Largest shift of all pixels, as a share of the full range.")
    contrast: Fraction = Field(
        default=0.1, description="Largest relative change of the distance from the picture's mean."
    )


class Data(Table):
    """Where the pictures are and what the values in their masks mean."""

    root: Text = Field(
        description="Folder with `train`, `val` and `test`, each holding `images` and `masks` with equal stems; or "
        "with `images` and `masks` alone, divided by `[data.split]`."
    )
    masks: Text = Field(default="masks", description="Name of the folders that hold masks.")
    values: dict[str, str] = Field(
        min_length=1,
        description='Class of each mask value or range of values, such as `0 = "background"` or '
        '`"128-255" = "gas"`; `"ignore"` leaves pixels out of loss and scores. Any other value is an error.',
    )
    inputs: dict[Name, Input] = Field(min_length=1, description="The model's inputs by name; most models have one.")
    synth: Synth | None = Field(default=None, description="Render pictures when `root` does not exist.")
    split: Split | None = Field(default=None, description="Divide one folder into train, val and test.")
    augment: Augment = Field(default_factory=Augment, description="Random changes to training pictures.")

    @field_validator("values")
    @classmethod
    def _values_parse(cls, value: dict[str, str]) -> dict[str, str]:
        seen: set[int] = set()
        for key in value:
            span = value_range(key)
            if seen & set(span):
                raise ValueError(f"'{key}' overlaps another entry")
            seen |= set(span)
        return value


class Model(BaseModel):
    """The factory and its arguments. Every other key is an argument of the factory, checked against its signature."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    factory: Text = Field(description="Registered model (`unet`), or `package.module:function`.")

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


class Train(Table):
    """How weights are changed."""

    epochs: Positive = Field(default=20, description="Most passes over the training pictures.")
    batch_size: Positive = Field(default=8, description="Pictures per step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=1e-4, description="Adam's step size.")
    loss: list[Text] = Field(
        default=["cross_entropy", "dice"],
        min_length=1,
        description="Losses that are added up: `cross_entropy`, `dice`, or `package.module:function`.",
    )
    patience: Count = Field(
        default=8, description="Epochs without a better validation mean IoU before training stops; 0 never stops early."
    )


class Evaluate(Table):
    """How a finished model is measured."""

    resamples: Annotated[int, Field(ge=100, lt=2**31)] = Field(
        default=1000, description="Bootstrap resamples of the pictures, for the intervals."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(default=0.95, description="Coverage of the intervals.")
    worst: Annotated[int, Field(ge=0, le=64)] = Field(
        default=6, description="How many of the worst pictures are drawn."
    )


class Export(Table):
    """Which files are made for devices, and what they must hold."""

    formats: list[Literal["tflite_float32"]] = Field(
        default=["tflite_float32"],
        description="Formats that `fit` exports when training ends; an empty list exports none.",
    )
    max_changed: Fraction = Field(
        default=1e-5,
        description="Largest share of validation pixels that may be decided otherwise than by the Keras model.",
    )
    pictures: Positive = Field(
        default=64, description="Most validation pictures on which the exported file is compared."
    )
    golden: Annotated[int, Field(ge=1, le=16)] = Field(
        default=2, description="Frames with their answers kept in the bundle and replayed by the device at load."
    )


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

    @model_validator(mode="after")
    def _values_name_classes(self) -> Experiment:
        known = {*self.task.classes, "ignore"}
        for value, name in self.data.values.items():
            if name not in known:
                raise ValueError(f"data.values: {value} = '{name}' is not among task.classes")
        return self


def value_range(key: str) -> range:
    """The mask values that a key of `data.values` covers: ``"3"`` or ``"128-255"``.

    Raises:
        ValueError: not a number or range within 0..255.
    """
    match = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", key)
    if match:
        low, high = int(match[1]), int(match[2] or match[1])
        if low <= high <= 255:
            return range(low, high + 1)
    raise ValueError(f"'{key}' is neither a mask value (0..255) nor a range such as 128-255")


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
