"""Does our pipeline slow training down? Pictures/s of our batches against Keras on arrays in memory, interleaved.

    python benchmarks/pipeline.py [--size 128] [--pictures 48] [--rounds 15] [--width 64]

All sides train the same compiled U-Net. Ours takes shuffled, augmented batches out of the uint8 cache through tf.data,
in one round from memory and from the disk (`data.cache = "disk"`); Keras's own takes NumPy arrays of the same pictures.
Prints the ratio of each round and their median; the limit is 0.95, of the disk's to the memory's too. Beside wall-clock
time stands the processor time of each round, which a noisy machine disturbs less. Rounds are short and many, so that
one slow second spoils one ratio. Validation, checkpoints and logging are on no side.

Then the pipeline alone, from memory, from the disk, and from the disk after the system was told to forget what it
holds of the file, as when the data are larger than memory (Linux). The file is made in the working directory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from by_turns import seconds

from leakdet_tf.config.data import Augment
from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.pipeline import steps, training
from leakdet_tf.data.store import Store
from leakdet_tf.models import unet
from leakdet_tf.training.loop import compiled

LIMIT = 0.95


def main() -> int:
    """Measure and print; the exit status says whether the median ratio holds the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("size", 128), ("pictures", 48), ("rounds", 15), ("batch", 8), ("width", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    size, count = given.size, given.pictures
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    masks = generator.integers(0, 3, (count, size, size), dtype=np.uint8)
    cache = Cache(tuple(map(str, range(count))), {"image": images}, masks, ((),) * count)
    contract = Contract("segment", {"image": ImageSpec(size, size)}, classes_of(["background", "gas", "machine"]))
    model = unet((size, size, 3), 3, encoder_options={"width": given.width}, seed=0)
    trained, _ = compiled(model, contract, Train(batch_size=given.batch))
    ours, disk = (
        training(one, batch_size=given.batch, seed=0, settings=Augment(), epochs=10_000).repeat()
        for one in (cache, on_disk(cache))
    )

    def fit_ours() -> None:
        trained.fit(ours, steps_per_epoch=steps(count, given.batch), epochs=1, shuffle=False, verbose=0)

    def fit_disk() -> None:
        trained.fit(disk, steps_per_epoch=steps(count, given.batch), epochs=1, shuffle=False, verbose=0)

    def fit_keras() -> None:
        trained.fit({"image": images}, masks, batch_size=given.batch, epochs=1, verbose=0)

    sides = (fit_ours, fit_disk, fit_keras)
    for work in sides:  # once untimed: tracing, buffers
        work()
    ratios, costs, kept, kept_costs = [], [], [], []
    for number in range(given.rounds):
        order = sides[number % 3 :] + sides[: number % 3]
        times = {work: seconds(work) for work in order}
        (ours_s, ours_cpu), (disk_s, disk_cpu), (keras_s, keras_cpu) = (times[work] for work in sides)
        ratios.append(keras_s / ours_s)
        costs.append(keras_cpu / ours_cpu)
        kept.append(ours_s / disk_s)
        kept_costs.append(ours_cpu / disk_cpu)
        print(
            f"round {number + 1}: ours {count / ours_s:.1f} pictures/s, from the disk {count / disk_s:.1f}, Keras on "
            f"arrays {count / keras_s:.1f}; ratio to Keras {ratios[-1]:.3f}, by processor time {costs[-1]:.3f}; of the "
            f"disk to memory {kept[-1]:.3f}, by processor time {kept_costs[-1]:.3f}"
        )
    alone(cache, given.batch)
    median, disk_median = statistics.median(ratios), statistics.median(kept)
    print(f"median ratio {median:.3f} of {given.rounds} interleaved rounds (limit {LIMIT})")
    print(f"median ratio of processor time {statistics.median(costs):.3f}")
    print(f"median ratio of the disk to memory {disk_median:.3f} (limit {LIMIT})")
    print(f"median ratio of the disk's processor time {statistics.median(kept_costs):.3f}")
    return 0 if min(median, disk_median) >= LIMIT else 1


def on_disk(cache: Cache) -> Cache:
    """The same pictures and masks in a file without a name."""
    arrays: dict[str, Any] = {**cache.inputs, "": cache.targets}
    store = Store(Path.cwd(), sum(array.nbytes for array in arrays.values()))
    found = {name: store.rows(array.shape, array.dtype) for name, array in arrays.items()}
    for name, array in arrays.items():
        for place, row in enumerate(array):
            found[name][place] = row
    store.flush()
    return Cache(cache.ids, {name: found[name] for name in cache.inputs}, found[""], cache.digests)


def alone(cache: Cache, batch: int, pictures: int = 2000) -> None:
    """Print how fast batches are made when nobody trains, of a split of so many pictures in another order each time."""
    repeat = -(-pictures // len(cache))
    arrays = {name: np.concatenate([np.asarray(rows)] * repeat) for name, rows in cache.inputs.items()}
    masks = np.concatenate([np.asarray(cache.targets)] * repeat)
    memory = Cache(tuple(map(str, range(len(masks)))), arrays, masks, ((),) * len(masks))
    disk = on_disk(memory)
    found: dict[str, list[float]] = {}
    for seed in range(3):
        for name, one in (("memory", memory), ("the disk", disk), ("the disk, forgotten", disk)):
            if name.endswith("forgotten"):
                if disk.store is None or not hasattr(os, "posix_fadvise"):
                    continue
                os.posix_fadvise(disk.store.handle, 0, 0, os.POSIX_FADV_DONTNEED)
            start = perf_counter()
            for _ in training(one, batch_size=batch, seed=seed, settings=Augment(), epochs=1):
                pass
            found.setdefault(name, []).append(len(masks) / (perf_counter() - start))
    for name, rates in found.items():
        print(f"the pipeline alone, from {name}: {statistics.median(rates):.0f} pictures/s (median of {len(rates)})")


if __name__ == "__main__":
    sys.exit(main())
