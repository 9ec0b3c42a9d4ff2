"""What ``fit --resume`` asks before it goes on: which run it is, that nobody is at work there, that it is the same."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from leakdet_tf.config.loading import flatten, load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import ConfigError, DataError, TrainingError
from leakdet_tf.core.files import lives, sha256_file, write_json
from leakdet_tf.data.cache import Cache
from leakdet_tf.jobs.run.backend import AUTO, under
from leakdet_tf.jobs.run.runs import EXPERIMENT, Log, environment

DATA, ENVIRONMENT, FINISHED = "data.json", "environment.json", "finished.json"
LOCK = "lock"
_CHECKPOINTS = "checkpoints"
_MAY_DIFFER = (
    "runs",
    "data.cache",
    "task.colors",
    "train.checkpoint_every",
    "train.checkpoint_seconds",
    "train.checkpoint_steps",
    "train.keep",
    "train.loss_limit",
    "evaluate.resamples",
    "evaluate.confidence",
    "evaluate.worst",
    "evaluate.calibrate",
    "evaluate.max_risk",
    "export",
    "track",
)
"""Keys and tables that change nothing in the weights; a detector's best epoch hangs on ``evaluate``'s others."""
_ELSEWHERE = "or leave out --resume to begin a new run"


def find_run(place: str) -> Path:
    """The run to resume: a run's folder, or of the folder of an experiment's runs the newest unfinished one.

    When all are finished, the newest is given.

    Raises:
        ConfigError: there is no run.
    """
    folder = Path(place)
    if not folder.is_dir():
        raise ConfigError(f"--resume {place}: no such folder", remedy=f"name a run, {_ELSEWHERE}")
    if (folder / _CHECKPOINTS).is_dir():
        return folder
    # a hidden one was killed before it had its name
    runs = [path for path in folder.iterdir() if (path / _CHECKPOINTS).is_dir() and not path.name.startswith(".")]
    if not runs:
        raise ConfigError(f"--resume {place}: holds no run", remedy=f"name a run, {_ELSEWHERE}")
    # Run folders are named by date and time, and a second one of the same second by a number behind it.
    return max(runs, key=lambda path: (not is_finished(path), path.name[:15], len(path.name), path.name))


def is_finished(folder: Path) -> bool:
    """Whether a run has its report and bundles; one that Ctrl-C ended has not."""
    before_there_were_checkpoints = (folder / "metrics.json").is_file() and not any(
        (folder / _CHECKPOINTS).glob("epoch-*")
    )
    return (folder / FINISHED).is_file() or before_there_were_checkpoints


def mark_finished(folder: Path, epochs: int, reason: str) -> None:
    """Say that nothing is left to do in a run."""
    write_json(folder / FINISHED, {"epochs": epochs, "reason": reason, "environment": environment()})


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Be the only process at work in a run while the block runs (no-op on Windows).

    Gives the number of the process of this host that held the lock and was killed, 0 where there was none.

    The file ``lock`` names process and host. One whose process is dead on this host is taken over, and one of another
    host when it was held by this very SLURM job, which is started again where there is room.

    Raises:
        TrainingError: another process is at work, or may be on another host.
    """
    if os.name == "nt":
        yield 0
        return
    path = folder / LOCK
    handle, killed = _take(path)
    try:
        yield killed
    finally:
        if _is_still(path, handle):
            path.unlink(missing_ok=True)
        os.close(handle)


def note_on_kill(process: int, batch_size: int) -> str:
    """What to say of the process that was killed in this run: of a kill -9 nothing tells why."""
    smaller = f"train.batch_size = {batch_size // 2}" if batch_size > 1 else "a smaller data.inputs size"
    return (
        f"process {process} was killed in this run, perhaps for want of memory: where that comes again, "
        f"begin a new run with {smaller}"
    )


def drop_dead_lock(folder: Path) -> None:
    """Remove what a process left that was killed after its last step, where that is allowed; a lock that somebody
    holds stays."""
    if (folder / LOCK).exists():
        with suppress(TrainingError, OSError), locked(folder):
            pass


def _take(path: Path) -> tuple[int, int]:
    while True:
        handle, made = _opened(path)
        try:
            known = _flock(handle)
            holder = _holder(handle)
            if known is False or (not made and _may_be_at_work(holder, known)):
                raise _held(path, holder, known)
            if _is_still(path, handle):
                mine = {"pid": os.getpid(), "host": platform.node(), "job": os.environ.get("SLURM_JOB_ID", "")}
                os.truncate(handle, 0)
                os.pwrite(handle, json.dumps(mine).encode(), 0)
                os.fsync(handle)
                return handle, _killed(holder)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder ended and removed it between our opening and locking it


def _opened(path: Path) -> tuple[int, bool]:
    # The file's handle, and whether it was made here.
    while True:
        with suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        with suppress(FileNotFoundError):  # removed in between
            return os.open(path, os.O_RDWR), False


def _flock(handle: int) -> bool | None:
    # Whether the kernel gives us the file, which it takes from every dead process; None: this disk has no such locks.
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            return None
        raise
    return True


def _holder(handle: int) -> dict[str, Any]:
    try:
        said = json.loads(os.pread(handle, 4096, 0))
    except ValueError:  # killed before it was written
        return {}
    return said if isinstance(said, dict) else {}


def _may_be_at_work(holder: Mapping[str, Any], known: bool | None) -> bool:
    if not holder:
        return known is None  # who made it may be about to write it
    if holder.get("host") != platform.node():
        return not holder.get("job") or holder["job"] != os.environ.get("SLURM_JOB_ID")
    pid = holder.get("pid")
    return known is None and (not isinstance(pid, int) or (pid != os.getpid() and lives(pid)))


def _killed(holder: Mapping[str, Any]) -> int:
    pid = holder.get("pid")
    return pid if isinstance(pid, int) and holder.get("host") == platform.node() else 0


def _is_still(path: Path, handle: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _held(path: Path, holder: Mapping[str, Any], known: bool | None) -> TrainingError:
    host = holder.get("host", platform.node())
    remedy = "wait until it ends"
    if known is not False:  # the kernel does not tell: its number may be another process's by now
        remedy += f"; if it is no fit of this run, or gone, delete {path}"
    return TrainingError(
        f"{path.parent}: process {holder.get('pid', '?')} on {host} is at work in this run", remedy=remedy
    )


def with_its_backend(folder: Path, experiment: Experiment) -> Experiment:
    """The experiment; where it leaves its backend to a measurement, with the one that was taken for this run."""
    if experiment.train.backend != AUTO or not (folder / EXPERIMENT).is_file():
        return experiment
    return under(load(folder / EXPERIMENT).train.backend, experiment)


def same_experiment(folder: Path, experiment: Experiment) -> None:
    """Check that a run was started with this experiment; what says where and when it is kept may differ.

    Raises:
        ConfigError: a key differs, and is named with both values.
    """
    if not (folder / EXPERIMENT).is_file():
        return
    was, now = (flatten(one.model_dump()) for one in (load(folder / EXPERIMENT), experiment))
    differing = [key for key in {**was, **now} if was.get(key) != now.get(key) and not _may_differ(key)]
    if differing:
        key, more = differing[0], len(differing) - 1
        raise ConfigError(
            f"{folder}: was started with {key} = {_said(was, key)}, not {_said(now, key)}"
            + (f" (and {more} more)" if more else ""),
            remedy=f"give the same experiment and --set as then, {_ELSEWHERE}",
        )


def _may_differ(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in _MAY_DIFFER)


def _said(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False)[:80] if key in values else "nothing"


def same_data(folder: Path, caches: Mapping[str, Cache]) -> None:
    """Check that a run was started with these files.

    Raises:
        DataError: a split's files differ; the first is named.
    """
    if not (folder / DATA).is_file():
        return
    was = json.loads((folder / DATA).read_text(encoding="utf-8"))
    for name, cache in caches.items():
        now = dict(zip(cache.ids, map(list, cache.digests), strict=True))
        before = was[name]["files"]
        differing = [one for one in {**before, **now} if before.get(one) != now.get(one)]
        if was[name]["sha256"] != cache.sha256:
            how = (
                f"{len(differing)} pictures are others, first {differing[0]}" if differing else "their order is another"
            )
            raise DataError(
                f"{folder}: was started with other data: {name}: {how}", remedy=f"restore them, {_ELSEWHERE}"
            )


def identity(folder: Path, caches: Mapping[str, Cache]) -> dict[str, str]:
    """Digests of a run's resolved experiment and of its splits, by name, for its checkpoints."""
    return {EXPERIMENT: sha256_file(folder / EXPERIMENT), **{name: cache.sha256 for name, cache in caches.items()}}


def same_identity(folder: Path, was: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Check that a checkpoint is of the run in whose folder it lies.

    Raises:
        TrainingError: the run's experiment file was changed, or its checkpoints were.
    """
    differing = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    if differing:
        raise TrainingError(
            f"{folder}: its checkpoint was written with another {differing[0]}",
            remedy="restore the run's own files, or train again",
        )


def so_far(epochs: int, steps: int) -> str:
    """How far training has come, in words: epochs, and steps of the next one."""
    within = f" and {steps} step{'s' * (steps > 1)}" if steps else ""
    return f"{epochs} epoch{'s' * (epochs != 1)}{within}"


def note_on_repeated_epochs(folder: Path, epochs: int) -> str:
    """Of a resumed run, what to say of epochs that ended after its newest whole checkpoint and are lost; or nothing."""
    path = folder / "history.csv"
    done = len(path.read_text(encoding="utf-8").splitlines()) - 1 if path.is_file() else 0
    if done <= epochs:
        return ""
    return f"; epochs up to {done} were done too, and are repeated"


def tell_machine(folder: Path, log: Log) -> None:
    """Say which packages, and what of the machine, are others than when the run was started: its weights may then
    differ."""
    if not (folder / ENVIRONMENT).is_file():
        return
    was, now = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8")), environment()
    for name, version in now["packages"].items():
        if was["packages"].get(name, version) != version:
            before = was["packages"][name]
            log(f"note: the run was started with {name} {before}, now it is {version}: results may differ a little")
    before, after = (
        {"processor": one.get("cpu"), "cores": one.get("cores"), **one.get("threads", {})} for one in (was, now)
    )
    parts = [
        f"{key} {before[key]}, now {after[key]}"
        for key in after
        if before.get(key) is not None and before[key] != after[key]
    ]
    if parts:
        log(f"note: the run was started with {'; '.join(parts)}: the weights' last bits may differ from the unbroken's")
