"""Whether an exported file answers as its model does, on real pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import Pixels
from leakdet_tf.core.tasks import changes, task_of
from leakdet_tf.edge.agreement import LIMITS
from leakdet_tf.edge.backends.protocol import Backend
from leakdet_tf.edge.predictor import Predictor


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
    same, near = task_of(contract).UNITS
    return same if exact and contract.outputs != "final" else near


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
    contract, near = exported.contract, None if exact else (LIMITS["int8"].iou, LIMITS["int8"].px)
    for images in frames:
        inputs, geometry = reference.contract.prepare(images)
        ours, theirs = (next(iter(p.backend.run(inputs).values())) for p in (reference, exported))
        seen.append(changes(ours, theirs, reference.contract, contract, geometry, near=near))
    return Parity(
        pictures=len(seen),
        decisions=sum(one.decisions for one in seen),
        changed=sum(len(one.margins) for one in seen),
        max_difference=max((one.largest for one in seen), default=0.0),
        max_margin=max((float(one.margins.max(initial=0)) for one in seen), default=0.0),
    )
