"""What the tables of an experiment file are made of: kinds of text and number, and the base of every table."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

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
