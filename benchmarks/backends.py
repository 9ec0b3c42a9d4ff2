"""Which of Keras's backends trains fastest here? Pictures/s of each against TensorFlow's, interleaved.

    python benchmarks/backends.py [--models unet,resnet_classifier,yolov8] [--backends tensorflow,jax,torch]
                                  [--rounds 3] [--steps 4] [--batch 16]

Each backend trains the same model on the same batches of our pipeline in a process of its own. While one takes its
steps the others wait; in every other round they go in reverse order. Prints each round's rates, then of each backend
the median rate and the median ratio to TensorFlow's of the same round, by the clock and by processor time (which a
busy machine disturbs less); the time of the first step, in which graphs are traced and compiled; and the most memory
that the process came to.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from by_turns import answer, peak_mb, seconds

from leakdet_tf.config.loading import parse
from leakdet_tf.config.schema import Experiment
from leakdet_tf.jobs.run import backend
from leakdet_tf.jobs.run.backend import USUAL
from leakdet_tf.jobs.run.quiet import quiet_start
from leakdet_tf.jobs.run.throughput import stepper

MODELS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "unet": ("segment", 128, {"encoder": "resnet18"}),
    "resnet_classifier": ("classify", 128, {"encoder": "resnet18_v1"}),
    "yolov8": ("detect", 256, {"size": "n", "implementation": "native"}),
}
"""Task, pixels a side, and the factory's arguments."""
TRUTH: dict[str, dict[str, Any]] = {
    "segment": {"values": {"0": "one", "1": "two", "2": "three"}},
    "classify": {"labels": "folders"},
    "detect": {"labels": "yolo"},
}
"""By task, what experiments say of the pictures' truth."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--backends", default=",".join(backend.BACKENDS))
    for name, default in (("rounds", 3), ("steps", 4), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        name, model = given.alone
        worker(name, model, given)
        return 0
    for model in given.models.split(","):
        compare(model, given.backends.split(","), given)
    return 0


def compare(model: str, backends: list[str], given: argparse.Namespace) -> None:
    """The table of one model."""
    command = [sys.executable, __file__, "--steps", str(given.steps), "--batch", str(given.batch), "--alone"]
    children, first = {}, {}
    for name in backends:
        children[name] = subprocess.Popen(
            [*command, name, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        first[name] = float(answer(children[name]))
    times: dict[str, list[list[float]]] = {name: [] for name in backends}
    pictures = given.batch * given.steps
    for number in range(given.rounds):
        for name in backends if number % 2 == 0 else backends[::-1]:
            times[name].append(answer(children[name], "go"))
        rates = ", ".join(f"{name} {pictures / times[name][-1][0]:.1f}" for name in backends)
        print(f"{model} round {number + 1}: pictures/s {rates}", flush=True)
    task, size, _ = MODELS[model]
    print(f"{model} ({task}, {size} px, batches of {given.batch}):")
    for name in backends:
        memory = answer(children[name], "end")
        children[name].wait()
        rate = statistics.median(pictures / wall for wall, _ in times[name])
        line = f"  {name}: {rate:.1f} pictures/s"
        if USUAL in backends:
            pairs = list(zip(times[USUAL], times[name], strict=True))
            wall, processor = (statistics.median(usual[i] / own[i] for usual, own in pairs) for i in (0, 1))
            line += f", {wall:.2f} of {USUAL}'s (by processor time {processor:.2f})"
        print(f"{line}; first step {first[name]:.1f} s; {memory} MB at most", flush=True)


def worker(name: str, model: str, given: argparse.Namespace) -> None:
    """In the child: the first step's seconds at once; then for each ``go`` those of some steps, and at last the MB."""
    backend.start(name)
    with quiet_start():
        work = stepper(experiment_of(model, given.batch))
        start = perf_counter()
        work(1)
        print(json.dumps(perf_counter() - start), flush=True)
        work(1)
    for line in sys.stdin:
        if line.strip() == "end":
            print(peak_mb(), flush=True)
            return
        print(json.dumps(seconds(lambda: work(given.steps))), flush=True)


def experiment_of(model: str, batch: int) -> Experiment:
    """What is trained; its pictures are noise, and stand nowhere."""
    task, size, arguments = MODELS[model]
    return parse(
        {
            "name": model,
            "task": {"kind": task, "classes": ["one", "two", "three"]},
            "data": {"root": "nowhere", "inputs": {"image": {"size": [size, size]}}, **TRUTH[task]},
            "model": {"factory": model, **arguments},
            "train": {"batch_size": batch},
        }
    )


if __name__ == "__main__":
    sys.exit(main())
