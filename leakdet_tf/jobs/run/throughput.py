"""``train.backend = "auto"``: how fast each of Keras's backends trains an experiment's model on this machine.

Each takes some steps on noise in a process of its own, ``python -m leakdet_tf.jobs.run.throughput BACKEND FILE``: a
process has one backend for good, and one that kills its process must not take the run along. They go one after the
other, for each may take all of a GPU's memory.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from leakdet_tf.config.loading import dump, load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.children import ask
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import LeakdetError, TrainingError
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.readers import labelling_of
from leakdet_tf.jobs.run import backend
from leakdet_tf.jobs.run.quiet import quiet_start
from leakdet_tf.jobs.run.runs import EXPERIMENT, Log
from leakdet_tf.jobs.run.start import new_model

LIMIT_S = 300
"""Seconds after which a backend is given up: it hangs, for its start and first steps (JAX compiles both the first and
the second) took 100 s of a U-Net on two busy cores."""
BLOCKS, BLOCK_S = 3, 2.0
"""Parts of the measurement, whose median counts, so that one disturbance does not; and least seconds of each."""
TIE = 1.05
"""How many times TensorFlow's pictures/s another backend must exceed to be taken.

Measured again, a backend's own differed by 3 %. What is gained by less is not worth what TensorFlow alone promises: the
same weights each time.
"""
_APART = 2  # first steps that do not count: graphs are compiled in the first, by JAX again in the second
_REFUSED = 3  # the child's exit code when its last line says all that the user needs


class LateError(TrainingError):
    """A backend gave no answer in time: it hangs, or its steps take long."""


@dataclass(frozen=True)
class Throughput:
    """How fast a backend trains: pictures/s, and the seconds of the first step, in which graphs are compiled."""

    pictures_per_s: float
    first_step_s: float


def choose_backend(experiment: Experiment, *, log: Log) -> Experiment:
    """The experiment under the backend it names; for ``auto`` under the fastest of those that are installed.

    Nothing is measured where there is no choice: Keras is at work in this process already, or one alone is installed.
    Where none trains and one was too slow to tell, it is taken, TensorFlow before others.

    Args:
        experiment: as it was read.
        log: takes a line for each backend, and one for the choice.

    Raises:
        TrainingError: none of them could train the model.
    """
    if experiment.train.backend != backend.AUTO:
        return experiment
    if running := backend.at_work():
        log(f"train.backend: {running}, under which Keras is at work in this process already")
        return backend.under(running, experiment)
    names = [name for name in backend.BACKENDS if find_spec(name)]
    if len(names) < 2:
        chosen = names[0] if names else backend.USUAL
        log(f"train.backend: {chosen}, there is no other installed")
        return backend.under(chosen, experiment)
    log(f"train.backend: measuring {', '.join(names)} on noise, one after the other")
    found, faults, late = _measure_all(names, experiment, log)
    if not found and late:
        chosen = backend.USUAL if backend.USUAL in late else late[0]
        log(f"train.backend: {chosen} is taken unmeasured, for steps of this model take long")
        return backend.under(chosen, experiment)
    if not found:
        said = dict.fromkeys(faults.values())
        why = next(iter(said)) if len(said) == 1 else "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        raise TrainingError(
            f"train.backend: none of {', '.join(names)} trains this model ({why})",
            remedy=f'fix that, or set train.backend = "{backend.USUAL}" to see more of it',
        )
    chosen = fastest(found)
    log(f"train.backend: {chosen} is taken")
    return backend.under(chosen, experiment)


def fastest(found: Mapping[str, Throughput]) -> str:
    """The backend of most pictures/s; TensorFlow, unless another exceeds it more than :data:`TIE` times."""
    best = max(found, key=lambda name: found[name].pictures_per_s)
    usual = found.get(backend.USUAL)
    clear = usual is None or found[best].pictures_per_s > TIE * usual.pictures_per_s
    return best if clear else backend.USUAL


def _measure_all(
    names: Sequence[str], experiment: Experiment, log: Log
) -> tuple[dict[str, Throughput], dict[str, str], list[str]]:
    # Figures by name, faults by name, and which of these are that no answer came in time.
    found: dict[str, Throughput] = {}
    faults: dict[str, str] = {}
    late: list[str] = []
    for name in names:
        try:
            found[name] = measure_backend(name, experiment)
        except TrainingError as error:
            faults[name] = str(error)
            late += [name] if isinstance(error, LateError) else []
            log(f"backend {name} is left out: {error}")
        else:
            speed, first = found[name].pictures_per_s, found[name].first_step_s
            log(f"backend {name}: {speed:.1f} pictures/s, first step {first:.1f} s")
    return found, faults, late


def measure_backend(
    name: str, experiment: Experiment, *, limit_s: float = LIMIT_S, block_s: float = BLOCK_S
) -> Throughput:
    """Have a backend train in a process of its own.

    Raises:
        LateError: it gave no answer in time.
        TrainingError: it failed or killed its process; the message is that alone, as it is of the other.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / EXPERIMENT
        file.write_text(dump(experiment), encoding="utf-8")
        begun = perf_counter()
        answer = ask(__name__, name, str(file), str(block_s), limit_s=limit_s)
    if not answer["ok"]:
        raise (LateError if perf_counter() - begun >= limit_s else TrainingError)(answer["fault"])
    found = Throughput(answer["pictures_per_s"], answer["first_step_s"])
    if not 0 < found.pictures_per_s < math.inf:
        raise TrainingError(f"said {found.pictures_per_s} pictures/s")
    return found


def stepper(experiment: Experiment) -> Callable[..., None]:
    """The experiment's model, compiled, and noise: a function that takes so many training steps, with Keras callbacks.

    The noise is made, changed and batched as its pictures would be. Of several stages it is the longest, with what
    learns in it. The process works under a backend already.
    """
    from leakdet_tf.data.pipeline import training
    from leakdet_tf.training.loop import ALL, compiled, select

    model, contract = new_model(experiment)
    settings = experiment.train
    labelling = labelling_of(experiment.data, experiment.task.classes)
    longest = max(settings.stage, key=lambda stage: stage.epochs, default=None)
    select(model, longest.train if longest else [ALL])
    cache = noise(contract, labelling.count, 2 * settings.batch_size)
    trained, _ = compiled(
        model,
        contract,
        settings,
        labelling=labelling,
        pixels=[1] * labelling.classes,  # class weights cost the same, whatever they are
        total=1000 * settings.accumulate,
    )
    stream = training(
        cache,
        batch_size=settings.batch_size,
        seed=experiment.seed,
        settings=experiment.data.augment,
        epochs=sys.maxsize,
    )

    def work(steps: int, *callbacks: Any) -> None:
        trained.fit(stream, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=list(callbacks))

    return work


def noise(contract: Contract, labels: int, count: int) -> Cache:
    """So many pictures of noise in a contract's inputs, each with a target of its task."""
    random = np.random.default_rng(0)
    inputs = {
        name: random.integers(0, np.iinfo(spec.dtype).max, (count, *spec.shape), spec.dtype, endpoint=True)
        for name, spec in contract.inputs.items()
    }
    from leakdet_tf.training.tasks import training_task

    task, size = training_task(contract.task), contract.inputs[contract.primary].size
    targets = task.noise_targets(random, count, size, labels, len(contract.classes))
    return Cache(tuple(map(str, range(count))), inputs, targets, ((),) * count)


def rate(ends: Sequence[float], batch_size: int) -> float:
    """Pictures/s by the seconds at which steps ended: the median of :data:`BLOCKS` parts of as many steps."""
    parts = np.array_split(np.diff(ends[_APART - 1 :]), BLOCKS)
    return statistics.median(batch_size * len(part) / float(part.sum()) for part in parts)


def measure(experiment: Experiment, block_s: float) -> Throughput:
    """Take steps in this process, for :data:`BLOCKS` times ``block_s`` seconds and at least as many."""
    import keras

    from leakdet_tf.training.faults import plain_training_errors

    ends: list[float] = []

    def ended(step: int, logs: Mapping[str, Any]) -> None:
        float(logs["loss"])  # waits for the step to end, as training does, which looks at each loss
        ends.append(perf_counter())
        counted = len(ends) - _APART
        clock.model.stop_training = counted >= BLOCKS and ends[-1] - ends[_APART - 1] >= BLOCKS * block_s

    clock = keras.callbacks.LambdaCallback(on_train_batch_end=ended)
    with plain_training_errors(experiment.train.batch_size):
        work = stepper(experiment)
        begun = perf_counter()
        work(sys.maxsize, clock)
    return Throughput(rate(ends, experiment.train.batch_size), ends[0] - begun)


def _main(name: str, file: str, block_s: str) -> int:
    # In the child: one JSON object, or one line for the caller.
    try:
        experiment = load(file)
        settings = experiment.train
        backend.start(name, deterministic=settings.deterministic, xla=settings.xla)
        with quiet_start():
            found = measure(experiment, float(block_s))
    except LeakdetError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    sys.stdout.write(f"\n{json.dumps(asdict(found))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
