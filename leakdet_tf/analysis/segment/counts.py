"""Counts of every picture, kept beside a segmenter's report so that runs can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.tables import REMEDY, read_arrays, write_arrays
from leakdet_tf.core.confusion_matrix import Counts
from leakdet_tf.core.errors import DataError

COUNTS = "counts.npz"
_FIELDS = ("ids", "counts", "boundary", "members", "classes")


@dataclass(frozen=True, eq=False)
class PerPicture:
    """What was counted on each picture, in the order of its ids.

    ``counts`` int64 (N, L, C) are pixels, rows the truth's labels; ``boundary`` int64 (N, C, 4) are boundary pixels
    as :func:`~.segment.boundary.boundary_counts` has them; ``members`` bool (L, C) says which classes each
    label allows.

    Raises:
        DataError: the arrays do not fit each other.
    """

    ids: tuple[str, ...]
    counts: Counts
    boundary: Counts
    members: npt.NDArray[np.bool_]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if fault := self._fault():
            raise DataError(f"counts of pictures: {fault}", remedy=REMEDY)

    def _fault(self) -> str:
        number, classes = len(self.ids), len(self.classes)
        labels = self.members.shape[0] if self.members.ndim == 2 else 0
        shapes = {"counts": (number, labels, classes), "boundary": (number, classes, 4), "members": (labels, classes)}
        kinds = {"counts": np.int64, "boundary": np.int64, "members": np.bool_}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.dtype != kinds[name] or array.shape != shape:
                return f"'{name}' is {array.dtype} {array.shape}, not {np.dtype(kinds[name])} {shape}"
        if not number or not classes:
            return "there are none"
        if len(set(self.ids)) != number or len(set(self.classes)) != classes:
            return "a name stands twice"
        if labels < classes or not np.array_equal(self.members[:classes], np.eye(classes, dtype=np.bool_)):
            return "the first labels are not the classes"
        if (self.counts < 0).any() or (self.boundary < 0).any():
            return "one is negative"
        if (self.boundary[..., 0::2] > self.boundary[..., 1::2]).any():
            return "more boundary pixels are matched than there are"
        return ""


def save_counts(path: Path, table: PerPicture) -> None:
    """Write ``counts.npz``, whole or not at all: plain arrays under the names of :class:`PerPicture`, no pickles."""
    arrays = {"counts": table.counts, "boundary": table.boundary, "members": table.members}
    write_arrays(path, {"ids": table.ids, "classes": table.classes}, arrays)


def load_counts(path: Path) -> PerPicture:
    """Read and check what :func:`save_counts` wrote.

    Raises:
        DataError: the file is missing, damaged, or does not hold such counts.
    """
    found = read_arrays(path, _FIELDS, texts=("ids", "classes"), what="counts of pictures")
    names = {name: tuple(map(str, found[name])) for name in ("ids", "classes")}
    try:
        return PerPicture(names["ids"], found["counts"], found["boundary"], found["members"], names["classes"])
    except DataError as error:
        raise DataError(f"{path}: {error.args[0]}", remedy=error.remedy) from error
