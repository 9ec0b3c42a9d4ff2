"""How fast does a U-Net learn? Pictures/s of our training against segmentation-models' own ``fit``, interleaved.

    python benchmarks/peers.py [--size 128] [--batch 16] [--steps 4] [--rounds 4] [--sides usual,xla,theirs]

Every side is a process of its own, the same network (ResNet18, 3 classes) on the same pictures; while one takes its
steps the others wait, and every other round goes in reverse order:

* ``usual``: ours, as ``leakdet-tf fit`` trains by default (oneDNN, deterministic, our pipeline and counts)
* ``xla``: ours with ``train.xla``
* ``bare``: ours without oneDNN, as TensorFlow comes on this CPU
* ``theirs``: segmentation_models.Unet, compiled with its Dice and cross-entropy, fitted by Keras on arrays in memory,
  in the environment that importing it leaves behind
* ``torch``, ``torch_last``, ``torch_bf16``: segmentation_models_pytorch (where it is installed): plain, with
  channels_last, and with that in bfloat16

Prints each side's pictures/s and, of each but ``theirs``, the median ratio to it, by the clock and by processor time
(which a busy machine disturbs less); the first step's seconds; the most memory. With the rate
stands what share, by processor time, that is of NumPy's own product of float32 matrices (2,048 a side), counting three
times the forward pass's multiplications. At last the losses of our sides over twenty steps from the same weights, which
must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from time import perf_counter, process_time
from typing import Any

import numpy as np
from by_turns import answer, peak_mb, seconds

OURS: dict[str, dict[str, bool]] = {"usual": {}, "xla": {"xla": True}, "bare": {}}
"""Of ``[train]``, by side."""
PEER = "theirs"
SIDES = (*OURS, PEER, "torch", "torch_last", "torch_bf16")
CLASSES = 3
LOSSES = 20
Work = Callable[[int], list[float]]
"""Takes so many steps and gives the loss after each, or none."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("size", 128), ("batch", 16), ("steps", 4), ("rounds", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sides", default="usual,xla,bare,theirs")
    parser.add_argument("--alone", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        worker(given.alone, given)
        return 0
    sides, pictures = given.sides.split(","), given.batch * given.steps
    children, first = {}, {}
    for name in sides:
        call = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
        children[name] = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first[name] = answer(children[name])
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(given.rounds):
        for name in sides if number % 2 == 0 else sides[::-1]:
            times[name].append(answer(children[name], "go"))
        rates = ", ".join(f"{name} {pictures / times[name][-1][0]:.1f}" for name in sides)
        print(f"round {number + 1}: pictures/s {rates}", flush=True)
    losses = {name: answer(children[name], "losses") for name in sides if name in OURS}
    memory = {name: answer(children[name], "end") for name in sides}
    peak, needed = multiplying(), 3 * forward_flops(given.size)
    for name in sides:
        rate, work = (statistics.median(pictures / both[i] for both in times[name]) for i in (0, 1))
        line = f"{name}: {rate:.1f} pictures/s, {work * needed / peak:.0%} of the matrix product"
        if PEER in sides and name != PEER:
            pairs = list(zip(times[PEER], times[name], strict=True))
            wall, processor = (statistics.median(peer[i] / own[i] for peer, own in pairs) for i in (0, 1))
            line += f"; {wall:.2f} of {PEER} (by processor time {processor:.2f})"
        print(f"{line}; first step {first[name]:.1f} s; {memory[name]} MB at most")
    print(f"matrix product: {peak / 1e9:.0f} GFLOP per processor second; a picture's step {needed / 1e9:.2f} GFLOP")
    told = {name: " ".join(f"{loss:.4f}" for loss in found) for name, found in losses.items()}
    for name, text in told.items():
        print(f"losses of {name}: {text}")
    base: list[float] = losses.get("bare") or next(iter(losses.values()), [])
    gaps = [abs(a / b - 1) for found in losses.values() for a, b in zip(found, base, strict=True)]
    print(f"largest difference of losses: {max(gaps, default=0):.1e} of the loss")
    return 0


def worker(name: str, given: argparse.Namespace) -> None:
    """In the child: the first step's seconds at once; then times, losses or the most MB, as it is asked."""
    said, sys.stdout = sys.stdout, sys.stderr  # packages print there
    make = ours if name in OURS else theirs if name == PEER else torches
    work, begin_anew = make(name, given)
    start = perf_counter()
    work(1)
    print(json.dumps(perf_counter() - start), file=said, flush=True)
    work(1)
    for line in sys.stdin:
        if line.strip() == "end":
            print(peak_mb(), file=said, flush=True)
            return
        if line.strip() == "losses":
            begin_anew()
            print(json.dumps(work(LOSSES)), file=said, flush=True)
            continue
        print(json.dumps(seconds(lambda: work(given.steps))), file=said, flush=True)


def ours(name: str, given: argparse.Namespace) -> tuple[Work, Callable[[], None]]:
    """Our network, loss, counts and pipeline."""
    if name == "bare":
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    from leakdet_tf.config.train import Train
    from leakdet_tf.core.contract import Contract, classes_of
    from leakdet_tf.core.images import ImageSpec
    from leakdet_tf.data.cache import Cache
    from leakdet_tf.jobs import backend

    settings = Train.model_validate({"batch_size": given.batch, "learning_rate": 1e-3, **OURS[name]})
    backend.start("tensorflow", deterministic=True, xla=settings.xla)
    from leakdet_tf.data.pipeline import plain
    from leakdet_tf.models import unet
    from leakdet_tf.training.loop import compiled

    images, masks = data(given)
    model = unet((given.size, given.size, 3), CLASSES, seed=0)
    contract = Contract("segment", {"image": ImageSpec(given.size, given.size)}, classes_of(["a", "b", "c"]))
    trained, _ = compiled(model, contract, settings)
    cache = Cache(tuple(map(str, range(len(images)))), {"image": images}, masks, ((),) * len(images))
    stream = plain(cache, batch_size=given.batch).repeat()
    weights, optimizer = model.get_weights(), [np.array(one) for one in trained.optimizer.variables]
    seen = _Losses()

    def work(steps: int) -> list[float]:
        seen.found.clear()
        trained.fit(stream, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=[seen.callback])
        return list(seen.found)

    def begin_anew() -> None:
        model.set_weights(weights)
        for variable, value in zip(trained.optimizer.variables, optimizer, strict=True):
            variable.assign(value)

    return work, begin_anew


class _Losses:
    """Each step's own loss, from the mean so far that Keras tells."""

    def __init__(self) -> None:
        import keras

        self.found: list[float] = []
        self._sum = 0.0
        self.callback = keras.callbacks.LambdaCallback(on_train_batch_end=self._add)

    def _add(self, batch: int, logs: Any) -> None:
        total = float(logs["loss"]) * (batch + 1)
        self.found.append(total - (self._sum if batch else 0.0))
        self._sum = total


def theirs(name: str, given: argparse.Namespace) -> tuple[Work, Callable[[], None]]:
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

    return work, lambda: None


def torches(name: str, given: argparse.Namespace) -> tuple[Work, Callable[[], None]]:
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

    return work, lambda: None


def data(given: argparse.Namespace) -> tuple[Any, Any]:
    """Pictures uint8 (N, S, S, 3) of two discs on noise, and their masks uint8 (N, S, S)."""
    random, count = np.random.default_rng(0), given.batch * max(given.steps, 2)
    images = random.integers(0, 80, (count, given.size, given.size, 3), dtype=np.uint8)
    masks = np.zeros((count, given.size, given.size), np.uint8)
    rows, columns = np.mgrid[: given.size, : given.size]
    for image, mask in zip(images, masks, strict=True):
        for kind in (1, 2):
            y, x = random.integers(0, given.size, 2)
            disc = np.hypot(rows - y, columns - x) < given.size / 5
            mask[disc] = kind
            image[disc, kind] += 100
    return images, masks


def multiplying() -> float:
    """Floating-point operations a processor second in NumPy's product of two float32 matrices, the best of five."""
    side = 2048
    one = np.random.default_rng(0).random((side, side), np.float32)
    found = []
    for _ in range(5):
        start = process_time()
        one @ one
        found.append(2 * side**3 / (process_time() - start))
    return max(found)


def forward_flops(size: int) -> float:
    """Of the U-Net's convolutions on one picture: two for each multiplication."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from leakdet_tf.models import unet

    layers = unet((size, size, 3), CLASSES, seed=0).layers
    kernels = [(layer.kernel.shape, layer.output.shape) for layer in layers if type(layer).__name__ == "Conv2D"]
    return float(sum(2 * np.prod(kernel) * shape[1] * shape[2] for kernel, shape in kernels))


if __name__ == "__main__":
    sys.exit(main())
