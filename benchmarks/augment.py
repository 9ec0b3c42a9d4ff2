"""What augmentation costs: pictures/s of the changed stream against bare JPEG decoding and a model's consumption.

    python benchmarks/augment.py [--sizes 128 256] [--pictures 64] [--rounds 5] [--batch 8] [--width 64]

These are timed in turn, and each round gives ratios, so that a slow second on a noisy machine spoils one round:

    decode   generated 256-pixel JPEG files through core.images.decode, a thread a core: what a stream could give at
             most if it read files and did nothing else
    paper    the training stream with all of the paper's changes: flip, shift, scale, rotation, crop, noise, intensity,
             sharpening, blur
    every    the same with every change there is
    plain    the training stream with flips and intensity only
    model    training steps of the U-Net on arrays in memory: what has to be fed

Beside wall-clock time stands processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from leakdet_tf.config.data import Augment
from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec, decode
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.pipeline import training
from leakdet_tf.models import unet
from leakdet_tf.training.loop import compiled

PLAIN = {"flip_horizontal": 0.5, "flip_vertical": 0.5, "brightness": 0.1, "contrast": 0.2, "gamma": 0.2}
PAPER = PLAIN | {"shift": 0.1, "scale": 0.25, "rotation": 15.0, "crop": 0.2, "noise": 0.05, "sharpen": 1.0, "blur": 1.5}
EVERY = PAPER | {"hue": 0.05, "saturation": 0.3, "equalize": 0.5, "motion_blur": 7.0, "sensor": 0.02, "jpeg": 0.7}
STREAMS = {"paper": PAPER, "every": EVERY, "plain": PLAIN}
JPEG_SIZE = 256
BATCHES = 40  # read from a stream in each round
Work = Callable[[], int]  # does what is timed; how many pictures
Ready = Callable[[], Work]  # what comes before it


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    for name, default in (("pictures", 64), ("rounds", 5), ("batch", 8), ("width", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        files = _jpegs(Path(folder), given.pictures)
        for size in given.sizes:
            works: dict[str, Ready] = {"decode": lambda: lambda: len(list(pool.map(decode, files)))}
            images, masks = _pictures(given.pictures, size)
            for name, strengths in STREAMS.items():
                works[name] = _reading(images, masks, Augment.model_validate(strengths), given.batch)
            works["model"] = _stepping(images, masks, given.batch, given.width)
            print(f"{size} px, batches of {given.batch}, {os.cpu_count()} cores, {given.rounds} rounds:")
            _report(_timed(works, given.rounds))
    return 0


def _timed(works: dict[str, Ready], rounds: int) -> dict[str, list[tuple[float, float]]]:
    # Pictures a second of wall-clock time and of processor time, by name, a pair for each round.
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for ready in works.values():
        ready()()  # once untimed: tracing, buffers
    for number in range(rounds):
        names = list(works)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            work = works[name]()
            wall, processor = perf_counter(), process_time()
            count = work()
            rates[name].append((count / (perf_counter() - wall), count / (process_time() - processor)))
    return rates


def _report(rates: dict[str, list[tuple[float, float]]]) -> None:
    for name, found in rates.items():
        wall, processor = (statistics.median(pair[kind] for pair in found) for kind in (0, 1))
        print(f"  {name:7s} {wall:8.1f} pictures/s; {processor:8.1f} per second of processor time")
    for name in STREAMS:
        for other in ("decode", "model"):
            wall, processor = (
                statistics.median(a[kind] / b[kind] for a, b in zip(rates[name], rates[other], strict=True))
                for kind in (0, 1)
            )
            print(f"  {name} / {other}: {wall:.2f} (by processor time {processor:.2f})")


def _reading(images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8], settings: Augment, batch: int) -> Ready:
    cache = Cache(tuple(map(str, range(len(images)))), {"image": images}, masks, ((),) * len(images))

    def ready() -> Work:
        # A stream of its own, so that no batches lie ready from a pause; its start-up is not timed.
        stream = iter(training(cache, batch_size=batch, seed=0, settings=settings, epochs=10_000))
        next(stream)
        return lambda: batch * sum(1 for _ in itertools.islice(stream, BATCHES))

    return ready


def _stepping(images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8], batch: int, width: int) -> Ready:
    size, count = images.shape[1], 2 * batch
    contract = Contract("segment", {"image": ImageSpec(size, size)}, classes_of(["background", "gas", "machine"]))
    model = unet((size, size, 3), 3, encoder_options={"width": width}, seed=0)
    trained, _ = compiled(model, contract, Train(batch_size=batch))

    def step() -> int:
        trained.fit({"image": images[:count]}, masks[:count], batch_size=batch, epochs=1, verbose=0)
        return count

    return lambda: step


def _pictures(count: int, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """uint8 (N, h, w, 3) of smooth blobs with some grain, as photographs have, and uint8 (N, h, w) masks."""
    generator = np.random.default_rng(0)
    images = np.empty((count, size, size, 3), np.uint8)
    for image in images:
        coarse = generator.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
        grain = generator.normal(0, 4, image.shape)
        image[:] = (cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) + grain).clip(0, 255)
    return images, (images[..., 0] // 86).astype(np.uint8)


def _jpegs(folder: Path, count: int) -> list[Path]:
    files = []
    for number, image in enumerate(_pictures(count, JPEG_SIZE)[0]):
        files.append(folder / f"{number:04d}.jpg")
        Image.fromarray(image).save(files[-1], quality=90)
    return files


if __name__ == "__main__":
    sys.exit(main())
