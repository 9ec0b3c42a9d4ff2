"""Time that the edge spends outside `invoke`, as a share of `invoke`, for VGA frames in and VGA masks out.

    python benchmarks/edge_overhead.py BUNDLE [--frames 60] [--threads 1]

The peer is the bare runtime: the same interpreter called with an array that has the model's size already, interleaved
with our `predict`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from time import perf_counter

import numpy as np

from leakdet_tf.edge import Predictor


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    predictor = Predictor(given.bundle, threads=given.threads)
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 255, (480, 640, 3), dtype=np.uint8)
    prepared, _ = predictor.prepare(predictor.load(frame))
    bare, total, invoke = [], [], []
    for number in range(given.frames + 5):
        start = perf_counter()
        predictor.backend.run(prepared)
        elapsed = (perf_counter() - start) * 1e3
        answer = predictor.predict(frame)
        if number >= 5:
            bare.append(elapsed)
            total.append(answer.total_ms)
            invoke.append(answer.invoke_ms)
    outside = [a - b for a, b in zip(total, invoke, strict=True)]
    size = predictor.contract.inputs[predictor.contract.primary].size
    print(f"model at {size[0]}x{size[1]} px, {given.threads} thread(s), {given.frames} VGA frames, medians")
    print(f"bare runtime {statistics.median(bare):.2f} ms; predict {statistics.median(total):.2f} ms")
    share = statistics.median(outside) / statistics.median(invoke)
    print(f"outside invoke {statistics.median(outside):.2f} ms = {share:.1%} of invoke")
    print(f"ratio predict / bare runtime {statistics.median(total) / statistics.median(bare):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
