"""Does a U-Net end in the same weights each time, and what does that cost? ``train.deterministic`` on against off.

    python benchmarks/determinism.py [--size 128] [--batch 8] [--steps 6] [--rounds 4] [--xla]

Every measurement is a process of its own, on and off by turns, which trains the same network on the same pictures from
the same weights. Prints each one's pictures/s and the digest of its weights; then the ratio of the medians, and how
many different weights there were of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("size", 128), ("batch", 8), ("steps", 6), ("rounds", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--xla", action="store_true", help="the same with train.xla, which puts operations in order")
    parser.add_argument("--alone", choices=("on", "off"), help="train once, and print rate and digest as JSON")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(trained(given)))
        return 0
    found: dict[str, list[tuple[float, str]]] = {"on": [], "off": []}
    for number in range(given.rounds):
        for side in ("on", "off") if number % 2 == 0 else ("off", "on"):
            call = [sys.executable, __file__, *sys.argv[1:], "--alone", side]
            rate, digest = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
            found[side].append((rate, digest))
            print(f"round {number + 1}, {side}: {rate:.2f} pictures/s, weights {digest[:8]}")
    medians = {side: statistics.median(rate for rate, _ in all_of) for side, all_of in found.items()}
    print(f"pictures/s with against without: {medians['on'] / medians['off']:.2f}")
    for side, all_of in found.items():
        print(f"{side}: {len({digest for _, digest in all_of})} different weights of {len(all_of)}")
    return 0 if len({digest for _, digest in found["on"]}) == 1 else 1


def trained(given: argparse.Namespace) -> tuple[float, str]:
    """Pictures/s after the first two steps, and the digest of the weights in the end."""
    from leakdet_tf.jobs.run.quiet import in_turn, start_tensorflow

    if given.alone == "on" and not given.xla and not in_turn():
        raise SystemExit("TF_NUM_INTEROP_THREADS is set to another number than 1")
    start_tensorflow()

    import numpy as np
    import tensorflow as tf

    from leakdet_tf.config.train import Train
    from leakdet_tf.core.contract import Contract, classes_of
    from leakdet_tf.core.images import ImageSpec
    from leakdet_tf.models import unet
    from leakdet_tf.models.runtime import weights_sha256
    from leakdet_tf.training.loop import compiled

    random, shape = np.random.default_rng(0), (given.batch, given.size, given.size)
    images, masks = random.integers(0, 256, (*shape, 3), dtype=np.uint8), random.integers(0, 3, shape, dtype=np.uint8)
    contract = Contract("segment", {"image": ImageSpec(*shape[1:])}, classes_of(["background", "gas", "machine"]))
    model = unet((*shape[1:], 3), 3, seed=0)
    fitted, _ = compiled(model, contract, Train(batch_size=given.batch, xla=given.xla))
    stream = tf.data.Dataset.from_tensors((images, masks)).repeat()
    fitted.fit(stream, steps_per_epoch=2, verbose=0, shuffle=False)
    start = perf_counter()
    fitted.fit(stream, steps_per_epoch=given.steps, verbose=0, shuffle=False)
    return given.batch * given.steps / (perf_counter() - start), weights_sha256(model)


if __name__ == "__main__":
    sys.exit(main())
