"""The ``[data]`` table of an experiment file: where pictures are, what their masks mean, how they are changed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leakdet_tf.config.fields import Count, Counts, Fraction, Line, Name, Pixels, Positive, Table, Text, value_range


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
    """Pictures to render when the folder does not exist."""

    generator: Text = Field(
        description="Registered generator (`gas`, `leak`, `crack`, `hotspot`), or `package.module:function`."
    )
    counts: Counts = Field(
        min_length=1, description="Pictures per split, such as `{train = 320, val = 80, test = 80}`."
    )
    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = Field(
        description="Height and width of the rendered pictures in pixels."
    )
    seed: Count = Field(default=0, description="Same seed, same bytes.")
    clip: Positive = Field(default=1, description="Consecutive frames of each scene; above 1 pictures come as clips.")
    options: dict[str, Any] = Field(
        default={},
        description='The generator\'s own arguments, such as `{look = "visible"}` or `{textures = "surfaces"}`.',
    )


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
    balance: bool = Field(
        default=False,
        description="Spread the classes of pictures that have labels evenly too; groups stay together all the same.",
    )
    pool: bool = Field(
        default=False, description="Throw the root's own `train`, `val` and `test` folders together first."
    )
    manifest: Line = Field(
        default="",
        description="A `split.json` written by an earlier run or `leakdet-tf data split`, to be used as it is; or a "
        'JSON file whose `split` names the part of each picture\'s file: `{"split": {"a.jpg": "train"}}`. Its '
        '`groups`, lists of files (`[["a.jpg", "b.jpg"]]`) or the name of each file\'s group (`{"a.jpg": "roof 1"}`), '
        "must not be in several parts, and are resampled together for intervals; `group` takes their place.",
    )

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
    """Random changes to training pictures; each is a function of picture, seed and epoch alone.

    The range of which strengths are shares is 0..255 for 8 bits, and for 16 what the picture itself holds.
    """

    flip_horizontal: Fraction = Field(default=0.5, description="Probability of a left-right flip.")
    flip_vertical: Fraction = Field(default=0.0, description="Probability of an upside-down flip.")
    shift: Fraction = Field(default=0.0, description="Largest shift, as a share of height and width.")
    scale: Fraction = Field(default=0.0, description="Largest zoom: 0.25 draws factors from 1/1.25 to 1.25.")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="Largest turn in degrees, either way."
    )
    crop: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.0,
        description="Largest share of height and width that a random crop cuts away; the rest fills the frame.",
    )
    brightness: Fraction = Field(
        default=0.1,
        description="Largest shift of all pixels, as a share of the range (of 16 bits: of what the picture holds).",
    )
    contrast: Fraction = Field(
        default=0.1, description="Largest relative change of the distance from the picture's mean."
    )
    gamma: Fraction = Field(default=0.0, description="Largest change of gamma: 0.3 draws powers from 1/1.3 to 1.3.")
    chance: Fraction = Field(default=0.5, description="Probability of each change below, for each picture on its own.")
    hue: Fraction = Field(default=0.0, description="Largest turn of the colour circle, as a share of it; colour only.")
    saturation: Fraction = Field(default=0.0, description="Largest relative change of saturation; colour only.")
    equalize: Fraction = Field(default=0.0, description="Largest share of histogram equalization that is mixed in.")
    blur: Annotated[float, Field(ge=0, le=20)] = Field(
        default=0.0, description="Largest standard deviation of a Gaussian blur, in pixels of the model's input."
    )
    motion_blur: Annotated[float, Field(ge=0, le=64)] = Field(
        default=0.0, description="Largest length of a straight motion blur, in pixels of the model's input."
    )
    sharpen: Annotated[float, Field(ge=0, le=5)] = Field(
        default=0.0, description="Largest amount of unsharp masking; 1 doubles the fine detail."
    )
    noise: Fraction = Field(
        default=0.0,
        description="Largest standard deviation of Gaussian noise, as a share of the range.",
    )
    sensor: Fraction = Field(
        default=0.0,
        description="Largest standard deviation of column and row stripes, as a share of the range; a tenth of "
        "it is the largest share of dead pixels.",
    )
    jpeg: Annotated[float, Field(ge=0, le=0.95)] = Field(
        default=0.0, description="Largest loss of JPEG quality: 0.7 draws qualities from 30 to 100; 8-bit inputs only."
    )
    mosaic: Fraction = Field(
        default=0.0,
        description="To detect: probability that a picture is one of four put together (arXiv 2004.10934).",
    )
    mosaic_close: Count = Field(default=10, description="Last epochs, in which there is neither mosaic nor mixup.")
    mixup: Fraction = Field(
        default=0.0,
        description="To detect: probability that a picture shows through another, boxes of both kept (arXiv "
        "1710.09412).",
    )


Values = dict[str, str | Annotated[list[str], Field(min_length=1)]]
_VALUES = (
    'Class of each mask value or range of values, such as `0 = "background"` or `"128-255" = "gas"`; a list '
    '(`0 = ["background", "machine"]`) says that it is one of several; `"ignore"` leaves pixels out of loss and '
    "scores. Any other value is an error. With `labels`: class of each folder or word "
    '(`cracked = "crack"`), a list for several classes at once; none where the words are the classes\' own names. '
    "Of boxes: class of each word, or of YOLO's each number (none: the classes in their order); "
    '`"ignore"` makes regions that count neither in loss nor in score, `"background"` drops the boxes.'
)
_LABELS = (
    'Where the labels of whole pictures are, for classification: `"folders"` (a folder for each class inside each '
    "split's folder), or the name of a CSV file in each split's folder with the columns `file` and `label`; several "
    'labels are joined by `;`. Where boxes are, for detection: `"yolo"` (a text file for each picture, in the folders '
    '`annotations`), `"voc"` (an XML file for each, likewise), or the name of a COCO file ending in `.json` in each '
    "split's folder. Empty: there are masks."
)
_ANNOTATIONS = "Name of the folders that hold the boxes' text or XML files."
BOXES = ("yolo", "voc")
"""Values of ``data.labels`` that say in which files boxes are; a name ending in ``.json`` is a COCO file's."""


def _parsed(value: Values, info: ValidationInfo) -> Values:
    if info.data.get("labels"):
        return _words(value)
    seen: set[int] = set()
    for key, names in value.items():
        span = value_range(key)
        if seen & set(span):
            raise ValueError(f"'{key}' overlaps another entry")
        seen |= set(span)
        if isinstance(names, list):
            if len(set(names)) != len(names):
                raise ValueError(f"'{key}' names a class twice")
            if "ignore" in names and len(names) > 1:
                raise ValueError(f"'{key}': 'ignore' stands alone, not among classes")
    return value


def _words(value: Values) -> Values:
    for word, names in value.items():
        if not word.strip():
            raise ValueError("a word is empty")
        if isinstance(names, list) and (len(set(names)) != len(names) or "ignore" in names):
            raise ValueError(f"'{word}': name each class once, and 'ignore' alone")
    return value


class Source(Table):
    """One of several sets of pictures that are merged: `[[data.source]]`."""

    name: Name = Field(description="Names the source in reports; its pictures' ids begin with it.")
    root: Text = Field(description="As `data.root`, for this source.")
    masks: Text = Field(default="masks", description="Name of the folders that hold masks.")
    folders: dict[Name, Text] = Field(
        default={},
        description="Folder of an input's pictures by the input's name, where it is not `data.inputs.*.folder`.",
    )
    labels: Line = Field(default="", description=_LABELS)
    annotations: Text = Field(default="labels", description=_ANNOTATIONS)
    values: Values = Field(default={}, description=_VALUES)
    take: Count = Field(
        default=0,
        description="At most so many of its training pictures, the same ones each time (more keep the fewer); 0 takes "
        "all. With a rendered and a real source this is the hybrid ratio.",
    )
    weight: Annotated[float, Field(gt=0, le=100)] = Field(
        default=1.0,
        description="How often each of its training pictures is seen in an epoch: 1 once, 2 twice, 0.5 every second "
        "one, chosen again each epoch.",
    )
    parts: Annotated[list[Literal["train", "val", "test"]], Field(min_length=1)] = Field(
        default=["train", "val", "test"], description="Which of its splits are used."
    )
    synth: Synth | None = Field(default=None, description="Render pictures when `root` does not exist.")
    split: Split | None = Field(default=None, description="Divide one folder into train, val and test.")

    _parse = field_validator("values")(_parsed)

    @property
    def truth(self) -> Literal["masks", "labels", "boxes"]:
        """What the pictures' truth is read from."""
        return "boxes" if self.of_boxes else "labels" if self.labels else "masks"

    @property
    def of_boxes(self) -> bool:
        """Whether the labels are boxes."""
        return self.labels in BOXES or self.labels.endswith(".json")

    @model_validator(mode="after")
    def _means_something(self) -> Source:
        if not self.values and not self.labels:
            raise ValueError("values: missing; say which class each mask value is")
        return self


_OF_A_SOURCE = (
    "root",
    "masks",
    "labels",
    "annotations",
    "values",
    "synth",
    "split",
)  # keys of Data that describe one set of pictures


class Data(Table):
    """Where the pictures are and what the values in their masks, or their labels, mean."""

    root: Line = Field(
        default="",
        description="Folder with `train`, `val` and `test`, each holding `images` and `masks` with equal stems (or "
        "with `images/train`, `masks/train` and so on); or with `images` and `masks` alone, divided by `[data.split]`. "
        "Required, unless there is `[[data.source]]`.",
    )
    masks: Text = Field(default="masks", description="Name of the folders that hold masks.")
    labels: Line = Field(default="", description=_LABELS)
    annotations: Text = Field(default="labels", description=_ANNOTATIONS)
    values: Values = Field(default={}, description=_VALUES)
    inputs: dict[Name, Input] = Field(min_length=1, description="The model's inputs by name; most models have one.")
    synth: Synth | None = Field(default=None, description="Render pictures when `root` does not exist.")
    split: Split | None = Field(default=None, description="Divide one folder into train, val and test.")
    source: list[Source] = Field(
        default=[],
        description="Several sets of pictures in place of `root`, `masks`, `labels`, `values`, `synth` and `split`: "
        "one `[[data.source]]` table each.",
    )
    augment: Augment = Field(default_factory=Augment, description="Random changes to training pictures.")
    cache: Literal["auto", "memory", "disk"] = Field(
        default="auto",
        description="Where `fit` keeps decoded pictures: in `memory`; on the `disk`, in a file without a name in the "
        "folder `runs`; or, `auto`, in memory when all splits fit into 80 % of what is free, else on the disk. "
        "Training is the same, bit for bit.",
    )

    _parse = field_validator("values")(_parsed)

    @model_validator(mode="after")
    def _one_way(self) -> Data:
        if not self.source:
            if not self.root:
                raise ValueError("root: missing; name a folder, or give [[data.source]] tables")
            if not self.values and not self.labels:
                raise ValueError("values: missing; say which class each mask value is")
            return self
        single = [key for key in _OF_A_SOURCE if key in self.model_fields_set]
        if given := [key for key in single if getattr(self, key) != type(self).model_fields[key].get_default()]:
            raise ValueError(f"{given[0]}: belongs into each [[data.source]] when there are any")
        names = [source.name for source in self.source]
        if len(set(names)) != len(names):
            raise ValueError("source: a name stands twice")
        for source in self.source:
            if odd := [name for name in source.folders if name not in self.inputs]:
                raise ValueError(f"source '{source.name}': folders.{odd[0]} is not among data.inputs")
        return self

    @property
    def sources(self) -> list[Source]:
        """The sets of pictures: those of ``[[data.source]]``, or the one that this table describes itself."""
        if self.source:
            return self.source
        return [Source(name="data", **{key: getattr(self, key) for key in _OF_A_SOURCE})]

    @property
    def where(self) -> str:
        """The roots, for reports and messages."""
        return ", ".join(source.root for source in self.sources)
