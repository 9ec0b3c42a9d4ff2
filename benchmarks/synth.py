"""How many pictures a second `leakdet-tf synth gas` renders, in this process and with a worker on every core.

    python benchmarks/synth.py [--pictures 600] [--size 128 128] [--rounds 3]

Prints medians, and the ratio of all cores to one beside the number of cores. Start of the workers is included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import deque
from pathlib import Path
from time import perf_counter

from leakdet_tf.synth.crew import cores
from leakdet_tf.synth.folder import render_folder
from leakdet_tf.synth.request import Request

LIMIT = 60.0


def rate(pictures: int, size: tuple[int, int], look: str, workers: int) -> float:
    """Pictures a second of one folder, rendered and removed."""
    with tempfile.TemporaryDirectory() as place:
        start = perf_counter()
        steps = render_folder(
            Path(place) / "gas", Request("gas", {"train": pictures}, size, 1, {"look": look}), workers=workers
        )
        deque(steps, maxlen=0)
        return pictures / (perf_counter() - start)


def main() -> int:
    """Measure and print; the exit status says whether one core renders 60 infrared pictures a second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    size = (asked.size[0], asked.size[1])
    held = True
    for look in ("infrared", "visible"):
        medians = {}
        for workers in sorted({1, cores()}):
            rates = [rate(asked.pictures, size, look, workers) for _ in range(asked.rounds)]
            medians[workers] = statistics.median(rates)
            print(
                f"{look}, {size[0]} x {size[1]}, {workers} worker{'s' * (workers > 1)}: "
                f"median {medians[workers]:.0f} pictures/s of {asked.rounds}, {min(rates):.0f} to {max(rates):.0f}"
            )
        print(f"{look}: all cores to one {medians[cores()] / medians[1]:.2f}, of {cores()} cores")
        held &= look != "infrared" or medians[1] >= LIMIT
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
