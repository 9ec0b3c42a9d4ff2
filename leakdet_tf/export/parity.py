"""Whether an exported file answers as its model does, on real pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.boxes import overlaps
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import Pixels
from leakdet_tf.core.records import IGNORE, Boxes
from leakdet_tf.core.tasks import detect, task_of
from leakdet_tf.edge.agreement import LIMITS, box_changes
from leakdet_tf.edge.backends.protocol import Backend
from leakdet_tf.edge.golden import SAME_IOU, SAME_PX, pairs
from leakdet_tf.edge.predictor import Predictor

UNITS = {"segment": "pixels", "classify": "decisions", "detect": "anchors"}
"""By task, what is decided."""


class Recalled:
    """A runtime that is asked for each picture once: what it answered lies in ``folder``, by the pixels' digest.

    Every file of a model, and every try of a quantized one, is held against the same answers of Keras, which takes many
    times as long for them as for reading them.
    """

    def __init__(self, backend: Backend, folder: Path) -> None:
        self._backend, self._folder = backend, folder

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """As :class:`~leakdet_tf.edge.backends.protocol.Backend`."""
        digest = sha256_bytes(b"".join(name.encode() + inputs[name].tobytes() for name in sorted(inputs)))
        place = self._folder / f"{digest}.npz"
        if not place.is_file():
            np.savez(place, **self._backend.run(inputs))  # type: ignore[arg-type]  # its stub takes arrays for flags
        with np.load(place) as kept:
            return {name: kept[name] for name in kept.files}


@dataclass(frozen=True)
class Parity:
    """How two runtimes differ on the same pictures.

    ``decisions`` were taken on ``pictures`` pictures (one a pixel, a picture or class, an anchor, or a box that either
    gives), ``changed`` of them otherwise; ``max_difference`` is the largest absolute difference of an output (of boxes
    after suppression, of an edge in pixels); ``max_margin`` the largest lead, among changed decisions, of the
    reference's winner over its second or over the threshold: a change is harmless noise when it is within twice
    ``max_difference``.
    """

    pictures: int
    decisions: int
    changed: int
    max_difference: float
    max_margin: float

    @property
    def changed_share(self) -> float:
        """Changed decisions as a share of all; NaN when there were none."""
        return self.changed / self.decisions if self.decisions else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``card.json``."""
        return {**asdict(self), "changed_share": self.changed_share}


def unit_of(contract: Contract, *, exact: bool = True) -> str:
    """What is counted of an exported file of this contract: see :func:`compare`."""
    boxes = contract.outputs == "final" or (contract.task == "detect" and not exact)
    return "boxes" if boxes else UNITS[contract.task]


def compare(
    reference: Predictor, exported: Predictor, frames: Iterable[dict[str, Pixels]], *, exact: bool = True
) -> Parity:
    """Answer every frame with both, and count.

    Where the exported graph does some of the decoding itself (``outputs``), the reference's is done in NumPy.

    Args:
        reference: the model.
        exported: its file.
        frames: original pictures, raw pixels by input name.
        exact: whether the file should compute the same. A detector's that computes otherwise is told by the boxes that
            a user sees, which may move a little (``LIMITS["int8"]``): of its anchors nearly all show nothing.

    Raises:
        ContractError: an output is not finite, or not of the shape that the exported file's contract says.
    """
    seen = []
    for images in frames:
        inputs, geometry = reference.prepare(images)
        ours, theirs = (next(iter(p.backend.run(inputs).values())) for p in (reference, exported))
        contract, shown = exported.contract, None
        if contract.outputs == "final" or (contract.task == "detect" and not exact):
            shown = detect.decode(ours, reference.contract, geometry), detect.decode(theirs, contract, geometry)
        if shown and contract.outputs == "final":
            one = _boxes(*shown, contract)
        else:
            one = _arrays(_as_exported(ours, reference.contract, contract), theirs, contract)
        if shown and not exact:
            total, odd = box_changes(*shown, LIMITS["int8"], geometry)
            margin = float((odd - np.float32(contract.threshold)).max(initial=0))
            one = replace(one, decisions=total, changed=len(odd), max_margin=margin)
        seen.append(one)
    return Parity(
        pictures=len(seen),
        decisions=sum(one.decisions for one in seen),
        changed=sum(one.changed for one in seen),
        max_difference=max((one.max_difference for one in seen), default=0.0),
        max_margin=max((one.max_margin for one in seen), default=0.0),
    )


def decoded(raw: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.float32]:
    """A ``raw`` output (A, 4·16 + C) of the contract's model → the ``decoded`` one, float32 (A, 4 + C)."""
    middles, strides = detect.grid(contract.inputs[contract.primary].size)
    edges = 4 * detect.BINS
    boxes = detect.boxes_from(detect.distances(raw[:, :edges]), middles, strides)
    return np.concatenate([boxes, detect.sigmoid(raw[:, edges:])], axis=1)


def _as_exported(ours: npt.NDArray[Any], contract: Contract, exported: Contract) -> npt.NDArray[Any]:
    return decoded(ours, contract) if exported.outputs != contract.outputs else ours


def _arrays(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], contract: Contract) -> Parity:
    if ours.shape != theirs.shape:
        raise ContractError(f"the exported file's output has shape {theirs.shape}, the model's {ours.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ContractError("the model's output holds NaN or infinity", remedy="do not use this model")
    task = task_of(contract)
    labels, others = task.decisions(ours, contract), task.decisions(theirs, contract)
    other = labels != others
    if contract.task == "detect":
        other |= (labels != IGNORE) & _moved(ours, theirs, contract)
    margin = float(task.margins(ours, contract)[other].max()) if other.any() else 0.0
    return Parity(1, labels.size, int(other.sum()), float(np.abs(ours - theirs).max()), margin)


def _moved(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.bool_]:
    """Whether each anchor's box is another, bool (A,)."""
    raw = contract.outputs == "raw"
    first, second = ((decoded(one, contract) if raw else one)[:, :4] for one in (ours, theirs))
    near = np.abs(first - second).max(axis=1) <= SAME_PX
    for place in np.flatnonzero(~near):
        near[place] = overlaps(first[place][None], second[place][None])[0, 0] > SAME_IOU
    return np.asarray(~near)


def _boxes(ours: Boxes, theirs: Boxes, contract: Contract) -> Parity:
    partners = pairs(ours, theirs)
    there = partners >= 0
    alone = np.concatenate([ours.scores[~there], np.delete(theirs.scores, partners[there])])
    return Parity(
        pictures=1,
        decisions=int(there.sum()) + len(alone),
        changed=len(alone),
        max_difference=float(np.abs(ours.boxes[there] - theirs.boxes[partners[there]]).max(initial=0)),
        max_margin=float((alone - np.float32(contract.threshold)).max(initial=0)),
    )
