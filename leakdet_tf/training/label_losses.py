"""Losses for classification, on logits, with one value a picture.

As in :mod:`.losses` a loss is ``loss(targets, logits, scheme) -> (B,)``; here targets are int32 (B, C), 1 for each
class that is there (rows of IGNORE count for nothing, by their weight), logits float32 (B, C). With softmax the rows
have one class each and its weight is the picture's; with sigmoid a value is the weighted mean over the classes.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from leakdet_tf.training.losses import Scheme, damped

Tensor = Any


def cross_entropy(targets: Tensor, logits: Tensor, scheme: Scheme) -> Tensor:
    """-log p of what is true; with label smoothing (Szegedy et al. 2016, arXiv 1512.00567) a share of every class's."""
    return _focal(targets, logits, scheme, 0.0)


def focal(targets: Tensor, logits: Tensor, scheme: Scheme) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the probability of what is true (Lin et al., arXiv 1708.02002; alpha 1)."""
    return _focal(targets, logits, scheme, scheme.gamma)


def _focal(targets: Tensor, logits: Tensor, scheme: Scheme, gamma: float) -> Tensor:
    there = ops.cast(ops.equal(targets, 1), "float32")
    if scheme.activation == "sigmoid":
        wanted = there * (1.0 - scheme.smoothing) + scheme.smoothing / 2
        losses = wanted * damped(ops.softplus(-logits), gamma) + (1.0 - wanted) * damped(ops.softplus(logits), gamma)
        return ops.sum(ops.multiply(losses, scheme.weights), axis=-1) / float(scheme.weights.sum())
    wanted = there * (1.0 - scheme.smoothing) + scheme.smoothing / logits.shape[-1]
    losses = damped(ops.logsumexp(logits, axis=-1, keepdims=True) - logits, gamma)
    return ops.sum(wanted * losses, axis=-1) * ops.sum(ops.multiply(there, scheme.weights), axis=-1)
