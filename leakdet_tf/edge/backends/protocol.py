"""What every runtime offers, exported or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.images import Pixels


class Backend(Protocol):
    """A model that answers: raw pixels in, raw outputs out."""

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """One picture: (h, w, C) raw pixels by input name → float32 outputs by name, without a batch axis."""
        ...
