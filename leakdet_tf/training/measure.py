"""Counting during training: Keras adds up a confusion matrix, ``core`` turns it into ratios."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from leakdet_tf.core.confusion import Counts, ratios
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE

Tensor = Any
_LIMB = 1 << 24


class Confusion(keras.metrics.Metric):
    """A confusion matrix of pixels, rows truth, exact beyond 2^31 pixels on backends without 64-bit integers."""

    def __init__(self, labelling: Labelling, name: str = "pixels") -> None:
        super().__init__(name=name)
        self.labelling = labelling
        shape = (labelling.count * labelling.classes,)
        self._low = self.add_variable(shape, initializer="zeros", dtype="int32", name="low")
        self._high = self.add_variable(shape, initializer="zeros", dtype="int32", name="high")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Count a batch: targets (B, h, w) with IGNORE, logits (B, h, w, C). Weights do not apply to counts."""
        truth = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        chosen = ops.reshape(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), (-1,))
        cells = self.labelling.count * self.labelling.classes
        # Ignored pixels fall into one cell more, which is cut off.
        key = ops.where(ops.equal(truth, IGNORE), cells, truth * self.labelling.classes + chosen)
        counts = ops.cast(ops.bincount(key, minlength=cells + 1)[:cells], "int32")
        low = self._low + counts
        self._high.assign(self._high + low // _LIMB)
        self._low.assign(low % _LIMB)

    def result(self) -> Tensor:
        """Pixels counted so far, for Keras's own display; :meth:`counts` has the matrix."""
        return ops.sum(ops.cast(self._low, "float32") + ops.cast(self._high, "float32") * _LIMB)

    def counts(self) -> Counts:
        """int64 (L, C), rows truth."""
        low, high = (ops.convert_to_numpy(part).astype(np.int64) for part in (self._low, self._high))
        counts: Counts = (high * _LIMB + low).reshape(self.labelling.count, self.labelling.classes)
        return counts


class Measure(keras.callbacks.Callback):
    """Replaces the pixel count in Keras's logs by ``core``'s ratios: mean IoU, and IoU of each class."""

    def __init__(self, metric: Confusion, classes: tuple[str, ...]) -> None:
        super().__init__()
        self._metric = metric
        self._classes = classes
        self._training: dict[str, float] = {}

    def on_test_begin(self, logs: Any = None) -> None:
        """Keras resets the metric right after this call, so the epoch's training counts are read here."""
        self._training = self._figures("")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Here the metric holds the validation counts."""
        if logs is not None:
            for key in [key for key in logs if key.removeprefix("val_") == self._metric.name]:
                del logs[key]
            logs |= self._training | self._figures("val_")

    def _figures(self, prefix: str) -> dict[str, float]:
        found = ratios(self._metric.counts(), self._metric.labelling.members)
        names = self._metric.labelling.names(self._classes)
        figures = {f"{prefix}mean_iou": float(found["mean_iou"])}
        figures |= {f"{prefix}iou_{name}": float(v) for name, v in zip(names, found["iou"], strict=True)}
        return figures
