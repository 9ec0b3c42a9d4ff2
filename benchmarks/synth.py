"""How many pictures a second `leakdet-tf synth` renders, in this process and with a worker on every core.

    python benchmarks/synth.py [gas | leak | crack | hotspot] [--pictures 600] [--size 128 128] [--rounds 3]

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
from typing import Any

from leakdet_tf.edge.machine import cores
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import render_folder

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "gas": {"infrared": {"look": "infrared"}, "visible": {"look": "visible"}},
    "leak": {"leak": {}},
    "crack": {"crack": {}},
    "hotspot": {"hotspot": {}},
}
LIMITS = {"infrared": 60.0, "leak": 30.0, "crack": 30.0, "hotspot": 30.0}


def rate(generator: str, pictures: int, size: tuple[int, int], options: dict[str, Any], workers: int) -> float:
    """Pictures a second of one folder, rendered and removed."""
    with tempfile.TemporaryDirectory() as place:
        start = perf_counter()
        request = Request(generator, {"train": pictures}, size, 1, options)
        deque(render_folder(Path(place) / generator, request, workers=workers), maxlen=0)
        return pictures / (perf_counter() - start)


def main() -> int:
    """Measure and print; the exit status says whether one core renders as many pictures a second as it should."""
    parser = argparse.ArgumentParser()
    parser.add_argument("generator", nargs="?", choices=sorted(CASES), default="gas")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    size = (asked.size[0], asked.size[1])
    held = True
    for look, options in CASES[asked.generator].items():
        medians = {}
        for workers in sorted({1, cores()}):
            rates = [rate(asked.generator, asked.pictures, size, options, workers) for _ in range(asked.rounds)]
            medians[workers] = statistics.median(rates)
            print(
                f"{look}, {size[0]} x {size[1]}, {workers} worker{'s' * (workers > 1)}: "
                f"median {medians[workers]:.0f} pictures/s of {asked.rounds}, {min(rates):.0f} to {max(rates):.0f}"
            )
        print(f"{look}: all cores to one {medians[cores()] / medians[1]:.2f}, of {cores()} cores")
        held &= medians[1] >= LIMITS.get(look, 0.0)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
