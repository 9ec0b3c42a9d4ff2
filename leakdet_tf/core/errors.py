"""The errors that a user can act on. Each is one line: what is wrong, where, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class LeakdetError(Exception):
    """Something the user can fix. ``remedy`` says how; the command line prints both on one line and exits 2.

    File names and keys are quoted as they came, so control characters, line ends and bytes that are not UTF-8 are
    shown as escapes: the text is always one line that any terminal can print.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        whole = f"{message}; {self.remedy}" if self.remedy else message
        return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), whole)


class ConfigError(LeakdetError):
    """An experiment file or an override that cannot be followed."""


class DataError(LeakdetError):
    """A folder, list or mask that does not hold what it should."""


class ImageError(DataError):
    """A picture that cannot be decoded; the message starts with its file name."""


class ContractError(LeakdetError):
    """A contract that is malformed, or arrays that break it."""


class BundleError(LeakdetError):
    """A bundle that is incomplete, changed since it was written, or answers otherwise than it did."""


class ModelError(LeakdetError):
    """A factory, encoder or model that cannot be used as asked."""


class TrainingError(LeakdetError):
    """Training that cannot go on."""


class ExportError(LeakdetError):
    """A conversion that failed, or whose result answers otherwise than the model."""


class MissingExtraError(LeakdetError):
    """A capability whose optional packages are not installed."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Text that suggests the nearest of ``known``, or lists them all when none is near."""
    names = sorted(known)
    near = get_close_matches(wrong, names, n=1, cutoff=0.35)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"choose from: {', '.join(names)}" if names else "nothing is registered"


_TRAIN_PACKAGES = (
    "tensorflow",
    "keras",
    "pydantic",
    "pydantic_core",
    "rich",
    "matplotlib",
    "tomli_w",
    "tomllib",
    "tensorboard",
)


def missing_extra(error: ModuleNotFoundError, what: str) -> MissingExtraError | None:
    """The line to type where ``what`` needs a package of the extra ``[train]``; None where it is another package."""
    if (error.name or "").split(".")[0] not in _TRAIN_PACKAGES:
        return None
    return MissingExtraError(
        f"{what} needs '{error.name}', which is not installed",
        remedy="pip install 'leakdet_tf[train]' (Python 3.11 or newer)",
    )
