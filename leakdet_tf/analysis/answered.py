"""What answers of a classifier and of a detector have in common: the pictures' names, where they come from, groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from leakdet_tf.analysis.tables import REMEDY
from leakdet_tf.core.errors import DataError


class Answered(ABC):
    """Base of frozen dataclasses with these fields, one entry a picture but for ``classes``.

    ``sources`` name where each picture comes from, one for all when left out. Pictures of one ``group``, such as crops
    of one photograph or frames of one film, are no independent evidence and are resampled together; when left out each
    picture is a group of its own.

    Raises:
        DataError: the parts do not fit each other, or hold what they may not.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    groups: tuple[str, ...]

    WHOSE: ClassVar[str]
    """Whose answers they are, as a message says it."""
    ALONGSIDE: ClassVar[tuple[str, ...]] = ("sources", "groups")
    """Fields that must have as many entries as there are pictures."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", self.sources or ("data",) * len(self.ids))
        object.__setattr__(self, "groups", self.groups or self.ids)
        if fault := self._misnamed() or self._odd():
            raise DataError(f"answers of a {self.WHOSE}: {fault}", remedy=REMEDY)

    def _misnamed(self) -> str:
        number = len(self.ids)
        if not number or not self.classes:
            return "there are none"
        if len(set(self.ids)) != number or len(set(self.classes)) != len(self.classes):
            return "a name stands twice"
        for name in self.ALONGSIDE:
            if len(getattr(self, name)) != number:
                return f"{len(getattr(self, name))} {name} for {number} pictures"
        return ""

    @abstractmethod
    def _odd(self) -> str:
        """What is wrong with the rest, in words, or ""."""

    @property
    def repeats(self) -> bool:
        """Whether a group has several pictures."""
        return len(set(self.groups)) < len(self.ids)
