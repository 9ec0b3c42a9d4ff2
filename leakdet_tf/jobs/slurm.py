"""``leakdet-tf slurm``: sbatch scripts whose jobs survive the time limit, preemption and the loss of a node.

The scheduler's SIGTERM reaches the script's shell two minutes before the limit. The shell passes it to ``fit``, which
ends with status 75 after its step; the shell then asks for the job to be queued again, and started again it resumes.
Two starts in a row that wrote no checkpoint are the last: the next one would come no further.
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leakdet_tf.config.loading import dump, load
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.files import sha256_bytes, write_bytes
from leakdet_tf.jobs.run.runs import Log
from leakdet_tf.training.interrupt import AGAIN

MOST = 1000
"""Most members of an array: SLURM's own default."""
_OPENING, _CLOSING = "[{(", "]})"
_TIME = re.compile(r"\d+(-\d+(:\d+){0,2}|(:\d+){0,2})")
_MEMORY = re.compile(r"\d+[KMGT]?")
_PARTITION = re.compile(r"[\w.-]+(,[\w.-]+)*")
_PLAIN = re.compile(r"[\w./+@=,:-]+")


@dataclass(frozen=True)
class Request:
    """What a job asks the scheduler for; each member of an array gets it. ``time`` and ``mem`` are as sbatch has them.

    Raises:
        ConfigError: a value that sbatch would not take.
    """

    gpus: int = 1
    time: str = "04:00:00"
    partition: str = ""
    cpus: int = 8
    mem: str = "16G"

    def __post_init__(self) -> None:
        for name, form, like in (
            ("time", _TIME, "04:00:00"),
            ("mem", _MEMORY, "16G"),
            ("partition", _PARTITION, "gpu"),
        ):
            value = getattr(self, name)
            if not form.fullmatch(value) and (value or name != "partition"):
                raise ConfigError(f"--{name} {value}: not what sbatch takes", remedy=f"such as --{name} {like}")


@dataclass(frozen=True)
class Task:
    """A member of an array: overrides of its own, and the folder of its runs, which no other settings share."""

    overrides: tuple[str, ...]
    runs: str


@dataclass(frozen=True)
class Written:
    """A script, its tasks, and what sbatch said when it was submitted."""

    script: Path
    tasks: list[Task]
    answer: str = ""


def slurm(
    experiments: Sequence[str],
    overrides: Sequence[str],
    *,
    sweeps: Sequence[str],
    request: Request,
    out: str,
    submit: bool,
    log: Log,
) -> list[Written]:
    """Write a script for each experiment, beside a copy of its file, and submit it when asked to.

    Every combination is checked against the schema first. Runs are kept in
    ``<runs>/<name>-<digest of its settings>``: a job that is submitted again finds its own, and nobody else's.

    Args:
        experiments: experiment files.
        overrides: ``KEY=VALUE`` for all.
        sweeps: ``KEY=VALUE,VALUE…``; the product of several is an array of jobs.
        request: for the scheduler.
        out: folder for scripts, copies and the jobs' output.
        submit: run sbatch on each.
        log: takes lines for the user.

    Raises:
        ConfigError: an experiment, override or sweep that cannot be followed, or other scripts of that name in ``out``.
        DataError: sbatch is absent, or refused.
    """
    program = shutil.which("sbatch")
    if submit and program is None:
        raise DataError("--submit: there is no sbatch here", remedy="leave it out, and submit where SLURM is")
    folder = Path(out).resolve()
    if not _PLAIN.fullmatch(str(folder)):
        raise ConfigError(f"--out {out}: sbatch takes no such name for the output", remedy="letters, digits, _ . - /")
    combinations = list(itertools.product(*map(_choices, sweeps)))
    if len(combinations) > MOST:
        raise ConfigError(f"--sweep: {len(combinations)} combinations, at most {MOST}", remedy="sweep over less")
    planned: dict[Path, tuple[list[Task], dict[Path, bytes]]] = {}
    for path in experiments:
        base = load(path, overrides)
        place, copy = folder / f"{base.name}.sbatch", folder / f"{base.name}.toml"
        if place in planned:
            raise ConfigError(f"{path}: its name '{base.name}' stands twice", remedy="--set name, in a call of its own")
        tasks = _tasks(path, overrides, combinations)
        text = script(base.name, tasks, experiment=copy, overrides=overrides, request=request)
        planned[place] = (tasks, {copy: Path(path).read_bytes(), place: text.encode()})
    files = {file: data for _, both in planned.values() for file, data in both.items()}
    for file, data in files.items():  # nothing is written unless all can be
        if file.exists() and file.read_bytes() != data:
            raise ConfigError(f"{file}: is there and says otherwise", remedy="choose another --out, or remove it")
    for file, data in files.items():
        write_bytes(file, data)
    return [_submitted(place, tasks, program if submit else None, log) for place, (tasks, _) in planned.items()]


def _choices(sweep: str) -> list[str]:
    # KEY=A,B → KEY=A and KEY=B; commas within brackets and quotes part nothing.
    key, equals, text = sweep.partition("=")
    values, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    if not (key and equals and all(value.strip() for value in values)) or depth or quote:
        raise ConfigError(
            f"--sweep {sweep}: not KEY=VALUE,VALUE", remedy="such as --sweep train.learning_rate=1e-3,3e-4"
        )
    if key.strip() in ("name", "runs"):
        raise ConfigError(f"--sweep {sweep}: gives runs their place, and is not swept", remedy="sweep other keys")
    return [f"{key.strip()}={value.strip()}" for value in values]


def _tasks(path: str, overrides: Sequence[str], combinations: Sequence[tuple[str, ...]]) -> list[Task]:
    seen: dict[str, tuple[str, ...]] = {}
    tasks = []
    for own in combinations:
        experiment = load(path, [*overrides, *own])
        digest = sha256_bytes(dump(experiment).encode())[:10]
        if digest in seen:
            raise ConfigError(
                f"--sweep: {' '.join(own)} means the same as {' '.join(seen[digest])}", remedy="leave one out"
            )
        seen[digest] = own
        runs = Path(experiment.runs).resolve() / f"{experiment.name}-{digest}"
        tasks.append(Task(own, str(runs)))
    return tasks


def _submitted(place: Path, tasks: list[Task], sbatch: str | None, log: Log) -> Written:
    if sbatch is None:
        log(f"{place}: {_jobs(tasks)}; submit with: sbatch {shlex.quote(str(place))}")
        return Written(place, tasks)
    done = subprocess.run([sbatch, str(place)], capture_output=True, text=True, check=False)
    said = " ".join((done.stdout if done.returncode == 0 else done.stderr).split())
    if done.returncode != 0:
        place.unlink()  # or it would stand in the way of a better one
        raise DataError(f"{place}: sbatch refused it ({said})", remedy="change the request, and submit again")
    log(f"{place}: {_jobs(tasks)}; {said}")
    return Written(place, tasks, said)


def _jobs(tasks: Sequence[Task]) -> str:
    return "1 job" if len(tasks) == 1 else f"array of {len(tasks)} jobs"


def script(name: str, tasks: Sequence[Task], *, experiment: Path, overrides: Sequence[str], request: Request) -> str:
    """The text of an sbatch script.

    Args:
        name: of the job.
        tasks: one for a job, several for an array; their number is the index.
        experiment: the file to train from.
        overrides: of all tasks.
        request: for the scheduler.
    """
    array = len(tasks) > 1
    asked = [
        f"--job-name={name}",
        f"--output={experiment.with_suffix('')}-{'%A_%a' if array else '%j'}.log",
        f"--time={request.time}",
        f"--cpus-per-task={request.cpus}",
        f"--mem={request.mem}",
        *([f"--gres=gpu:{request.gpus}"] if request.gpus else []),
        *([f"--partition={request.partition}"] if request.partition else []),
        *([f"--array=0-{len(tasks) - 1}"] if array else []),
        "--signal=B:TERM@120",
        "--requeue",
        "--open-mode=append",
    ]
    table = [f"#   {i:<5} {' '.join(task.overrides) or '-'}" for i, task in enumerate(tasks)]
    cases = [f"  {i}) runs={shlex.quote(task.runs)} own=({_sets(task.overrides)}) ;;" for i, task in enumerate(tasks)]
    return _SCRIPT.format(
        asked="\n".join(f"#SBATCH {line}" for line in asked),
        table="\n".join(_comment(line) for line in table),
        here=shlex.quote(str(Path.cwd())),
        cases="\n".join(cases),
        program=shlex.join([sys.executable, "-m", "leakdet_tf.cli"]),
        experiment=shlex.quote(str(experiment)),
        overrides=_sets(overrides),
        name=shlex.quote(name),
        again=AGAIN,
    )


def _sets(overrides: Sequence[str]) -> str:
    return shlex.join([part for one in overrides for part in ("--set", one)])


def _comment(line: str) -> str:
    # A line end in a value must not end the comment.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


_SCRIPT = """#!/bin/bash
{asked}
#
#   index overrides
{table}

cd -- {here} || exit
case "${{SLURM_ARRAY_TASK_ID:-0}}" in
{cases}
  *) echo "there is no task ${{SLURM_ARRAY_TASK_ID}} in this script" >&2; exit 2 ;;
esac
fit=({program} fit {experiment} {overrides} "${{own[@]}}" --set "runs=$runs")
for run in "$runs"/{name}/*/checkpoints; do
  if [ -d "$run" ]; then
    echo "begun before; restart ${{SLURM_RESTART_COUNT:-0}}, on $(hostname)"
    fit+=(--resume "$runs"/{name})
    break
  fi
done

checkpoints() {{ ls -di "$runs"/{name}/*/checkpoints/epoch-* 2>/dev/null; }}
before=$(checkpoints)
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}}}
job=${{job:-$SLURM_JOB_ID}}
idle="$runs/.no-checkpoint-$job" # the last start wrote none
child= asked= passed=
stop() {{
  asked=1
  if [ -n "$child" ]; then passed=1; kill -TERM "$child" 2>/dev/null; fi
}}
trap stop TERM USR1
"${{fit[@]}}" &
child=$!
if [ -n "$asked" ] && [ -z "$passed" ]; then kill -TERM "$child"; fi
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do # a signal ends bash's wait, not the child
  wait "$child"
  status=$?
done

again=
if [ "$status" -eq {again} ]; then again=1; fi
if [ -z "$again" ] || [ "$(checkpoints)" != "$before" ]; then
  rm -f "$idle"
elif [ -e "$idle" ]; then
  rm -f "$idle"
  again=
  echo "not queued again: two starts in a row came to no step of training; raise --time" >&2
else # one may have been preempted early
  mkdir -p "$runs" && : >"$idle"
fi
if [ -n "$again" ]; then
  echo "not finished: queueing job $job again"
  scontrol requeue incomplete "$job" # not one that scancel ended
fi
exit "$status"
"""
