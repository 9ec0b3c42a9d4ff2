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
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from leakdet_tf.config.data import Augment
from leakdet_tf.config.schema import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.data.cache import Cache
from leakdet_tf.jobs import backend
from leakdet_tf.jobs.quiet import quiet_start

USUAL = "tensorflow"
MODELS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "unet": ("segment", 128, {"encoder": "resnet18"}),
    "resnet_classifier": ("classify", 128, {"encoder": "resnet18_v1"}),
    "yolov8": ("detect", 256, {"size": "n", "implementation": "native"}),
}
"""Task, pixels a side, and the factory's arguments."""


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


def answer(child: Any, word: str = "") -> Any:
    """What a worker says, after a word to it."""
    if word:
        child.stdin.write(f"{word}\n")
        child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"a worker ended early, with status {child.wait()}")
    return json.loads(line)


def worker(name: str, model: str, given: argparse.Namespace) -> None:
    """In the child: the first step's seconds at once; then for each ``go`` those of some steps, and at last the MB."""
    backend.start(name)
    with quiet_start():
        work = steps_of(model, given)
        start = perf_counter()
        work(1)
        print(json.dumps(perf_counter() - start), flush=True)
        work(1)
    for line in sys.stdin:
        if line.strip() == "end":
            status = Path("/proc/self/status").read_text(encoding="ascii")
            print(int(status.split("VmHWM:")[1].split()[0]) // 1024, flush=True)
            return
        wall, processor = perf_counter(), process_time()
        work(given.steps)
        print(json.dumps([perf_counter() - wall, process_time() - processor]), flush=True)


def steps_of(name: str, given: argparse.Namespace) -> Callable[[int], None]:
    """Takes so many steps."""
    from leakdet_tf.data.pipeline import training
    from leakdet_tf.models.build import activation_of, build
    from leakdet_tf.training.loop import compiled

    task, size, arguments = MODELS[name]
    specs, classes = {"image": ImageSpec(size, size)}, ["one", "two", "three"]
    built = build(name, arguments, inputs=specs, classes=len(classes), seed=0, task=task)
    activation: Any = activation_of(built)
    contract = Contract(task, specs, classes_of(classes), activation)
    trained, _ = compiled(built, contract, Train(batch_size=given.batch))
    cache = pictures(task, size, given.batch * given.steps)
    stream = training(cache, batch_size=given.batch, seed=0, settings=Augment(), epochs=10_000)

    def work(steps: int) -> None:
        trained.fit(stream, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    return work


def pictures(task: str, size: int, count: int) -> Cache:
    """Noise with masks, labels or boxes of three classes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    kinds = random.integers(0, 3, (count, 4))
    corners = random.uniform(0, size * 0.6, (count, 4, 2))
    boxes = [corners, corners + random.uniform(8, size * 0.4, (count, 4, 2)), kinds[..., None], np.zeros((count, 4, 1))]
    targets: dict[str, Any] = {
        "segment": random.integers(0, 3, (count, size, size), dtype=np.uint8),
        "classify": np.eye(3, dtype=np.uint8)[kinds[:, 0]],
        "detect": np.concatenate(boxes, axis=-1).astype(np.float32),
    }
    return Cache(tuple(map(str, range(count))), {"image": images}, targets[task], ((),) * count)


if __name__ == "__main__":
    sys.exit(main())
