"""What benchmarks share whose sides are processes that wait for their turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

from leakdet_tf.edge import machine


def answer(child: Any, word: str = "") -> Any:
    """What a worker says, one JSON value a line, after a word to it.

    Raises:
        SystemExit: it has ended.
    """
    if word:
        child.stdin.write(f"{word}\n")
        child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"a worker ended early, with status {child.wait()}")
    return json.loads(line)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """What some work takes, by the clock and of the processor."""
    wall, processor = perf_counter(), process_time()
    work()
    return perf_counter() - wall, process_time() - processor


def peak_mb() -> int:
    """The most memory that this process came to, its packages included: of two sides the difference says more.

    Raises:
        SystemExit: this system does not tell.
    """
    found = machine.resident()
    if found is None:
        raise SystemExit("memory is read from /proc, which this system has not")
    return found[1] >> 20
