"""Counting during training: Keras adds up a confusion matrix, ``core`` turns it into ratios.

What a detector found cannot be added up batch by batch; its outputs are handed to whoever can score them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from leakdet_tf.core.confusion_matrix import Counts, label_ratios, ratios
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.training.tasks.protocol import Metric

Tensor = Any
Outputs = npt.NDArray[np.float32]
Score = Callable[[Iterable[Outputs]], dict[str, float]]
"""Takes each picture's raw output, one after the other, and gives figures of them all by name."""
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
        # a bincount's length follows from the values, which neither JAX nor XLA can compile
        counts = ops.segment_sum(ops.ones_like(key), key, num_segments=cells + 1)[:cells]
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

    def figures(self, classes: tuple[str, ...]) -> dict[str, float]:
        """``core``'s ratios so far: mean IoU, and IoU of each label."""
        found = ratios(self.counts(), self.labelling.members)
        each = zip(self.labelling.names(classes), found["iou"], strict=True)
        return {"mean_iou": float(found["mean_iou"]), **{f"iou_{name}": float(value) for name, value in each}}


class LabelCounts(keras.metrics.Metric):
    """Pictures by what is on them and what was answered, for classifiers: exact below 2^31 pictures."""

    def __init__(self, classes: int, activation: str, name: str = "pictures") -> None:
        super().__init__(name=name)
        self._activation = activation
        make = functools.partial(self.add_variable, initializer="zeros", dtype="int32")
        self._each = make((3, classes), name="each")  # hits, answered, present
        self._whole = make((2,), name="whole")  # right, total

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Count a batch: targets (B, C) with rows of IGNORE, logits (B, C). Weights do not apply to counts."""
        targets = ops.cast(y_true, "int32")
        counted = ops.cast(ops.not_equal(targets, IGNORE), "int32")
        truth = targets * counted
        if self._activation == "sigmoid":
            answer = ops.cast(y_pred >= 0, "int32")  # a probability of one half
        else:
            answer = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype="int32")
        answer = answer * counted
        each = ops.stack([ops.sum(part, axis=0) for part in (truth * answer, answer, truth)])
        right = ops.cast(ops.all(ops.equal(truth, answer), axis=-1), "int32") * counted[:, 0]
        self._each.assign(self._each + each)
        self._whole.assign(self._whole + ops.stack([ops.sum(right), ops.sum(counted[:, 0])]))

    def result(self) -> Tensor:
        """Pictures counted so far, for Keras's own display."""
        return ops.cast(self._whole[1], "float32")

    def figures(self, classes: tuple[str, ...]) -> dict[str, float]:
        """``core``'s ratios so far: accuracy, mean F1, and F1 of each class."""
        each, whole = ops.convert_to_numpy(self._each), ops.convert_to_numpy(self._whole)
        found = label_ratios(each[0], each[1], each[2], whole[0], whole[1])
        figures = {name: float(found[name]) for name in ("accuracy", "mean_f1")}
        return figures | {f"f1_{name}": float(value) for name, value in zip(classes, found["f1"], strict=True)}


class Measure(keras.callbacks.Callback):
    """Replaces the count in Keras's logs by ``core``'s ratios: the metric's ``figures``."""

    def __init__(self, metric: Metric, classes: tuple[str, ...]) -> None:
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
        return {f"{prefix}{key}": value for key, value in self._metric.figures(self._classes).items()}


class Scored(keras.callbacks.Callback):
    """Adds a score of the validation pictures' outputs to Keras's logs.

    Args:
        score: gives figures by name; in the logs they begin with ``val_``.
        validation: batches of inputs, targets and weights; pictures of weight 0 are left out.
    """

    def __init__(self, score: Score, validation: Iterable[Any]) -> None:
        super().__init__()
        self._score, self._validation = score, validation

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """One more pass over the validation pictures, without the losses."""
        if logs is not None:
            logs |= {f"val_{key}": float(value) for key, value in self._score(self._outputs()).items()}

    def _outputs(self) -> Iterator[Outputs]:
        for inputs, _, weights in self._validation:
            # as arrays: another backend than TensorFlow does not take the stream's tensors
            found = self.model.predict_on_batch(keras.tree.map_structure(np.asarray, inputs))
            yield from found[np.asarray(weights) > 0]
