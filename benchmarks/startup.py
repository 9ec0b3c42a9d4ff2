"""How long the command line and the edge take to start, each beside a bare Python interpreter in the same run.

    python benchmarks/startup.py [--rounds 9]

Prints medians and ratios to the limits: `leakdet-tf --help` 0.15 s, `from leakdet_tf.edge import Predictor` 0.25 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

CASES = {
    "bare interpreter": ([sys.executable, "-c", "pass"], 0.0),
    "leakdet-tf --help": ([str(Path(sys.executable).with_name("leakdet-tf")), "--help"], 0.15),
    "import leakdet_tf.edge": ([sys.executable, "-c", "from leakdet_tf.edge import Predictor"], 0.25),
}


def main() -> int:
    """Measure and print; the exit status says whether the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, (command, _) in CASES.items():
            start = perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:  # the first round warms the file cache
                times[name].append(perf_counter() - start)
    held = True
    for name, (_, limit) in CASES.items():
        median = statistics.median(times[name])
        text = f"{name}: median {median:.3f} s of {rounds}, {min(times[name]):.3f} to {max(times[name]):.3f}"
        if limit:
            text += f"; {median / limit:.2f} of the limit {limit} s"
            held &= median <= limit
        print(text)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
