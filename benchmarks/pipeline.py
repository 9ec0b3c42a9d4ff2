"""Does our pipeline slow training down? Pictures/s of our batches against Keras on arrays in memory, interleaved.

    python benchmarks/pipeline.py [--size 128] [--pictures 48] [--rounds 15] [--width 64]

Both sides train the same compiled U-Net. Ours takes shuffled, augmented batches out of the uint8 cache through
tf.data; Keras's own takes NumPy arrays of the same pictures. Prints the ratio of each round and their median; the
limit is 0.95. Beside wall-clock time stands the processor time of each round, which a noisy machine disturbs less.
Rounds are short and many, so that one slow second spoils one ratio. Validation, checkpoints and logging are on
neither side.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from time import perf_counter, process_time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from leakdet_tf.config.data import Augment
from leakdet_tf.config.schema import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.pipeline import steps, training
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
    ours = training(cache, batch_size=given.batch, seed=0, settings=Augment(), epochs=10_000)
    batches = iter(ours.repeat())
    stream = ours.repeat()

    def fit_ours() -> None:
        trained.fit(stream, steps_per_epoch=steps(count, given.batch), epochs=1, shuffle=False, verbose=0)

    def fit_keras() -> None:
        trained.fit({"image": images}, masks, batch_size=given.batch, epochs=1, verbose=0)

    def seconds(work: Callable[[], None]) -> tuple[float, float]:
        wall, processor = perf_counter(), process_time()
        work()
        return perf_counter() - wall, process_time() - processor

    fit_ours()  # both once untimed: tracing, buffers
    fit_keras()
    ratios, costs = [], []
    for number in range(given.rounds):
        order = (fit_ours, fit_keras) if number % 2 == 0 else (fit_keras, fit_ours)
        times = {work: seconds(work) for work in order}
        (ours_s, ours_cpu), (keras_s, keras_cpu) = times[fit_ours], times[fit_keras]
        ratios.append(keras_s / ours_s)
        costs.append(keras_cpu / ours_cpu)
        print(
            f"round {number + 1}: ours {count / ours_s:.1f} pictures/s, Keras on arrays {count / keras_s:.1f}, "
            f"ratio {ratios[-1]:.3f}; by processor time {costs[-1]:.3f}"
        )
    start = perf_counter()
    for _ in range(steps(count, given.batch) * 10):
        next(batches)
    print(f"the pipeline alone: {10 * count / (perf_counter() - start):.0f} pictures/s")
    median = statistics.median(ratios)
    print(f"median ratio {median:.3f} of {given.rounds} interleaved rounds (limit {LIMIT})")
    print(f"median ratio of processor time {statistics.median(costs):.3f}")
    return 0 if median >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
