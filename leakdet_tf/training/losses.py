"""Losses for segmentation, on logits, with one value a picture.

A loss is ``loss(targets, logits, scheme) -> (B,)``: targets int32 (B, h, w) of labels with IGNORE, logits float32
(B, h, w, C), ``scheme`` what they mean. The registry names those of this file; an experiment may name its own.

A label may be a set of classes (:class:`~leakdet_tf.core.labels.Labelling`); its probability is the sum of theirs. With
the ``sigmoid`` head, whose classes are independent of one another, it is the probability that any of them is there.
With the ``linear`` head the raw outputs are read as probabilities and clipped to [1e-7, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.registry import resolve
from leakdet_tf.core.tasks import task_of

Tensor = Any
_TINY = 1e-7
_SMOOTH = 1.0  # pixel: keeps Dice and Jaccard defined for masks of a few pixels
_FAR = -1.7e38  # stands for minus infinity, whose gradients would be NaN
_FAINT = 1e-30  # below it a probability is carried by its logarithm alone


@dataclass(frozen=True, eq=False)
class Scheme:
    """What targets and logits mean to a loss.

    Attributes:
        activation: the head's: ``softmax``, ``sigmoid`` or ``linear``.
        labelling: the labels that targets are made of.
        weights: float32 (C,), how much each class counts; a set counts as the mean of its classes.
        gamma: exponent of the focal loss.
        smoothing: share of a label's certainty that is spread over all classes; of whole pictures' labels only.
    """

    activation: str
    labelling: Labelling
    weights: npt.NDArray[np.float32]
    gamma: float = 2.0
    smoothing: float = 0.0
    members: npt.NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", self.labelling.members.astype(np.float32))

    @property
    def label_weights(self) -> npt.NDArray[np.float32]:
        """float32 (L,): each label's weight."""
        weights: npt.NDArray[np.float32] = (self.members @ self.weights / self.members.sum(1)).astype(np.float32)
        return weights


def one_of(labels: Tensor, count: int) -> Tensor:
    """Labels (...) → float32 (..., count): 1 at the label's place; all zeros for labels that are none, as IGNORE.

    Keras's own refuses labels beyond the count under torch, where it tries a loss on ones before it trains.
    """
    return ops.cast(ops.equal(labels[..., None], np.arange(count, dtype=np.int32)), "float32")


def cross_entropy(targets: Tensor, logits: Tensor, scheme: Scheme) -> Tensor:
    """Weighted mean over counted pixels of -log p(label); for ``sigmoid`` the mean over classes of the binary one."""
    return _focal(targets, logits, scheme, 0.0)


def focal(targets: Tensor, logits: Tensor, scheme: Scheme) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the probability of what is true (Lin et al., arXiv 1708.02002; alpha 1)."""
    return _focal(targets, logits, scheme, scheme.gamma)


def _focal(targets: Tensor, logits: Tensor, scheme: Scheme, gamma: float) -> Tensor:
    hot = one_of(targets, scheme.labelling.count)
    allowed = ops.matmul(hot, scheme.members) if scheme.labelling.sets else hot
    if scheme.activation == "sigmoid":
        losses = _binary(logits, allowed, gamma)
    else:
        if scheme.activation == "softmax":
            inside = ops.where(allowed > 0, logits, _FAR)
            logs = ops.logsumexp(inside, axis=-1) - ops.logsumexp(logits, axis=-1)
        else:
            total = ops.sum(probabilities(logits, scheme.activation) * allowed, axis=-1)
            logs = ops.log(ops.clip(total, _TINY, 1.0))
        losses = damped(-logs, gamma)
    pixels = ops.matmul(hot, scheme.label_weights[:, None])[..., 0]
    losses = ops.where(pixels > 0, losses, 0.0) * pixels
    return ops.sum(losses, axis=(1, 2)) / ops.maximum(ops.sum(pixels, axis=(1, 2)), _TINY)


def _binary(logits: Tensor, allowed: Tensor, gamma: float) -> Tensor:
    # Mean of the events: each class that is not allowed is absent, and one of the allowed is there.
    absent = ops.softplus(logits)  # -log(1 - p)
    outside = ops.sum((1.0 - allowed) * damped(absent, gamma), axis=-1)
    count = ops.sum(allowed, axis=-1)
    one = ops.sum(allowed * ops.softplus(-logits), axis=-1)  # -log p of a single class
    none = ops.sum(allowed * absent, axis=-1)  # -log(1 - p) of the set
    faint = -ops.logsumexp(ops.where(allowed > 0, -ops.softplus(-logits), _FAR), axis=-1)
    several = ops.where(none > _FAINT, -ops.log(-ops.expm1(-ops.maximum(none, _FAINT))), faint)
    there = damped(ops.where(count > 1, several, one), gamma)
    return (outside + there) / (logits.shape[-1] - count + 1.0)


def damped(losses: Tensor, gamma: float) -> Tensor:
    """-log p → (1 - p)^gamma * -log p; 1 - p = -expm1(log p), kept above zero where a power's slope is infinite."""
    if gamma == 0:
        return losses
    return ops.power(ops.maximum(-ops.expm1(-losses), _TINY), gamma) * losses


def dice(targets: Tensor, logits: Tensor, scheme: Scheme) -> Tensor:
    """1 - soft Dice (Milletari et al. 2016, arXiv 1606.04797, without squares), over the labels in a picture's truth.

    Labels that a picture does not hold are left out of its mean: cross-entropy speaks for them.
    """
    return _overlap(targets, logits, scheme, lambda both, sizes: (2.0 * both + _SMOOTH) / (sizes + _SMOOTH))


def jaccard(targets: Tensor, logits: Tensor, scheme: Scheme) -> Tensor:
    """1 - soft Jaccard index (Rahman & Wang 2016, ISVC), over the labels in a picture's truth as :func:`dice`."""
    return _overlap(targets, logits, scheme, lambda both, sizes: (both + _SMOOTH) / (sizes - both + _SMOOTH))


def _overlap(targets: Tensor, logits: Tensor, scheme: Scheme, share: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    hot = one_of(targets, scheme.labelling.count)
    counted = ops.cast(ops.not_equal(targets, IGNORE), "float32")[..., None]
    truth, predicted = hot, label_probabilities(logits, scheme)
    if scheme.labelling.sets:
        # A label's region: pixels whose own label allows no other class. Where it might be either, neither counts.
        shared = scheme.members @ scheme.members.T
        within = (shared == shared.diagonal()).astype(np.float32)
        vague = ((shared > 0) & (within == 0)).astype(np.float32)
        truth = ops.matmul(hot, within.T)
        counted = counted * (1.0 - ops.matmul(hot, vague.T))
    predicted = predicted * counted
    both = ops.sum(truth * predicted, axis=(1, 2))
    sizes = ops.sum(truth, axis=(1, 2)) + ops.sum(predicted, axis=(1, 2))
    present = ops.cast(ops.sum(hot, axis=(1, 2)) > 0, "float32")
    weights = ops.multiply(present, scheme.label_weights)
    losses = (1.0 - share(both, sizes)) * weights
    return ops.sum(losses, axis=-1) / ops.maximum(ops.sum(weights, axis=-1), _TINY)


def probabilities(logits: Tensor, activation: str) -> Tensor:
    """Logits (..., C) → probabilities (..., C) by the head's activation."""
    if activation == "softmax":
        return ops.softmax(logits, axis=-1)
    if activation == "sigmoid":
        return ops.sigmoid(logits)
    if activation == "linear":
        return ops.clip(logits, _TINY, 1.0)
    raise ModelError(f"no loss is defined for activation '{activation}'")


def label_probabilities(logits: Tensor, scheme: Scheme) -> Tensor:
    """Logits (..., C) → the probability of each label (..., L): classes, then sets."""
    found = probabilities(logits, scheme.activation)
    parts = [found]
    for members in scheme.labelling.sets:
        of_set = ops.take(found, list(members), axis=-1)
        joined = 1.0 - ops.prod(1.0 - of_set, axis=-1) if scheme.activation == "sigmoid" else ops.sum(of_set, axis=-1)
        parts.append(ops.minimum(joined, 1.0)[..., None])
    return ops.concatenate(parts, axis=-1) if scheme.labelling.sets else found


def balanced(pixels: Sequence[int]) -> npt.NDArray[np.float32]:
    """Class weights float32 (C,) by one over the square root of each class's pixels, or pictures; their mean is 1.

    Raises:
        ModelError: a class has none.
    """
    if not all(pixels):
        raise ModelError(
            "train.class_weights: a class has no pixels, or pictures, to train on that it could be weighed by",
            remedy="give a list of weights, or pictures that hold the class",
        )
    weights = 1.0 / np.sqrt(np.asarray(pixels, np.float64))
    even: npt.NDArray[np.float32] = (weights / weights.mean()).astype(np.float32)
    return even


class Objective(keras.losses.Loss):
    """The weighted sum of several losses, as one Keras loss on logits."""

    def __init__(self, parts: Sequence[Any], scheme: Scheme, factors: Sequence[float] = ()) -> None:
        super().__init__(name="objective", reduction="sum_over_batch_size")
        self._parts = list(parts)
        self._scheme = scheme
        self._factors = list(factors) or [1.0] * len(self._parts)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Targets (B, h, w) and logits (B, h, w, C), or both (B, C) → float32 (B,).

        Raises:
            ModelError: a part does not give one value a picture; adding others up would broadcast in silence.
        """
        targets, logits = ops.cast(y_true, "int32"), ops.cast(y_pred, "float32")
        values = [part(targets, logits, self._scheme) for part in self._parts]
        for part, value in zip(self._parts, values, strict=True):
            if len(value.shape) != 1:
                raise ModelError(
                    f"loss '{getattr(part, '__name__', part)}': returns shape {tuple(value.shape)}",
                    remedy="a loss returns one value a picture, shape (B,)",
                )
        return sum(factor * value for factor, value in zip(self._factors, values, strict=True))


def summed_losses(contract: Contract, settings: Train, labelling: Labelling, amounts: Sequence[int]) -> Objective:
    """The losses that an experiment names, or its task's usual ones, weighed and added up.

    Args:
        contract: task and head activation.
        settings: the experiment's ``[train]``.
        labelling: what the targets' labels mean.
        amounts: training pixels or pictures of each class, for ``class_weights``.
    """
    task = task_of(contract)
    weights = _class_weights(settings, labelling, amounts)
    scheme = Scheme(contract.activation, labelling, weights, settings.focal_gamma, settings.label_smoothing)
    losses = [resolve(task.LOSS_KIND, name) for name in settings.loss or task.LOSSES]
    return Objective(losses, scheme, settings.loss_weights)


def _class_weights(settings: Train, labelling: Labelling, amounts: Sequence[int]) -> npt.NDArray[np.float32]:
    if settings.class_weights in ("pixels", "pictures"):
        return balanced(amounts)
    if settings.class_weights == "none":
        return np.ones(labelling.classes, np.float32)
    given = np.asarray(settings.class_weights, np.float32)
    even: npt.NDArray[np.float32] = given / given.mean()
    return even
