"""How fast does a model learn? Pictures/s of our training against the package that others would take, interleaved.

    python benchmarks/peers.py unet   [--size 128] [--batch 16] [--steps 4] [--rounds 4] [--sides usual,xla,theirs]
    python benchmarks/peers.py yolov8 [--size 256] [--batch 16] [--steps 4] [--rounds 4] [--rows 16] [--boxes 4]

Every side is a process of its own, on the same pictures; while one takes its steps the others wait, and every other
round goes in reverse order:

* ``usual``: ours, as ``leakdet-tf fit`` trains by default (oneDNN, deterministic, our pipeline and counts)
* ``xla``: ours with ``train.xla``
* ``bare``: ours without oneDNN, as TensorFlow comes on a CPU without AVX-512
* ``theirs``: the peer's own ``fit``, as its documentation has it, in the environment that importing it leaves behind

What else there is for a model, and who the peer is, stands in ``peers_unet.py`` and ``peers_yolov8.py``.

Prints each side's pictures/s and, of each but ``theirs``, the median ratio to it, by the clock and by processor time
(which a busy machine disturbs less); the first step's seconds; the most memory. With the rate
stands what share, by processor time, that is of NumPy's own product of float32 matrices (2,048 a side), counting three
times the forward pass's multiplications. At last the losses of our sides over twenty steps from the same weights, whose
first must agree; later ones drift apart by the last digits of sums.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from time import perf_counter, process_time
from typing import Any

import numpy as np
from by_turns import answer, peak_mb, seconds

OURS: dict[str, dict[str, bool]] = {"usual": {}, "xla": {"xla": True}, "bare": {}}
"""Of ``[train]``, by side."""
PEER = "theirs"
LOSSES = 20
FIRST = 1e-4
"""How far the first losses of our sides may lie apart, of the loss."""
Work = Callable[[int], list[float]]
"""Takes so many steps and gives the loss after each, or none."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", choices=("unet", "yolov8"))
    parser.add_argument("--size", type=int, help="pixels a side")
    numbers = {"batch": 16, "steps": 4, "rounds": 4, "rows": 16, "boxes": 4}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sides", default=f"usual,xla,bare,{PEER}")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    kind = import_module(f"peers_{given.model}")
    given.size = given.size or kind.SIZE
    if given.alone:
        worker(given.alone, given, kind)
        return 0
    sides, pictures = given.sides.split(","), given.batch * given.steps
    if unknown := set(sides) - {*OURS, *kind.OURS, *kind.OTHERS}:
        parser.error(f"--sides: there is no {', '.join(sorted(unknown))}")
    children, first = {}, {}
    for name in sides:
        call = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
        children[name] = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first[name] = answer(children[name])
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(given.rounds):
        for name in sides if number % 2 == 0 else sides[::-1]:
            times[name].append(answer(children[name], "go"))
        rates = ", ".join(f"{name} {pictures / times[name][-1][0]:.1f}" for name in sides)
        print(f"round {number + 1}: pictures/s {rates}", flush=True)
    losses = {name: answer(children[name], "losses") for name in sides if name not in kind.OTHERS}
    memory = {name: answer(children[name], "end") for name in sides}
    peak, needed = multiplying(), 3 * forward_flops(kind, given)
    for name in sides:
        rate, work = (statistics.median(pictures / both[i] for both in times[name]) for i in (0, 1))
        line = f"{name}: {rate:.1f} pictures/s, {work * needed / peak:.0%} of the matrix product"
        if PEER in sides and name != PEER:
            pairs = list(zip(times[PEER], times[name], strict=True))
            wall, processor = (statistics.median(peer[i] / own[i] for peer, own in pairs) for i in (0, 1))
            line += f"; {wall:.2f} of {PEER} (by processor time {processor:.2f})"
        print(f"{line}; first step {first[name]:.1f} s; {memory[name]} MB at most")
    print(f"matrix product: {peak / 1e9:.0f} GFLOP per processor second; a picture's step {needed / 1e9:.2f} GFLOP")
    told = {name: " ".join(f"{loss:.4f}" for loss in found) for name, found in losses.items()}
    for name, text in told.items():
        print(f"losses of {name}: {text}")
    base: list[float] = losses.get("bare") or next(iter(losses.values()), [])
    gaps = [abs(a / b - 1) for found in losses.values() for a, b in zip(found, base, strict=True)]
    print(f"largest difference of losses: {max(gaps, default=0):.1e} of the loss")
    firsts = {found[0] for found in losses.values()}
    return 0 if max(firsts, default=0) <= min(firsts, default=0) * (1 + FIRST) else 1


def worker(name: str, given: argparse.Namespace, kind: Any) -> None:
    """In the child: the first step's seconds at once; then times, losses or the most MB, as it is asked."""
    said, sys.stdout = sys.stdout, sys.stderr  # packages print there
    given.count = given.batch * max(given.steps, 2)
    work, begin_anew = (kind.OTHERS[name](name, given), None) if name in kind.OTHERS else ours(name, given, kind)
    start = perf_counter()
    work(1)
    print(json.dumps(perf_counter() - start), file=said, flush=True)
    work(1)
    for line in sys.stdin:
        if line.strip() == "end":
            print(peak_mb(), file=said, flush=True)
            return
        if line.strip() == "losses" and begin_anew:
            begin_anew()
            print(json.dumps(work(LOSSES)), file=said, flush=True)
            continue
        print(json.dumps(seconds(lambda: work(given.steps))), file=said, flush=True)


def ours(name: str, given: argparse.Namespace, kind: Any) -> tuple[Work, Callable[[], None]]:
    """Our network, loss, counts and pipeline; and what takes the weights back to where they were."""
    if name == "bare":
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    from leakdet_tf.config.train import Train
    from leakdet_tf.jobs.run import backend

    settings = Train.model_validate({"batch_size": given.batch, "learning_rate": 1e-3, **OURS.get(name, {})})
    backend.start("tensorflow", deterministic=True, xla=settings.xla)
    import keras

    from leakdet_tf.data.pipeline import plain
    from leakdet_tf.training.loop import compiled

    model, contract, cache = kind.prepare(name, given)
    trained, _ = compiled(model, contract, settings)
    stream = plain(cache, batch_size=given.batch).repeat()
    weights, optimizer = model.get_weights(), [keras.ops.convert_to_numpy(one) for one in trained.optimizer.variables]
    seen = _Losses()

    def work(steps: int) -> list[float]:
        seen.found.clear()
        trained.fit(stream, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=[seen.callback])
        return list(seen.found)

    def begin_anew() -> None:
        model.set_weights(weights)
        for variable, value in zip(trained.optimizer.variables, optimizer, strict=True):
            variable.assign(value)

    return work, begin_anew


class _Losses:
    """Each step's own loss, from the mean so far that Keras tells."""

    def __init__(self) -> None:
        import keras

        self.found: list[float] = []
        self._sum = 0.0
        self.callback = keras.callbacks.LambdaCallback(on_train_batch_end=self._add)

    def _add(self, batch: int, logs: Any) -> None:
        total = float(logs["loss"]) * (batch + 1)
        self.found.append(total - (self._sum if batch else 0.0))
        self._sum = total


def multiplying() -> float:
    """Floating-point operations a processor second in NumPy's product of two float32 matrices, the best of five."""
    side = 2048
    one = np.random.default_rng(0).random((side, side), np.float32)
    found = []
    for _ in range(5):
        start = process_time()
        one @ one
        found.append(2 * side**3 / (process_time() - start))
    return max(found)


def forward_flops(kind: Any, given: argparse.Namespace) -> float:
    """Of our network's convolutions on one picture: two for each multiplication."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    layers = kind.network("usual", given).layers
    kernels = [(layer.kernel.shape, layer.output.shape) for layer in layers if type(layer).__name__ == "Conv2D"]
    return float(sum(2 * np.prod(kernel) * shape[1] * shape[2] for kernel, shape in kernels))


if __name__ == "__main__":
    sys.exit(main())
