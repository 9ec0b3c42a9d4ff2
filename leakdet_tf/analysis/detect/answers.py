"""What a detector found, picture by picture: kept beside a report so that detectors can be compared later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.answered import Answered
from leakdet_tf.analysis.tables import REMEDY, read_arrays, write_arrays
from leakdet_tf.core.boxes import areas
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ContractError, DataError
from leakdet_tf.core.images import Geometry
from leakdet_tf.core.records import BOX_COLUMNS, Boxes, Sample
from leakdet_tf.core.tasks import detect

BOXES = "boxes.npz"
LOW = 0.001
"""The score from which on a detector's boxes are asked for to be measured: a curve needs the doubtful ones too."""
MOST = 300
"""How many boxes of a picture are asked for at most to be measured."""
_NAMES = ("ids", "classes", "sources", "groups")
_ARRAYS = ("truths", "truth_counts", "sizes", "boxes", "scores", "labels", "counts")
_FLOATS = {"truths": (len(BOX_COLUMNS),), "boxes": (4,), "scores": ()}
_INTEGERS: dict[str, tuple[int, ...]] = {"truth_counts": (), "sizes": (2,), "labels": (), "counts": ()}
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers(Answered):
    """A detector's boxes on pictures and the true ones, in the order of the ids.

    ``truths`` are float32 (N, 6) of :data:`~leakdet_tf.core.records.BOX_COLUMNS`, one array a picture; boxes of its
    class are not counted where they lie in an ignored row's. ``predictions`` are in the same pixels. ``sources`` name
    where each picture comes from, one for all when left out. Pictures of one ``group``, such as frames of one film,
    are no independent evidence and are resampled together; when left out each picture is a group of its own.

    Raises:
        DataError: the parts do not fit each other, or hold what they may not.
    """

    ids: tuple[str, ...]
    truths: tuple[Floats, ...]
    predictions: tuple[Boxes, ...]
    classes: tuple[str, ...]
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    WHOSE, ALONGSIDE = "detector", ("truths", "predictions", "sources", "groups")

    def _odd(self) -> str:
        for place, (truth, found) in enumerate(zip(self.truths, self.predictions, strict=True)):
            if what := self._odd_boxes(truth, found):
                return f"picture '{self.ids[place]}': {what}"
        return ""

    def _odd_boxes(self, truth: Floats, found: Boxes) -> str:
        if truth.dtype != np.float32 or truth.shape != (len(truth), len(BOX_COLUMNS)):
            return f"its truth is {truth.dtype} {truth.shape}, not float32 (N, {len(BOX_COLUMNS)})"
        if not np.isfinite(truth).all():
            return "NaN or infinity stands in its truth"
        # a box without area has no overlap that could be measured
        if not (areas(truth) > 0).all() or not (areas(found.boxes) > 0).all():
            return "one of its boxes has no area"
        label, ignored = truth[:, 4], truth[:, 5]
        if not np.isin(ignored, (0, 1)).all():
            return "whether a true box is ignored is neither 0 nor 1"
        if not ((label >= 0) & (label < len(self.classes)) & (label == np.floor(label))).all():
            return f"a true box's label is none of {len(self.classes)} classes"
        if found.classes != self.classes:
            return f"its boxes are of other classes ({', '.join(found.classes)})"
        return "" if min(found.size) > 0 else f"its size is {found.size}"

    def take(self, positions: Sequence[int] | npt.NDArray[np.intp]) -> Answers:
        """The answers at some positions, in that order."""
        chosen = [int(i) for i in positions]
        parts = (self.ids, self.truths, self.predictions, self.sources, self.groups)
        ids, truths, predictions, sources, groups = (tuple(part[i] for i in chosen) for part in parts)
        return Answers(ids, truths, predictions, self.classes, sources, groups)  # type: ignore[arg-type]


def measuring(contract: Contract) -> Contract:
    """The contract as it is when a detector is measured: also boxes that nobody would be shown, from :data:`LOW` on.

    A graph with ``final`` outputs has chosen its boxes already, and gives no more of them.
    """
    most = contract.max_boxes if contract.outputs == "final" else max(MOST, contract.max_boxes)
    return replace(contract, threshold=LOW, max_boxes=most)


def answers_of(
    samples: Iterable[Sample],
    predictions: Iterable[Boxes],
    *,
    sources: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> Answers:
    """Samples with truth and what a detector of the contract :func:`measuring` found on each.

    Raises:
        DataError: there are none, or a picture has no truth.
    """
    ids, truths, found = [], [], []
    for sample, boxes in zip(samples, predictions, strict=True):
        if sample.truth is None:
            raise DataError(f"{sample.id}: has no boxes to measure against", remedy="add them, or leave it out")
        ids.append(sample.id)
        truths.append(np.asarray(sample.truth, np.float32))
        found.append(boxes)
    if not found:
        raise DataError("there are no pictures to evaluate on", remedy="check data.root and the split's name")
    return Answers(tuple(ids), tuple(truths), tuple(found), found[0].classes, tuple(sources), tuple(groups))


def decoded(
    raw: npt.NDArray[Any],
    contract: Contract,
    targets: Floats,
    weights: npt.NDArray[Any] | None = None,
    *,
    first: int = 0,
) -> Answers:
    """A batch of a model's outputs (B, ...) and its targets (B, M, 6) → answers in the model's own pixels.

    What padding a letterbox added belongs to the picture here, so figures differ a little from those at the original
    size. Pictures of weight 0 fill a batch up and are left out. Ids are numbers from ``first`` on; :func:`joined`
    puts batches together.

    Raises:
        ContractError: the outputs are not as the contract says, or not finite.
    """
    size = contract.inputs[contract.primary].size
    asked, geometry = measuring(contract), Geometry(size, size, size)
    if contract.outputs == "final":
        raise ContractError("a detector is trained to raw outputs, not to final ones", remedy="set outputs to raw")
    if len(raw) != len(targets):
        raise ContractError(f"{len(raw)} outputs and {len(targets)} targets do not belong together")
    keep = range(len(raw)) if weights is None else np.flatnonzero(np.asarray(weights) > 0)
    rows = [np.asarray(targets[i], np.float32) for i in keep]
    truths = tuple(row[(row[:, 4] != detect.VOID) & (areas(row) > 0)] for row in rows)
    found = tuple(detect.decode(np.asarray(raw[i]), asked, geometry) for i in keep)
    return Answers(tuple(str(first + i) for i in keep), truths, found, contract.class_names)


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers one behind the other.

    Raises:
        DataError: there are none, an id stands twice, or classes differ.
    """
    if not parts:
        raise DataError("there are no pictures to evaluate on", remedy="check data.root and the split's name")

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(item for part in parts for item in getattr(part, name))

    rest = (all_of(name) for name in ("sources", "groups"))
    return Answers(all_of("ids"), all_of("truths"), all_of("predictions"), parts[0].classes, *rest)


def save_boxes(path: Path, answers: Answers) -> None:
    """Write ``boxes.npz``, whole or not at all: plain arrays, the pictures' one behind the other, and no pickles."""
    found = answers.predictions
    arrays: dict[str, npt.NDArray[Any]] = {
        "truths": np.concatenate(answers.truths),
        "truth_counts": np.array([len(truth) for truth in answers.truths], np.int64),
        "sizes": np.array([one.size for one in found], np.int64),
        "boxes": np.concatenate([one.boxes for one in found]),
        "scores": np.concatenate([one.scores for one in found]),
        "labels": np.concatenate([one.labels for one in found]),
        "counts": np.array([len(one) for one in found], np.int64),
    }
    write_arrays(path, {name: getattr(answers, name) for name in _NAMES}, arrays)


def load_boxes(path: Path) -> Answers:
    """Read and check what :func:`save_boxes` wrote.

    Raises:
        DataError: the file is missing, damaged, or does not hold such answers.
    """
    found = read_arrays(path, (*_NAMES, *_ARRAYS), texts=_NAMES, what="answers of a detector")
    if fault := _misfit(found):
        raise DataError(f"{path}: {fault}", remedy=REMEDY)
    names = {name: tuple(map(str, found[name])) for name in _NAMES}
    ends = np.cumsum(found["counts"])[:-1]
    parts = zip(*(np.split(found[name], ends) for name in ("boxes", "scores", "labels")), found["sizes"], strict=True)
    try:
        predictions = tuple(
            Boxes(
                boxes=boxes, scores=scores, labels=labels, classes=names["classes"], size=(int(size[0]), int(size[1]))
            )
            for boxes, scores, labels, size in parts
        )
        truths = tuple(np.split(found["truths"], np.cumsum(found["truth_counts"])[:-1]))
        return Answers(truths=truths, predictions=predictions, **names)
    except (DataError, ContractError) as error:
        raise DataError(f"{path}: {error.args[0]}", remedy=REMEDY) from error


def _misfit(found: dict[str, npt.NDArray[Any]]) -> str:
    for kind, columns in ((np.float32, _FLOATS), (np.int64, _INTEGERS)):
        for name, shape in columns.items():
            array = found[name]
            if array.dtype != kind or array.ndim != 1 + len(shape) or array.shape[1:] != shape:
                return f"'{name}' is {array.dtype} {array.shape}"
    number = len(found["ids"])
    for name in ("truth_counts", "sizes", "counts"):
        if len(found[name]) != number or (found[name] < 0).any():
            return f"'{name}' are not those of {number} pictures"
    if not number:
        return "there are no pictures"
    for counts, names in (("truth_counts", ("truths",)), ("counts", ("boxes", "scores", "labels"))):
        # compared as Python's integers: a damaged count must not pass because its sum ran over
        if odd := [name for name in names if len(found[name]) != sum(map(int, found[counts]))]:
            return f"'{odd[0]}' are not as many as '{counts}' says"
    return ""
