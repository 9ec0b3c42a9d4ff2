"""A detector's graph that decodes and suppresses by itself: :mod:`leakdet_tf.core.tasks.detect` as TensorFlow.

For the child processes that convert. Their results are compared with NumPy's on real pictures before a bundle is made.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.images import Size
from leakdet_tf.core.tasks.detect import BINS, CANDIDATES, anchors_of, grid


def as_outputs(model: Any, contract: Contract, *, batched: bool) -> Any:
    """The model with what ``contract.outputs`` asks for behind its raw output; one output, inputs in a list.

    Args:
        model: a Keras model of one output; of a detector (B, A, 4·16 + C).
        contract: its ``threshold``, ``nms_iou`` and ``max_boxes`` become part of a ``final`` graph.
        batched: the graph takes batches of any size, for ONNX; else of 1, for TFLite, with operators that it has.
    """
    answer = model.outputs[0]
    if contract.outputs != "raw":
        size = contract.inputs[contract.primary].size
        answer = _layer("decoded", partial(decoded, size=size))(answer)
    if contract.outputs == "final":
        suppressed = batch_suppressed if batched else one_suppressed
        answer = _layer("final", partial(suppressed, contract=contract))(answer)
    return keras.Model(model.inputs, answer, name=model.name)


def decoded(raw: Any, size: Size) -> Any:
    """Raw outputs float32 (B, A, 4·16 + C) of a model that takes (height, width) pixels → decoded (B, A, 4 + C)."""
    middles, strides = grid(size)
    logits = tf.reshape(raw[..., : 4 * BINS], (-1, anchors_of(size), 4, BINS))
    cells = tf.reduce_sum(tf.nn.softmax(logits) * np.arange(BINS, dtype=np.float32), axis=-1)
    spread = cells * strides[:, None]
    edges = [middles - spread[..., :2], middles + spread[..., 2:]]
    return tf.concat([*edges, tf.sigmoid(raw[..., 4 * BINS :])], axis=-1)


def one_suppressed(answer: Any, contract: Contract) -> Any:
    """Decoded outputs (1, A, 4 + C) → final (1, M, 6).

    One suppression a class, because moving the classes apart instead would cost the boxes digits. It is given ranks for
    scores: TFLite takes equal scores in no order of its own, and in flat padding there are many.
    """
    boxes, scores = answer[0, :, :4], answer[0, :, 4:]
    labels = tf.argmax(scores, axis=-1, output_type=tf.int32)
    number, most = min(CANDIDATES, answer.shape[1]), contract.max_boxes
    best, places = tf.math.top_k(tf.reduce_max(scores, axis=-1), number)
    boxes, labels = tf.gather(boxes, places), tf.gather(labels, places)
    ranks = np.arange(number, 0, -1, dtype=np.float32)
    kept = tf.zeros(number)
    for label in range(len(contract.classes)):
        chosen, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes,
            scores=tf.where(tf.equal(labels, label) & (best >= contract.threshold), ranks, 0.0),
            max_output_size=most,
            iou_threshold=contract.nms_iou,
            score_threshold=0.5,
            pad_to_max_output_size=True,
        )
        there = tf.cast(tf.range(most) < count, tf.float32)
        kept += tf.scatter_nd(chosen[:, None], there, (number,))
    scores, places = tf.math.top_k(kept * best, min(most, number))
    columns = [tf.gather(boxes, places), scores[:, None], tf.cast(tf.gather(labels, places), tf.float32)[:, None]]
    rows = tf.concat(columns, axis=-1) * tf.cast(scores > 0, tf.float32)[:, None]
    return tf.pad(rows, [[0, most - min(most, number)], [0, 0]])[None]


def batch_suppressed(answer: Any, contract: Contract) -> Any:
    """Decoded outputs (B, A, 4 + C) → final (B, M, 6)."""
    boxes, scores = answer[..., :4], answer[..., 4:]
    if answer.shape[1] > CANDIDATES:
        _, places = tf.math.top_k(tf.reduce_max(scores, axis=-1), CANDIDATES)
        boxes, scores = tf.gather(boxes, places, batch_dims=1), tf.gather(scores, places, batch_dims=1)
    labels = tf.argmax(scores, axis=-1, output_type=tf.int32)
    own = tf.equal(labels[..., None], tf.range(len(contract.classes)))
    boxes, best, labels, _ = tf.raw_ops.CombinedNonMaxSuppression(
        boxes=boxes[:, :, None],
        scores=tf.where(own, scores, -1.0),
        max_output_size_per_class=contract.max_boxes,
        max_total_size=contract.max_boxes,
        iou_threshold=contract.nms_iou,
        score_threshold=float(np.nextafter(np.float32(contract.threshold), np.float32(-1))),  # it keeps what is above
        pad_per_class=False,
        clip_boxes=False,
    )
    return tf.concat([boxes, best[..., None], labels[..., None]], axis=-1)


def _layer(name: str, function: Any) -> Any:
    return keras.layers.Lambda(function, name=f"boxes_{name}", dtype="float32")
