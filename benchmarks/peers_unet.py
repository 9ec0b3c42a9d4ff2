"""What ``peers.py`` compares of a U-Net (ResNet18, 3 classes): the peer is segmentation_models.Unet with its Dice and
cross-entropy, fitted by Keras on arrays in memory.

Where segmentation_models_pytorch is installed there are ``torch``, ``torch_last`` and ``torch_bf16`` too: plain, with
channels_last, and with that in bfloat16.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

SIZE = 128
CLASSES = 3
OURS = ()
"""Sides of ours that other models have not."""


def network(name: str, given: argparse.Namespace) -> Any:
    """Our network."""
    from leakdet_tf.models import unet

    return unet((given.size, given.size, 3), CLASSES, seed=0)


def prepare(name: str, given: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Our network, its contract, and the pictures as our pipeline takes them."""
    from leakdet_tf.core.contract import Contract, classes_of
    from leakdet_tf.core.images import ImageSpec
    from leakdet_tf.data.cache import Cache

    images, masks = data(given)
    contract = Contract("segment", {"image": ImageSpec(given.size, given.size)}, classes_of(["a", "b", "c"]))
    cache = Cache(tuple(map(str, range(len(images)))), {"image": images}, masks, ((),) * len(images))
    return network(name, given), contract, cache


def theirs(name: str, given: argparse.Namespace) -> Callable[[int], list[float]]:
    """segmentation-models, used as its page shows."""
    os.environ["SM_FRAMEWORK"] = "tf.keras"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    segmentation_models = import_module("segmentation_models")
    images, masks = data(given)
    model = segmentation_models.Unet(
        "resnet18",
        input_shape=(given.size, given.size, 3),
        classes=CLASSES,
        activation="softmax",
        encoder_weights=None,
    )
    loss = segmentation_models.losses.DiceLoss() + segmentation_models.losses.CategoricalCELoss()
    model.compile(tf.keras.optimizers.Adam(1e-3), loss, metrics=[segmentation_models.metrics.IOUScore()])
    inputs, truth = images.astype(np.float32) / 255, np.eye(CLASSES, dtype=np.float32)[masks]

    def work(steps: int) -> list[float]:
        count = steps * given.batch
        model.fit(inputs[:count], truth[:count], batch_size=given.batch, epochs=1, shuffle=False, verbose=0)
        return []

    return work


def torches(name: str, given: argparse.Namespace) -> Callable[[int], list[float]]:
    """segmentation_models_pytorch with the same losses, in a plain loop."""
    smp, torch = import_module("segmentation_models_pytorch"), import_module("torch")
    images, masks = data(given)
    form = torch.contiguous_format if name == "torch" else torch.channels_last
    model = smp.Unet("resnet18", encoder_weights=None, classes=CLASSES).to(memory_format=form)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    dice, entropy = smp.losses.DiceLoss("multiclass"), torch.nn.CrossEntropyLoss()
    inputs = torch.from_numpy(images.astype(np.float32).transpose(0, 3, 1, 2) / 255).contiguous(memory_format=form)
    truth = torch.from_numpy(masks.astype(np.int64))

    def work(steps: int) -> list[float]:
        for step in range(steps):
            rows = slice(step * given.batch, (step + 1) * given.batch)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=name == "torch_bf16"):
                logits = model(inputs[rows])
            logits = logits.float()
            (dice(logits, truth[rows]) + entropy(logits, truth[rows])).backward()
            optimizer.step()
        return []

    return work


OTHERS = {"theirs": theirs, "torch": torches, "torch_last": torches, "torch_bf16": torches}
"""Sides that are not ours: from name and arguments to what takes so many steps."""


def data(given: argparse.Namespace) -> tuple[Any, Any]:
    """Pictures uint8 (N, S, S, 3) of two discs on noise, and their masks uint8 (N, S, S)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 80, (given.count, given.size, given.size, 3), dtype=np.uint8)
    masks = np.zeros((given.count, given.size, given.size), np.uint8)
    rows, columns = np.mgrid[: given.size, : given.size]
    for image, mask in zip(images, masks, strict=True):
        for kind in (1, 2):
            y, x = random.integers(0, given.size, 2)
            disc = np.hypot(rows - y, columns - x) < given.size / 5
            mask[disc] = kind
            image[disc, kind] += 100
    return images, masks
