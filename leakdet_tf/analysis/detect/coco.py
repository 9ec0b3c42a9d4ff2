"""COCO's evaluation of boxes: the one file that calls faster-coco-eval, which gives what pycocotools gives.

A detection is a hit where it overlaps a true box of its class by at least a threshold and no better detection has taken
that box; precision at 101 steps of recall, the best at that recall or beyond, has the mean AP (Lin et al. 2014, arXiv
1405.0312; the rules are those of the COCO API). At most 100 detections of a class count on a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.detect.answers import Answers
from leakdet_tf.core.errors import MissingExtraError

IOUS: npt.NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""Overlaps from which on a detection is a hit."""
RECALLS: npt.NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
"""Where precision is read."""
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's sizes of things, in square pixels of the original picture; an area on a bound belongs to both sides."""
MOST = 100
"""Detections of a class that count on a picture, the best."""
HIT, FALSE, IGNORED = 1, 0, -1
"""States of a detection; the last counts neither way."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """What the evaluator accumulates, for T overlaps, K classes and A sizes; NaN where a class has no truth of a size.

    ``precision``: float64 (T, 101, K, A) at :data:`RECALLS`. ``scores``: float64 (T, 101, K, A), the score there.
    ``recall``: float64 (T, K, A), the highest reached.
    """

    precision: Floats
    scores: Floats
    recall: Floats

    @property
    def ap(self) -> Floats:
        """Average precision: float64 (T, K, A)."""
        found: Floats = self.precision.mean(axis=1)
        return found


@dataclass(frozen=True, eq=False)
class Matches:
    """What the evaluator made of each of D detections, class by class, in each class the best score first.

    ``picture``, ``row``, ``label``: int64 (D,), where a detection stands among the answers and its class. ``score``:
    float64 (D,). ``state``: int8 (T, A, D) of :data:`HIT`, :data:`FALSE` or :data:`IGNORED`, for :data:`IOUS` and
    :data:`AREAS`. ``partner``: int64 (D,), the row of the true box that a detection hits at the first overlap, else -1.
    ``truths``: int64 (A, K, P), boxes that count on each picture.
    """

    picture: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    score: Floats
    state: npt.NDArray[np.int8]
    partner: npt.NDArray[np.int64]
    truths: npt.NDArray[np.int64]


def curves(answers: Answers, *, sizes: bool = True) -> Curves:
    """Precision and recall over all pictures; of the sizes only "all" where ``sizes`` is not wanted.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    tool, _ = _evaluator(answers)
    names = list(AREAS) if sizes else ["all"]
    _run(tool, IOUS, names)
    found = {key: np.asarray(tool.eval[key], np.float64)[..., 0] for key in ("precision", "scores", "recall")}
    absent = found["recall"] == -1  # the evaluator's word for undefined
    for key, array in found.items():
        array[np.broadcast_to(absent if key == "recall" else absent[:, None], array.shape)] = np.nan
    return Curves(**found)


def matches(answers: Answers, *, overlaps: int = len(IOUS), sizes: bool = True) -> Matches:
    """Which detections hit, for the first ``overlaps`` of :data:`IOUS` and all sizes, or "all" alone.

    The evaluator tells matches only of one overlap and one size at a time, so it runs once for each.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    tool, owners = _evaluator(answers)
    names = list(AREAS) if sizes else ["all"]
    tool.params.recThrs = RECALLS[:1]  # its curves are not read here
    parts = [_ranked(one.scores, one.labels) for one in answers.predictions]
    firsts = np.cumsum([0, *(len(one) for one in answers.predictions)])
    picture = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    row = np.concatenate(parts)
    score = np.concatenate([one.scores[part] for one, part in zip(answers.predictions, parts, strict=True)])
    label = np.concatenate([one.labels[part] for one, part in zip(answers.predictions, parts, strict=True)])
    # as COCO's accumulation has it: pictures in order, then the best score first, equal ones as they stood
    order = np.lexsort((-score.astype(np.float64), label))
    picture, row, label, score = picture[order], row[order], label[order], score[order].astype(np.float64)
    places = np.full(firsts[-1], -1)
    places[firsts[picture] + row] = np.arange(len(order))
    edges = np.concatenate([one.boxes for one in answers.predictions]).astype(np.float64)[firsts[picture] + row]
    area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    state = np.zeros((overlaps, len(names), len(order)), np.int8)
    partner = np.full(len(order), -1)
    counted = {name: _counts(owners, AREAS[name]) for name in names}
    for size, name in enumerate(names):
        low, high = AREAS[name]
        outside = (area < low) | (area > high)
        for step in range(overlaps):
            _run(tool, IOUS[step : step + 1], [name])
            pairs = np.array([key.split("_") for key in tool.eval["matched"]], np.int64).reshape(-1, 2) - 1
            taker, taken = places[pairs[:, 0]], pairs[:, 1]
            state[step, size] = np.where(outside, IGNORED, FALSE)
            state[step, size, taker] = np.where(counted[name][taken], HIT, IGNORED)
            if step == size == 0:
                partner[taker] = np.where(counted[name][taken], owners["row"][taken], -1)
    truths = np.zeros((len(names), len(answers.classes), len(answers.ids)), np.int64)
    for size, name in enumerate(names):
        chosen = counted[name]
        np.add.at(truths[size], (owners["label"][chosen], owners["picture"][chosen]), 1)
    return Matches(picture, row, label, score, state, partner, truths)


def _ranked(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    # rows of the best MOST of each class
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    chosen = [order[labels[order] == label][:MOST] for label in np.unique(labels)]
    return np.concatenate([np.empty(0, np.int64), *chosen])


def _counts(owners: dict[str, npt.NDArray[Any]], area: tuple[float, float]) -> npt.NDArray[np.bool_]:
    inside = (owners["area"] >= area[0]) & (owners["area"] <= area[1])
    counted: npt.NDArray[np.bool_] = ~owners["ignored"] & inside
    return counted


def _run(tool: Any, overlaps: Floats, names: list[str]) -> None:
    tool.params.iouThrs, tool.params.maxDets = overlaps, [MOST]
    tool.params.areaRng, tool.params.areaRngLbl = [list(AREAS[name]) for name in names], names
    tool.evaluate()
    tool.accumulate()


def _evaluator(answers: Answers) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    # The tool, and where each true box that it knows stands in the answers. Ignored ones are COCO's crowds.
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"measuring a detector needs '{error.name}', which is not installed",
            remedy="pip install 'leakdet_tf[train]' (Python 3.11 or newer)",
        ) from error

    class Prepared(COCOeval_faster):  # type: ignore[misc]
        """The evaluator, which prepares boxes and overlaps again for each run, does so once."""

        def _prepare(self) -> None:
            if not self.ious:
                super()._prepare()

        def computeIoU(self, imgId: int, catId: int) -> Any:
            known = overlaps.get((imgId, catId))
            if known is None:
                known = overlaps[imgId, catId] = super().computeIoU(imgId, catId)
            return known

    overlaps: dict[tuple[int, int], Any] = {}
    images = [
        {"id": place + 1, "height": found.size[0], "width": found.size[1]}
        for place, found in enumerate(answers.predictions)
    ]
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(answers.classes)]
    true: list[dict[str, Any]] = []
    owners: list[tuple[int, int, int, bool, float]] = []
    for place, truth in enumerate(answers.truths):
        for row, (*edges, label, ignored) in enumerate(truth.astype(np.float64).tolist()):
            item = _item(len(true), place, int(label), edges) | {"iscrowd": int(ignored)}
            owners.append((place, row, int(label), bool(ignored), item["area"]))
            true.append(item)
    said: list[dict[str, Any]] = []
    for place, found in enumerate(answers.predictions):
        each = zip(found.boxes.astype(np.float64).tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
        for edges, label, score in each:
            said.append(_item(len(said), place, label, edges) | {"iscrowd": 0, "score": score})
    both = (
        COCO({"images": images, "categories": categories, "annotations": items}, print_function=_quiet)
        for items in (true, said)
    )
    tool = Prepared(*both, iouType="bbox", print_function=_quiet)
    columns = zip(*owners, strict=True) if owners else ((),) * 5
    kinds = (np.int64, np.int64, np.int64, np.bool_, np.float64)
    names = ("picture", "row", "label", "ignored", "area")
    return tool, {name: np.array(part, kind) for name, part, kind in zip(names, columns, kinds, strict=True)}


def _item(number: int, place: int, label: int, edges: list[float]) -> dict[str, Any]:
    wide, high = edges[2] - edges[0], edges[3] - edges[1]
    box = [edges[0], edges[1], wide, high]
    return {"id": number + 1, "image_id": place + 1, "category_id": label + 1, "bbox": box, "area": wide * high}


def _quiet(*_: Any) -> None:
    """Takes what the evaluator says of its progress."""
