"""A program: trainings that are killed at random moments and resumed, each compared with one that nothing stopped.

``python killing.py FOLDER --kills 5 --seed 1`` prints what was killed where, or what went wrong with the seed.
TensorFlow is imported once: every attempt is a fork of this process, which itself runs none of its operations.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.update(TF_ENABLE_ONEDNN_OPTS="1", TF_CPP_MIN_LOG_LEVEL="3", MPLBACKEND="Agg")
sys.path.insert(0, str(Path(__file__).parent))

import few_layers
import keras
import tensorflow as tf  # noqa: F401  # once, before the forks

from leakdet_tf.analysis import figures  # noqa: F401
from leakdet_tf.jobs import evaluate  # noqa: F401
from leakdet_tf.jobs import fit as room
from leakdet_tf.jobs.run.resume import LOCK, find_run, is_finished
from leakdet_tf.jobs.tasks import classify, detect  # noqa: F401
from leakdet_tf.training import callbacks, checkpoint, loop, measure, saver  # noqa: F401

ROOT = Path(__file__).parents[2]
COMMON = (*few_layers.OVERRIDES[1:], "train.epochs=3", "export.formats=[]", "evaluate.resamples=100")
KINDS = {
    "segment": ("gas_unet", few_layers.OVERRIDES[:1]),
    "staged": (
        "gas_unet",
        (
            *few_layers.OVERRIDES[:1],
            'train.stage=[{epochs = 1, train = ["head"]}, {epochs = 3, train = ["all"]}]',
            "train.weight_decay=0.01",
            'train.schedule="cosine"',
            "train.warmup=1",
            "train.checkpoint_steps=1",
        ),
    ),
    "seldom": ("gas_unet", (*few_layers.OVERRIDES[:1], "train.epochs=5", "train.checkpoint_every=2", "train.keep=1")),
    "within": ("gas_unet", (*few_layers.OVERRIDES[:1], "train.checkpoint_every=3", "train.checkpoint_steps=2")),
    "classify": ("leak_rendered", ("model={factory = 'few_layers:few_labels'}",)),
    "detect": (
        "hotspot_yolov8",
        ("model={factory = 'few_layers:few_grids'}", "data.augment.mosaic=0.5", "train.checkpoint_steps=2"),
    ),
}
"""An experiment of the project's own and what makes it a matter of seconds."""
LIMIT = 120.0  # seconds after which an attempt hangs
_WRITING = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


class Failed(Exception):
    """An attempt went wrong, hung, or ended in another result."""


@dataclass(frozen=True)
class Plan:
    """When to kill: after ``seconds`` (from the first step if ``stepped``), or at the ``count``-th moment of a way."""

    way: str
    seconds: float = -1.0
    stepped: bool = False
    count: int = 0


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: place of its kill or "", moments that it met, seconds in all and from the first step."""

    place: str
    moments: dict[str, int]
    seconds: float
    rest: float


def overrides(kind: str, folder: Path, runs: Path) -> tuple[str, list[str]]:
    """Experiment file and ``--set`` values of a kind."""
    name, own = KINDS[kind]
    made = [*COMMON, *own, f"data.root={folder / 'data' / name}", f"runs={runs}"]
    return str(ROOT / "experiments" / f"{name}.toml"), made


def watch_moments(pipe: int, runs: Path, plan: Plan | None) -> Counter[str]:
    """Count this process's writes below ``runs`` and its calls of callbacks, and kill it at the planned one."""
    seen: Counter[str] = Counter()

    def moment(way: str, place: str) -> None:
        seen[way] += 1
        if plan and plan.way == way and seen[way] == plan.count:
            os.write(pipe, f"killed {way} {place}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if (writes or event in _WRITING) and isinstance(arguments[0], str | Path):
            path = Path(arguments[0])
            if not path.is_absolute() or runs in path.parents:
                moment("file", event)

    def wrapped(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*given: Any, **named: Any) -> None:
            moment("callback", name)
            real(*given, **named)
            if name == "Watch.on_train_batch_end" and not seen["stepped"]:
                seen["stepped"] = 1
                os.write(pipe, b"stepped\n")
            moment("callback", name)

        return call

    for owner in (*vars(callbacks).values(), *vars(measure).values(), saver.Saver):
        if isinstance(owner, type) and issubclass(owner, keras.callbacks.Callback):
            for name in [name for name in vars(owner) if name.startswith("on_")]:
                setattr(owner, name, wrapped(f"{owner.__name__}.{name}", getattr(owner, name)))
    sys.addaudithook(audited)
    return seen


def train(kind: str, folder: Path, runs: Path, plan: Plan | None, pipe: int) -> None:
    """A forked process: begin or resume the training in ``runs``; it never returns."""
    status = 1
    try:
        with (folder / "log.txt").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        faulthandler.dump_traceback_later(LIMIT - 10)
        experiment, given = overrides(kind, folder, runs)
        place = runs / KINDS[kind][0]
        resume = any(not run.name.startswith(".") for run in place.glob("*"))  # hidden: killed before it had its name
        say(f"{kind}: {'resume' if resume else 'begin'} {plan}")
        seen = watch_moments(pipe, runs, plan)
        room.fit(experiment, given, log=say, resume=str(place) if resume else None)
        os.write(pipe, f"ended {json.dumps(seen)}\n".encode())
        status = 0
    finally:
        if status:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)


def say(line: str) -> None:
    """A line that is there even if the process is killed after it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def attempt(kind: str, folder: Path, runs: Path, plan: Plan | None) -> Ended:
    """Fork, kill as planned, and say how it ended."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.close(reading)
        train(kind, folder, runs, plan, writing)
    os.close(writing)
    start, first, said = time.monotonic(), 0.0, ""
    kill_at = start + plan.seconds if plan and plan.seconds >= 0 and not plan.stepped else None
    place = ""
    try:
        while True:
            until = min(start + LIMIT, kill_at or float("inf"))
            ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
            if ready:
                data = os.read(reading, 65536)
                if not data:
                    break
                said += data.decode()
                if "stepped\n" in said and not first:
                    first = time.monotonic()
                    kill_at = first + plan.seconds if plan and plan.stepped else kill_at
            elif kill_at and time.monotonic() >= kill_at:
                os.kill(pid, signal.SIGKILL)
                place, kill_at = "time", None
            elif time.monotonic() >= start + LIMIT:
                raise Failed(f"{kind}: hung for {LIMIT:.0f} s ({plan})")
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    ended = time.monotonic()
    lines = said.splitlines()
    done = next((line.removeprefix("ended ") for line in lines if line.startswith("ended ")), "")
    place = next((line.removeprefix("killed ") for line in lines if line.startswith("killed ")), place)
    if not done and os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise Failed(f"{kind}: ended with status {os.waitstatus_to_exitcode(status)} ({plan})")
    return Ended("" if done else place, json.loads(done or "{}"), ended - start, ended - (first or ended))


def result(runs: Path) -> dict[str, str]:
    """Digests of what a finished run holds."""
    run = find_run(str(next(runs.iterdir())))
    if not is_finished(run) or (run / LOCK).exists() or list(run.rglob(".*")):
        raise Failed(f"{run}: is not finished or not tidy")
    last = checkpoint.newest(run / "checkpoints", log=say)
    assert last is not None
    arrays = hashlib.sha256(b"".join(array.tobytes() for array in (*last.weights, *last.optimizer)))
    contract = json.loads((run / "contract.json").read_text())
    report = run / "metrics.json"
    return {
        "served weights": contract["weights_sha256"],
        "last weights and optimizer": arrays.hexdigest(),
        "history": (run / "history.csv").read_text(),
        "metrics": json.dumps(json.loads(report.read_text())["metrics"]) if report.is_file() else "",
    }


def drawn(random: np.random.Generator, whole: Ended) -> Plan:
    """A random moment of a training that takes as long as the unbroken one."""
    way = str(random.choice(["time", "stepped", "file", "callback"], p=[0.1, 0.4, 0.25, 0.25]))
    if way in ("time", "stepped"):
        stepped = way == "stepped"
        return Plan("time", float(random.uniform(0, whole.rest if stepped else whole.seconds)), stepped)
    return Plan(way, count=int(random.integers(1, whole.moments[way], endpoint=True)))


def ordeal(kind: str, folder: Path, kills: int, random: np.random.Generator) -> Counter[str]:
    """Kill trainings of a kind so often, resuming each until it is finished; where they were killed.

    Raises:
        Failed: a resumed one ended in another result than the unbroken one.
    """
    whole = attempt(kind, folder, folder / f"{kind}-whole", None)
    wanted, places, number = result(folder / f"{kind}-whole"), Counter[str](), 0
    while sum(places.values()) < kills:
        number += 1
        runs, here = folder / f"{kind}-{number}", 0
        while True:
            plan = drawn(random, whole) if sum(places.values()) < kills else None
            ended = attempt(kind, folder, runs, plan)
            if not ended.place:
                break
            places[ended.place] += 1
            here += 1
        found = result(runs)
        if differing := [key for key, value in wanted.items() if found[key] != value]:
            raise Failed(f"{kind}: after {here} kills other {' and '.join(differing)} than unbroken ({runs})")
        shutil.rmtree(runs)
    return places


def main() -> int:
    """Run all kinds in turn; 0 when every training ended as the unbroken one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--training-only", action="store_true", help="no figures, no report")
    given = parser.parse_args()
    if given.training_only:
        room._draw = lambda *_: None
        room._conclude = lambda run: room.Fitted(run.folder, False, [])
    folder, kinds, total = given.folder.resolve(), given.kinds.split(","), Counter[str]()
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for number, kind in enumerate(kinds):
        share = given.kills // len(kinds) + (number < given.kills % len(kinds))
        try:
            total += ordeal(kind, folder, share, np.random.default_rng((given.seed, number)))
            say(f"{kind}: {share} kills, {time.monotonic() - start:.0f} s in all")
        except Failed as error:
            said = (folder / "log.txt").read_text().splitlines()[-40:]
            say("\n".join([*said, f"--seed {given.seed}: {error}"]))
            return 1
    say(json.dumps({"kills": sum(total.values()), "seconds": round(time.monotonic() - start), "places": total}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
