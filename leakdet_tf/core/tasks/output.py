"""What every task does first with a model's answer: take its one output, of the shape that the contract says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from leakdet_tf.core.errors import ContractError


def output_of(
    outputs: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any], expected: tuple[int, ...]
) -> npt.NDArray[Any]:
    """The array itself, or the first of a mapping by output name.

    Raises:
        ContractError: there is none, or its shape is not the expected one.
    """
    if isinstance(outputs, Mapping):
        if not outputs:
            raise ContractError("the model gave no output")
        outputs = next(iter(outputs.values()))
    if outputs.shape != expected:
        raise ContractError(f"the model's output has shape {outputs.shape}, the contract says {expected}")
    return outputs
