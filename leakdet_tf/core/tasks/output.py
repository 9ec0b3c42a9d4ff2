"""What every task does with a model's outputs: take the one of the contract's shape, and tell two of them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.tasks.protocol import Changes, Outputs


def output_of(outputs: Outputs, expected: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array itself, or the first of a mapping by output name.

    Raises:
        ContractError: there is none, or its shape is not the expected one.
    """
    if not isinstance(outputs, np.ndarray):
        if not outputs:
            raise ContractError("the model gave no output")
        outputs = next(iter(outputs.values()))
    if outputs.shape != expected:
        raise ContractError(f"the model's output has shape {outputs.shape}, the contract says {expected}")
    return outputs


def changed_decisions(
    ours: npt.NDArray[Any],
    theirs: npt.NDArray[Any],
    decide: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    margins: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]],
    also: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]] | None = None,
) -> Changes:
    """Two outputs of one shape, by what is decided of each; ``also`` tells by our decisions which others differ.

    Raises:
        ContractError: their shapes differ, or a value is not finite.
    """
    if ours.shape != theirs.shape:
        raise ContractError(f"the exported file's output has shape {theirs.shape}, the model's {ours.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ContractError("the model's output holds NaN or infinity", remedy="do not use this model")
    labels = decide(ours)
    other = labels != decide(theirs)
    if also is not None:
        other |= also(labels)
    taken = margins(ours)[other] if other.any() else np.empty(0, np.float32)
    return Changes(labels.size, taken, float(np.abs(ours - theirs).max()))
