"""What a classifier answered, picture by picture: kept beside a report so that it can be calibrated and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.answered import Answered
from leakdet_tf.analysis.tables import REMEDY, read_arrays, write_arrays
from leakdet_tf.core.errors import DataError

SCORES = "scores.npz"
ACTIVATIONS = ("softmax", "sigmoid")
_NAMES, _ARRAYS = ("ids", "classes", "sources", "groups"), ("truth", "scores")
_ROUNDING = 1e-3  # of single probabilities
_SUM = 0.1  # how far softmax outputs of 8-bit files may be from adding up to 1
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Answers(Answered):
    """A classifier's scores on pictures and their truth, in the order of the ids.

    ``truth`` uint8 (N, C) is 1 for each class that is there; a row without any is a picture of no class. ``scores``
    float32 (N, C) are the model's probabilities before calibration. ``activation`` says what they are: "softmax", one
    class a picture, or "sigmoid", each class by itself. ``sources`` name where each picture comes from, one for all
    when left out. Pictures of one ``group``, such as crops of one photograph, are no independent evidence and are
    resampled together; when left out each picture is a group of its own.

    Raises:
        DataError: the arrays do not fit each other, or hold what they may not.
    """

    ids: tuple[str, ...]
    truth: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    activation: str
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    WHOSE = "classifier"

    def _odd(self) -> str:
        for name, kind in (("truth", np.uint8), ("scores", np.float32)):
            array, shape = getattr(self, name), (len(self.ids), len(self.classes))
            if array.dtype != kind or array.shape != shape:
                return f"'{name}' is {array.dtype} {array.shape}, not {np.dtype(kind)} {shape}"
        if self.activation not in ACTIVATIONS:
            return f"the activation is '{self.activation}', not softmax or sigmoid"
        return self._odd_row()

    def _odd_row(self) -> str:
        scores = self.scores.astype(np.float64)
        checks = [
            (~np.isfinite(scores).all(1), "NaN or infinity stands in its scores"),
            (~((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)).all(1), "its scores are no probabilities"),
            ((self.truth > 1).any(1), "its truth is not made of 0 and 1"),
        ]
        if self.activation == "softmax":
            checks.append((~(np.abs(scores.sum(1) - 1) <= _SUM), "its scores do not add up to 1, as softmax's do"))
            checks.append((self.truth.sum(1, dtype=np.int64) > 1, "it has several classes, a softmax model gives one"))
        for odd, what in checks:
            if odd.any():
                return f"picture '{self.ids[int(np.flatnonzero(odd)[0])]}': {what}"
        return ""

    def take(self, positions: Sequence[int] | npt.NDArray[np.intp]) -> Answers:
        """The answers at some positions, in that order."""
        chosen = np.asarray(positions, np.intp)
        return Answers(
            tuple(self.ids[i] for i in chosen),
            self.truth[chosen],
            self.scores[chosen],
            self.classes,
            self.activation,
            tuple(self.sources[i] for i in chosen),
            tuple(self.groups[i] for i in chosen),
        )


def check_labelled(answers: Answers) -> None:
    """Make sure that each picture of a softmax model has a class to be measured against.

    Raises:
        DataError: one has none.
    """
    bare = np.flatnonzero(answers.truth.sum(1) == 0)
    if answers.activation == "softmax" and bare.size:
        raise DataError(
            f"picture '{answers.ids[int(bare[0])]}' has no class to measure against ({bare.size} have none)",
            remedy="give it one, or measure pictures of no class by themselves",
        )


def save_scores(path: Path, answers: Answers) -> None:
    """Write ``scores.npz``, whole or not at all: plain arrays under the names of :class:`Answers`, no pickles."""
    texts = {name: getattr(answers, name) for name in ("ids", "classes", "sources", "groups")}
    texts["activation"] = (answers.activation,)
    write_arrays(path, texts, {"truth": answers.truth, "scores": answers.scores})


def load_scores(path: Path) -> Answers:
    """Read and check what :func:`save_scores` wrote.

    Raises:
        DataError: the file is missing, damaged, or does not hold such answers.
    """
    texts = (*_NAMES, "activation")
    found = read_arrays(path, (*texts, *_ARRAYS), texts=texts, what="answers of a classifier")
    if empty := [name for name in texts if not found[name].size]:
        raise DataError(f"{path}: '{empty[0]}' are not names", remedy=REMEDY)
    names = {name: tuple(map(str, found[name])) for name in _NAMES}
    try:
        return Answers(
            truth=found["truth"],
            scores=found["scores"],
            activation=str(found["activation"][0]),
            ids=names["ids"],
            classes=names["classes"],
            sources=names["sources"],
            groups=names["groups"],
        )
    except DataError as error:
        raise DataError(f"{path}: {error.args[0]}", remedy=error.remedy) from error
