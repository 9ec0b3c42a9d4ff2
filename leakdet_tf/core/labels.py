"""What the numbers in a truth mask mean: a class, one of several classes, or nothing that counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.records import IGNORE


@dataclass(frozen=True)
class Labelling:
    """The labels of a data set over a model's classes.

    A label below ``classes`` is that class. Label ``classes + k`` says that the pixel is one of the classes in
    ``sets[k]``, as in a set of pictures that never told machines from background. :data:`~.records.IGNORE` is neither.
    """

    classes: int
    sets: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for members in self.sets:
            inside = all(0 <= member < self.classes for member in members)
            if not inside or not 2 <= len(set(members)) == len(members) < self.classes:
                raise ContractError(f"a set of labels {members} is not two or more, and not all, of {self.classes}")
        if len(set(self.sets)) != len(self.sets):
            raise ContractError("a set of labels stands twice")
        if self.count > IGNORE:
            raise ContractError(f"{self.classes} classes and {len(self.sets)} sets are more than fit 8-bit labels")

    @property
    def count(self) -> int:
        """Labels: classes and sets."""
        return self.classes + len(self.sets)

    @property
    def members(self) -> npt.NDArray[np.bool_]:
        """bool (count, classes): which classes each label allows."""
        table = np.eye(self.count, self.classes, dtype=np.bool_)
        for number, members in enumerate(self.sets):
            table[self.classes + number, list(members)] = True
        return table

    def names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """A name for each label: the class's, or ``background|machine`` for a set."""
        return (*classes, *("|".join(classes[member] for member in members) for members in self.sets))
